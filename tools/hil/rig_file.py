"""Rig files: which boards hang where, how their power is switched, which pins are wired together.

TOML, read once into frozen objects. Unknown keys, boards and pins are errors that name file and
key. `hardware/rig/` has an example and says how to write one.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tools.boards import Board, load_board
from tools.errors import ToolError, UsageError

__all__ = [
    "CommandSwitch",
    "GpioSwitch",
    "NoSwitch",
    "PlaceFile",
    "RigFile",
    "SysfsSwitch",
    "UhubctlSwitch",
    "loopbacks",
    "pins_of",
    "place_note",
    "read_rig",
]

MAX_FILE_BYTES = 64 * 1024
MAX_PLACES = 128

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
Command = Annotated[tuple[Text, ...], Field(min_length=1, max_length=32)]
Seconds = Annotated[float, Field(gt=0, le=600)]


class Table(BaseModel):
    """A table of a file: frozen, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NoSwitch(Table):
    """Nobody but a person cuts the power."""

    by: Literal["none"] = "none"


class UhubctlSwitch(Table):
    """A port of a USB hub that switches power. hub: its location, as `uhubctl` lists it."""

    by: Literal["uhubctl"]
    hub: Annotated[str, Field(pattern=r"^[0-9]+(-[0-9]+(\.[0-9]+)*)?$", max_length=32)]
    port: Annotated[int, Field(ge=1, le=32)]


class GpioSwitch(Table):
    """A relay on a line of a GPIO chip of this machine, through libgpiod."""

    by: Literal["gpiod"]
    chip: Annotated[str, Field(pattern=r"^/dev/gpiochip[0-9]+$")]
    line: Annotated[int, Field(ge=0, le=1023)]
    active_low: bool = False


class SysfsSwitch(Table):
    """A relay on a GPIO of this machine, through /sys/class/gpio, where a kernel still has that."""

    by: Literal["sysfs"]
    number: Annotated[int, Field(ge=0, le=4095)]
    active_low: bool = False


class CommandSwitch(Table):
    """Programs with their arguments that turn the power on and off; no shell reads them."""

    by: Literal["command"]
    on: Command
    off: Command


Switch = Annotated[
    NoSwitch | UhubctlSwitch | GpioSwitch | SysfsSwitch | CommandSwitch, Field(discriminator="by")
]


class PlaceFile(Table):
    """A place where a board hangs.

    One of: usb_serial, the serial number of its USB; port, a serial port's path or URL; emulator, a
    target of `fogline hil run` that plays it. loopbacks: pairs of pins, by the names of
    hardware/README.md, that are wired together. off_s: how long the power stays off; start_s: how
    long the board may take until its console answers.
    """

    name: Name
    board: Text
    usb_serial: Text | None = None
    port: Text | None = None
    emulator: Literal["mock", "unix", "qemu-arm", "qemu-rv32"] | None = None
    power: Switch = NoSwitch()
    loopbacks: tuple[tuple[Text, Text], ...] = ()
    off_s: Seconds = 2.0
    start_s: Seconds = 20.0

    @model_validator(mode="after")
    def _one_way(self) -> PlaceFile:
        ways = [self.usb_serial, self.port, self.emulator]
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give one of usb_serial, port and emulator")
        return self


class RigFile(Table):
    """All places of a rig."""

    name: Name
    place: Annotated[tuple[PlaceFile, ...], Field(min_length=1, max_length=MAX_PLACES)]

    def places(self, names: tuple[str, ...] = ()) -> tuple[PlaceFile, ...]:
        """Give the places of these names, all if none. Raises UsageError."""
        by_name = {place.name: place for place in self.place}
        for name in names:
            if name not in by_name:
                raise UsageError(f"rig {self.name} has no place {name}: {', '.join(by_name)}")
        return tuple(by_name[name] for name in names or by_name)


def read_rig(path: Path) -> RigFile:
    """Read a rig file; raises ToolError naming the file and each key that is wrong."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ToolError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
        rig = RigFile.model_validate(_tuples(tomllib.loads(path.read_text("utf-8"))))
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; hardware/rig/ has an example") from error
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ToolError(f"{path}: {found}") from error
    except ValueError as error:
        raise ToolError(f"{path}: is not TOML: {error}") from error
    for problem in _problems(rig):
        raise ToolError(f"{path}: {problem}")
    return rig


def loopbacks(pairs: tuple[tuple[str, str], ...]) -> set[str]:
    """Give the capabilities that wires are: either way round."""
    return {f"loopback:{one}-{other}" for pair in pairs for one, other in (pair, pair[::-1])}


def place_note(board: str) -> dict[str, bytes]:
    """Give the file that tells tests on a board which board it is, and so where its pins are."""
    return {"hil_place.json": json.dumps({"board": board}).encode()}


def _tuples(value: object) -> object:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _problems(rig: RigFile) -> list[str]:
    """What cannot be: two boards in one place, a switch for two, pins that a board lacks."""
    found = []
    for what, values in (
        ("name", [place.name for place in rig.place]),
        ("usb_serial", [place.usb_serial for place in rig.place if place.usb_serial]),
        ("port", [place.port for place in rig.place if place.port]),
        ("power", [place.power for place in rig.place if place.power != NoSwitch()]),
    ):
        twice = [value for value, count in Counter(map(str, values)).items() if count > 1]
        found += [f"place: two have the {what} {value}" for value in twice]
    for place in rig.place:
        try:
            pins = pins_of(load_board(place.board))
        except ToolError as error:
            found.append(f"place {place.name}: {error}")
            continue
        for pair in place.loopbacks:
            found += [
                f"place {place.name}: {place.board} has no pin {pin}: {', '.join(pins) or 'none'}"
                for pin in pair
                if pin not in pins
            ]
            if len({pins.get(pin, pin) for pin in pair}) < 2:
                found.append(f"place {place.name}: {pair[0]} is wired to itself")
    return found


def pins_of(board: Board) -> dict[str, int]:
    """Give the GPIO numbers by the names that drawings use."""
    pins: dict[str, int] = {**board.adc, **board.pin}
    for name, uart in board.uart.items():
        pins |= {f"{name} tx": uart.tx, f"{name} rx": uart.rx}
    for name, i2c in board.i2c.items():
        pins |= {f"{name} sda": i2c.sda, f"{name} scl": i2c.scl}
    for name, spi in board.spi.items():
        pins |= {f"{name} sck": spi.sck, f"{name} mosi": spi.mosi, f"{name} miso": spi.miso}
    return pins
