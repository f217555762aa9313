"""A real board on a serial port, or anything else that pyserial opens."""

from __future__ import annotations

from tools.devices.errors import PortError
from tools.devices.line import SerialLine
from tools.hil.repl_target import ReplTarget
from tools.hil.target import TargetError

__all__ = ["SerialTarget"]

REMEDY = (
    "press RESET (EN) on the board, or plug it out and in; if it runs no MicroPython yet, "
    "`fogline device flash` it"
)


class SerialTarget(ReplTarget):
    """A board that runs MicroPython, at `port`: a path, a name or a URL. Raises TargetError."""

    def __init__(self, port: str) -> None:
        try:
            line = SerialLine(port)
        except PortError as error:
            raise TargetError(f"serial:{error}") from error
        super().__init__(f"serial:{port}", line, REMEDY)
        try:
            self.probe()
        except BaseException:
            self.close()
            raise
