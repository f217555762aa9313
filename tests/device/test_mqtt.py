"""The board's MQTT client, in a MicroPython process, against real and misbehaving brokers."""

import asyncio
import contextlib
import json
import os
from collections import Counter
from pathlib import Path

import aiomqtt
import pytest
from amqtt.broker import Broker
from support.authority import SERVER_NAME, Authority
from support.processes import DEADLINE_S, HOST, Mosquitto, Process, mosquitto

from tools.demo.processes import free_port
from tools.listener import Listener

HERE = Path(__file__).parent
FIRMWARE = HERE.parents[1] / "firmware"
MESSAGES = 500
MAX_IN_FLIGHT = 8

CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x03\x00\x01\x01"


@pytest.fixture
def probe(micropython):
    """Run mqtt_probe.py: a context manager that takes the port and the probe's options."""

    @contextlib.asynccontextmanager
    async def run(port, messages=0, filters=(), keepalive_s=5, **options):
        settings = {"host": HOST, "port": port, "keepalive_s": keepalive_s, "messages": messages}
        settings |= {"filters": filters, **options}
        process = await Process.start(
            micropython,
            str(HERE / "mqtt_probe.py"),
            json.dumps(settings),
            env={**os.environ, "MICROPYPATH": f"{FIRMWARE}:.frozen"},
        )
        try:
            yield process
        finally:
            await process.kill()

    return run


async def collect(broker, topic, received, ready, enough):
    """Count what arrives on `topic`, over as many connections as it takes."""
    while not enough():
        with contextlib.suppress(aiomqtt.MqttError):
            async with broker.client("collector") as client:
                try:
                    await client.subscribe(topic, qos=1)
                    ready.set()
                    async for message in client.messages:
                        received[message.payload] += 1
                        if enough():
                            return
                finally:
                    # What has come is acknowledged, though the connection or the answer to the
                    # subscription be lost: the broker does not send it again.
                    while len(client.messages):
                        received[(await anext(client.messages)).payload] += 1
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
async def test_every_message_arrives_though_the_broker_goes_away_twice(probe, tmp_path, with_tls):
    # In order: a killed broker may take what it has acknowledged with it, which no client can
    # mend. That nothing is lost then either is the receipts' part (test_board_process.py).
    tls = Authority(tmp_path / "tls") if with_tls else None
    options = {"ca": str(tls.ca_der), "server_name": SERVER_NAME} if tls else {}
    received = Counter()
    ready = asyncio.Event()
    async with mosquitto(tmp_path / "broker", tls) as broker:
        collector = asyncio.create_task(
            collect(broker, "probe/out", received, ready, lambda: len(received) == MESSAGES)
        )
        async with (
            asyncio.timeout(DEADLINE_S),
            probe(broker.port, MESSAGES, gates=[150, 330], **options) as board,
        ):
            await ready.wait()
            for gate in (150, 330):
                await board.wait_event("gate", number=gate)
                await broker.stop()
                await board.wait_event("disconnected")
                await broker.start()
                await board.wait_event("connected")
            await board.wait_event("closed")
            await collector
    assert set(received) == {b"%d" % number for number in range(MESSAGES)}
    print(f"{MESSAGES} messages, {sum(received.values()) - MESSAGES} of them more than once")


async def test_waits_for_a_broker_that_is_not_there_yet(probe, tmp_path):
    broker = Mosquitto(tmp_path)
    async with probe(broker.port, messages=20) as board:
        try:
            await board.wait_event("disconnected", reason="ECONNREFUSED")
            await broker.start()
            await board.wait_event("connected")
            await board.wait_event("closed")
        finally:
            await broker.kill()


