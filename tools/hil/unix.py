"""MicroPython's unix port: the `unix` target, and finding the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.hil.process_target import ProcessTarget
from tools.hil.repl_target import ABOUT_CODE, PROBE_CODE, about_from
from tools.hil.target import About, Capability, TargetError

__all__ = ["LEAST_VERSION", "UnixTarget", "find_micropython"]

LEAST_VERSION = (1, 24)
REMEDY = "install MicroPython 1.24 or later, run 'make setup', or set FOGLINE_MICROPYTHON"
HEAP_BYTES = 4 << 20


def find_micropython() -> str:
    """FOGLINE_MICROPYTHON, else `micropython` on PATH if recent, else the environment's own.

    Raises TargetError.
    """
    chosen = os.environ.get("FOGLINE_MICROPYTHON")
    if chosen:
        if _version(chosen) < LEAST_VERSION:
            raise TargetError(f"FOGLINE_MICROPYTHON={chosen} is none of 1.24 or later")
        return chosen
    for candidate in (shutil.which("micropython"), Path(sys.executable).with_name("micropython")):
        if candidate is not None and _version(candidate) >= LEAST_VERSION:
            return str(candidate)
    raise TargetError(f"the unix target has no micropython: {REMEDY}")


def _version(program: str | Path) -> tuple[int, ...]:
    """What the program says of itself; (0,) where it is no MicroPython."""
    question = "import sys; print(sys.implementation.name, *sys.implementation.version[:2])"
    try:
        answer = subprocess.run(
            [program, "-c", question], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return (0,)
    name, _, version = answer.stdout.strip().partition(" ")
    return tuple(map(int, version.split())) if name == "micropython" else (0,)


class UnixTarget(ProcessTarget):
    """MicroPython as a process, with a heap of so many bytes. Raises TargetError."""

    def __init__(self, *, heap_bytes: int | None = None, folder: Path | None = None) -> None:
        self._heap_bytes = heap_bytes or HEAP_BYTES
        command = [find_micropython(), "-X", f"heapsize={self._heap_bytes}", "-c"]
        super().__init__("unix", command, {"MICROPYPATH": ":.frozen"}, folder)
        found = set(self.run(PROBE_CODE).checked().split())
        found |= {Capability.VIPER, Capability.LARGE_HEAP, Capability.POWER, Capability.FAST}
        self.capabilities = frozenset(found)

    def about(self) -> About:
        """As Target."""
        return about_from(json.loads(self.run(ABOUT_CODE).checked()))
