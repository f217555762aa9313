"""A line to a board: bytes there and back, and what to do where it cannot be had.

`Line` is what everything above needs of one, so that tests can cut it anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path
from typing import Protocol

import serial

from tools.devices.errors import CableError, DeviceError, PortError

__all__ = ["BAUD", "USB_PREFIX", "Line", "SerialLine", "open_line", "unopened"]

# `usb:BUS-ADDRESS`: a Pico in BOOTSEL without a drive, see pico.py.
USB_PREFIX = "usb:"

# What MicroPython speaks on a UART; USB does not care.
BAUD = 115_200
READ_TIMEOUT_S = 0.05
WRITE_TIMEOUT_S = 10.0
READ_BYTES = 4096


class Line(Protocol):
    """Bytes to a board and back."""

    def read(self) -> bytes:
        """What has come, after READ_TIMEOUT_S at the latest; empty if nothing has."""

    def write(self, data: bytes) -> None:
        """Send all of it."""

    def close(self) -> None:
        """Let go of the port; may be called twice."""


class SerialLine:
    """A serial port, or what pyserial opens by an address such as `socket://127.0.0.1:5000`."""

    def __init__(self, port: str, baud: int = BAUD) -> None:
        """Open it; raises PortError."""
        self.port = port
        try:
            self._serial = serial.serial_for_url(
                port,
                baud,
                timeout=READ_TIMEOUT_S,
                write_timeout=WRITE_TIMEOUT_S,
                exclusive=None if "://" in port else True,
            )
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise unopened(port, error) from error
        if (inner := self._inner()) is not None:
            # A script goes in pieces: without this each one waits for word of the one before it.
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _inner(self) -> socket.socket | None:
        """The socket beneath, where the port is an address."""
        return getattr(self._serial, "_socket", None)

    def fileno(self) -> int:
        """Number of the open port or socket."""
        return int(self._serial.fileno())

    def read(self) -> bytes:
        """See `Line`; raises CableError."""
        try:
            data: bytes = self._serial.read(1)
            if data:
                data += self._waiting()
        except (OSError, TypeError) as error:  # pyserial reads from a closed port: TypeError
            raise _broken(self.port, error) from error
        return data

    def _waiting(self) -> bytes:
        """What has come and can be read without waiting."""
        if "://" not in self.port:
            return bytes(self._serial.read(min(self._serial.in_waiting, READ_BYTES)))
        # Of a socket pyserial knows only that there is something.
        self._serial.timeout = 0
        try:
            return bytes(self._serial.read(READ_BYTES))
        finally:
            self._serial.timeout = READ_TIMEOUT_S

    def write(self, data: bytes) -> None:
        """See `Line`; raises CableError."""
        try:
            self._serial.write(data)
        except (OSError, TypeError) as error:
            raise _broken(self.port, error) from error

    def close(self) -> None:
        """See `Line`."""
        # pyserial drops a socket whose other end is gone without closing it.
        inner = self._inner()
        with contextlib.suppress(OSError):  # gone already
            self._serial.close()
        if inner is not None:
            inner.close()


def open_line(port: str) -> Line:
    """Open a port at MicroPython's rate; raises PortError."""
    return SerialLine(port)


def unopened(port: str, error: BaseException) -> DeviceError:
    """The error for a port that could not be opened, with what to do about it."""
    number = _errno(error)
    text = str(error)
    if port.startswith(USB_PREFIX) or number == errno.EISDIR or "Is a directory" in text:
        return PortError(
            f"{port}: is a board that waits for firmware, and has no serial port",
            "`fogline device flash` it; if MicroPython is on it already, plug it out and in "
            "without holding BOOTSEL, and see `fogline device list`",
        )
    if number == errno.ENOTTY or "Inappropriate ioctl" in text:
        return PortError(f"{port}: is no serial port", "see `fogline device list` for those there")
    if number == errno.EACCES or "Permission denied" in text:
        return PortError(
            f"{port}: may not be opened by you",
            f"add yourself to the group that owns it (sudo usermod -aG {_group(port)} $USER), "
            "log out and in",
        )
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "No such file" in text:
        return PortError(
            f"{port}: is not there",
            "plug the board in, with a cable that carries data, and see `fogline device list`",
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusive" in text or "busy" in text:
        return PortError(
            f"{port}: another program has it open",
            "close the other console, monitor or fog node that uses it",
        )
    return PortError(f"{port}: cannot be opened: {text}", "plug the board out and in again")


def _group(port: str) -> str:
    """Name of the group that owns a port; that of serial ports on Debian where it has none."""
    try:
        return Path(port).group()
    except (OSError, KeyError, NotImplementedError):
        return "dialout"


def _errno(error: BaseException) -> int | None:
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) else None


def _broken(port: str, error: BaseException) -> CableError:
    return CableError(
        f"{port}: the line broke ({error})",
        "plug the cable in again (another cable or port if it happens again) and repeat the step; "
        "it goes on where it was",
    )
