"""The `fogline` command: help, exit codes, and where it says what."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.text import Text

from tools import cli, entry, recorded
from tools.commands import common
from tools.demo.processes import free_port

ROOT = typer.main.get_command(cli.app)


def commands(group=ROOT, path=()):
    """Every command with the words that lead to it."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())
TASKS = [task.name for task in (recorded.ANOMALY, *recorded.TASKS)]


@pytest.fixture
def fogline(monkeypatch, capsys):
    """Call `fogline` with these arguments; returns (exit code, standard output, errors)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fogline", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


@pytest.fixture
def founded(fogline, tmp_path):
    """Directory of a consortium that the command made."""
    directory = tmp_path / "ours"
    code, _, err = fogline(
        "consortium", "create", directory, "--validator", "seoul", "--validator", "busan",
        "--member", "plant=operator,customer",
    )  # fmt: skip
    assert (code, err) == (0, "")
    return directory


def test_the_commands_of_a_first_round_are_there() -> None:
    assert {
        ("consortium", "create"), ("consortium", "issue-certificate"), ("fog", "init"),
        ("fog", "run"), ("fog", "status"), ("device", "enroll"), ("device", "revoke"),
        ("device", "list"), ("model", "list"), ("proof", "get"), ("proof", "verify"), ("demo",),
    } <= COMMANDS.keys()  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_what_stands_in_brackets(path) -> None:
    """As defaults do; without a backslash before the bracket they would be taken for markup."""
    command = COMMANDS[path]
    for text in (command.help, *(getattr(each, "help", None) for each in command.params)):
        if text:
            assert Text.from_markup(text).plain == text.replace("\\[", "[")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_command_has_help_with_an_example_of_its_own(path) -> None:
    command = COMMANDS[path]
    _, marker, example = command.help.partition("\n\nExample: ")
    assert marker, "its docstring has no line that begins with 'Example: '"
    words = shlex.split(example)
    assert words[: len(path) + 1] == ["fogline", *path]
    check_options(command, words)
    for parameter in command.params:
        assert parameter.help, parameter.name


def check_options(command, words) -> None:
    """The command has each option that is typed, and what it needs is among these."""
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in words if word.startswith("--")}
    assert used <= known
    required = {
        parameter.opts[-1]
        for parameter in command.params
        if parameter.required and parameter.param_type_name == "option"
    }
    # "..." stands for the rest of it.
    assert required <= used or "..." in words


REPOSITORY = Path(__file__).parents[3]
FOLDERS = ("cloud", "firmware", "fog_node", "hardware", "tests", "tools")
READMES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        *(path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.md"))),
    )
}
# A block of shell commands; a command there, with the lines that it goes on in.
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
TYPED = re.compile(r"^(?:\S*/)?(fogline (?:.*\\\n)*.*)$", re.MULTILINE)


@pytest.mark.parametrize("page", [page for page, text in READMES.items() if BLOCK.search(text)])
def test_what_a_page_has_one_type_is_a_command(page) -> None:
    for block in BLOCK.findall(READMES[page]):
        for line in TYPED.findall(block):
            words = shlex.split(line.replace("\\\n", " "), comments=True)
            begun = {tuple(words[1:end]) for end in range(2, len(words) + 1)}
            (path,) = begun & COMMANDS.keys()
            check_options(COMMANDS[path], words)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_shown(fogline, path) -> None:
    code, out, err = fogline(*path, "--help")
    assert (code, err) == (0, "")
    assert "Example:" in out


def test_what_was_done_is_shown_and_written_as_json(fogline, founded, tmp_path) -> None:
    file = tmp_path / "shown.json"
    code, out, err = fogline("consortium", "show", founded / "founding.cbor", "--json", file)
    assert (code, err) == (0, "")
    written = json.loads(file.read_text())
    assert [m["name"] for m in written["members"]] == ["seoul", "busan", "plant"]
    assert written["members"][2]["roles"] == ["customer", "operator"]
    assert f"chain id: {written['chain_id']}" in out
    assert "plant" in out


def test_a_node_is_set_up(fogline, founded, tmp_path) -> None:
    code, out, err = fogline(
        "fog", "init", "--member", "seoul", "--founding", founded / "founding.cbor",
        "--keys", founded / "members" / "seoul", "--out", tmp_path / "etc",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert str(tmp_path / "etc" / "fog.toml") in out
    assert (tmp_path / "etc" / "fog.toml").is_file()


def test_a_certificate_is_issued(fogline, founded, tmp_path) -> None:
    code, out, err = fogline(
        "consortium", "issue-certificate", "--consortium", founded, "--name", "broker",
        "--out", tmp_path / "broker",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert str(tmp_path / "broker" / "tls.crt") in out
    assert "for: a server named broker" in out
    code, out, err = fogline(
        "consortium", "issue-certificate", "--consortium", founded, "--name", "seoul",
        "--out", tmp_path / "renewed",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "for: the member seoul" in out


def test_what_looks_like_markup_is_shown_as_it_is(capsys) -> None:
    common.report({"unit": "[g]", "readings": [{"unit": "[g]", "name": "[/]"}]}, None)
    out = capsys.readouterr().out
    assert out.count("[g]") == 2
    assert "[/]" in out


@pytest.mark.parametrize("columns", [1, 40, 80, 200])
def test_an_id_is_shown_whole_however_narrow_the_terminal(capsys, monkeypatch, columns) -> None:
    monkeypatch.setattr(common, "console", Console(width=columns))
    rows = [{"board": "ab" * 8, "transaction": each * 64} for each in "cd"]
    common.report({"boards": rows, "of many words": [{"a": "b " * 200, "c": "d"}]}, None)
    out = capsys.readouterr().out
    assert all(row["transaction"] in out for row in rows)
    assert out.count("b ") + out.count("b\n") >= 200
    assert "…" not in out


def one_line(err: str, prefix: str) -> str:
    """The error, which must be one line."""
    assert re.fullmatch(rf"{prefix}: [^\n]+\n", err), err
    return err


def refused(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (cli.EXIT_REFUSED, "")
    return one_line(err, "refused")


def test_what_cannot_be_done_ends_with_1_and_the_reason(fogline, founded, tmp_path) -> None:
    nothing = tmp_path / "nothing"
    founding = founded / "founding.cbor"
    assert str(nothing) in refused(fogline("consortium", "show", nothing))
    assert "is not empty" in refused(
        fogline("consortium", "create", founded, "--validator", "seoul")
    )
    assert f"{founding}: Not a directory" in refused(
        fogline("consortium", "create", founding, "--validator", "seoul")
    )
    assert "'king' is not a role" in refused(
        fogline("consortium", "create", nothing, "--validator", "a", "--member", "b=king")
    )
    assert "write one with: fogline fog init" in refused(fogline("fog", "run", "--config", nothing))
    assert str(nothing) in refused(fogline("proof", "verify", nothing, "--founding", founding))


@pytest.mark.parametrize("command", [("fog", "status"), ("device", "list"), ("model", "list")])
def test_a_node_that_does_not_answer_is_named(fogline, command) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert url in refused(fogline(*command, "--api", url))


def test_a_result_that_cannot_be_written_is_named(fogline, founded, tmp_path) -> None:
    file = tmp_path / "no" / "such" / "directory.json"
    show = ("consortium", "show", founded / "founding.cbor", "--json")
    said = f"{file}: cannot be written: No such file or directory"
    assert said in refused(fogline(*show, file))
    assert f"{tmp_path}: cannot be written: Is a directory" in refused(fogline(*show, tmp_path))
    # What was done is shown where only the writing fails.
    code, out, err = fogline(*show, "/dev/full")
    assert (code, "chain id: " in out) == (cli.EXIT_REFUSED, True)
    assert "/dev/full: cannot be written: No space left on device" in err


def test_a_terminal_without_the_letters_shows_their_numbers(tmp_path) -> None:
    typed = ["consortium", "create", tmp_path / "c", "--name", "prüfen", "--validator", "seoul"]
    run = subprocess.run(
        [sys.executable, "-m", "tools.cli", *typed], capture_output=True, check=False, text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"}, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert r"name: pr\xfcfen" in run.stdout


def test_a_directory_that_cannot_be_is_named_before_the_work(fogline, founded) -> None:
    for out in (founded / "founding.cbor", founded / "founding.cbor" / "model"):
        result = fogline("train", "rul", "--data", "none", "--out", out)
        assert f"--out {out}: is no directory" in refused(result)


def test_ctrl_c_while_it_is_read_in_ends_it_with_a_word(monkeypatch, capsys) -> None:
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "tools.cli":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "tools.cli")
    monkeypatch.delattr("tools.cli")
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert (ended.value.code, capsys.readouterr().err) == (cli.EXIT_REFUSED, "Aborted.\n")


USAGE = {
    "unknown command": ("fog", "walk"),
    "unknown option": ("fog", "status", "--apy", "x"),
    "option left out": ("proof", "get", "ab" * 32),
    "argument left out": ("consortium", "approve"),
    "number out of range": ("demo", "--devices", "0"),
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE.keys())
def test_a_wrong_call_ends_with_2(fogline, arguments) -> None:
    code, out, err = fogline(*arguments)
    assert (code, out) == (cli.EXIT_USAGE, "")
    assert "--help" in err


WRONG = {
    "no transaction id": (("proof", "get", "zz", "--out", "x"), "zz: is not a transaction id"),
    "half an id": (("proof", "get", "ab", "--out", "x"), "give its 64 hex digits"),
    "member without a role": (
        ("consortium", "create", "x", "--validator", "a", "--member", "b"),
        "--member b: is not NAME=ROLE[,ROLE]",
    ),
    "no address": (("demo", "--broker", "here"), "--broker 'here' is not HOST:PORT"),
    "no text": (("consortium", "show", "a\udcff"), r"'a\udcff': is not UTF-8"),
    "broker left out": (("demo", "--broker-username", "me"), "need --broker"),
}


@pytest.mark.parametrize(("arguments", "why"), WRONG.values(), ids=WRONG.keys())
def test_what_only_the_command_can_see_ends_with_2_too(fogline, tmp_path, arguments, why) -> None:
    code, out, err = fogline(*arguments)
    assert (code, out) == (cli.EXIT_USAGE, "")
    assert why in one_line(err, "usage")


# `fogline` where only the main packages are installed.
WITHOUT_EXTRAS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "tensorflow", "keras", "ai_edge_litert", "pyarrow",
                                      "duckdb", "sklearn", "matplotlib", "PIL", "ray"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from tools import cli
sys.argv[0] = "fogline"
cli.main()
"""


