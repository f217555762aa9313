"""Flashing Picos: over the drive of BOOTSEL, or with picotool where there is no such drive."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.boards import Board, Uf2Flash
from tools.devices.drive import Drive, copy_image, find_drives, read_drive
from tools.devices.errors import BoardError, CableError, ImageError, SilentError
from tools.devices.identity import ask, which_board
from tools.devices.images import Image, fitting
from tools.devices.line import USB_PREFIX, Line, open_line
from tools.devices.progress import Tell
from tools.devices.repl import Repl
from tools.errors import ToolError

__all__ = ["Bootsel", "bootsel_on_usb", "flash_pico"]

DRIVE_TIMEOUT_S = 25.0
PICOTOOL_TIMEOUT_S = 180.0
POLL_S = 0.1
_SYSFS = Path("/sys/bus/usb/devices")
_ADDRESS = re.compile(r"usb:(\d{1,3})-(\d{1,3})")


class Bootsel:
    """Brings running boards into BOOTSEL, and knows which new drive is whose.

    A drive does not say which board it is, so only one board at a time is on its way there.
    """

    def __init__(
        self,
        open_: Callable[[str], Line] = open_line,
        drives: Callable[[], Sequence[Drive]] = find_drives,
        timeout_s: float = DRIVE_TIMEOUT_S,
    ) -> None:
        self._open = open_
        self._drives = drives
        self._timeout_s = timeout_s
        self._turn = threading.Lock()
        self._taken: set[Path] = set()

    def enter(
        self,
        port: str,
        boards: Mapping[str, Board],
        asked: str | None,
        images: Sequence[Image],
        tell: Tell,
    ) -> tuple[Drive, Board]:
        """Ask a running board which it is, and restart it as a drive.

        Raises:
            ImageError: none of the images is for it; it goes on running.
            BoardError: it is no Pico.
            SilentError: it does not answer, or no drive appears.
        """
        with self._turn:
            before = {drive.root for drive in self._drives()} - self._taken
            line = self._open(port)
            try:
                repl = Repl(line, port)
                repl.enter()
                board = which_board(ask(repl), boards, asked, port)
                if not isinstance(board.flash, Uf2Flash):
                    raise BoardError(f"{port}: is a {board.id}, no Pico", "leave --board out")
                try:
                    fitting(images, board, boards, port)
                except ImageError:
                    repl.restart()
                    raise
                tell("restarting as a drive")
                # It is gone before it can answer.
                with contextlib.suppress(SilentError, CableError):
                    repl.run("import machine\nmachine.bootloader()", timeout_s=2.0)
            finally:
                line.close()
            return self._wait(before, port, board.flash), board

    def _wait(self, before: set[Path], port: str, flash: Uf2Flash) -> Drive:
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            for drive in self._drives():
                if drive.root not in before and drive.label == flash.drive:
                    self._taken.add(drive.root)
                    return drive
            time.sleep(POLL_S)
        raise SilentError(
            f"{port}: the board restarted, and no drive {flash.drive} has appeared",
            f"mount it (udisksctl mount -b /dev/disk/by-label/{flash.drive}), or install picotool; "
            "then repeat the step with what `fogline device list` shows",
        )


def flash_pico(
    port: str,
    images: Sequence[Image],
    boards: Mapping[str, Board],
    asked: str | None,
    bootsel: Bootsel,
    tell: Tell,
) -> dict[str, Any]:
    """Flash the image that fits onto a Pico.

    Args:
        port: serial port of a running board, mount point of a drive, or `usb:BUS-ADDRESS` of one
            in BOOTSEL, for picotool.
        images: of which one is for it.
        boards: that there are.
        asked: the kind of board, where the user says it. A drive tells the chip only.
        bootsel: shared by all boards that are flashed at once.
        tell: where progress goes.

    Raises:
        ImageError, SilentError, CableError, BoardError: see what `Bootsel` and `copy_image` say.
    """
    if port.startswith(USB_PREFIX):
        return _with_picotool(port, images, boards, asked, tell)
    if Path(port).is_dir():
        drive = read_drive(Path(port))
        kind, image = _of_drive(drive.label, images, boards, asked, port)
    else:
        tell("asking")
        drive, board = bootsel.enter(port, boards, asked, images, tell)
        kind, image = board.id, fitting(images, board, boards, port)
    copy_image(drive, image.data, lambda done, of: tell("writing", done / of))
    return _report(kind, image, "drive")


def bootsel_on_usb(boards: Mapping[str, Board], sysfs: Path = _SYSFS) -> list[tuple[str, str]]:
    """Picos in BOOTSEL by Linux's list of USB devices: (`usb:BUS-ADDRESS`, `vid:pid`)."""
    wanted = {
        (usb.vid, usb.pid)
        for board in boards.values()
        if isinstance(board.flash, Uf2Flash)
        for usb in board.usb.bootloader
    }
    found = []
    for device in sorted(sysfs.glob("*")):
        try:
            vid = int((device / "idVendor").read_text(), 16)
            pid = int((device / "idProduct").read_text(), 16)
            bus = int((device / "busnum").read_text())
            address = int((device / "devnum").read_text())
        except (OSError, ValueError):
            continue  # an interface or a hub's port
        if (vid, pid) in wanted:
            found.append((f"{USB_PREFIX}{bus}-{address}", f"{vid:04x}:{pid:04x}"))
    return found


