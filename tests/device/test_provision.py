"""Provisioning over a real MicroPython's REPL behind a pseudo-terminal, cable pulled anywhere."""

import json
import random
import shutil
import time
from contextlib import contextmanager

import pytest
from support.bench_boards import CutLine, PtyBoard
from support.board_settings import values

from fog_node.protocol.keys import PublicKey
from tools.boards import load_boards
from tools.devices import work
from tools.devices.errors import BoardError, CableError, PortError, SilentError
from tools.devices.found import Found
from tools.devices.identity import ask
from tools.devices.line import SerialLine
from tools.devices.progress import whisper
from tools.devices.repl import Repl
from tools.devices.settings import Settings

BOARDS = load_boards()
SETTINGS = Settings(values(), {"ca.der": b"authority" * 100})
# How many of the cuts `make test` tries; `--every-cut` tries them all.
CUTS = 4


@pytest.fixture
def board(tmp_path, micropython):
    with PtyBoard(tmp_path / "flash", micropython) as plugged:
        yield plugged


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory, micropython):
    """The flash of a board that has been provisioned, to be copied."""
    flash = tmp_path_factory.mktemp("provisioned") / "flash"
    with PtyBoard(flash, micropython) as board:
        provision(board)
    return flash


@pytest.fixture
def ours(tmp_path, provisioned, micropython):
    """A board that has been provisioned."""
    shutil.copytree(provisioned, tmp_path / "flash")
    with PtyBoard(tmp_path / "flash", micropython) as plugged:
        yield plugged


@contextmanager
def repl_of(board):
    line = SerialLine(board.port)
    try:
        repl = Repl(line, board.port)
        repl.enter()
        yield repl
    finally:
        line.close()


def provision(board, settings=SETTINGS, *, start=False, **options):
    return work.provisioning(settings, BOARDS, "unix", start=start, **options)(
        board.port, 0, whisper
    )


