"""The link's sessions on a serial line: whole messages both ways, in order, each of them once.

Packets in, packets out, with the time as an argument: no line and no clock in here. The format
and the rules are in fog_node/gateway/SERIAL.md, "Link"; its other half is serial_session.py there.
Within a session nothing is lost and nothing doubled; what becomes of a message when a session
ends is for the sender to know, who hears of the next one.
"""

VERSION = 1

HELLO = 1
DATA = 2
LAST = 3
ACK = 4
GAP = 5
POLL = 6
BYE = 7

NONCE_BYTES = 4
UNKNOWN = bytes(NONCE_BYTES)
HELLO_BYTES = 14
ACK_BYTES = 7
DATA_HEADER_BYTES = 9
MAX_SEGMENT_BYTES = 1015  # with its header it fills a frame
# What a frame adds to its body where nothing in it is escaped, and a little for what is.
FRAME_BYTES = 12
_NUMBERS = 0x10000

HELLO_MIN_MS = 250
HELLO_MAX_MS = 4_000
RESEND_MIN_MS = 250
RESEND_MAX_MS = 4_000
ACK_DELAY_MS = 15
SILENT_KEEPALIVES = 3  # without a word for so many of them the other end is gone


class _Message:
    """A message to be sent; `begun` bytes of it are in segments."""

    def __init__(self, data, token):
        self.data = data
        self.token = token
        self.begun = 0