@pytest.mark.parametrize(
    ("typed", "extra"),
    [
        (("fog", "infer", "--watch", "a=b"), "inference"),
        (("train", "failure", "--data", "x", "--out", "y"), "cloud"),
        (("--help",), None),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(founded, typed, extra):
    if "infer" in typed:
        key = founded / "members/seoul/signing.key"
        typed = (*typed, "--founding", founded / "founding.cbor", "--key", key)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *map(str, typed)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if extra is None:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == cli.EXIT_REFUSED
        assert re.search(rf"is not installed; pip install '.\[{extra}\]'", done.stderr), done.stderr


@pytest.mark.parametrize("task", ["failure", "rul", "demand"])
@pytest.mark.parametrize("asked", [["--quick"], ["--workers", "2"]])
def test_what_is_for_training_is_refused_where_a_trained_model_is_measured(
    fogline, tmp_path, task, asked
):
    where = ["--model", tmp_path / "model", "--data", tmp_path, "--out", tmp_path / "out"]
    code, _, err = fogline("evaluate", task, *where, *asked)
    assert (code, f"{asked[0]}: is for training; --model trains nothing" in err) == (2, True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("out", ["model", "model/measured", "other"])
def test_an_evaluation_writes_nothing_among_a_models_files(fogline, tmp_path, task, out):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "card.json").write_text("{}")
    typed = ("--data", tmp_path, "--model", tmp_path / "model", "--out", tmp_path / out)
    code, _, err = fogline("evaluate", task, *typed)
    assert code == cli.EXIT_USAGE
    why = f"--out {tmp_path / out}: is the directory of a model, whose plots it would replace; name"
    assert why in one_line(err, "usage")


def test_a_folder_that_is_none_leaves_no_journal(fogline, founded, tmp_path):
    key = founded / "members" / "seoul" / "signing.key"
    typed = ("--founding", founded / "founding.cbor", "--key", key, "--journal", tmp_path / "j")
    said = refused(fogline("fog", "infer", "--watch", f"{tmp_path / 'no'}={tmp_path}", *typed))
    assert "no: is no folder; give the folder that the camera writes to" in said
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_links_in_a_loop_are_refused_as_what_cannot_be_read(fogline, tmp_path, command, task):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    model = ("--model", tmp_path / "model") if command == "predict" else ()
    typed = ("--data", tmp_path / "loop", *model, "--out", tmp_path / "out")
    code, _, err = fogline(command, task, *typed)
    assert code == cli.EXIT_REFUSED
    assert err.strip().splitlines()[-1].startswith("refused: ")
    assert not (tmp_path / "out").exists()
