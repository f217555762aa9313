"""The queue of peers' messages: none keeps another's from being read, none grows without bound."""

from __future__ import annotations

import asyncio

from fog_node.fair_inbox import FairInbox

FLOODER, HONEST = b"flooder", b"honest"


async def test_senders_are_taken_from_in_turn() -> None:
    inbox: FairInbox[str] = FairInbox(100, 1000)
    for number in range(50):
        await inbox.put(FLOODER, f"flood {number}", 1)
    for number in range(3):
        await inbox.put(HONEST, f"vote {number}", 1)
    taken = [await inbox.get() for _ in range(6)]
    assert taken == ["flood 0", "vote 0", "flood 1", "vote 1", "flood 2", "vote 2"]


async def test_own_events_come_first() -> None:
    inbox: FairInbox[str] = FairInbox(10, 1000)
    await inbox.put(HONEST, "vote", 1)
    inbox.post("timer")
    assert [await inbox.get(), await inbox.get()] == ["timer", "vote"]


async def test_who_fills_its_share_waits_and_others_do_not() -> None:
    inbox: FairInbox[int] = FairInbox(4, 1000)

    async def flood() -> None:
        for number in range(20):
            await inbox.put(FLOODER, number, 1)

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0)
    assert inbox.waiting(FLOODER) == 4
    async with asyncio.timeout(60):
        await inbox.put(HONEST, -1, 1)
    taken = [await inbox.get(), await inbox.get()]
    assert -1 in taken
    while not flooding.done():
        assert inbox.waiting(FLOODER) <= 4
        taken.append(await inbox.get())
        await asyncio.sleep(0)
    taken += [await inbox.get() for _ in range(inbox.waiting(FLOODER))]
    assert sorted(taken) == list(range(-1, 20))


async def test_bytes_are_bounded_too_but_for_one_message() -> None:
    inbox: FairInbox[int] = FairInbox(100, 1000)
    await inbox.put(FLOODER, 1, 999)
    await inbox.put(FLOODER, 2, 5000)
    third = asyncio.create_task(inbox.put(FLOODER, 3, 1))
    await asyncio.sleep(0)
    assert not third.done()
    assert await inbox.get() == 1
    await asyncio.sleep(0)
    assert not third.done()  # the large one is still there
    assert await inbox.get() == 2
    await third
    assert await inbox.get() == 3


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    inbox: FairInbox[int] = FairInbox(1, 1000)
    await inbox.put(FLOODER, 1, 1)
    second = asyncio.create_task(inbox.put(FLOODER, 2, 1))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert await inbox.get() == 1
    assert inbox.waiting(FLOODER) == 0
