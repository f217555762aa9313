"""Transactions from the API: admitted in groups, each sender told of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.small_chain import SmallChain

from fog_node.api.errors import RequestError
from fog_node.errors import StoreError
from fog_node.submissions import Submissions

DEADLINE_S = 60


@pytest.fixture
def chain(tmp_path):
    chain = SmallChain(tmp_path / "ledger")
    yield chain
    chain.ledger.close()


class Held:
    """Admits when told to, and remembers the groups."""

    def __init__(self, ledger) -> None:
        self._ledger = ledger
        self.go_on = threading.Event()
        self.groups = []
        self.failure = None

    def __call__(self, transactions):
        assert self.go_on.wait(DEADLINE_S)
        self.groups.append(len(transactions))
        if self.failure is not None:
            raise self.failure
        return self._ledger.admit(transactions)


@pytest.fixture
async def submissions(chain):
    admit = Held(chain.ledger)
    told = []
    made = Submissions(admit, told.extend)
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(DEADLINE_S):
        yield made, admit, told
    admit.go_on.set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def begin(submissions, *transactions):
    """Submit each, and let all of them wait."""
    tasks = [asyncio.create_task(submissions.submit(item)) for item in transactions]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_what_comes_meanwhile_is_admitted_at_once(chain, submissions):
    made, admit, told = submissions
    good = [chain.incident(sequence=i) for i in (1, 2, 3, 4)]
    tasks = await begin(made, *good)
    bad = chain.sign(chain.trainer, good[0].body)  # not the trainer's to sign
    tasks += await begin(made, bad, good[1])
    admit.go_on.set()
    results = await asyncio.gather(*tasks)
    assert [r.status for r in results] == ["admitted"] * 4 + ["refused", "waiting"]
    assert [r.transaction.id for r in results[:4]] == [item.id for item in good]
    assert told == good
    assert len(admit.groups) <= 2
    assert sum(admit.groups) == 6


async def test_who_left_does_not_matter(chain, submissions):
    made, admit, told = submissions
    first, second = chain.incident(sequence=1), chain.incident(sequence=2)
    tasks = await begin(made, first, second)
    tasks[0].cancel()
    admit.go_on.set()
    assert (await tasks[1]).status == "admitted"
    assert told == [first, second]


async def test_each_is_told_of_a_disk_that_failed_and_the_next_is_served(chain, submissions):
    made, admit, _ = submissions
    admit.failure = StoreError("the disk is full")
    admit.go_on.set()
    tasks = await begin(made, chain.incident(sequence=1), chain.incident(sequence=2))
    for task in tasks:
        with pytest.raises(StoreError, match="full"):
            await task
    admit.failure = None
    assert (await made.submit(chain.incident(sequence=1))).status == "admitted"


async def test_whoever_waits_when_the_node_ends_is_told(chain):
    admit = Held(chain.ledger)
    made = Submissions(admit, lambda _: None)
    task = asyncio.create_task(made.run())
    waiting = await begin(made, chain.incident(sequence=1))
    waiting += await begin(made, chain.incident(sequence=2))
    task.cancel()
    async with asyncio.timeout(DEADLINE_S):
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(RequestError, match="shutting down"):
            await made.submit(chain.incident(sequence=3))
    assert all(isinstance(end, RequestError) and "shutting down" in str(end) for end in ends)
    admit.go_on.set()
    await asyncio.gather(task, return_exceptions=True)