def files_in(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def files_of(board):
    return files_in(board.directory)


def test_an_empty_board_becomes_ours_and_again_nothing_is_copied(board) -> None:
    first = provision(board, start=True)
    assert first["started"] is True
    assert (first["board"], first["is_new_key"], first["unchanged"]) == ("unix", True, 0)
    key = PublicKey(bytes.fromhex(first["public_key"]))
    assert key.kid.hex() == first["kid"]
    assert [channel[0] for channel in first["channels"]][:2] == ["accelerometer1", "accelerometer2"]
    before = files_of(board)
    assert {"boot.py", "main.py", "board.json", "ca.der", "key.bin", "fogline/app.mpy"} <= set(
        before
    )
    assert "seed.bin" not in before
    assert not [name for name in before if name.endswith((".part", "app.py"))]
    assert json.loads(before["board.json"])["board"] == "unix"

    again = provision(board)
    assert (again["copied"], again["removed"]) == (0, 0)
    assert again["unchanged"] == first["copied"]
    assert (again["kid"], again["is_new_key"]) == (first["kid"], False)
    after = files_of(board)
    ours = [n for n in before if "/" in n or n in {"boot.py", "main.py", "board.json", "key.bin"}]
    assert all(after[name] == before[name] for name in ours if not name.startswith("outbox/"))


def test_only_what_differs_is_copied_and_what_is_not_ours_goes(ours) -> None:
    board, key = ours, (ours.directory / "key.bin").read_bytes()
    (board.directory / "fogline" / "app.mpy").write_bytes(b"x" * 100)
    (board.directory / "fogline" / "pack.py").write_text("raise SystemExit  # hides pack.mpy")
    (board.directory / "fogline" / "old.mpy.part").write_bytes(b"rest of a cut")
    (board.directory / "readings.csv").write_bytes(b"the user's own")
    again = provision(board)
    # app.mpy, and main.py, which is out of the way while anything changes.
    assert (again["copied"], again["removed"]) == (2, 2)
    assert (board.directory / "key.bin").read_bytes() == key
    names = set(files_of(board))
    assert "readings.csv" in names
    assert not names & {"fogline/pack.py", "fogline/old.mpy.part"}


def test_settings_that_the_board_refuses_change_nothing(ours) -> None:
    board = ours
    good = (board.directory / "board.json").read_bytes()
    with pytest.raises(
        BoardError, match=r"refuses the settings: config\.pack_rows.*mend the --set"
    ):
        provision(board, Settings(values(pack_rows=0), {}))
    assert (board.directory / "board.json").read_bytes() == good
    # It does not start with half of a change either.
    assert not (board.directory / "main.py").exists()
    assert provision(board)["is_new_key"] is False
    assert (board.directory / "main.py").exists()


def test_a_damaged_key_is_told_and_not_replaced(ours) -> None:
    board = ours
    (board.directory / "key.bin").write_bytes(b"FGK1 damaged")
    with pytest.raises(BoardError, match=r"refuses to sign: key\.damaged.*delete key\.bin"):
        provision(board)
    assert (board.directory / "key.bin").read_bytes() == b"FGK1 damaged"


def test_a_board_that_refuses_to_run_says_why(tmp_path, provisioned, micropython) -> None:
    shutil.copytree(provisioned, tmp_path / "flash")
    shutil.rmtree(tmp_path / "flash" / "outbox", ignore_errors=True)
    (tmp_path / "flash" / "outbox").write_bytes(b"a file where a directory belongs")
    with PtyBoard(tmp_path / "flash", micropython) as board:
        check_refusal(board)


def check_refusal(board):
    with pytest.raises(BoardError, match="is provisioned, and refuses to run: "):
        provision(board, start=True)


def test_a_board_with_a_running_program_is_taken_over_and_goes_on(ours) -> None:
    board = ours
    found = Found(board.port, "", "", "", ("unix",), "running")
    row = work.look(found, BOARDS)
    assert (row["board"], row["fogline"]) == ("unix", "0.1.0")
    assert row["micropython"].startswith("1.")
    assert row["note"] == ""


def test_what_does_not_answer_says_what_to_press(tmp_path, micropython, monkeypatch) -> None:
    monkeypatch.setattr("tools.devices.repl.ENTER_TIMEOUTS_S", (0.5, 0.5))
    program = tmp_path / "deaf"
    program.write_text("#!/bin/sh\nwhile echo ets Jul 29 2019; do touch talks; sleep 0.02; done\n")
    program.chmod(0o755)
    with PtyBoard(tmp_path / "flash", program) as board:
        while not (board.directory / "talks").exists():
            time.sleep(0.01)
        with pytest.raises(SilentError, match=r"ets Jul 29 2019.*press RESET"):
            provision(board)
        row = work.look(Found(board.port, "", "", "", ("unix",), "running"), BOARDS)
        assert "press RESET" in row["note"]


def test_a_board_that_is_reset_while_it_starts_starts_again(tmp_path, micropython) -> None:
    with PtyBoard(tmp_path / "flash", micropython) as board:
        for _ in range(30):
            board.reset()
        with repl_of(board) as repl:
            assert repl.run("print('up')").strip() == "up"


def test_a_port_that_is_in_use_or_gone_says_so(board) -> None:
    line = SerialLine(board.port)
    with pytest.raises(PortError, match="another program has it open; close"):
        provision(board)
    line.close()
    port = board.port
    board.unplug()
    if port != board.port:
        with pytest.raises(PortError, match="is not there; plug the board in"):
            SerialLine(port)
    provision(board)


def test_a_script_that_fails_and_one_that_says_too_much(board) -> None:
    with repl_of(board) as repl:
        with pytest.raises(BoardError, match="ZeroDivisionError"):
            repl.run("1/0")
        with pytest.raises(BoardError, match="SyntaxError"):
            repl.run("def (")
        assert repl.run("print('still here')").strip() == "still here"
        long = "x = 0\n" + "x += 1\n" * 3000 + "print(x)"
        assert repl.run(long).strip() == "3000"
        with pytest.raises(BoardError, match="without an end"):
            repl.run("for _ in range(400):\n print('x' * 1000)")
    with repl_of(board) as repl:
        assert ask(repl).version >= (1, 24)


def provision_cut(board, at):
    """Provision with the cable pulled amid the write number `at`; whether it was."""
    lines = []

    def opened(_port):
        lines.append(CutLine(board, at))
        return lines[-1]

    try:
        provision(board, open_=opened)
    except CableError as error:
        assert "plug it in again" in error.remedy  # noqa: PT017 - whether it is raised is a result
    return not lines[-1].is_whole


class Counting(SerialLine):
    """Counts its writes."""

    writes = 0

    def write(self, data):
        Counting.writes += 1
        super().write(data)


def cuts_of(total, few, request):
    """At which writes the cable is pulled: one in each part of the whole, or at every one."""
    if request.config.getoption("--every-cut"):
        print(f"all of {total} writes")
        return range(1, total + 1)
    seed = request.config.getoption("--cut-seed")
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    rng = random.Random(seed)
    cuts = [1 + int((part + rng.random()) * total / few) for part in range(few)]
    print(f"seed {seed}: writes {cuts} of {total}")
    return cuts


def cut_and_repair(board, at, expected):
    """Pull the cable amid a write: what is left never starts half-made, and is repaired."""
    before = files_of(board)
    was_cut = provision_cut(board, at)
    left = files_of(board)

    def copied(files):
        """What we bring; not the key, nor what a board writes once it runs."""
        roots = {"boot.py", "main.py", "board.json", "ca.der", "provision.mpy"}
        kept = ("fogline/", "drivers/")
        return {n: data for n, data in files.items() if n in roots or n.startswith(kept)}

    if "main.py" in left:
        assert copied(left) in (copied(before), copied(expected)), at
    done = provision(board)
    after = files_of(board)
    assert was_cut or done["copied"] == 0
    assert copied(after) == copied(expected), at
    if "key.bin" in left:
        assert after["key.bin"] == left["key.bin"]


def test_a_cable_pulled_anywhere_leaves_a_board_that_the_same_step_repairs(
    tmp_path, provisioned, micropython, request
) -> None:
    """A board with an older firmware: some files differ, some are missing, some are too many."""
    old = tmp_path / "old"
    shutil.copytree(provisioned, old)
    expected = files_in(old)
    for name in ("key.bin", "board.json", "drivers/base.mpy"):
        (old / name).unlink()
    (old / "fogline" / "cbor.mpy").write_bytes(expected["fogline/cbor.mpy"][:-1] + b"?")
    (old / "fogline" / "cose.mpy.part").write_bytes(b"rest of another cut")
    (old / "fogline" / "pack.py").write_text("raise SystemExit")
    (old / "main.py").write_text("import fogline.app")

    def board_of(name):
        shutil.copytree(old, tmp_path / name)
        return PtyBoard(tmp_path / name, micropython)

    Counting.writes = 0
    with board_of("counted") as board:
        provision(board, open_=Counting)
        assert {n for n in files_of(board) if n != "key.bin"} == set(expected) - {"key.bin"}
    for at in cuts_of(Counting.writes, CUTS, request):
        with board_of(f"cut{at}") as board:
            cut_and_repair(board, at, expected)


def test_a_cable_pulled_from_a_new_board(tmp_path, micropython, request) -> None:
    Counting.writes = 0
    with PtyBoard(tmp_path / "whole", micropython) as board:
        provision(board, open_=Counting)
        expected = files_of(board)
    total = Counting.writes
    for at in cuts_of(total, 1, request) if not request.config.getoption("--every-cut") else ():
        with PtyBoard(tmp_path / f"cut{at}", micropython) as board:
            cut_and_repair(board, at, expected)
