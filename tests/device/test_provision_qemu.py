"""Provisioning MicroPython's bare ports under QEMU, over their serial lines, power cut anywhere.

No operating system stands behind these: a Pico W's heap, littlefs on a flash that outlives a cut.
"""

import random

import pytest
from support.bench_boards import CutLine
from support.board_settings import values

from tools.boards import load_boards
from tools.devices import work
from tools.devices.errors import CableError, SilentError
from tools.devices.line import SerialLine
from tools.devices.progress import whisper
from tools.devices.repl import Repl
from tools.devices.settings import Settings
from tools.hil.qemu import QemuTarget

BOARDS = load_boards()
MACHINES = ("arm", "rv32")
SERIAL = {"port": "stdio", "window_bytes": 1024, "keepalive_s": 5, "interrupt": False}
# What MicroPython leaves free on a Pico W.
HEAP_BYTES = 190 * 1024
# A provisioning writes at least so often; a cut lies among the first so many writes.
LEAST_WRITES = 150


class QemuBoard:
    """A machine whose serial line is free for whoever provisions it."""

    def __init__(self, machine, folder):
        self._target = QemuTarget(machine, heap_bytes=HEAP_BYTES, folder=folder)
        self._let_go()

    def _let_go(self):
        self._target.let_go()
        self.port = self._target.serial_url

    def unplug(self):
        self._target.power_cut()
        self._let_go()

    def close(self):
        self._target.close()


def test_a_bare_board_is_ours_whatever_was_cut_and_shuts_its_prompt(
    tmp_path, request, monkeypatch
) -> None:
    """One of the machines, by the seed; `--every-cut` takes all."""
    seed = request.config.getoption("--cut-seed")
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    rng = random.Random(seed)
    for machine in MACHINES if request.config.getoption("--every-cut") else [rng.choice(MACHINES)]:
        at = rng.randrange(1, LEAST_WRITES)
        print(f"seed {seed}: {machine}, power is cut amid write {at}")
        provision_and_lock(machine, at, tmp_path / machine, monkeypatch)


def provision_and_lock(machine, at, folder, monkeypatch):
    settings = values(serial=SERIAL)
    del settings["mqtt"]
    board = QemuBoard(machine, folder)

    def provision(open_=SerialLine, **options):
        made = work.provisioning(
            Settings(settings, {}), BOARDS, f"qemu-{machine}", open_=open_, **options
        )
        return made(board.port, 0, whisper)

    try:
        with pytest.raises(CableError):
            provision(lambda port: CutLine(board, at), start=False)
        done = provision(lock=True)
        # It runs, and says so in the frames that it shares with the link.
        assert (done["board"], done["started"], done["is_locked"]) == (
            f"qemu-{machine}", True, True,
        )  # fmt: skip
        assert len(done["unique_id"]) == 16
        monkeypatch.setattr("tools.devices.repl.ENTER_TIMEOUTS_S", (0.5, 0.5))
        line = SerialLine(board.port)
        with pytest.raises(SilentError, match="a board that was locked answers only after a flash"):
            Repl(line, board.port).enter()
        line.close()
    finally:
        board.close()
