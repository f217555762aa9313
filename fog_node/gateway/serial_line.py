"""The lines to boards over USB and UARTs: finds the ports, and keeps each of them served."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import serial
from serial.tools import list_ports

from fog_node.errors import GatewayError

from .serial_port import Kind, PortCounts, PortHandler, SerialPort, open_port
from .topics import FromBoard

__all__ = ["Kind", "PortCounts", "SerialLine", "SerialSettings", "UsbId", "matching_ports"]

log = logging.getLogger(__name__)

SCAN_S = 1.0
# Between attempts at a port that cannot be opened, or whose board was pulled out.
BACKOFF_S = (0.5, 10.0)
MAX_PORTS = 256
_USB_ID = re.compile(r"[0-9A-Fa-f]{4}:([0-9A-Fa-f]{4}|\*)")


@dataclass(frozen=True)
class UsbId:
    """Vendor and product of USB devices; product None stands for all of the vendor's."""

    vendor: int
    product: int | None

    @classmethod
    def parse(cls, value: str) -> UsbId:
        """Read `VVVV:PPPP` or `VVVV:*`, hexadecimal; raises ValueError naming the form."""
        if not _USB_ID.fullmatch(value):
            raise ValueError(f"{value!r} is not VVVV:PPPP or VVVV:*, in hex digits")
        vendor, _, product = value.partition(":")
        return cls(int(vendor, 16), None if product == "*" else int(product, 16))

    def matches(self, vendor: int | None, product: int | None) -> bool:
        """Whether a device is meant."""
        return vendor == self.vendor and self.product in (None, product)


@dataclass(frozen=True)
class SerialSettings:
    """Which ports to serve.

    Attributes:
        ports: devices (`/dev/ttyUSB0`, better a link in /dev/serial/by-id) and `socket://`
            addresses, whether they are there now or not.
        usb: every port of such a USB device, as it is plugged in.
        baud: of ports that have a speed; USB has none.
    """

    ports: tuple[str, ...] = ()
    usb: tuple[UsbId, ...] = ()
    baud: int = 115200


def matching_ports(usb: Iterable[UsbId]) -> list[str]:
    """Devices of the serial ports that are plugged in now and meant. Blocks shortly."""
    usb = tuple(usb)
    return sorted(
        port.device
        for port in list_ports.comports()
        if any(each.matches(port.vid, port.pid) for each in usb)
    )


class SerialLine:
    """Serves all boards on serial ports; `run` it in a task of its own."""

    def __init__(
        self,
        settings: SerialSettings,
        name: str,
        handler: PortHandler,
        find: Callable[[Iterable[UsbId]], list[str]] = matching_ports,
    ) -> None:
        """Prepare; nothing is opened before `run`.

        Args:
            settings: which ports.
            name: of this gateway.
            handler: gets what happens.
            find: lists the ports of USB devices.
        """
        self._settings = settings
        self._name = name
        self._handler = handler
        self._find = find
        self._ports: dict[str, SerialPort] = {}
        # Anyone can say a board's name: who does hears what is for it, and takes it from nobody.
        self._boards: dict[bytes, dict[SerialPort, None]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._delays: dict[str, tuple[float, float]] = {}  # by port: not before, delay after it
        self._told: set[str] = set()

    @property
    def boards(self) -> tuple[bytes, ...]:
        """Key ids of the boards that are here."""
        return tuple(self._boards)

    def counts(self) -> dict[str, PortCounts]:
        """What each open port has done, by its device or address."""
        # Asked from other threads while ports come and go.
        return {url: port.counts() for url, port in tuple(self._ports.items())}

    def has(self, board: bytes) -> bool:
        """Whether the board is at one of the ports."""
        return board in self._boards

    def send(self, board: bytes, kind: Kind, data: bytes, *, latest: bool = True) -> None:
        """Send to a board that is here; see `SerialPort.send`."""
        for port in tuple(self._boards.get(board, ())):
            port.send(kind, data, latest=latest)

    def announce(self, device_type: str, data: bytes) -> None:
        """Send a release's announcement to the boards here that it is for."""
        for port in [port for ports in self._boards.values() for port in ports]:
            if port.device_type == device_type:
                port.send(Kind.RELEASE, data)
            elif port.firmware == device_type:
                port.send(Kind.FIRMWARE, data)

    async def run(self) -> None:
        """Find ports and serve them, until cancelled."""
        try:
            while True:
                await self._start_new()
                await asyncio.sleep(SCAN_S)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_new(self) -> None:
        self._tasks = {real: task for real, task in self._tasks.items() if not task.done()}
        for real, url in (await asyncio.to_thread(self._look)).items():
            not_before, _ = self._delays.get(real, (0.0, 0.0))
            if real in self._tasks or time.monotonic() < not_before:
                continue
            if len(self._tasks) >= MAX_PORTS:
                self._tell(real, f"serial port {url}: is left alone, {MAX_PORTS} are served")
                continue
            self._tasks[real] = asyncio.create_task(self._serve(url, real))

    def _look(self) -> dict[str, str]:
        """The ports that are there, by what their links lead to. Blocks shortly."""
        usb = self._settings.usb
        there = {}
        for url in (*self._settings.ports, *(self._find(usb) if usb else ())):
            if "://" in url:
                there[url] = url
            elif Path(url).exists():
                there.setdefault(str(Path(url).resolve()), url)
        return there

    async def _serve(self, url: str, real: str) -> None:
        """One opening of a port, to its end."""
        try:
            device = await self._open(url)
            self._told.discard(real)
            self._delays.pop(real, None)
            port = SerialPort(url, device, self._name, self)
            self._ports[url] = port
            log.info("serial port %s: open", url)
            try:
                await port.run()
            finally:
                del self._ports[url]
        except GatewayError as error:
            _, delay = self._delays.get(real, (0.0, BACKOFF_S[0]))
            self._delays[real] = time.monotonic() + delay, min(2 * delay, BACKOFF_S[1])
            self._tell(real, f"{error}; trying again")
        except Exception:
            log.exception("serial port %s: left alone", url)
            self._delays[real] = time.monotonic() + BACKOFF_S[1], BACKOFF_S[1]

    async def _open(self, url: str) -> serial.Serial:
        opening = asyncio.create_task(asyncio.to_thread(open_port, url, self._settings.baud))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on; what it opens must not stay open.
            opening.add_done_callback(_close_opened)
            raise

    def _tell(self, real: str, words: str) -> None:
        """Say it once, until the port has been opened again."""
        log.log(logging.DEBUG if real in self._told else logging.WARNING, "%s", words)
        self._told.add(real)

    # What the ports call

    def arrived(self, port: SerialPort) -> None:
        """A board has said who it is."""
        assert port.board is not None
        self._boards.setdefault(port.board, {})[port] = None
        self._handler.arrived(port)

    def left(self, port: SerialPort) -> None:
        """It has gone."""
        assert port.board is not None
        ports = self._boards[port.board]
        del ports[port]
        if not ports:
            del self._boards[port.board]
            self._handler.left(port)

    def received(
        self, kind: FromBoard, board: bytes | None, data: bytes, redelivered: bool
    ) -> None:
        """A message; never raises, so that it costs nothing but itself."""
        try:
            self._handler.received(kind, board, data, redelivered)
        except Exception:
            log.exception("gateway: a message of %d bytes is dropped", len(data))


def _close_opened(opening: asyncio.Task[serial.Serial]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