@pytest.mark.parametrize(
    ("other_authority", "server_name", "valid_days", "reason"),
    [
        (True, SERVER_NAME, 1, "not correctly signed"),
        (False, "broker.elsewhere.test", 1, "does not match"),
        (False, SERVER_NAME, -1, "expired"),
    ],
    ids=["wrong-authority", "wrong-name", "expired"],
)
async def test_refuses_a_broker_it_cannot_trust(
    probe, tmp_path, other_authority, server_name, valid_days, reason
):
    tls = Authority(tmp_path / "tls", valid_days)
    trusted = Authority(tmp_path / "other") if other_authority else tls
    async with (
        mosquitto(tmp_path / "broker", tls) as broker,
        probe(broker.port, 1, ca=str(trusted.ca_der), server_name=server_name) as board,
    ):
        for _ in range(2):  # it tries again, and refuses again
            event = await board.wait_event("disconnected")
            assert event["reason"].startswith("link.tls: ")
            assert reason in event["reason"]
        assert board.count("connected") == 0


async def test_the_will_is_published_when_the_board_dies_and_only_then(probe, tmp_path):
    async with mosquitto(tmp_path) as broker, broker.client("watcher", DEADLINE_S) as watcher:
        await watcher.subscribe("probe/#", qos=1)
        async with probe(broker.port, messages=1) as board:
            await board.wait_event("closed")
        async with probe(broker.port) as board:
            await board.wait_event("connected")
            await board.kill()
        async with asyncio.timeout(DEADLINE_S):
            arrived = [str((await anext(watcher.messages)).topic) for _ in range(2)]
    assert arrived == ["probe/out", "probe/will"]


async def test_receives_with_qos_0_and_1(probe, tmp_path):
    async with (
        mosquitto(tmp_path) as broker,
        broker.client("sender", DEADLINE_S) as sender,
        probe(broker.port, filters=[["in/+", 1]]) as board,
    ):
        await board.wait_event("connected")
        await sender.publish("in/first", b"one", qos=1)
        await sender.publish("in/second", b"two", qos=0)
        await board.wait_event("message", topic="in/first", payload="one")
        await board.wait_event("message", topic="in/second", payload="two")


async def test_works_with_amqtt(probe):
    port = free_port()
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}},
        }
    )
    await broker.start()
    try:
        async with aiomqtt.Client(
            HOST, port, identifier="collector", timeout=DEADLINE_S
        ) as collector:
            await collector.subscribe("probe/out", qos=1)
            async with probe(port, messages=50, filters=[["in/#", 1]]) as board:
                async with asyncio.timeout(DEADLINE_S):
                    arrived = [(await anext(collector.messages)).payload for _ in range(50)]
                await board.wait_event("closed")
    finally:
        await broker.shutdown()
    assert set(arrived) == {b"%d" % number for number in range(50)}


class FakeBroker:
    """Takes connections and leaves the rest to `script(reader, writer, number)`."""

    def __init__(self, script):
        self._script = script
        self._listener = Listener(self._serve)
        self.connections = 0

    async def __aenter__(self):
        await self._listener.open()
        self.port = self._listener.port
        return self

    async def __aexit__(self, *_):
        await self._listener.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        await self._script(reader, writer, self.connections)


async def read_packet(reader):
    """Return (first byte, body) of one packet from the board."""
    head = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return head, await reader.readexactly(length)


async def accept_session(reader, writer, subscribed=True):
    """Answer CONNECT, and SUBSCRIBE where the board subscribes."""
    head, _ = await read_packet(reader)
    assert head == 0x10
    writer.write(CONNACK)
    if subscribed:
        head, body = await read_packet(reader)
        assert head == 0x82
        writer.write(b"\x90\x03" + body[:2] + b"\x01")


def publish_packet(payload_bytes):
    body = b"\x00\x04in/x" + bytes(payload_bytes)
    length = len(body)
    encoded = bytearray()
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return b"\x30" + bytes(encoded) + body


BAD_STREAMS = {
    "oversized": (b"\x30\xff\xff\x7f", "link.oversized"),
    "oversized-10-MiB": (publish_packet(10 * 2**20), "link.oversized"),
    "endless-length": (b"\x30\xff\xff\xff\xff\x01", "link.packet"),
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "link.packet"),
    "zeros": (bytes(64), "link.packet"),
    "qos-2": (b"\x34\x05\x00\x01a\x00\x01", "link.packet"),
    "not-utf-8": (b"\x30\x03\x00\x01\xff", "link.packet"),
    "topic-beyond-end": (b"\x30\x03\x00\x09a", "link.packet"),
    "no-identifier": (b"\x40\x02\x00\x00", "link.packet"),
    "second-connack": (CONNACK, "link.packet"),
    "unasked-suback": (b"\x90\x03\x00\x63\x00", "link.packet"),
    "cut-short": (b"\x30\x20\x00\x04in/x", "link.closed"),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
