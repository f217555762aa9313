"""The firmware in CPython, with a stand-in for what MicroPython has beside it: target `mock`.

For finding out where a test goes wrong, with CPython's own tools. Whatever is MicroPython's alone
(littlefs, viper) is not there, and tests that need it run on other targets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.boards import load_board
from tools.hil.process_target import ProcessTarget
from tools.hil.rig_file import loopbacks, pins_of, place_note
from tools.hil.target import About, Capability

__all__ = ["MockTarget"]

START = Path(__file__).resolve().parents[2] / "hardware" / "mock" / "start.py"
# It is a Pico with these wires, so that tests for a rig run somewhere without one, too.
BOARD = "pico"
WIRES = (("d0", "d1"), ("uart1 tx", "uart1 rx"))
_ABOUT = """
import json, platform
print(json.dumps([platform.python_version(), platform.machine()]))
"""


class MockTarget(ProcessTarget):
    """CPython as a board: a process per run, its flash a folder."""

    def __init__(self, *, folder: Path | None = None) -> None:
        # -B: the folder is flash, and holds what was put there.
        pins = pins_of(load_board(BOARD))
        wires = " ".join(f"{pins[one]}-{pins[other]}" for one, other in WIRES)
        super().__init__(
            "mock",
            [sys.executable, "-B", "-u", str(START)],
            {"FOGLINE_MOCK_WIRES": wires},
            folder,
        )
        self.put(place_note(BOARD))
        self.capabilities = frozenset(
            {
                Capability.NETWORK,
                Capability.LARGE_HEAP,
                Capability.DOUBLE,
                Capability.FAST,
                Capability.POWER,
                *loopbacks(WIRES),
            }
        )

    def about(self) -> About:
        """As Target."""
        version, machine = json.loads(self.run(_ABOUT).checked())
        return About(
            implementation="cpython",
            version=version,
            machine=f"fake machine on {machine}",
            heap_bytes=None,
            mpy_arch=None,
            mpy_version=0,
        )
