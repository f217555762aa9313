"""Boards that are plugged in, found by their USB ids, and Picos that wait as a drive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from serial.tools import list_ports

from tools.boards import Board
from tools.devices.drive import Drive, find_drives
from tools.devices.pico import bootsel_on_usb

__all__ = ["Found", "Port", "find_boards"]

State = Literal["running", "bootloader"]


class Port(Protocol):
    """What pyserial says of a serial port."""

    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None
    location: str | None


@dataclass(frozen=True)
class Found:
    """Something plugged in that may be a board of ours.

    Attributes:
        port: serial port, or the mount point of a boot loader's drive.
        usb: `vid:pid`, hex; empty for a drive.
        shows: what shows that USB id.
        serial: the USB serial number; of a bridge where one stands before the board.
        boards: ids of the boards that it can be.
        state: `bootloader` where it waits for firmware; a bridge looks the same either way.
    """

    port: str
    usb: str
    shows: str
    serial: str
    boards: tuple[str, ...]
    state: State

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return {
            "port": self.port,
            "usb": self.usb,
            "shows": self.shows,
            "serial": self.serial,
            "state": self.state,
            "boards": list(self.boards),
        }


def find_boards(
    boards: Mapping[str, Board],
    ports: Callable[[], Iterable[Port]] = list_ports.comports,
    drives: Callable[[], Sequence[Drive]] = find_drives,
    bootsel: Callable[[Mapping[str, Board]], Sequence[tuple[str, str]]] = bootsel_on_usb,
) -> list[Found]:
    """All that is plugged in and shows a USB id of `hardware/boards/`, in order of the ports."""
    found = []
    for port in sorted(ports(), key=lambda port: _natural(port.device)):
        if port.vid is None or port.pid is None:
            continue
        state: State
        for state, ids in (
            ("running", {b.id: b.usb.running for b in boards.values()}),
            ("bootloader", {b.id: b.usb.bootloader for b in boards.values()}),
        ):
            matches = {
                board: usb.name
                for board, numbers in ids.items()
                for usb in numbers
                if (usb.vid, usb.pid) == (port.vid, port.pid)
            }
            if matches:
                found.append(
                    Found(
                        port.device,
                        f"{port.vid:04x}:{port.pid:04x}",
                        next(iter(matches.values())),
                        port.serial_number or "",
                        tuple(matches),
                        state,
                    )
                )
                break
    mounted = drives()
    for drive in mounted:
        fitting = tuple(
            board.id
            for board in boards.values()
            if board.flash and board.flash.method == "uf2" and board.flash.drive == drive.label
        )
        if fitting:
            found.append(
                Found(str(drive.root), "", f"drive {drive.label}", "", fitting, "bootloader")
            )
    # The same boards again, where nothing mounts their drives: for picotool.
    for place, usb in () if mounted else bootsel(boards):
        fitting = tuple(
            board.id
            for board in boards.values()
            if any(f"{one.vid:04x}:{one.pid:04x}" == usb for one in board.usb.bootloader)
        )
        found.append(Found(place, usb, "BOOTSEL, drive not mounted", "", fitting, "bootloader"))
    return found


def _natural(text: str) -> list[tuple[int, str]]:
    """ttyUSB10 behind ttyUSB9."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for char in text + "\0":
        if char.isdecimal():
            digits += char
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, char))
    return parts
