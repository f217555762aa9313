"""Packs are shown as they pass: joined from a line's pieces, or at a broker."""

import asyncio
import random
import threading

import pytest
from support.processes import DEADLINE_S, Mosquitto

from fog_node.gateway import serial_frame
from fog_node.gateway.serial_session import Kind
from fog_node.protocol import senml
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import PackBody, sign_transaction
from tools.devices import monitor
from tools.devices.listening import Listener
from tools.devices.pack_words import transaction_lines
from tools.devices.tapping import MAX_MESSAGE_BYTES, UP, LinkTap
from tools.errors import ToolError, UsageError

KEY = SigningKey.from_secret(5)
ROWS = [
    (0, [("pressure", "bar", 0.25), ("flow", "L/min", 75.0)]),
    (1, [("pressure", "bar", 0.5), ("flow", "L/min", 75.0)]),
]


@pytest.fixture
def pack():
    """A signed pack, and its lines."""
    fault = senml.Fault(1767225601.0, "bme280", "no-answer")
    payload = senml.encode_pack(32473, KEY.kid, 1767225600, ROWS, faults=[fault])
    data = sign_transaction(KEY, PackBody.decode(payload), b"c" * 32, 7, 1).raw
    return data, [
        f"[pack] {KEY.kid.hex()} number 7: 2 rows, 2026-01-01 00:00:00 to 2026-01-01 00:00:01",
        "    pressure 0.25 to 0.5 bar",
        "    flow 75 L/min",
        "    bme280 has failed: no-answer",
    ]


def test_a_pack_in_words(pack) -> None:
    data, lines = pack
    assert list(transaction_lines(data)) == lines
    (line,) = transaction_lines(data[:-5])
    assert line.startswith("[unreadable] ")


def pieces(message, to, number, size):
    """The packets of a message."""
    cut = [message[at : at + size] for at in range(0, len(message), size)]
    for offset, piece in enumerate(cut):
        kind = Kind.LAST if offset == len(cut) - 1 else Kind.DATA
        place = (number + offset) % 65536
        yield bytes([kind]) + to + b"\0\0" + place.to_bytes(2, "big") + piece


@pytest.mark.parametrize("seed", range(10))
def test_messages_are_joined_whatever_is_sent_again_and_never_from_pieces_of_two(seed) -> None:
    rng = random.Random(seed)
    tap, number, got, sent = LinkTap(), 0, [], []
    for _ in range(30):
        message = rng.randbytes(rng.randint(1, 400))
        packets = list(pieces(message, b"nonc", number, rng.randint(1, 90)))
        number = (number + len(packets)) % 65536
        sent.append(message)
        kept = [packet for packet in packets if rng.random() > 0.02]
        at = rng.randrange(len(kept) + 1)
        again = kept[max(0, at - 3) : at]
        joined = [tap.feed(packet) for packet in [*kept[:at], *again, *kept[at:]]]
        got += [one for one in joined if one is not None]
    assert all(message in sent for message in got)
    assert len(got) > 10


def test_what_joins_in_late_waits_for_the_next_message() -> None:
    tap = LinkTap()
    late = list(pieces(b"x" * 100, b"nonc", 65_530, 40))
    following = list(pieces(b"y" * 100, b"nonc", 65_530 + len(late), 40))
    assert [tap.feed(packet) for packet in late[1:]] == [None, None]
    assert [tap.feed(packet) for packet in following] == [None, None, b"y" * 100]
    other = list(pieces(b"z" * 10, b"newn", 0, 40))
    assert tap.feed(other[0]) == b"z" * 10
    for junk in (b"", b"\x02", bytes(8), bytes([Kind.HELLO]) + bytes(20)):
        assert tap.feed(junk) is None


def test_an_endless_message_is_bounded() -> None:
    tap = LinkTap()
    for number in range(200):
        packet = bytes([Kind.DATA]) + b"nonc\0\0" + number.to_bytes(2, "big") + bytes(1000)
        assert tap.feed(packet) is None
        assert len(tap._message or b"") <= MAX_MESSAGE_BYTES


def test_a_pack_that_passes_on_a_serial_line(pack) -> None:
    data, lines = pack
    listener, tap = Listener(), LinkTap()
    packets = pieces(bytes([UP]) + data, b"nonc", 0, 50)
    stream = b"".join(serial_frame.encode(serial_frame.LINK, packet) for packet in packets)
    stream += serial_frame.encode(serial_frame.CONSOLE, b'{"event": "pack", "seq": 7}\n')
    shown = [
        text
        for at in range(0, len(stream), 33)
        for heard in listener.feed(stream[at : at + 33])
        for text in monitor.describe(heard, tap)
    ]
    assert shown == [*lines, "[pack] seq 7"]


async def test_packs_that_reach_a_broker(pack, tmp_path) -> None:
    data, lines = pack
    broker = Mosquitto(tmp_path)
    await broker.start()
    stop, shown, whole = threading.Event(), [], threading.Event()

    def show(name, line):
        shown.append(line)
        if lines[-1] in shown:
            whole.set()

    at = monitor.parse_broker(f"{broker.host}:{broker.port}", None, None, None)
    try:
        watching = asyncio.create_task(
            asyncio.to_thread(monitor.watch, [], show, broker=at, seconds=60, stopping=stop)
        )
        async with broker.client("board", DEADLINE_S) as client:
            # Until it has subscribed, what is published goes past it.
            while not whole.is_set():
                await client.publish(f"fogline/seoul/up/{KEY.kid.hex()}", data)
                await asyncio.sleep(0.05)
        stop.set()
        await watching
    finally:
        await broker.kill()
    assert shown[: len(lines)] == lines


def test_a_broker_that_is_none(tmp_path) -> None:
    for text in ("", "host", "host:", "host:0", "host:99999", ":1883"):
        with pytest.raises(UsageError, match="give HOST:PORT"):
            monitor.parse_broker(text, None, None, None)
    with pytest.raises(ToolError, match="cannot be read"):
        monitor.parse_broker("h:1", None, "user", tmp_path / "password")
    gone = monitor.parse_broker("127.0.0.1:1", None, None, None)
    with pytest.raises(ToolError, match="the broker does not take us"):
        monitor.watch([], lambda *_: None, broker=gone, seconds=5)
