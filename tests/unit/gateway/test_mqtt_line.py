"""The line's own logic, with a client that does what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import ClassVar

import aiomqtt
import pytest

from fog_node.gateway import mqtt
from fog_node.gateway.mqtt import Broker, MqttLine
from fog_node.gateway.topics import Topics

DEADLINE_S = 60


class Handler:
    def __init__(self):
        self.states = []
        self.messages = []
        self.changed = asyncio.Event()

    def connected(self):
        self.states.append("connected")
        self.changed.set()

    def disconnected(self):
        self.states.append("disconnected")
        self.changed.set()

    def received(self, kind, board, data, redelivered):
        self.messages.append((kind, board, data, redelivered))

    async def until(self, state):
        async with asyncio.timeout(DEADLINE_S):
            while state not in self.states:
                self.changed.clear()
                await self.changed.wait()


class FakeClient:
    """Stands in for aiomqtt's; a class attribute says how the broker behaves."""

    codes = (1, 1, 1)
    leaving: Exception | None = None
    published: ClassVar[list]
    opened = 0

    def __init__(self, *_, queue_type, **__):
        self.queue = queue_type()
        self.ended = asyncio.Event()
        type(self).opened += 1

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        if self.leaving is not None:
            raise self.leaving

    def leave(self):
        pass

    async def subscribe(self, _):
        return self.codes

    async def publish(self, topic, data, qos, retain):
        self.published.append((topic, data, qos, retain))

    @property
    def messages(self):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        await self.ended.wait()
        raise aiomqtt.MqttError("Disconnected during message iteration")


@pytest.fixture
def client(monkeypatch):
    class Client(FakeClient):
        published: ClassVar[list] = []

    monkeypatch.setattr(mqtt, "_Client", Client)
    monkeypatch.setattr(mqtt, "BACKOFF_S", (0.001, 0.001))
    return Client


@pytest.fixture
async def handler():
    return Handler()


@pytest.fixture
async def line(handler, client):
    return MqttLine(Broker("host", 1883), Topics("seoul"), "seoul", handler)


async def cancelled(task):
    task.cancel()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait([task])
    assert task.cancelled()


async def test_it_ends_when_told_to_even_if_the_broker_closes_first(line, handler, client):
    client.leaving = aiomqtt.MqttCodeError(7, "Unexpected disconnection")
    task = asyncio.create_task(line.run())
    await handler.until("connected")
    await cancelled(task)


async def test_it_ends_when_told_to_even_if_aiomqtt_loses_the_cancellation(
    line, handler, client, monkeypatch
):
    started = asyncio.Event()

    async def deaf(self, topic, data, qos, retain):
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(client, "publish", deaf)
    task = asyncio.create_task(line.run())
    await handler.until("connected")
    line.publish("receipt", b"1")
    async with asyncio.timeout(DEADLINE_S):
        await started.wait()
    await cancelled(task)


async def test_a_refused_subscription_is_reported_and_tried_again(line, handler, client, caplog):
    client.codes = (1, 128, 1)
    task = asyncio.create_task(line.run())
    async with asyncio.timeout(DEADLINE_S):
        while client.opened < 3:  # noqa: ASYNC110 - counts what a fake does
            await asyncio.sleep(0.001)
    assert handler.states == []
    client.codes = (1, 1, 1)
    await handler.until("connected")
    await cancelled(task)
    reports = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(reports) == 1
    assert "let this user read fogline/seoul/up/+" in reports[0].message


async def test_the_latest_message_to_a_topic_replaces_what_still_waits(line, client, monkeypatch):
    monkeypatch.setattr(line, "_is_connected", True)
    line.publish("receipt", b"1")
    line.publish("receipt", b"2")
    for chunk in (b"a", b"b"):
        line.publish("blob", chunk, latest=False)
    line.publish("release", b"r", retain=True)
    waiting = [(topic, data) for (topic, _), (data, _) in line._outgoing.items()]
    assert waiting == [("receipt", b"2"), ("blob", b"a"), ("blob", b"b"), ("release", b"r")]


async def test_what_waits_for_the_broker_is_bounded(line, monkeypatch):
    monkeypatch.setattr(line, "_is_connected", True)
    for i in range(mqtt.MAX_OUTGOING + 10):
        line.publish(f"topic {i}", b"")
    assert len(line._outgoing) == mqtt.MAX_OUTGOING
    assert line.dropped == 10
    line.publish("topic 0", b"newer")
    assert line.dropped == 10


async def test_without_a_connection_nothing_is_kept(line):
    line.publish("topic", b"")
    assert not line._outgoing


async def test_everything_is_published_with_qos_1(line, handler, client):
    task = asyncio.create_task(line.run())
    await handler.until("connected")
    line.publish("receipt", b"1")
    line.publish("release", b"2", retain=True)
    async with asyncio.timeout(DEADLINE_S):
        while len(client.published) < 2:  # noqa: ASYNC110 - counts what a fake does
            await asyncio.sleep(0.001)
    assert client.published == [("receipt", b"1", 1, False), ("release", b"2", 1, True)]
    await cancelled(task)


@pytest.mark.parametrize(("grace_s", "is_early"), [(0.0, False), (1e9, True)])
async def test_messages_right_after_a_connect_may_be_repetitions(
    handler, client, grace_s, is_early
):
    line = MqttLine(Broker("host", 1883), Topics("seoul"), "seoul", handler, grace_s)
    task = asyncio.create_task(line.run())
    await handler.until("connected")
    topic = "fogline/seoul/up/0123456789abcdef"
    line.deliver(aiomqtt.Message(topic, b"data", 1, False, 1, None))
    line.deliver(aiomqtt.Message("elsewhere", b"data", 1, False, 1, None))
    assert handler.messages == [("up", bytes.fromhex("0123456789abcdef"), b"data", is_early)]
    await cancelled(task)


async def test_messages_before_we_know_of_the_connection_count_as_repetitions(line, handler):
    topic = "fogline/seoul/up/0123456789abcdef"
    line.deliver(aiomqtt.Message(topic, b"data", 1, False, 1, None))
    assert handler.messages[0][3] is True


async def test_a_socket_that_is_closed_by_then_is_not_watched():
    one, other = socket.socketpair()
    number = one.fileno()
    client = mqtt._Client("host")
    try:
        client._on_socket_register_write(None, None, one)
        one.close()
        # The next connection of this process may get the same number.
        successor = socket.socket(fileno=os.dup2(other.fileno(), number))
        await asyncio.sleep(0)
        assert not asyncio.get_running_loop().remove_writer(number)
    finally:
        successor.close()
        other.close()
