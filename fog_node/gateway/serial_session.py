"""The link's sessions on a serial line: whole messages both ways, in order, each of them once.

Packets in, packets out, with the time as an argument: no line and no clock in here. The format
and the rules are in SERIAL.md, "Link"; the board's twin is firmware/fogline/serial_session.py.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

__all__ = ["Down", "Event", "Kind", "Message", "OtherVersion", "Session", "Up"]

VERSION = 1
NONCE_BYTES = 4
UNKNOWN = bytes(NONCE_BYTES)
HELLO_BYTES = 14
ACK_BYTES = 7
DATA_HEADER_BYTES = 9
MAX_SEGMENT_BYTES = 1015
# What a frame adds to its body where nothing in it is escaped, and a little for what is.
FRAME_BYTES = 12
_NUMBERS = 0x10000

HELLO_GAP_MS = 250
RESEND_MIN_MS = 250
RESEND_MAX_MS = 4_000
ACK_DELAY_MS = 15
# Without a word for so many keep-alive times the other end is gone.
SILENT_KEEPALIVES = 3


class Kind(IntEnum):
    """A packet's first byte."""

    HELLO = 1
    DATA = 2
    LAST = 3
    ACK = 4
    GAP = 5
    POLL = 6
    BYE = 7


class Up(NamedTuple):
    """A session has begun."""


class Down(NamedTuple):
    """The session has ended; what was not acknowledged may have arrived or not."""

    reason: str


class Message(NamedTuple):
    """A whole message has arrived."""

    data: bytes


class OtherVersion(NamedTuple):
    """The other end speaks a version of the link that is not ours."""

    version: int


Event = Up | Down | Message | OtherVersion


@dataclass(slots=True)
class _Outgoing:
    """A message to be sent; `begun` bytes of it are in segments."""

    data: bytes
    begun: int = 0


class _Segment(NamedTuple):
    number: int
    message: _Outgoing
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        return self.end == len(self.message.data)

    @property
    def cost(self) -> int:
        """How much of the other end's window it takes."""
        return self.end - self.start + DATA_HEADER_BYTES + FRAME_BYTES


class _Sending:
    """The way out: messages in segments, at most a window of them without acknowledgement."""

    def __init__(self, window: int, segment: int) -> None:
        self._window = window
        self._segment = min(segment, MAX_SEGMENT_BYTES)
        self.queue: deque[_Outgoing] = deque()
        self._flight: deque[_Segment] = deque()
        self._flight_bytes = 0
        self._sent = 0
        self._next = 0
        self._timer_ms = 0
        self._resend_ms = RESEND_MIN_MS
        self._round_trip_ms = 0
        self._timed: tuple[int, int] | None = None

    def put(self, data: bytes, *, replaces: bool) -> None:
        """Queue a message; `replaces`: in place of those of its first byte, if not begun."""
        if replaces:
            kept = (m for m in self.queue if m.begun or m.data[:1] != data[:1])
            self.queue = deque(kept)
        self.queue.append(_Outgoing(data))

    def acknowledged(self, number: int, *, is_gap: bool, now: int) -> None:
        """The other end has everything before `number`, and lacks that one where `is_gap`."""
        if not self._flight:
            return
        count = (number - self._flight[0].number) % _NUMBERS
        if count > len(self._flight):
            return  # of a segment that we have not sent
        for _ in range(count):
            done = self._flight.popleft()
            self._flight_bytes -= done.cost
            if done.is_last:
                self.queue.popleft()
            if self._timed is not None and self._timed[0] == done.number:
                self._round_trip_ms = (7 * self._round_trip_ms + now - self._timed[1]) // 8
                self._timed = None
        if count:
            self._sent = max(0, self._sent - count)
            self._timer_ms = now
            self._resend_ms = min(max(RESEND_MIN_MS, 3 * self._round_trip_ms), RESEND_MAX_MS)
        if is_gap and self._flight:
            self._go_back(now)

    def next_segment(self, now: int) -> _Segment | None:
        """The segment to be sent now, for the first time or again."""
        is_late = now - self._timer_ms >= self._resend_ms
        if is_late and self._flight and self._sent == len(self._flight):
            self._resend_ms = min(2 * self._resend_ms, RESEND_MAX_MS)
            self._go_back(now)
        if self._sent == len(self._flight):
            if not self._cut():
                return None
            if self._timed is None:
                self._timed = (self._flight[-1].number, now)
        segment = self._flight[self._sent]
        self._sent += 1
        self._timer_ms = now
        return segment

    def wait_ms(self, now: int) -> int | None:
        """After what time `next_segment` may have one again; None if only after another event."""
        if not self._flight:
            return None
        return max(0, self._resend_ms - (now - self._timer_ms))

    def _go_back(self, now: int) -> None:
        """Send again from the first segment without an acknowledgement."""
        self._sent = 0
        self._timed = None
        self._timer_ms = now

    def _cut(self) -> bool:
        """Put one more segment into flight, if there is one and the window has room for it."""
        message = next((m for m in self.queue if m.begun < len(m.data)), None)
        if message is None:
            return False
        end = min(len(message.data), message.begun + self._segment)
        segment = _Segment(self._next, message, message.begun, end)
        if self._flight and self._flight_bytes + segment.cost > self._window:
            return False
        self._next = (self._next + 1) % _NUMBERS
        message.begun = end
        self._flight.append(segment)
        self._flight_bytes += segment.cost
        return True


