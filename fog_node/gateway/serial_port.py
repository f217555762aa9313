"""One serial port with a board at its other end: bytes on one side, messages on the other."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import serial

from fog_node.errors import GatewayError
from fog_node.protocol.cbor import decode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import KID_BYTES
from fog_node.protocol.validate import octets, text, text_map

from . import serial_frame
from .limits import Buckets, Rate
from .serial_frame import CONSOLE, LINK
from .serial_session import Down, Message, OtherVersion, Session, Up
from .topics import FromBoard

__all__ = ["Kind", "PortCounts", "PortHandler", "SerialPort", "open_port"]

log = logging.getLogger(__name__)
console_log = log.getChild("console")

READ_BYTES = 4096
WINDOW_BYTES = 4096
SEGMENT_BYTES = 500
# As the broker is told to take at most (README.md): admission says why a long one is refused.
MAX_MESSAGE_BYTES = 65536
KEEPALIVE_MS = 5_000
# Messages that wait for a board; a further one is dropped, the board asks again.
MAX_QUEUED = 64
MAX_HELLO_BYTES = 256
MAX_TYPE_CHARS = 64
CONSOLE_RATE = Rate(burst=32, per_s=4)
MAX_CONSOLE_CHARS = 1024


class Kind(IntEnum):
    """What a message is, its first byte; SERIAL.md."""

    BOARD = 1
    STATUS = 2
    UP = 3
    GET = 4
    GATEWAY = 17
    RECEIPT = 18
    RELEASE = 19
    BLOB = 20
    FIRMWARE = 21


_FROM_BOARD: dict[int, FromBoard] = {Kind.STATUS: "status", Kind.UP: "up", Kind.GET: "get"}


@dataclass(frozen=True)
class PortCounts:
    """What one port has done since it was opened last.

    Attributes:
        board: key id of the board there; None where none has said who it is.
        sessions: how often one has begun to talk.
        received, sent, dropped: messages.
        noise: bytes that belonged to no frame.
    """

    board: str | None
    sessions: int
    received: int
    sent: int
    dropped: int
    noise: int


class PortHandler(Protocol):
    """What is done with a board's messages. Called from the event loop; must not raise."""

    def arrived(self, port: SerialPort) -> None:
        """A board has said who it is: `port.board`, `port.device_type`, `port.firmware`."""

    def left(self, port: SerialPort) -> None:
        """It is not there any more; may be called for a board that never arrived."""

    def received(
        self, kind: FromBoard, board: bytes | None, data: bytes, redelivered: bool
    ) -> None:
        """A message of the board."""


def open_port(url: str, baud: int) -> serial.Serial:
    """Open a device, or what pyserial has a `socket://` address for. Blocks.

    Raises:
        GatewayError: it cannot be opened; names the remedy.
    """
    try:
        if url.startswith("socket://"):
            port = serial.serial_for_url(url, baudrate=baud, timeout=0)
        else:
            port = serial.Serial(url, baudrate=baud, timeout=0, exclusive=True)
    except (OSError, ValueError) as error:  # SerialException is an OSError
        raise GatewayError(f"serial port {url}: {_reason(error)}") from error
    os.set_blocking(port.fileno(), False)
    return port


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == 13:
        return "permission denied; let the node's user into the group that owns it (dialout)"
    return f"cannot be opened ({error})"


