"""Finds the MicroPython that stands for a board on this machine."""

from tools.hil.target import TargetError as NoMicroPythonError
from tools.hil.unix import find_micropython

__all__ = ["NoMicroPythonError", "find_micropython"]
