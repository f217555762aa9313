"""The link's two halves, the board's and the gateway's, on a line that does everything wrong."""

import random

import pytest
from support.serial_line import BoardEnd, HubEnd, Line, check_each_session_is_a_prefix

RUNS = 40
MANY = 1_000_000
BOARD = {"segment_bytes": 96, "max_message_bytes": 8192, "keepalive_ms": 2000, "window_bytes": 240}
HUB = {
    "segment_bytes": 500,
    "max_message_bytes": 65536,
    "keepalive_ms": 2000,
    "window_bytes": 4096,
}


@pytest.fixture
def seed():
    value = random.SystemRandom().getrandbits(64)
    print(f"seed {value}")
    return value


def ends(source, board=BOARD, hub=HUB):
    return BoardEnd(b"board", source, **board), HubEnd(b"hub", source, **hub)


class Faults:
    """Loses, doubles, alters and inserts bytes and whole pieces, each with the same chance."""

    def __init__(self, source, chance):
        self._source = source
        self._chance = chance

    def __call__(self, piece):
        source = self._source
        if not piece or source.random() >= self._chance:
            return piece
        at = source.randrange(len(piece))
        match source.randrange(6):
            case 0:
                return piece[:at] + piece[at + 1 :]
            case 1:
                return piece[:at] + piece[at : at + 1] + piece[at:]
            case 2:
                return (
                    piece[:at] + bytes([piece[at] ^ (1 << source.randrange(8))]) + piece[at + 1 :]
                )
            case 3:
                return piece[:at] + source.randbytes(source.randrange(40)) + piece[at:]
            case 4:
                return piece + piece
            case _:
                return b""


def test_on_a_good_line_everything_arrives_once_and_in_order(seed):
    board, hub = ends(random.Random(seed))
    line = Line(board, hub)
    board.backlog = hub.backlog = 50
    ms = line.run_until(lambda: len(board.received) == len(hub.received) == 50)
    assert hub.received == [(b"board", 1, number) for number in range(50)]
    assert board.received == [(b"hub", 1, number) for number in range(50)]
    assert board.ups == hub.ups == 1
    assert line.lost == 0
    print(f"{ms} ms")


def test_the_gateway_is_quiet_until_the_board_has_spoken(seed):
    _, hub = ends(random.Random(seed))
    for now in range(0, 60_000, 100):
        hub.step(now, 512)
    assert not hub.outgoing


@pytest.mark.parametrize("run", range(RUNS))
def test_noise_costs_time_and_nothing_else(seed, run):
    source = random.Random(seed)
    board, hub = ends(source)
    line = Line(board, hub, rate=source.choice([1, 11, 100]))
    board.backlog = hub.backlog = 20
    faults = Faults(source, source.choice([0.01, 0.1, 0.3]))
    for _ in range(3000):
        line.step(faults)
    line.run_until(lambda: board.is_up and hub.is_up and not board.backlog and not hub.backlog)
    line.run_until(lambda: not board.session.queued and not hub.session.queued)
    check_each_session_is_a_prefix(board, hub)
    check_each_session_is_a_prefix(hub, board)
    if board.ups == hub.ups == 1:
        assert len(hub.received) == len(board.received) == 20


@pytest.mark.parametrize("run", range(RUNS))
def test_resets_of_both_sides_at_any_byte_and_a_board_that_is_busy(seed, run):
    source = random.Random(seed)
    board, hub = ends(source)
    line = Line(board, hub)
    faults = Faults(source, 0.02)
    for _ in range(4000):
        board.backlog = hub.backlog = 5
        line.step(faults)
        if source.random() < 0.005:
            source.choice([board, hub]).reset()
        if source.random() < 0.01:
            board.stalled_until = line.now + source.randrange(1500)
    line.run_until(lambda: board.is_up and hub.is_up)
    board.backlog = hub.backlog = 0
    line.run_until(lambda: not board.session.queued and not hub.session.queued)
    check_each_session_is_a_prefix(board, hub)
    check_each_session_is_a_prefix(hub, board)
    assert len(hub.received) > 10
    assert board.received