class SerialPort:
    """A port that is open; `run` serves it to its end.

    Attributes:
        url: its device or address.
        board: key id that the board gives; None before it has.
        device_type: of the board, as it says.
        firmware: under which firmware for it is announced, as it says.
    """

    def __init__(self, url: str, device: serial.Serial, name: str, handler: PortHandler) -> None:
        """Take over an open port.

        Args:
            url: what it was opened by.
            device: of pyserial; closed at the end of `run`.
            name: of this gateway, told to the board.
            handler: gets what happens.
        """
        self.url = url
        self.board: bytes | None = None
        self.device_type = ""
        self.firmware = ""
        self._received = 0
        self._sent = 0
        self._dropped = 0
        self._sessions = 0
        self._device = device
        self._number = device.fileno()
        self._name = name
        self._handler = handler
        self._decoder = serial_frame.Decoder()
        self._session = Session(
            window_bytes=WINDOW_BYTES,
            segment_bytes=SEGMENT_BYTES,
            max_message_bytes=MAX_MESSAGE_BYTES,
            keepalive_ms=KEEPALIVE_MS,
        )
        self._out = b""
        self._is_writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._console = Buckets(CONSOLE_RATE, 1)
        self._console_rest = b""
        self._told_version: int | None = None

    def counts(self) -> PortCounts:
        """What the port has done; may be asked from another thread."""
        board = self.board
        return PortCounts(
            board=board.hex() if board else None,
            sessions=self._sessions,
            received=self._received,
            sent=self._sent,
            dropped=self._dropped,
            noise=self._decoder.noise,
        )

    def send(self, kind: Kind, data: bytes, *, latest: bool = True) -> None:
        """Queue a message; dropped and counted without a session or where too many wait.

        Args:
            kind: what it is.
            data: the payload.
            latest: whether it replaces what of its kind has not begun to be sent.
        """
        if not self._session.is_up or self._session.queued >= MAX_QUEUED:
            self._dropped += 1
            return
        self._session.send(bytes([kind]) + data, replaces=latest)
        self._sent += 1
        self._pump()

    async def run(self) -> None:
        """Serve the port until it fails or this is cancelled.

        Raises:
            GatewayError: the port is gone.
        """
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._failed: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._number, self._on_readable)
        try:
            await self._failed
        finally:
            # Say goodbye if the line takes it at once; the board notices anyway.
            self._session.close("the gateway ends")
            self._pump()
            loop.remove_reader(self._number)
            loop.remove_writer(self._number)
            if self._timer is not None:
                self._timer.cancel()
            self._leave()
            self._device.close()

    def _fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(GatewayError(f"serial port {self.url}: {reason}"))

    def _on_readable(self) -> None:
        try:
            data = os.read(self._number, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error.strerror or "has gone")
            return
        if not data:
            self._fail("has been closed at the other end")
            return
        now = _now_ms()
        for channel, body in self._decoder.feed(data):
            if channel == LINK:
                self._session.receive(body, now)
                self._take_events()
            elif channel == CONSOLE:
                self._take_console(body)
            elif channel is None:
                log.debug("%s: %d bytes that are no frame: %r", self.url, len(body), body[:200])
        self._pump()

    def _pump(self) -> None:
        """Write what the line takes, and see to it that the rest follows."""
        if self._failed.done() and not self._failed.cancelled():
            return
        now = _now_ms()
        while True:
            if not self._out:
                packet = self._session.next_packet(now)
                self._take_events()
                if packet is None:
                    break
                self._out = serial_frame.encode(LINK, packet)
            try:
                self._out = self._out[os.write(self._number, self._out) :]
            except BlockingIOError:
                break
            except OSError as error:
                self._fail(error.strerror or "has gone")
                return
        if bool(self._out) != self._is_writing:
            self._is_writing = bool(self._out)
            if self._is_writing:
                self._loop.add_writer(self._number, self._pump)
            else:
                self._loop.remove_writer(self._number)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._session.wait_ms(now) / 1000, self._pump)

    def _take_events(self) -> None:
        for event in self._session.events():
            match event:
                case Up():
                    self._sessions += 1
                case Down(reason):
                    log.info("%s: the board's session has ended: %s", self.url, reason)
                    self._leave()
                case Message(data):
                    self._take_message(data[0], data[1:])
                case OtherVersion(version):
                    if version != self._told_version:
                        self._told_version = version
                        log.warning(
                            "%s: its board speaks version %d of the link; bring its firmware up "
                            "to date: fogline device provision",
                            self.url,
                            version,
                        )

    def _take_message(self, kind: int, data: bytes) -> None:
        self._received += 1
        if kind == Kind.BOARD:
            self._meet(data)
        elif kind in _FROM_BOARD and self.board is not None:
            self._handler.received(_FROM_BOARD[kind], self.board, data, False)
        else:
            self._dropped += 1

    def _meet(self, data: bytes) -> None:
        try:
            names = {"kid", "type", "firmware"}
            value = text_map(decode(data, MAX_HELLO_BYTES, "board"), names, "board")
            board = octets(value["kid"], "board.kid", KID_BYTES)
            device_type = text(value["type"], "board.type", MAX_TYPE_CHARS)
            firmware = text(value["firmware"], "board.firmware", MAX_TYPE_CHARS)
        except ProtocolError as error:
            log.warning("%s: a board that does not say who it is: %s", self.url, error)
            self._session.close("it does not say who it is")
            return
        self._leave()
        self.board, self.device_type, self.firmware = board, device_type, firmware
        log.info("%s: board %s, %s", self.url, board.hex(), device_type)
        self._session.send(bytes([Kind.GATEWAY]) + self._name.encode())
        self._handler.arrived(self)

    def _leave(self) -> None:
        if self.board is not None:
            self._handler.left(self)
            self.board = None

    def _take_console(self, body: bytes) -> None:
        lines = (self._console_rest + body).split(b"\n")
        self._console_rest = lines.pop()[:MAX_CONSOLE_CHARS]
        for line in lines:
            said = line[:MAX_CONSOLE_CHARS].decode("utf-8", "replace")
            level = logging.WARNING if '"refused"' in said else logging.DEBUG
            if console_log.isEnabledFor(level) and self._console.take(None, time.monotonic()):
                console_log.log(level, "%s: %s", self.url, ascii(said)[1:-1])


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