class Session:
    """One end of the link.

    Args:
        nonce: function that gives 4 random bytes.
        window_bytes: how much of the line the other end may fill before we have acknowledged it.
        segment_bytes: the longest piece of a message we take at once.
        max_message_bytes: the longest message we take.
        keepalive_ms: ask for a sign of life after so much silence.
        beacon: whether to begin; the other end only answers.

    `events` collects ("up", None), ("down", reason), ("message", bytes) and ("version", number)
    of an end that speaks another version; whoever reads them empties it.
    """

    FOR_EVER_MS = 1 << 29  # a pause that no program outlives

    def __init__(
        self, nonce, *, window_bytes, segment_bytes, max_message_bytes, keepalive_ms, beacon=True
    ):
        self._nonce = nonce
        self._window = window_bytes
        self._segment = segment_bytes
        self._max_message = max_message_bytes
        self._keepalive_ms = keepalive_ms
        self._beacon = beacon
        self.events = []
        self.up = False
        self._peer = None
        self._farewell = None  # whom to say goodbye
        self._hello_due = False
        self._hello_ms = None
        self._deaf_until = 0
        self._begin_anew()

    def _begin_anew(self):
        """Forget the other end, under a new nonce so that nothing old is taken for new."""
        self.up = False
        self._me = UNKNOWN
        while self._me == UNKNOWN:
            self._me = self._nonce()
        self._used = False  # whether this nonce has been in a session
        self._peer = None
        self._peer_window = 0
        self._peer_segment = 0
        self._hello_pause_ms = HELLO_MIN_MS
        self._heard_ms = 0
        self._polled_ms = 0
        self._queue = []
        self._flight = []  # segments without an acknowledgement: (number, message, start, end)
        self._flight_bytes = 0
        self._sent = 0  # how many of these are on the line
        self._next = 0
        self._timer_ms = 0
        self._resend_ms = RESEND_MIN_MS
        self._round_trip_ms = 0
        self._timed = None  # (number, when it was sent) of a segment that was sent once
        self._expected = 0
        self._parts = []  # of a message whose last segment has not come
        self._parts_bytes = 0
        self._unacked_bytes = 0
        self._ack_since = None
        self._ack_now = False
        self._gap = False
        self._gap_told = False

    # The caller's side ------------------------------------------------------------------

    @property
    def queued(self):
        """How many messages have not been acknowledged."""
        return len(self._queue)

    def send(self, data, token=None):
        """Queue a message of at least one byte; only while `up`."""
        self._queue.append(_Message(data, token))

    def pending(self, token):
        """Whether a message with this token has not been acknowledged."""
        return any(message.token == token for message in self._queue)

    def forget(self, unwanted):
        """Drop the messages whose token `unwanted(token)` says so of, if not begun yet."""
        self._queue = [m for m in self._queue if m.begun or not unwanted(m.token)]

    def close(self, reason, now, pause_ms=HELLO_MIN_MS):
        """End the session, and tell the other end; begin anew after a pause."""
        if self.up:
            self._farewell = self._peer
            self._end(reason)
        self._hello_due = False
        self._hello_ms = now
        self._hello_pause_ms = pause_ms
        self._deaf_until = now + pause_ms

    def _end(self, reason):
        if self.up:
            self.events.append(("down", reason))
        self._begin_anew()

    # What comes in -----------------------------------------------------------------------

    def receive(self, packet, now):
        """Take the body of a frame of the link's channel."""
        if len(packet) < 1 + NONCE_BYTES or now < self._deaf_until:
            return
        kind = packet[0]
        to = packet[1 : 1 + NONCE_BYTES]
        if kind == HELLO:
            self._take_hello(packet, to, now)
        elif to != self._me or self._peer is None:
            self._take_stray(kind, now)
        elif kind == BYE:
            self._end("closed by the other end")
        elif len(packet) >= ACK_BYTES:
            if not self.up:
                self._establish(now)
            self._heard_ms = now
            self._take_ack(int.from_bytes(packet[5:7], "big"), kind == GAP, now)
            if kind == POLL:
                self._ack_now = True
            elif kind in (DATA, LAST) and len(packet) >= DATA_HEADER_BYTES:
                self._take_segment(packet, kind == LAST, now)

    def _take_hello(self, packet, to, now):
        if len(packet) != HELLO_BYTES:
            return
        peer = packet[5:9]
        if packet[9] != VERSION:
            self.events.append(("version", packet[9]))
            return
        window = int.from_bytes(packet[10:12], "big")
        segment = int.from_bytes(packet[12:14], "big")
        if peer in (self._me, UNKNOWN) or not segment:  # our own echo, or nonsense
            return
        if peer != self._peer:
            if self._used:
                self._end("the other end has started anew")
            self._peer = peer
            self._peer_window = window
            self._peer_segment = min(segment, MAX_SEGMENT_BYTES)
        self._heard_ms = now
        if to != self._me:
            self._hello_due = True
        elif not self.up:
            self._establish(now)
            self._hello_due = True

    def _take_stray(self, kind, now):
        """Somebody talks in a session that is not ours: show who we are, but not too often."""
        waited = self._hello_ms is None or now - self._hello_ms >= HELLO_MIN_MS
        if kind != BYE and waited:
            self._hello_due = True

    def _establish(self, now):
        self.up = True
        self._used = True
        self._heard_ms = self._polled_ms = now
        self.events.append(("up", None))

    def _take_ack(self, number, gap, now):
        if not self._flight:
            return
        count = (number - self._flight[0][0]) % _NUMBERS
        if count > len(self._flight):
            return  # of a segment that we have not sent
        for done in self._flight[:count]:
            self._flight_bytes -= _cost(done)
            if done[3] == len(done[1].data):
                self._queue.remove(done[1])
            if self._timed is not None and self._timed[0] == done[0]:
                self._measured(now - self._timed[1])
        if count:
            self._flight = self._flight[count:]
            self._sent = max(0, self._sent - count)
            self._timer_ms = now
            self._resend_ms = self._patience()
        if gap and self._flight:
            self._go_back(now)

    def _measured(self, round_trip_ms):
        self._timed = None
        self._round_trip_ms = (7 * self._round_trip_ms + round_trip_ms) // 8

    def _patience(self):
        return min(max(RESEND_MIN_MS, 3 * self._round_trip_ms), RESEND_MAX_MS)

    def _go_back(self, now):
        """Send again from the first segment without an acknowledgement."""
        self._sent = 0
        self._timed = None
        self._timer_ms = now

    def _take_segment(self, packet, last, now):
        ahead = (int.from_bytes(packet[7:9], "big") - self._expected) % _NUMBERS
        if ahead:
            if ahead >= _NUMBERS // 2:
                self._ack_now = True  # had it: our acknowledgement did not arrive
            elif not self._gap_told:
                self._gap = self._gap_told = True
            return
        self._expected = (self._expected + 1) % _NUMBERS
        self._gap_told = False
        self._parts.append(packet[DATA_HEADER_BYTES:])
        self._parts_bytes += len(packet) - DATA_HEADER_BYTES
        if self._parts_bytes > self._max_message:
            self._farewell = self._peer
            self._end("a message is longer than is taken here")
            return
        if last:
            self.events.append(("message", b"".join(self._parts)))
            self._parts = []
            self._parts_bytes = 0
        self._unacked_bytes += len(packet) + FRAME_BYTES
        if self._ack_since is None:
            self._ack_since = now
        if 4 * self._unacked_bytes >= self._window:
            self._ack_now = True

    # What goes out -----------------------------------------------------------------------

    def next_packet(self, now):
        """Return the packet to be sent now, or None."""
        if self._farewell is not None:
            packet = bytes((BYE,)) + self._farewell
            self._farewell = None
            return packet
        if self.up and now - self._heard_ms > SILENT_KEEPALIVES * self._keepalive_ms:
            self._end("no sign of life")
        if self._hello_due or (self._beacon and not self.up and self._hello_is_due(now)):
            return self._hello(now)
        if not self.up:
            return None
        packet = self._data(now)
        if packet is not None:
            return packet
        if self._gap:
            return self._ack(GAP)
        late = self._ack_since is not None and now - self._ack_since >= ACK_DELAY_MS
        if self._ack_now or late:
            return self._ack(ACK)
        quiet_ms = now - max(self._heard_ms, self._polled_ms)
        if quiet_ms >= self._keepalive_ms:
            self._polled_ms = now
            return self._ack(POLL)
        return None

    def _hello_is_due(self, now):
        return self._hello_ms is None or now - self._hello_ms >= self._hello_pause_ms

    def _hello(self, now):
        self._hello_due = False
        self._hello_ms = now
        if not self.up:
            self._hello_pause_ms = min(2 * self._hello_pause_ms, HELLO_MAX_MS)
        return (
            bytes((HELLO,))
            + (UNKNOWN if self._peer is None else self._peer)
            + self._me
            + bytes((VERSION,))
            + self._window.to_bytes(2, "big")
            + self._segment.to_bytes(2, "big")
        )

    def _ack(self, kind):
        """Make a packet that says what we have; every such packet does."""
        self._ack_now = False
        self._ack_since = None
        self._unacked_bytes = 0
        self._gap = False
        return bytes((kind,)) + self._peer + self._expected.to_bytes(2, "big")

    def _data(self, now):
        late = now - self._timer_ms >= self._resend_ms
        if late and self._flight and self._sent == len(self._flight):
            self._resend_ms = min(2 * self._resend_ms, RESEND_MAX_MS)
            self._go_back(now)
        if self._sent == len(self._flight):
            if not self._cut():
                return None
            if self._timed is None:
                self._timed = (self._flight[-1][0], now)
        number, message, start, end = self._flight[self._sent]
        self._sent += 1
        self._timer_ms = now
        return (
            self._ack(LAST if end == len(message.data) else DATA)
            + number.to_bytes(2, "big")
            + message.data[start:end]
        )

    def _cut(self):
        """Put one more segment into flight, if there is one and the window has room for it."""
        for message in self._queue:
            start = message.begun
            if start == len(message.data):
                continue
            end = min(len(message.data), start + self._peer_segment)
            segment = (self._next, message, start, end)
            if self._flight and self._flight_bytes + _cost(segment) > self._peer_window:
                return False
            self._next = (self._next + 1) % _NUMBERS
            message.begun = end
            self._flight.append(segment)
            self._flight_bytes += _cost(segment)
            return True
        return False


def _cost(segment):
    """How much of the other end's window a segment takes."""
    return segment[3] - segment[2] + DATA_HEADER_BYTES + FRAME_BYTES
