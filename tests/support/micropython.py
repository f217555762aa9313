"""Finds the MicroPython that stands for a board on this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LEAST_VERSION = (1, 24)
REMEDY = "install MicroPython 1.24 or later, run 'make setup', or set FOGLINE_MICROPYTHON"


class NoMicroPythonError(Exception):
    """There is none, or not the one that was asked for."""


def find_micropython() -> str:
    """FOGLINE_MICROPYTHON, else `micropython` on PATH if recent, else the environment's own."""
    chosen = os.environ.get("FOGLINE_MICROPYTHON")
    if chosen:
        if _version(chosen) < LEAST_VERSION:
            raise NoMicroPythonError(f"FOGLINE_MICROPYTHON={chosen} is none of 1.24 or later")
        return chosen
    for candidate in (shutil.which("micropython"), Path(sys.executable).with_name("micropython")):
        if candidate is not None and _version(candidate) >= LEAST_VERSION:
            return str(candidate)
    raise NoMicroPythonError(f"the unix target has no micropython: {REMEDY}")


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