def test_a_reset_at_each_byte_of_the_first_session(seed):
    """Neither side may hang, wherever the other one loses its memory."""
    for who in (0, 1):
        for steps in range(0, 60, 2):
            both = ends(random.Random(seed))
            line = Line(*both, rate=1)
            both[0].backlog = both[1].backlog = 2
            for _ in range(steps):
                line.step()
            both[who].reset()
            for end in both:
                end.received.clear()
                end.backlog = MANY
            line.run_until(lambda both=both: all(end.received for end in both))
            check_each_session_is_a_prefix(*both, begins_anywhere=True)
            check_each_session_is_a_prefix(*reversed(both), begins_anywhere=True)


def test_a_reader_that_sleeps_is_not_sent_more_than_its_window(seed):
    board, hub = ends(random.Random(seed))
    line = Line(board, hub, board_room=260)
    line.run_until(lambda: board.is_up and hub.is_up)
    hub.backlog = 20
    board.stalled_until = line.now + 5_000
    while line.now < board.stalled_until:
        line.step()
        assert len(board.incoming) <= 260
    # What it could not take was lost while it slept, was sent again, and arrives.
    line.run_until(lambda: len(board.received) == 20)
    assert board.received == [(b"hub", 1, number) for number in range(20)]


def test_a_silent_end_is_given_up_and_taken_back(seed):
    board, hub = ends(random.Random(seed))
    line = Line(board, hub)
    line.run_until(lambda: board.is_up and hub.is_up)
    line.run_until(lambda: not board.is_up and not hub.is_up, fault=lambda piece: b"")
    line.run_until(lambda: board.is_up and hub.is_up)
    assert board.ups == hub.ups == 2


def test_an_idle_line_stays_up(seed):
    board, hub = ends(random.Random(seed))
    line = Line(board, hub)
    for _ in range(20_000):
        line.step()
    assert board.is_up
    assert hub.is_up
    assert board.ups == hub.ups == 1


def test_goodbye_is_heard_at_once(seed):
    board, hub = ends(random.Random(seed))
    line = Line(board, hub)
    line.run_until(lambda: board.is_up and hub.is_up)
    hub.session.close("going down")
    assert line.run_until(lambda: not board.is_up) < 100
    # The board asks again, and the gateway, if it is there, answers.
    assert line.run_until(lambda: board.is_up and hub.is_up) < 1000
    board.session.close("going down", line.now, 3000)
    assert line.run_until(lambda: not hub.is_up) < 100
    assert 2000 < line.run_until(lambda: board.is_up and hub.is_up) < 4000


@pytest.mark.parametrize("who", ["board", "hub"])
def test_a_message_that_is_too_long_ends_the_session(seed, who):
    board, hub = ends(random.Random(seed))
    line = Line(board, hub, rate=100)
    line.run_until(lambda: board.is_up and hub.is_up)
    if who == "hub":
        hub.session.send(bytes(8193))
    else:
        board.session.send(bytes(65537))
    line.run_until(lambda: board.ups == 2 and hub.ups == 2)
    assert not board.received
    assert not hub.received


def test_its_own_echo_is_not_taken_for_another_end(seed):
    board, _ = ends(random.Random(seed))
    for now in range(0, 20_000, 5):
        board.step(now, 512)
        board.incoming += board.outgoing
        board.outgoing.clear()
    assert not board.ups


def test_another_version_is_reported(seed):
    board, hub = ends(random.Random(seed))
    hello = bytes([1]) + bytes(4) + b"abcd" + bytes([2]) + b"\x01\x00\x00\x60"
    hub.session.receive(hello, 0)
    board.session.receive(hello, 0)
    assert [event.version for event in hub.session.events()] == [2]
    assert board.session.events == [("version", 2)]
    assert hub.session.next_packet(0) is None


def test_no_packet_is_too_odd(seed):
    source = random.Random(seed)
    board, hub = ends(source)
    line = Line(board, hub)
    line.run_until(lambda: board.is_up and hub.is_up)
    for end in (board, hub):
        peer = end.session._me
        for _ in range(20_000):
            tag = source.choice([peer, peer, bytes(4), source.randbytes(4)])
            packet = bytes([source.randrange(10)]) + tag + source.randbytes(source.randrange(20))
            end.session.receive(packet, line.now)
            end.session.next_packet(line.now)
    for end in (board, hub):
        end._events = list  # what odd packets say is no message of the other end
        end.reset()
        del end._events
    line.run_until(lambda: board.is_up and hub.is_up)
