"""A real board on a serial port, or anything else that pyserial opens."""

from __future__ import annotations

import serial

from tools.hil.repl_target import ReplTarget
from tools.hil.target import TargetError

__all__ = ["SerialTarget", "open_line"]

BAUD = 115_200
WRITE_TIMEOUT_S = 20.0


def open_line(port: str) -> serial.Serial:
    """Open a port by its path, name or URL. Raises TargetError."""
    try:
        return serial.serial_for_url(port, baudrate=BAUD, timeout=1, write_timeout=WRITE_TIMEOUT_S)
    except (serial.SerialException, ValueError) as error:
        raise TargetError(
            f"serial:{port}: {error}; plug the board in, see `fogline device list`, and make sure "
            "that no other program has the port"
        ) from error


class SerialTarget(ReplTarget):
    """A board that runs MicroPython, at `port`. Raises TargetError."""

    def __init__(self, port: str) -> None:
        remedy = "press its reset button, or flash MicroPython on it: `fogline device flash`"
        super().__init__(f"serial:{port}", open_line(port), remedy)
        try:
            self.probe()
        except BaseException:
            self.close()
            raise