class _Receiving:
    """The way in: segments in order become messages."""

    def __init__(self, window: int, max_message: int) -> None:
        self._window = window
        self._max_message = max_message
        self._partial = bytearray()
        self._unacked_bytes = 0
        self._ack_since: int | None = None
        self._gap_told = False
        self.expected = 0
        self.ack_now = False
        self.gap = False

    def take(self, number: int, data: bytes, *, is_last: bool, now: int) -> bytes | None:
        """Take a segment; gives the message that it completes.

        Raises:
            OverflowError: the message is longer than is taken here.
        """
        ahead = (number - self.expected) % _NUMBERS
        if ahead:
            if ahead >= _NUMBERS // 2:
                self.ack_now = True  # had it: our acknowledgement did not arrive
            elif not self._gap_told:
                self.gap = self._gap_told = True
            return None
        self.expected = (self.expected + 1) % _NUMBERS
        self._gap_told = False
        if len(self._partial) + len(data) > self._max_message:
            raise OverflowError
        self._partial += data
        self._unacked_bytes += len(data) + DATA_HEADER_BYTES + FRAME_BYTES
        if self._ack_since is None:
            self._ack_since = now
        self.ack_now = self.ack_now or 4 * self._unacked_bytes >= self._window
        if not is_last:
            return None
        message = bytes(self._partial)
        self._partial.clear()
        return message

    def wait_ms(self, now: int) -> int | None:
        """After what time an acknowledgement is due; None if there is nothing to acknowledge."""
        if self.ack_now or self.gap:
            return 0
        if self._ack_since is None:
            return None
        return max(0, ACK_DELAY_MS - (now - self._ack_since))

    def acknowledged(self) -> None:
        """A packet that says what we have is about to be sent."""
        self.ack_now = self.gap = False
        self._ack_since = None
        self._unacked_bytes = 0


