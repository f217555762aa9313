"""A place of a rig: a board in one of a few named states, and the steps from one to another.

    unknown --> off | on          off --> on
    on, provisioned --> bootloader      bootloader --> off
    on --> provisioned --> on      on, provisioned --> off

Only these steps exist; `reach` takes the shortest way of them. Steps to and from `off` need a
switch for the power. After a step that fails the state is `unknown`: nobody knows what the board
is doing then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

from serial.tools import list_ports

from tools.boards import load_board
from tools.hil.payload import firmware_for
from tools.hil.power import Power, open_power
from tools.hil.qemu import QemuTarget
from tools.hil.rig_file import PlaceFile, loopbacks, place_note
from tools.hil.serial_port import SerialTarget
from tools.hil.target import About, Capability, Console, Outcome, Target, TargetError
from tools.hil.targets import open_target

__all__ = [
    "STEPS",
    "Board",
    "EmulatedBoard",
    "Place",
    "PlaceTarget",
    "SerialBoard",
    "State",
    "open_place",
    "way",
]

POLL_S = 0.1


class State(StrEnum):
    """What a board in a place is doing.

    on: its console answers; provisioned: on, and our firmware is on it as it is here; bootloader:
    it waits for an image; off: it has no power.
    """

    UNKNOWN = "unknown"
    OFF = "off"
    ON = "on"
    BOOTLOADER = "bootloader"
    PROVISIONED = "provisioned"


STEPS: Mapping[State, tuple[State, ...]] = {
    State.UNKNOWN: (State.ON, State.OFF),
    State.OFF: (State.ON,),
    State.ON: (State.PROVISIONED, State.BOOTLOADER, State.OFF),
    State.PROVISIONED: (State.ON, State.BOOTLOADER, State.OFF),
    State.BOOTLOADER: (State.OFF,),
}


def way(start: State, end: State, has_switch: bool) -> tuple[State, ...] | None:
    """Give the states behind `start` on the shortest way to `end`; None where there is none."""
    seen = {start}
    ways: deque[tuple[State, ...]] = deque([()])
    while ways:
        path = ways.popleft()
        at = path[-1] if path else start
        if at is end:
            return path
        for state in STEPS[at]:
            if state in seen or (state is State.OFF and not has_switch):
                continue
            seen.add(state)
            ways.append((*path, state))
    return None


class Board(Protocol):
    """How a place reaches its board."""

    def open(self, timeout_s: float, /) -> Target:
        """Open it once its console answers. Raises TargetError."""

    def await_gone(self, timeout_s: float, /) -> None:
        """Wait until its console is gone, as in its boot loader. Raises TargetError."""


class EmulatedBoard:
    """One that an emulator plays."""

    def __init__(self, name: str) -> None:
        self._name = name

    def open(self, _timeout_s: float, /) -> Target:
        """As Board."""
        return open_target(self._name)

    def await_gone(self, _timeout_s: float, /) -> None:
        """As Board."""
        raise TargetError(f"{self._name} has no boot loader; take a place with a board")


class SerialBoard:
    """One on a serial port, found by its path or by the serial number of its USB."""

    def __init__(self, place: PlaceFile) -> None:
        self._place = place

    def _port(self) -> str | None:
        if self._place.usb_serial is None:
            return self._place.port
        for port in list_ports.comports():
            if port.serial_number == self._place.usb_serial:
                return str(port.device)
        return None

    def open(self, timeout_s: float) -> Target:
        """As Board: a board that was just switched on takes a while to show its port."""
        until = time.monotonic() + timeout_s
        while True:
            port = self._port()
            why = f"no USB device has the serial number {self._place.usb_serial}"
            if port is not None:
                try:
                    return SerialTarget(port)
                except TargetError as error:
                    why = str(error)
            if time.monotonic() > until:
                raise TargetError(
                    f"place {self._place.name}: no board within {timeout_s:g} s: {why}; see "
                    "`fogline device list`"
                )
            time.sleep(POLL_S)

    def await_gone(self, timeout_s: float) -> None:
        """As Board."""
        until = time.monotonic() + timeout_s
        known = {port.device for port in list_ports.comports()}
        while (port := self._port()) is not None and port in known:
            if time.monotonic() > until:
                raise TargetError(
                    f"place {self._place.name}: {port} is still there after {timeout_s:g} s; hold "
                    "BOOTSEL or BOOT while you plug the board in"
                )
            time.sleep(POLL_S)
            known = {port.device for port in list_ports.comports()}


class Place:
    """A board in its place, with what switches its power; both may be fakes."""

    def __init__(
        self,
        settings: PlaceFile,
        power: Power | None = None,
        board: Board | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.state = State.UNKNOWN
        self._power = open_power(settings) if power is None else power
        if board is None:
            emulator = settings.emulator
            board = SerialBoard(settings) if emulator is None else EmulatedBoard(emulator)
        self._board = board
        self._sleep = sleep
        self._target: Target | None = None
        self._steps = {
            State.OFF: self._to_off,
            State.ON: self._to_on,
            State.BOOTLOADER: self._to_bootloader,
            State.PROVISIONED: self._to_provisioned,
        }

    @property
    def can_switch(self) -> bool:
        """Whether something switches its power."""
        return self._power.can_switch

    @property
    def target(self) -> Target:
        """The board, while it is on. Raises TargetError."""
        if self._target is None:
            raise TargetError(f"place {self.settings.name} is {self.state}, not on")
        return self._target

    def reach(self, state: State) -> None:
        """Bring the board into a state, by allowed steps. Raises TargetError."""
        path = way(self.state, state, self.can_switch)
        if path is None:
            raise TargetError(
                f"place {self.settings.name}: no way from {self.state} to {state}"
                + ("" if self.can_switch else " without a switch for its power: give it a `power`")
            )
        for step in path:
            try:
                self._steps[step]()
            except BaseException:
                self.state = State.UNKNOWN
                self._let_go()
                raise
            self.state = step

    def _let_go(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            target.close()

    def _to_off(self) -> None:
        self._let_go()
        self._power.switch(False)
        self._sleep(self.settings.off_s)

    def _to_on(self) -> None:
        if self.state is State.PROVISIONED:
            return  # it is on as it is
        if self.can_switch:
            self._power.switch(True)
        self._target = self._board.open(self.settings.start_s)
        expected = load_board(self.settings.board).machine
        found = self._target.about().machine
        if expected is not None and found != expected and self.settings.emulator is None:
            raise TargetError(
                f"place {self.settings.name}: a {found} hangs there, and the rig file says "
                f"{self.settings.board} ({expected}); plug in the right one"
            )

    def _to_provisioned(self) -> None:
        self.target.put(firmware_for(self.target.about()))

    def _to_bootloader(self) -> None:
        self.target.start("import machine\nmachine.bootloader()")
        self._let_go()
        self._board.await_gone(self.settings.start_s)

    def close(self) -> None:
        """Let go of board and switch."""
        self._let_go()
        self._power.close()


class PlaceTarget:
    """A place as a target: its board, with the power and the wires that the rig gives it."""

    def __init__(self, rig: str, place: Place) -> None:
        self.name = f"{rig}/{place.settings.name}"
        self._place = place
        try:
            place.reach(State.ON)
            wires = loopbacks(place.settings.loopbacks)
            if wires:
                place.target.put(place_note(place.settings.board))
            power = {Capability.POWER} if place.can_switch else set()
            self.capabilities = frozenset({*place.target.capabilities, *wires, *power})
        except BaseException:
            place.close()
            raise

    def about(self) -> About:
        """As Target."""
        return self._place.target.about()

    def put(self, files: Mapping[str, bytes]) -> int:
        """As Target."""
        return self._place.target.put(files)

    def get(self, path: str) -> bytes:
        """As Target."""
        return self._place.target.get(path)

    def run(self, code: str, *, timeout_s: float = 60) -> Outcome:
        """As Target."""
        return self._place.target.run(code, timeout_s=timeout_s)

    def start(self, code: str) -> Console:
        """As Target."""
        return self._place.target.start(code)

    def power_cut(self) -> None:
        """As Target: by the rig's switch, else by the emulator's own means."""
        if not self._place.can_switch:
            self._place.target.power_cut()
            return
        self._place.reach(State.OFF)
        self._place.reach(State.ON)

    def close(self) -> None:
        """As Target."""
        self._place.close()


class EmulatedPlaceTarget(PlaceTarget):
    """A place that QEMU plays: it can be given another heap, too."""

    def large_heap(self) -> None:
        """Start it anew with the heap that `large_heap` asks for."""
        self._qemu().large_heap()

    def with_heap(self, heap_bytes: int | None) -> None:
        """Start it anew with a heap of this size; None: the usual one."""
        self._qemu().with_heap(heap_bytes)

    def _qemu(self) -> QemuTarget:
        target = self._place.target
        assert isinstance(target, QemuTarget)
        return target


def open_place(rig: str, settings: PlaceFile) -> PlaceTarget:
    """Open a place of a rig as a target; close it when done. Raises TargetError."""
    is_qemu = (settings.emulator or "").startswith("qemu-")
    return (EmulatedPlaceTarget if is_qemu else PlaceTarget)(rig, Place(settings))
