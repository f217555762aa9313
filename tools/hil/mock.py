"""The firmware in CPython, with a stand-in for what MicroPython has beside it: target `mock`.

For finding out where a test goes wrong, with CPython's own tools. Whatever is MicroPython's alone
(littlefs, viper) is not there, and tests that need it run on other targets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.hil.process_target import ProcessTarget
from tools.hil.target import About, Capability

__all__ = ["MockTarget"]

START = Path(__file__).resolve().parents[2] / "hardware" / "mock" / "start.py"
_ABOUT = """
import json, platform
print(json.dumps([platform.python_version(), platform.machine()]))
"""


class MockTarget(ProcessTarget):
    """CPython as a board: a process per run, its flash a folder."""

    def __init__(self, *, folder: Path | None = None) -> None:
        # -B: the folder is flash, and holds what was put there.
        super().__init__("mock", [sys.executable, "-B", "-u", str(START)], {}, folder)
        self.capabilities = frozenset(
            {
                Capability.NETWORK,
                Capability.LARGE_HEAP,
                Capability.DOUBLE,
                Capability.FAST,
                Capability.POWER,
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
