"""The intake: bounded, in groups, and not to be stopped by what comes in."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fog_node.errors import StoreError
from fog_node.gateway import intake as module
from fog_node.gateway.admission import Judged, Message, Outcome
from fog_node.gateway.intake import MAX_WAITING, Intake


class FakeAdmission:
    """Records groups; `broken` messages raise, `fail` makes the next group meet a full disk."""

    def __init__(self):
        self.groups: list[list[bytes]] = []
        self.kept: list[list[bytes]] = []
        self.writing = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()
        self.fail = 0
        self.failed = threading.Event()

    def judge(self, messages):
        data = [message.data for message in messages]
        if b"broken" in data:
            raise RuntimeError("a defect of ours")
        self.groups.append(data)
        return Judged([Outcome("deferred", item) for item in data], [])

    def keep(self, groups):
        self.writing.set()
        assert self.may_write.wait(60)
        if self.fail:
            self.fail -= 1
            self.failed.set()
            raise StoreError("disk is full")
        self.kept.append([outcome.device for group in groups for outcome in group.outcomes])


class World:
    def __init__(self):
        self.admission = FakeAdmission()
        self.settled: list[bytes] = []
        self.executor = ThreadPoolExecutor(1)
        self.intake = Intake(self.admission, self.executor, self._settle)
        self._changed = asyncio.Event()

    def _settle(self, outcomes):
        self.settled += [outcome.device for outcome in outcomes]
        self._changed.set()

    def offer(self, *data):
        for item in data:
            self.intake.offer(Message(item, None))

    async def until_settled(self, last):
        async with asyncio.timeout(60):
            while last not in self.settled:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def world():
    world = World()
    yield world
    world.executor.shutdown()


@contextlib.asynccontextmanager
async def running(world):
    task = asyncio.create_task(world.intake.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_comes_together_is_judged_together(world):
    async with running(world):
        world.offer(b"1", b"2", b"3")
        await world.until_settled(b"3")
    assert world.admission.groups == [[b"1", b"2", b"3"]]


async def test_order_is_kept_over_many_groups(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_GROUP", 10)
    sent = [str(i).encode() for i in range(95)]
    async with running(world):
        world.offer(*sent)
        await world.until_settled(sent[-1])
    assert world.settled == sent
    assert max(len(group) for group in world.admission.groups) == 10


async def test_while_a_group_is_written_the_next_one_is_judged(world):
    world.admission.may_write.clear()
    async with running(world):
        world.offer(b"1")
        assert await asyncio.to_thread(world.admission.writing.wait, 20)
        for item in (b"2", b"3"):
            world.offer(item)
            async with asyncio.timeout(60):
                while [item] not in world.admission.groups:  # noqa: ASYNC110 - a thread changes it
                    await asyncio.sleep(0.001)
        assert world.settled == []
        world.admission.may_write.set()
        await world.until_settled(b"3")
    assert world.settled == [b"1", b"2", b"3"]
    assert world.admission.kept == [[b"1"], [b"2", b"3"]]


async def test_a_full_queue_drops_the_newest_and_counts(world):
    world.offer(*[b"x"] * (MAX_WAITING + 5))
    assert (len(world.intake), world.intake.dropped) == (MAX_WAITING, 5)


async def test_the_bytes_that_wait_are_bounded(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 1000)
    world.offer(bytes(999), bytes(5000), b"", b"")
    assert (len(world.intake), world.intake.dropped) == (2, 2)


async def test_there_is_room_again_after_a_group(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 1000)
    async with running(world):
        world.offer(bytes(1000))
        await world.until_settled(bytes(1000))
        world.offer(b"next")
        await world.until_settled(b"next")
    assert world.intake.dropped == 0


async def test_a_defect_costs_the_message_that_shows_it_and_no_other(world, caplog):
    async with running(world):
        world.offer(b"1", b"broken", b"2")
        await world.until_settled(b"2")
    assert world.settled == [b"1", b"2"]
    assert world.intake.dropped == 1
    assert "a defect of ours" in caplog.text


async def test_it_goes_on_when_the_disk_can_be_written_again(world, monkeypatch, caplog):
    monkeypatch.setattr(module, "STORE_RETRY_S", 0.0)
    world.admission.fail = 1
    async with running(world):
        world.offer(b"lost")
        assert await asyncio.to_thread(world.admission.failed.wait, 20)
        world.offer(b"again")
        await world.until_settled(b"again")
    assert "disk is full" in caplog.text
    assert world.settled == [b"again"]
    assert world.intake.dropped == 1
