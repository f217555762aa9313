"""A serial line of bytes that can be cut, stalled and made noisy, and what hangs at its ends."""

import importlib.util
from pathlib import Path

from fog_node.gateway import serial_frame, serial_session

SESSION = Path(__file__).parents[2] / "firmware" / "fogline" / "serial_session.py"
STEP_MS = 5
MAX_STEPS = 100_000
MAX_SIZE = 2_000  # of a message that an end sends


def board_module():
    """The board's half of the link; it imports nothing, so that CPython runs it too."""
    spec = importlib.util.spec_from_file_location("board_serial_session", SESSION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BOARD = board_module()


class End:
    """A session, its decoder, and the bytes on their way to and from it.

    It numbers its messages, and puts the session that they belong to in front: what arrives
    must be, for each session, the begin of what was sent in it.
    """

    def __init__(self, name, source, **settings):
        self.name = name
        self._source = source
        self._settings = settings
        self.backlog = 0  # messages that are still to be sent, in all sessions together
        self.sent = {}
        self.received = []
        self.sessions = 0
        self.ups = 0
        self.reset()

    def reset(self):
        """Power off and on: nothing is left of the session or of half-read bytes."""
        self.session = self._make()
        self.decoder = serial_frame.Decoder()
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.stalled_until = 0
        self.is_up = False

    def _make(self):
        raise NotImplementedError

    def _events(self):
        raise NotImplementedError

    def step(self, now, room):
        """Work off what has arrived, and fill the line."""
        if now < self.stalled_until:
            return
        data = bytes(self.incoming)
        self.incoming.clear()
        for frame in self.decoder.feed(data):
            if frame.channel == serial_frame.LINK:
                self.session.receive(frame.body, now)
        self._take_events()
        while self.is_up and self.backlog and self.session.queued < 4:
            size = 1 + self._source.randrange(MAX_SIZE)
            number = self.sent.get(self.sessions, 0)
            head = b"%s %d %d " % (self.name, self.sessions, number)
            self.session.send((head + self._source.randbytes(size))[: max(size, len(head))])
            self.sent[self.sessions] = number + 1
            self.backlog -= 1
        while len(self.outgoing) < room:
            packet = self.session.next_packet(now)
            self._take_events()
            if packet is None:
                break
            self.outgoing += serial_frame.encode(serial_frame.LINK, packet)

    def _take_events(self):
        for kind, value in self._events():
            if kind == "up":
                self.is_up = True
                self.ups += 1
                self.sessions += 1
            elif kind == "down":
                self.is_up = False
            elif kind == "message":
                name, session, number, _ = value.split(b" ", 3)
                self.received.append((name, int(session), int(number)))


class BoardEnd(End):
    def _make(self):
        self._settings.setdefault("window_bytes", 240)
        return BOARD.Session(lambda: self._source.randbytes(4), **self._settings)

    def _events(self):
        events, self.session.events = self.session.events, []
        return events


class HubEnd(End):
    def _make(self):
        return serial_session.Session(nonce=self._source.randbytes, **self._settings)

    def _events(self):
        for event in self.session.events():
            match event:
                case serial_session.Up():
                    yield "up", None
                case serial_session.Down(reason):
                    yield "down", reason
                case serial_session.Message(data):
                    yield "message", data
                case other:
                    yield "other", other


class Line:
    """Moves bytes both ways at `rate` bytes a ms; `fault` may change each piece that passes."""

    def __init__(self, board, hub, rate=11, board_room=260, hub_room=4096):
        self.now = 0
        self.board = board
        self.hub = hub
        self._rate = rate * STEP_MS
        self._rooms = {id(board): board_room, id(hub): hub_room}
        self.lost = 0

    def step(self, fault=lambda piece: piece):
        self.now += STEP_MS
        for end in (self.board, self.hub):
            end.step(self.now, 512)
        for source, sink in ((self.board, self.hub), (self.hub, self.board)):
            piece = bytes(source.outgoing[: self._rate])
            del source.outgoing[: self._rate]
            piece = fault(piece)
            room = max(0, self._rooms[id(sink)] - len(sink.incoming))
            sink.incoming += piece[:room]
            self.lost += len(piece[room:])

    def run_until(self, condition, fault=lambda piece: piece):
        """Step until it holds; returns after how many ms."""
        for count in range(MAX_STEPS):
            if condition():
                return count * STEP_MS
            self.step(fault)
        raise AssertionError(f"not within {MAX_STEPS * STEP_MS} ms")


def check_each_session_is_a_prefix(sender, receiver, begins_anywhere=False):
    """What arrived of each session: its first messages, in order, each once."""
    by_session = {}
    for name, session, number in receiver.received:
        assert name == sender.name
        by_session.setdefault(session, []).append(number)
    for session, numbers in by_session.items():
        begin = numbers[0] if begins_anywhere else 0
        assert numbers == list(range(begin, begin + len(numbers))), f"session {session}: {numbers}"
        assert len(numbers) <= sender.sent[session]
