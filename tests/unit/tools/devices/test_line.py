"""Ports that cannot be opened: each error says what to press, plug or type."""

import errno
import os
from pathlib import Path

import pytest
import serial

from tools.devices.errors import PortError
from tools.devices.line import SerialLine, unopened


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOENT, "is not there; plug the board in, with a cable that carries data"),
        (errno.EBUSY, "another program has it open; close"),
        (errno.EAGAIN, "another program has it open; close"),
        (errno.EIO, "plug the board out and in again"),
    ],
)
def test_each_reason_has_its_remedy(number, says) -> None:
    for error in (
        OSError(number, os.strerror(number)),
        serial.SerialException(f"could not open port: [Errno {number}] {os.strerror(number)}"),
    ):
        if number in (errno.EBUSY, errno.ENOENT, errno.EIO) or error.errno:
            assert says in str(unopened("/dev/ttyUSB0", error))


def test_who_may_not_open_it_is_told_the_group_that_may(tmp_path) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    words = str(unopened(str(port), PermissionError(errno.EACCES, "Permission denied")))
    assert f"usermod -aG {port.group()} $USER" in words
    gone = unopened("/dev/ttyUSB99", serial.SerialException("[Errno 13] Permission denied"))
    assert "usermod -aG dialout $USER" in str(gone)


def test_what_is_no_serial_port_says_what_it_is(tmp_path) -> None:
    with pytest.raises(PortError, match=r"waits for firmware.*device flash.*without holding BOOT"):
        SerialLine(str(tmp_path))
    with pytest.raises(PortError, match="waits for firmware"):
        SerialLine("usb:1-5")
    file = tmp_path / "report.json"
    file.touch()
    with pytest.raises(PortError, match=r"is no serial port; see `fogline device list`"):
        SerialLine(str(file))
    with pytest.raises(PortError, match="is not there; plug the board in"):
        SerialLine(str(tmp_path / "ttyACM0"))
    assert Path("/dev/ttyUSB99").exists() is False