class Session:
    """The gateway's end of the link: it answers, and begins nothing.

    Attributes:
        is_up: whether there is a session now.
    """

    def __init__(
        self,
        *,
        window_bytes: int,
        segment_bytes: int,
        max_message_bytes: int,
        keepalive_ms: int,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Prepare; the other end has the first word.

        Args:
            window_bytes: how much of the line the other end may fill before it hears from us.
            segment_bytes: the longest piece of a message we take at once.
            max_message_bytes: the longest message we take.
            keepalive_ms: ask for a sign of life after so much silence.
            nonce: gives random bytes.
        """
        self._window = window_bytes
        self._segment = segment_bytes
        self._max_message = max_message_bytes
        self._keepalive_ms = keepalive_ms
        self._nonce = nonce
        self._events: list[Event] = []
        self._farewell: bytes | None = None
        self._hello_due = False
        self._hello_ms: int | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget the other end, under a new nonce so that nothing old is taken for new."""
        self.is_up = False
        self._me = UNKNOWN
        while self._me == UNKNOWN:
            self._me = self._nonce(NONCE_BYTES)
        self._is_used = False  # whether this nonce has been in a session
        self._peer: bytes | None = None
        self._heard_ms = 0
        self._polled_ms = 0
        self._sending = _Sending(0, 1)
        self._receiving = _Receiving(self._window, self._max_message)

    @property
    def queued(self) -> int:
        """How many messages have not been acknowledged."""
        return len(self._sending.queue)

    def send(self, data: bytes, *, replaces: bool = False) -> None:
        """Queue a message of at least one byte; without a session it is dropped.

        Args:
            data: the message.
            replaces: whether those that begin with the same byte, and have not begun to be
                sent, give way to it.
        """
        if self.is_up:
            self._sending.put(data, replaces=replaces)

    def begin(self) -> None:
        """Say hello, once, without having heard one: for who plays a board."""
        self._hello_due = True

    def close(self, reason: str) -> None:
        """End the session, and tell the other end."""
        if self.is_up:
            self._farewell = self._peer
            self._end(reason)

    def events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def _end(self, reason: str) -> None:
        if self.is_up:
            self._events.append(Down(reason))
        self._begin_anew()

    # What comes in

    def receive(self, packet: bytes, now: int) -> None:
        """Take the body of a frame of the link's channel; `now` in ms of a monotonic clock."""
        if len(packet) < 1 + NONCE_BYTES:
            return
        kind, to = packet[0], packet[1 : 1 + NONCE_BYTES]
        if kind == Kind.HELLO:
            self._take_hello(packet, to, now)
        elif to != self._me or self._peer is None:
            self._take_stray(kind, now)
        elif kind == Kind.BYE:
            self._end("closed by the other end")
        elif len(packet) >= ACK_BYTES:
            self._take_sign(kind, packet, now)

    def _take_hello(self, packet: bytes, to: bytes, now: int) -> None:
        if len(packet) != HELLO_BYTES:
            return
        peer, version = packet[5:9], packet[9]
        window, segment = (int.from_bytes(packet[at : at + 2], "big") for at in (10, 12))
        if version != VERSION:
            self._events.append(OtherVersion(version))
            return
        if peer in (self._me, UNKNOWN) or not segment:  # our own echo, or nonsense
            return
        if peer != self._peer:
            if self._is_used:
                self._end("the other end has started anew")
            self._peer = peer
            self._sending = _Sending(window, segment)
        self._heard_ms = now
        if to != self._me:
            self._hello_due = True
        elif not self.is_up:
            self._establish(now)
            self._hello_due = True

    def _take_stray(self, kind: int, now: int) -> None:
        """Somebody talks in a session that is not ours: show who we are, but not too often."""
        has_waited = self._hello_ms is None or now - self._hello_ms >= HELLO_GAP_MS
        if kind != Kind.BYE and has_waited:
            self._hello_due = True

    def _take_sign(self, kind: int, packet: bytes, now: int) -> None:
        """A packet of our session that is neither its begin nor its end."""
        if not self.is_up:
            self._establish(now)
        self._heard_ms = now
        number = int.from_bytes(packet[5:7], "big")
        self._sending.acknowledged(number, is_gap=kind == Kind.GAP, now=now)
        if kind == Kind.POLL:
            self._receiving.ack_now = True
        elif kind in (Kind.DATA, Kind.LAST) and len(packet) >= DATA_HEADER_BYTES:
            number = int.from_bytes(packet[7:9], "big")
            data = packet[DATA_HEADER_BYTES:]
            try:
                message = self._receiving.take(number, data, is_last=kind == Kind.LAST, now=now)
            except OverflowError:
                self.close(f"a message is longer than {self._max_message} bytes")
                return
            if message is not None:
                self._events.append(Message(message))

    def _establish(self, now: int) -> None:
        self.is_up = True
        self._is_used = True
        self._heard_ms = self._polled_ms = now
        self._events.append(Up())

    # What goes out

    def next_packet(self, now: int) -> bytes | None:
        """The packet to be sent now, if any; `now` in ms of a monotonic clock."""
        if self._farewell is not None:
            packet = bytes([Kind.BYE]) + self._farewell
            self._farewell = None
            return packet
        if self.is_up and now - self._heard_ms > SILENT_KEEPALIVES * self._keepalive_ms:
            self._end("no sign of life")
        if self._hello_due:
            return self._hello(now)
        if not self.is_up:
            return None
        if (segment := self._sending.next_segment(now)) is not None:
            head = self._head(Kind.LAST if segment.is_last else Kind.DATA)
            data = segment.message.data[segment.start : segment.end]
            return head + segment.number.to_bytes(2, "big") + data
        if self._receiving.gap:
            return self._head(Kind.GAP)
        if self._receiving.wait_ms(now) == 0:
            return self._head(Kind.ACK)
        if now - max(self._heard_ms, self._polled_ms) >= self._keepalive_ms:
            self._polled_ms = now
            return self._head(Kind.POLL)
        return None

    def wait_ms(self, now: int) -> int:
        """After what time to ask `next_packet` again where nothing arrives meanwhile."""
        if not self.is_up:
            return self._keepalive_ms
        since = max(self._heard_ms, self._polled_ms)
        waits = [self._keepalive_ms - (now - since)]
        waits += [w for w in (self._sending.wait_ms(now), self._receiving.wait_ms(now)) if w]
        return max(1, min(waits))

    def _hello(self, now: int) -> bytes:
        self._hello_due = False
        self._hello_ms = now
        return (
            bytes([Kind.HELLO])
            + (self._peer or UNKNOWN)
            + self._me
            + bytes([VERSION])
            + self._window.to_bytes(2, "big")
            + self._segment.to_bytes(2, "big")
        )

    def _head(self, kind: Kind) -> bytes:
        """Begin a packet that says what we have; every such packet does."""
        assert self._peer is not None
        self._receiving.acknowledged()
        return bytes([kind]) + self._peer + self._receiving.expected.to_bytes(2, "big")