async def test_garbage_ends_the_connection_and_not_the_client(probe, name):
    stream, reason = BAD_STREAMS[name]

    async def script(reader, writer, number):
        await accept_session(reader, writer)
        if number == 1:
            writer.write(stream)
            await writer.drain()
            writer.write_eof()
        await reader.read()

    async with FakeBroker(script) as broker, probe(broker.port, filters=[["in/#", 1]]) as board:
        event = await board.wait_event("disconnected")
        assert event["reason"].split(":")[0] == reason
        await board.wait_event("connected")


async def test_takes_the_largest_packet_that_is_allowed(probe):
    async def script(reader, writer, number):
        await accept_session(reader, writer)
        writer.write(publish_packet(8192 - 6))
        await reader.read()

    async with FakeBroker(script) as broker, probe(broker.port, filters=[["in/#", 1]]) as board:
        event = await board.wait_event("message")
        assert len(event["payload"]) == 8192 - 6


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x20\x02\x00\x05", "link.refused: the broker does not authorise this board"),
        (b"\x20\x02\x00\x63", "link.refused: return code 99"),
        (b"\x40\x02\x00\x01", "link.packet: the broker's first packet is not CONNACK"),
        (CONNACK + b"\x90\x03\x00\x01\x80", "link.refused: a subscription: check the access list"),
    ],
)
async def test_says_why_a_broker_refused(probe, answer, reason):
    async def script(reader, writer, number):
        await read_packet(reader)
        writer.write(answer)
        await reader.read()

    async with FakeBroker(script) as broker, probe(broker.port, filters=[["in/#", 1]]) as board:
        event = await board.wait_event("disconnected")
        assert event["reason"] == reason
        assert board.count("connected") == 0


@pytest.mark.parametrize("messages", [0, 1], ids=["idle", "publishing"])
async def test_leaves_a_broker_that_went_silent(probe, messages):
    async def script(reader, writer, number):
        await accept_session(reader, writer, subscribed=False)
        await reader.read()  # the connection stays open, and nothing is answered

    async with FakeBroker(script) as broker, probe(broker.port, messages, keepalive_s=1) as board:
        event = await board.wait_event("disconnected")
        assert event["reason"].startswith("link.silent: ")
        await board.wait_event("connected")
        assert broker.connections >= 2  # by now it may have left once more


async def test_resends_unacknowledged_messages_in_order_marked_dup(probe):
    seen = []

    async def script(reader, writer, number):
        await accept_session(reader, writer, subscribed=False)
        seen.extend([await read_packet(reader) for _ in range(MAX_IN_FLIGHT)])
        if number == 2:
            for _, body in seen[MAX_IN_FLIGHT:]:
                writer.write(b"\x40\x02" + body[11:13])
            await reader.read()

    async with FakeBroker(script) as broker, probe(broker.port, MAX_IN_FLIGHT) as board:
        await board.wait_event("closed")
    first, second = seen[:MAX_IN_FLIGHT], seen[MAX_IN_FLIGHT:]
    assert [head for head, _ in first] == [0x32] * MAX_IN_FLIGHT
    assert [head for head, _ in second] == [0x3A] * MAX_IN_FLIGHT
    assert [body for _, body in first] == [body for _, body in second]


async def test_the_window_of_unacknowledged_messages_is_bounded(probe):
    counts = []  # of each connection
    quiet = asyncio.Event()

    async def script(reader, writer, number):
        await accept_session(reader, writer, subscribed=False)
        count = 0
        while (await read_packet(reader))[0] != 0xC0:  # a ping: it has nothing more to send
            count += 1
        counts.append(count)
        quiet.set()
        await reader.read()

    async with FakeBroker(script) as broker, probe(broker.port, 100, keepalive_s=1):
        async with asyncio.timeout(DEADLINE_S):
            await quiet.wait()
    assert set(counts) == {MAX_IN_FLIGHT}
