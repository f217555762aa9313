"""A broker that is none, or that turns on the gateway: the line goes on, and takes the next one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading

import aiomqtt
import pytest

from fog_node.gateway import mqtt
from fog_node.gateway.mqtt import Broker, MqttLine
from fog_node.gateway.topics import Topics
from tools.listener import Listener

HOST = "127.0.0.1"
DEADLINE_S = 60.0
CONNACK = bytes((0x20, 2, 0, 0))
SUBACK = bytes((0x90, 5, 0, 1, 1, 1, 1))
MAX_TOPIC = b"\xff\xff" + b"/" * 0xFFFF
# What it says once it has taken the subscription, as often as is listened to.
JUNK = {
    "zeros": bytes(4096),
    "0xff": b"\xff" * 4096,
    "an endless length": bytes((0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF)),
    "256 MiB announced": bytes((0x30, 0xFF, 0xFF, 0xFF, 0x7F)) + bytes(1000),
    "a packet to come only from us": bytes((0x10, 0)),
    "a topic beyond its packet": bytes((0x30, 4, 0xFF, 0xFF, 0, 0)),
    "no topic": bytes((0x32, 2, 0, 1)),
    "a huge topic": bytes((0x30, 0x81, 0x80, 4)) + MAX_TOPIC,
    "a topic that is no text": bytes((0x30, 4, 0, 2, 0xFF, 0xFE)),
    "a wildcard for a topic": bytes((0x30, 3, 0, 1)) + b"#",
    "an acknowledgement of nothing": bytes((0x40, 2, 0x12, 0x34)) * 100,
    "short acknowledgements": bytes((0x40, 1, 0x12)),
    "the subscription again": SUBACK * 100,
    "the connection again": CONNACK * 100,
}


class Silent:
    def __init__(self) -> None:
        self.connections = 0
        self.received_bytes = 0

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self) -> None: ...

    def received(self, kind, board, data, redelivered) -> None:
        self.received_bytes += len(data)


async def until(condition) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the line tells nobody
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def broker(says: bytes):
    """Greets as a broker does, then says `says` and hangs up."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.read(4096)
        writer.write(CONNACK)
        subscribe = await reader.read(4096)
        writer.write(SUBACK[:2] + subscribe[2:4] + SUBACK[4:])
        writer.write(says)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()

    async with Listener(serve) as listener:
        yield listener.port, lambda: served


async def meet(says: bytes) -> None:
    """The line meets this broker twice and does not end."""
    handler = Silent()
    async with broker(says) as (port, served):
        line = MqttLine(Broker(HOST, port), Topics("seoul"), "seoul", handler)
        running = asyncio.create_task(line.run())
        try:
            await until(lambda: running.done() or served() >= 3)
            assert not running.done(), running.exception()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(mqtt, "BACKOFF_S", (0.01, 0.05))
    monkeypatch.setattr(mqtt, "ANSWER_TIMEOUT_S", 0.5)


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
async def test_a_broker_that_talks_junk_is_left_and_tried_again(junk) -> None:
    await meet(junk)


async def test_a_broker_that_talks_at_random_is_left_and_tried_again() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    for number in range(8):
        await meet(random.Random(seed + number).randbytes(3000))


async def test_who_is_no_broker_is_tried_again() -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.write(os.urandom(2000))
        await writer.drain()
        writer.transport.abort()

    async with Listener(serve) as listener:
        line = MqttLine(Broker(HOST, listener.port), Topics("seoul"), "seoul", Silent())
        running = asyncio.create_task(line.run())
        try:
            await until(lambda: running.done() or served >= 3)
            assert not running.done(), running.exception()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def mute(*, says: bytes = b""):
    """A broker that says no more than this; gives its port, and how many came and went."""
    counts = {"came": 0, "went": 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts["came"] += 1
        writer.write(says)
        while await reader.read(4096):
            pass
        counts["went"] += 1

    async with Listener(serve) as listener:
        yield listener.port, counts


@pytest.fixture
def no_collection():
    """Nothing is closed because it is collected as garbage."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("says", [b"", CONNACK])
async def test_a_connection_that_leads_to_nothing_is_closed(says) -> None:
    async with mute(says=says) as (port, counts):
        line = MqttLine(Broker(HOST, port), Topics("seoul"), "seoul", Silent())
        running = asyncio.create_task(line.run())
        await until(lambda: counts["went"] >= 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until(lambda: counts["went"] == counts["came"])


@pytest.mark.usefixtures("no_collection")
async def test_a_connection_that_is_made_when_nobody_wants_it_is_closed(monkeypatch) -> None:
    began, go_on = asyncio.Event(), threading.Event()
    loop, connect = asyncio.get_running_loop(), aiomqtt.Client._client_connect

    def slowly(client) -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait(DEADLINE_S)
        connect(client)

    monkeypatch.setattr(aiomqtt.Client, "_client_connect", slowly)
    async with mute() as (port, counts):
        line = MqttLine(Broker(HOST, port), Topics("seoul"), "seoul", Silent())
        running = asyncio.create_task(line.run())
        async with asyncio.timeout(DEADLINE_S):
            await began.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        go_on.set()
        await until(lambda: counts["came"] == counts["went"] == 1)
