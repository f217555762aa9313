"""The link to a gateway over a serial line, in place of MQTT: what mqtt.Client is there.

The gateway says who it is when a session begins; from then on messages go both ways, each once
and in order, until the session ends. What was on its way then is forgotten here: the uplink sends
it again to the next session. The messages are specified in fog_node/gateway/SERIAL.md.
"""

import asyncio
import os
import time

from . import cbor, console
from .serial_frame import MAX_BODY_BYTES
from .serial_line import Wire
from .serial_session import DATA_HEADER_BYTES, FRAME_BYTES, NONCE_BYTES, Session

MAX_MESSAGE_BYTES = 8192
MAX_QUEUED = 2
CLOSE_TIMEOUT_MS = 5_000
RECONNECT_PAUSE_MS = 1_000
# After a gateway that is not among ours.
FOREIGN_PAUSE_MS = 10_000
IDLE_MS = 5
MAX_NAME_BYTES = 64

BOARD = 1
_UP = {"status": 2, "up": 3, "get": 4}
GATEWAY = 17
_DOWN = {18: "receipt", 19: "release", 20: "blob", 21: "firmware"}


class Client:
    """One link; `run` keeps it up until `close`.

    Args:
        wire: Wire.
        kid: the board's key id.
        device_type: under which models are announced.
        firmware_type: under which firmware is.
        settings: the `serial` section of board.json.
        handler: object with `found(gateway)`, which says whether it is one of ours,
            `message(topic, payload)`, `connected()` and `disconnected(reason)`; plain functions,
            called in the client's task.
    """

    def __init__(self, *, wire, kid, device_type, firmware_type, settings, handler):
        self._wire = wire
        self._kid = kid
        self._device_type = device_type
        self._firmware_type = firmware_type
        self._handler = handler
        self._now = 0
        self._ticks = time.ticks_ms()
        self._session = Session(
            lambda: os.urandom(NONCE_BYTES),
            window_bytes=settings.window_bytes,
            segment_bytes=segment_bytes(settings.window_bytes),
            max_message_bytes=MAX_MESSAGE_BYTES,
            keepalive_ms=settings.keepalive_s * 1000,
        )
        wire.session = self._session
        self._gateway = None  # whose session it is
        self._room = asyncio.Event()
        self._closing = False
        self._ended = asyncio.Event()

    # The caller's side ----------------------------------------------------------------

    @property
    def connected(self):
        """Whether a gateway of ours is at the other end."""
        return self._gateway is not None

    async def publish(self, topic, payload, retain=False, token=None):
        """Send a message of this topic's kind; without a gateway it is dropped.

        Returns as soon as the queue has taken it. Nothing is retained: whoever is at the other
        end hears everything.
        """
        while self.connected and self._session.queued >= MAX_QUEUED:
            self._room.clear()
            await self._room.wait()
        if self.connected:
            kind = _UP[topic.split("/")[2]]
            self._session.send(bytes((kind,)) + payload, token)

    def pending(self, token):
        """Whether a message with this token is on its way."""
        return self._session.pending(token)

    def forget(self, unwanted):
        """Never send the messages whose token `unwanted(token)` says so of, if not begun."""
        self._session.forget(unwanted)
        self._room.set()

    def reconnect(self, reason):
        """End the session, and begin another."""
        self._session.close(reason, self._now, RECONNECT_PAUSE_MS)

    async def close(self):
        """Send what is queued, say goodbye and wait for `run`'s end."""
        try:
            await asyncio.wait_for_ms(self._flush(), CLOSE_TIMEOUT_MS)
        except asyncio.TimeoutError:
            pass  # the gateway is away; what it owes us is lost with the session
        self._closing = True
        await self._ended.wait()

    async def _flush(self):
        while self.connected and self._session.queued:
            self._room.clear()
            await self._room.wait()

    # The line -----------------------------------------------------------------------------

    async def run(self):
        """Read and write; returns after `close`."""
        while not self._closing:
            moved = self._turn()
            await asyncio.sleep_ms(0 if moved else IDLE_MS)
        self._session.close("closed by this board", self._now, Session.FOR_EVER_MS)
        self._turn()
        self._gateway = None
        self._ended.set()

    def _turn(self):
        ticks = time.ticks_ms()
        self._now += time.ticks_diff(ticks, self._ticks)
        self._ticks = ticks
        packets = self._wire.read()
        for packet in packets:
            self._session.receive(packet, self._now)
        self._take_events()
        moved = self._wire.write(self._next_packet)
        self._take_events()
        if self._session.queued < MAX_QUEUED:
            self._room.set()
        return moved or packets

    def _next_packet(self):
        return self._session.next_packet(self._now)

    def _take_events(self):
        while self._session.events:
            kind, value = self._session.events.pop(0)
            if kind == "up":
                hello = cbor.encode(
                    {
                        "kid": self._kid,
                        "type": self._device_type,
                        "firmware": self._firmware_type,
                    }
                )
                self._session.send(bytes((BOARD,)) + hello)
            elif kind == "message":
                self._take_message(value[0], value[1:])
            elif kind == "down":
                self._down(value)
            else:
                console.say("ignored", topic="", error=f"link.version: {value}")

    def _down(self, reason):
        if self._gateway is not None:
            self._gateway = None
            self._room.set()
            self._handler.disconnected(reason)

    def _take_message(self, kind, payload):
        if kind == GATEWAY:
            self._meet(payload)
        elif kind in _DOWN and self._gateway is not None:
            name, to = _DOWN[kind], self._kid.hex()
            if name == "release":
                to = self._device_type
            elif name == "firmware":
                name, to = "release", self._firmware_type
            self._handler.message(f"fogline/{self._gateway}/{name}/{to}", payload)

    def _meet(self, payload):
        try:
            name = payload[:MAX_NAME_BYTES].decode()
        except UnicodeError:
            name = ""
        if not self._handler.found(name):
            console.say("ignored", topic="", error="link.gateway: none of board.json's")
            self._session.close("a foreign gateway", self._now, FOREIGN_PAUSE_MS)
        elif self._gateway is None:
            self._gateway = name
            self._handler.connected()


def segment_bytes(window_bytes):
    """The longest piece of a message of which two fit the window."""
    piece = window_bytes // 2 - DATA_HEADER_BYTES - FRAME_BYTES
    return min(piece, MAX_BODY_BYTES - DATA_HEADER_BYTES)


def open_wire(settings):
    """Open the line of board.json's `serial` section."""
    from .serial_line import open_line

    body = DATA_HEADER_BYTES + segment_bytes(settings.window_bytes)
    return Wire(open_line(settings), body, settings.interrupt)
