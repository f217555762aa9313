"""Errors of the work on boards that are plugged in. Each says what to press, plug or run.

DeviceError            a ToolError: something on the bench is not as it should be
├── PortError          the port cannot be opened
├── CableError         the line broke in the middle; another try may do
├── SilentError        nothing answers; another try may do
├── BoardError         the board answers, and cannot or will not do it
└── ImageError         the file is not what this board takes
"""

from __future__ import annotations

from tools.errors import ToolError


class DeviceError(ToolError):
    """What happened, and what to do about it.

    Attributes:
        what: what happened.
        remedy: what to press, plug or run.
        is_passing: whether the same step, tried again, may succeed without anybody's help.
    """

    is_passing = False

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


class PortError(DeviceError):
    """The port is not there, belongs to somebody else, or may not be opened."""


class CableError(DeviceError):
    """The line broke while something was on its way."""

    is_passing = True


class SilentError(DeviceError):
    """Nothing answers at the other end."""

    is_passing = True


class BoardError(DeviceError):
    """The board answers, and cannot or will not do what was asked."""


class ImageError(DeviceError):
    """A firmware file that is damaged, or for another board."""
