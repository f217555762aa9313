"""Switches a board's power: a hub's port, a relay, a program, or nobody."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tools.hil.rig_file import (
    CommandSwitch,
    GpioSwitch,
    NoSwitch,
    PlaceFile,
    SysfsSwitch,
    UhubctlSwitch,
)
from tools.hil.target import TargetError

if TYPE_CHECKING:
    import gpiod

__all__ = [
    "CommandPower",
    "FakePower",
    "GpiodPower",
    "NoPower",
    "Power",
    "SysfsPower",
    "open_power",
]

COMMAND_S = 30.0
SYSFS = Path("/sys/class/gpio")
CONSUMER = "fogline-rig"


class Power(Protocol):
    """What switches the power of one place."""

    can_switch: bool

    def switch(self, on: bool) -> None:
        """Turn the power on or off. Raises TargetError."""

    def close(self) -> None:
        """Let go of it; the power stays as it is where the switch allows that."""


class NoPower:
    """Nobody."""

    can_switch = False

    def __init__(self, place: str) -> None:
        self._place = place

    def switch(self, on: bool) -> None:
        """As Power."""
        raise TargetError(
            f"place {self._place}: nothing switches its power {'on' if on else 'off'}; give it a "
            "`power` in the rig file, or do so by hand"
        )

    def close(self) -> None:
        """As Power."""


class FakePower:
    """Remembers what it was told; `fail` lets it fail as a switch does."""

    can_switch = True

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.closed = False
        self.fail: str | None = None

    def switch(self, on: bool) -> None:
        """As Power."""
        if self.fail is not None:
            raise TargetError(self.fail)
        self.told.append(on)

    def close(self) -> None:
        """As Power."""
        self.closed = True


class CommandPower:
    """Programs; uhubctl is one."""

    can_switch = True

    def __init__(self, place: str, on: tuple[str, ...], off: tuple[str, ...], remedy: str) -> None:
        self._place = place
        self._commands = {True: on, False: off}
        self._remedy = remedy

    def switch(self, on: bool) -> None:
        """As Power."""
        command = self._commands[on]
        if shutil.which(command[0]) is None:
            raise TargetError(f"place {self._place}: there is no {command[0]}; {self._remedy}")
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=COMMAND_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TargetError(f"place {self._place}: {error}; {self._remedy}") from error
        if done.returncode:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-300:]
            raise TargetError(
                f"place {self._place}: {command[0]} ended with {done.returncode}: {said}; "
                f"{self._remedy}"
            )

    def close(self) -> None:
        """As Power."""


class SysfsPower:
    """A relay behind /sys/class/gpio; `folder` stands for that."""

    can_switch = True

    def __init__(self, place: str, settings: SysfsSwitch, folder: Path = SYSFS) -> None:
        self._place = place
        self._settings = settings
        self._folder = folder

    def switch(self, on: bool) -> None:
        """As Power; the first time it takes the GPIO and makes it an output."""
        gpio = self._folder / f"gpio{self._settings.number}"
        try:
            if not gpio.exists():
                (self._folder / "export").write_text(str(self._settings.number))
            # `high` and `low` set direction and level at once, so that a relay does not chatter.
            level = on != self._settings.active_low
            (gpio / "direction").write_text("high" if level else "low")
        except OSError as error:
            raise TargetError(
                f"place {self._place}: GPIO {self._settings.number}: {error.strerror}; join the "
                'group gpio, or use `by = "gpiod"` where the kernel has no /sys/class/gpio'
            ) from error

    def close(self) -> None:
        """As Power: the GPIO stays exported, and at its level."""


class GpiodPower:
    """A relay behind a GPIO chip. The line is held from the first use until `close`."""

    can_switch = True

    def __init__(self, place: str, settings: GpioSwitch) -> None:
        if importlib.util.find_spec("gpiod") is None:
            raise TargetError(
                f"place {place}: needs the package gpiod; python -m pip install '.[rig]' in "
                "Fogline's folder"
            )
        self._place = place
        self._settings = settings
        self._request: gpiod.LineRequest | None = None

    def switch(self, on: bool) -> None:
        """As Power."""
        import gpiod
        from gpiod.line import Direction, Value

        line = self._settings.line
        value = Value.ACTIVE if on else Value.INACTIVE
        try:
            if self._request is None:
                lines = gpiod.LineSettings(
                    direction=Direction.OUTPUT,
                    active_low=self._settings.active_low,
                    output_value=value,
                )
                self._request = gpiod.request_lines(
                    self._settings.chip, consumer=CONSUMER, config={line: lines}
                )
            else:
                self._request.set_value(line, value)
        except (OSError, ValueError) as error:
            raise TargetError(
                f"place {self._place}: {self._settings.chip} line {line}: {error}; join the group "
                "gpio, and see with `gpioinfo` whether another has the line"
            ) from error

    def close(self) -> None:
        """As Power: what the chip does with the line then is its own matter."""
        if self._request is not None:
            with contextlib.suppress(OSError):
                self._request.release()
            self._request = None


def open_power(place: PlaceFile) -> Power:
    """Open what a rig file names. Raises TargetError where it is not there."""
    match place.power:
        case NoSwitch():
            return NoPower(place.name)
        case UhubctlSwitch(hub=hub, port=port):
            on, off = (
                ("uhubctl", "--location", hub, "--ports", str(port), "--action", action)
                for action in ("on", "off")
            )
            remedy = "install uhubctl, its udev rules, and a hub that it lists"
            return CommandPower(place.name, on, off, remedy)
        case CommandSwitch(on=on, off=off):
            return CommandPower(place.name, on, off, "see `power` in the rig file")
        case SysfsSwitch() as sysfs:
            return SysfsPower(place.name, sysfs)
        case GpioSwitch() as gpio:
            return GpiodPower(place.name, gpio)
