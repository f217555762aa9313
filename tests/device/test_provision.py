"""Provisioning over a real MicroPython's REPL behind a pseudo-terminal, cable pulled anywhere."""

import json
import random
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
from tools.firmware_files import FIRMWARE

BOARDS = load_boards()
SETTINGS = Settings(values(), {"ca.der": b"authority" * 100})
# How many of the cuts `make test` tries; `--every-cut` tries them all.
CUTS = 5


@pytest.fixture
def board(tmp_path, micropython):
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


def files_of(board):
    return {
        path.relative_to(board.directory).as_posix(): path.read_bytes()
        for path in sorted(board.directory.rglob("*"))
        if path.is_file()
    }


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


def test_only_what_differs_is_copied_and_what_is_not_ours_goes(board) -> None:
    first = provision(board)
    (board.directory / "fogline" / "app.mpy").write_bytes(b"x" * 100)
    (board.directory / "fogline" / "pack.py").write_text("raise SystemExit  # hides pack.mpy")
    (board.directory / "fogline" / "old.mpy.part").write_bytes(b"rest of a cut")
    (board.directory / "readings.csv").write_bytes(b"the user's own")
    again = provision(board)
    # app.mpy, and main.py, which is out of the way while anything changes.
    assert (again["copied"], again["removed"]) == (2, 2)
    assert again["kid"] == first["kid"]
    names = set(files_of(board))
    assert "readings.csv" in names
    assert not names & {"fogline/pack.py", "fogline/old.mpy.part"}


def test_settings_that_the_board_refuses_change_nothing(board) -> None:
    first = provision(board)
    good = (board.directory / "board.json").read_bytes()
    with pytest.raises(
        BoardError, match=r"refuses the settings: config\.pack_rows.*mend the --set"
    ):
        provision(board, Settings(values(pack_rows=0), {}))
    assert (board.directory / "board.json").read_bytes() == good
    # It does not start with half of a change either.
    assert not (board.directory / "main.py").exists()
    assert provision(board)["kid"] == first["kid"]
    assert (board.directory / "main.py").exists()


def test_a_damaged_key_is_told_and_not_replaced(board) -> None:
    provision(board)
    (board.directory / "key.bin").write_bytes(b"FGK1 damaged")
    with pytest.raises(BoardError, match=r"refuses to sign: key\.damaged.*delete key\.bin"):
        provision(board)
    assert (board.directory / "key.bin").read_bytes() == b"FGK1 damaged"


def test_a_board_that_refuses_to_run_says_why(board, tmp_path) -> None:
    source = tmp_path / "firmware"
    source.symlink_to(FIRMWARE)
    provision(board)
    outbox = board.directory / "outbox"
    outbox.write_bytes(b"a file where a directory belongs")
    with pytest.raises(BoardError, match="is provisioned, and refuses to run: "):
        provision(board, start=True)


def test_a_board_with_a_running_program_is_taken_over_and_goes_on(board) -> None:
    provision(board, start=True)
    found = Found(board.port, "", "", "", ("unix",), "running")
    row = work.look(found, BOARDS)
    assert (row["board"], row["fogline"]) == ("unix", "0.1.0")
    assert row["micropython"].startswith("1.")
    assert row["note"] == ""


def test_what_does_not_answer_says_what_to_press(tmp_path, micropython, monkeypatch) -> None:
    monkeypatch.setattr("tools.devices.repl.ENTER_TIMEOUT_S", 0.2)
    program = tmp_path / "deaf"
    program.write_text("#!/bin/sh\necho ets Jul 29 2019; exec sleep 60\n")
    program.chmod(0o755)
    with PtyBoard(tmp_path / "flash", program) as board:
        with pytest.raises(SilentError, match=r"ets Jul 29 2019.*press RESET"):
            provision(board)
        row = work.look(Found(board.port, "", "", "", ("unix",), "running"), BOARDS)
        assert "press RESET" in row["note"]


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


def test_a_cable_pulled_anywhere_leaves_a_board_that_the_same_step_repairs(
    tmp_path, micropython, request
) -> None:
    seed = request.config.getoption("--cut-seed")
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"seed {seed}")
    rng = random.Random(seed)

    class Counting(SerialLine):
        writes = 0

        def write(self, data):
            Counting.writes += 1
            super().write(data)

    with PtyBoard(tmp_path / "whole", micropython) as board:
        provision(board, open_=Counting)
        expected = files_of(board)
    total = Counting.writes
    cuts = range(1, total + 1)
    if not request.config.getoption("--every-cut"):
        # One in each part of the whole, so that every stage is met.
        step = total / CUTS
        cuts = [1 + int((part + rng.random()) * step) for part in range(CUTS)]
    print(f"{total} writes")
    for at in cuts:
        with PtyBoard(tmp_path / f"cut{at}", micropython) as board:
            was_cut = provision_cut(board, at)
            left = files_of(board)
            # Never a main.py beside anything that is not as it should be.
            if "main.py" in left:
                assert {n: d for n, d in left.items() if n != "key.bin"} == {
                    n: d for n, d in expected.items() if n != "key.bin"
                }
            key = left.get("key.bin")
            done = provision(board)
            after = files_of(board)
            assert was_cut or done["copied"] == 0
            assert set(after) == set(expected), at
            assert all(after[n] == expected[n] for n in expected if n != "key.bin"), at
            if key is not None:
                assert after["key.bin"] == key
