"""The drive as which a Pico waits for firmware (BOOTSEL), and copying a UF2 file onto it.

The RP2040's and RP2350's boot ROM shows a FAT volume with `INFO_UF2.TXT`, whose `Board-ID` names
the kind of chip. It writes each block of a UF2 file as it comes in, and restarts the board behind
the last one: then the volume is gone. That it stays is the sign that something was missing.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.devices.errors import CableError, ImageError, PortError, SilentError

__all__ = ["Drive", "copy_image", "find_drives", "read_drive"]

INFO_FILE = "INFO_UF2.TXT"
IMAGE_FILE = "FIRMWARE.UF2"
MAX_INFO_BYTES = 4096
CHUNK_BYTES = 64 * 1024
GONE_TIMEOUT_S = 20.0
POLL_S = 0.1
# What a copy meets when the board restarts before the host has closed the file.
_GONE = (errno.EIO, errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.ESTALE)


@dataclass(frozen=True)
class Drive:
    """A volume of a boot loader. label: the `Board-ID` of its INFO_UF2.TXT."""

    root: Path
    label: str


def mount_points() -> Iterable[Path]:
    """Where volumes are on this system."""
    if sys.platform == "linux":
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
            # Blanks in a path are octal there (fstab(5)).
            fields = line.split(" ")
            if len(fields) > 2 and fields[2] in ("vfat", "msdos", "fuseblk"):
                yield Path(fields[1].encode().decode("unicode_escape"))
    elif sys.platform == "darwin":
        yield from Path("/Volumes").iterdir()
    else:
        yield from (Path(f"{letter}:\\") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ")


def find_drives(mounts: Callable[[], Iterable[Path]] = mount_points) -> list[Drive]:
    """All volumes of boot loaders that are mounted."""
    drives = []
    for root in mounts():
        try:
            drives.append(read_drive(root))
        except PortError:
            continue
    return sorted(drives, key=lambda drive: drive.root)


def read_drive(root: Path) -> Drive:
    """Look at one volume; raises PortError where it is none of a boot loader."""
    try:
        with (root / INFO_FILE).open("rb") as file:
            text = file.read(MAX_INFO_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise PortError(
            f"{root}: is no drive of a boot loader ({INFO_FILE}: {error.strerror})",
            "unplug the board, hold BOOTSEL while plugging it in, and see `fogline device list`",
        ) from error
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Board-ID" and value.strip():
            return Drive(root, value.strip())
    raise PortError(f"{root}: {INFO_FILE} names no Board-ID", "take the drive of an RP2 board")


def copy_image(drive: Drive, data: bytes, tell: Callable[[int, int], None]) -> None:
    """Copy a UF2 file that fits onto a drive, and wait until the board has taken it.

    Args:
        drive: of the board.
        data: of the file; whether it is for this chip is checked by the caller.
        tell: called with bytes done and bytes in all.

    Raises:
        CableError: the drive went away before all of it was written.
        ImageError: the drive is still there behind the last block.
        SilentError: the drive cannot be written.
    """
    path = drive.root / IMAGE_FILE
    done = 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            while done < len(data):
                done += os.write(descriptor, data[done : done + CHUNK_BYTES])
                # Else all of it would seem to be done at once, and a lost cable be seen late.
                os.fsync(descriptor)
                tell(done, len(data))
        finally:
            os.close(descriptor)
    except OSError as error:
        is_gone = error.errno in _GONE
        # Behind the last block the board may be gone before fsync returns: that is success.
        if done < len(data):
            if not is_gone:
                raise SilentError(
                    f"{drive.root}: cannot be written: {error.strerror}",
                    "see that you may write there (mount it as yourself), and try again",
                ) from error
            raise CableError(
                f"{drive.root}: went away after {done} of {len(data)} bytes",
                "plug the board in again with BOOTSEL held, and repeat the step",
            ) from error
    _wait_until_gone(drive)


def _wait_until_gone(drive: Drive) -> None:
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while (drive.root / INFO_FILE).exists():
        if time.monotonic() > deadline:
            raise ImageError(
                f"{drive.root}: the board has all of the file and has not restarted",
                "unplug it, hold BOOTSEL while plugging it in, and repeat the step",
            )
        time.sleep(POLL_S)