def _of_drive(
    label: str,
    images: Sequence[Image],
    boards: Mapping[str, Board],
    asked: str | None,
    port: str,
) -> tuple[str, Image]:
    """The kind of board that a chip in BOOTSEL is, as far as can be said, and its image."""
    candidates = [
        board
        for board in boards.values()
        if isinstance(board.flash, Uf2Flash)
        and board.flash.drive == label
        and asked in (None, board.id)
    ]
    if not candidates:
        raise BoardError(
            f"{port}: shows the drive {label}, which no {asked or 'board of hardware/boards/'} has",
            "leave --board out, or take another board",
        )
    pairs = []
    for board in candidates:
        with contextlib.suppress(ImageError):
            pairs.append((board, fitting(images, board, boards, port)))
    if not pairs:
        given = ", ".join(f"{image.name} is for {image.chip}" for image in images)
        right = " or ".join(
            f"{board.flash.firmware}-DATE-VERSION.uf2" for board in candidates if board.flash
        )
        raise ImageError(
            f"{port}: is a {' or a '.join(board.id for board in candidates)}, and {given}",
            f"take {right}",
        )
    if len({image.sha256 for _, image in pairs}) > 1:
        raise BoardError(
            f"{port}: the drive does not say whether it is a "
            + " or a ".join(board.id for board, _ in pairs),
            "give its image alone, or say --board",
        )
    return " or ".join(board.id for board, _ in pairs), pairs[0][1]


def _with_picotool(
    port: str,
    images: Sequence[Image],
    boards: Mapping[str, Board],
    asked: str | None,
    tell: Tell,
) -> dict[str, Any]:
    address = _ADDRESS.fullmatch(port)
    if address is None:
        raise ToolError(f"{port}: is not usb:BUS-ADDRESS; see `fogline device list`")
    picotool = shutil.which("picotool")
    usb = dict(bootsel_on_usb(boards)).get(port)
    if picotool is None or usb is None:
        raise SilentError(
            f"{port}: " + ("picotool is not installed" if usb else "no Pico in BOOTSEL is there"),
            "mount its drive, or install picotool; unplug the board, hold BOOTSEL while plugging "
            "it in, and see `fogline device list`",
        )
    labels = {
        board.flash.drive
        for board in boards.values()
        if isinstance(board.flash, Uf2Flash)
        for one in board.usb.bootloader
        if f"{one.vid:04x}:{one.pid:04x}" == usb
    }
    kind, image = _of_drive(min(labels), images, boards, asked, port)
    tell("writing with picotool")
    with tempfile.NamedTemporaryFile(suffix=".uf2") as file:
        file.write(image.data)
        file.flush()
        command = [picotool, "load", "--verify", "--execute", file.name]
        command += ["--bus", address[1], "--address", address[2]]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PICOTOOL_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SilentError(
                f"{port}: picotool has not come to an end in {PICOTOOL_TIMEOUT_S:.0f} s",
                "unplug the board, hold BOOTSEL while plugging it in, and repeat the step",
            ) from error
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()[-200:]
        raise CableError(
            f"{port}: picotool says {said!r}",
            "unplug the board, hold BOOTSEL while plugging it in, and repeat the step "
            "(udev rules of picotool, or root, if it may not open the device)",
        )
    return _report(kind, image, "picotool")


def _report(kind: str, image: Image, by: str) -> dict[str, Any]:
    return {
        "board": kind,
        "image": image.name,
        "sha256": image.sha256,
        "by": by,
        "summary": f"{image.name} on {kind}",
    }
