"""Nodes lie, lag, fall silent and go; the collector is killed: each reading is there once."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloud.collect import catch_up
from cloud.dataset import Dataset
from cloud.errors import ChainError, DatasetError, StalledError
from cloud.selection import Query, select
from fog_node.client import SealedBlock, UnreachableError
from fog_node.protocol.block import hash_hex, parse_block

PUMP = "water-circulation"
ROW = [(0, {"current": 1.0})]
TESTS = Path(__file__).parents[2]


class Node:
    """A node as a client sees it: what it has, and how far it says it is."""

    def __init__(self, name: str, blocks: list[SealedBlock], says: int | None = None) -> None:
        self.urls = (f"http://{name}",)
        self.asked = 0
        self._blocks = blocks
        self._says = len(blocks) if says is None else says

    async def status(self):
        return SimpleNamespace(height=self._says)

    async def blocks(self, first, limit):
        assert limit == 1
        block = parse_block(self._blocks[first - 1].block)
        return SimpleNamespace(blocks=[SimpleNamespace(hash=hash_hex(block.hash))])

    async def stream(self, first):
        for piece in self._blocks[first - 1 :]:
            self.asked += 1
            yield piece
        await asyncio.Event().wait()  # the next block has not come yet


class Gone(Node):
    """A node that does not answer."""

    async def status(self):
        raise UnreachableError({self.urls[0]: "is gone"})


def forged(piece: SealedBlock) -> SealedBlock:
    data = bytearray(piece.block)
    data[-1] ^= 1
    return replace(piece, block=bytes(data))


@pytest.fixture
def whole(pumps, tmp_path):
    """The reference of an undisturbed data set."""
    dataset = Dataset.open(tmp_path / "whole")
    asyncio.run(catch_up([Node("a", pumps.sealed)], pumps.founding, dataset))
    return select(dataset, Query(PUMP)).reference


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("cloud.collect.STALL_S", 0.05)
    monkeypatch.setattr("cloud.collect.IDLE_S", 0.01)


def bad_nodes(chain):
    return {
        "lies": Node("liar", [chain.sealed[0], forged(chain.sealed[1]), chain.sealed[2]]),
        "boasts": Node("boaster", chain.sealed[:2], says=10**9),
        "falls silent": Node("silent", chain.sealed[:1], says=3),
        "is gone": Gone("gone", chain.sealed),
        "has another chain's block": Node("other", [forged(chain.sealed[0])] * 3),
    }


@pytest.mark.parametrize(
    "kind", ["lies", "boasts", "falls silent", "is gone", "has another chain's block"]
)
async def test_a_bad_node_is_left_for_the_next(pumps, tmp_path, caplog, kind):
    bad = bad_nodes(pumps)[kind]
    dataset = Dataset.open(tmp_path / "data")
    with caplog.at_level(logging.WARNING, "cloud.collect"):
        height = await catch_up([bad, Node("good", pumps.sealed)], pumps.founding, dataset)
    assert height == dataset.height == 3
    assert len(caplog.records) == 1
    assert len(dataset.readings(PUMP)[pumps.board.kid]) == 4


async def test_another_consortiums_data_set_is_refused_though_nothing_lacks(pumps, tmp_path):
    dataset, node = Dataset.open(tmp_path / "data"), Node("a", pumps.sealed)
    await catch_up([node], pumps.founding, dataset)
    other = replace(pumps.founding, name="other")
    assert other.chain_id != pumps.founding.chain_id
    with pytest.raises(DatasetError, match="give the founding file that it was begun with"):
        await catch_up([node], other, dataset)


@pytest.mark.parametrize(
    ("kind", "error", "height"),
    [
        ("lies", ChainError, 1),
        ("boasts", StalledError, 2),
        ("falls silent", StalledError, 1),
        ("is gone", UnreachableError, 0),
        ("has another chain's block", ChainError, 0),
    ],
)
async def test_bad_nodes_alone_are_an_error_and_what_held_stays(
    pumps, tmp_path, kind, error, height
):
    with pytest.raises(error):
        await catch_up([bad_nodes(pumps)[kind]], pumps.founding, Dataset.open(tmp_path / "data"))
    assert Dataset.open(tmp_path / "data").height == height


async def test_a_node_that_lags_is_asked_for_nothing_it_lacks(pumps, tmp_path):
    late, early = Node("late", pumps.sealed[:2]), Node("early", pumps.sealed)
    dataset = Dataset.open(tmp_path / "data")
    assert await catch_up([late, early], pumps.founding, dataset) == 3
    assert (late.asked, early.asked) == (0, 3)
    # Later only the one that lags answers: nothing is taken back.
    assert await catch_up([late], pumps.founding, Dataset.open(tmp_path / "data")) == 3


async def test_another_node_goes_on_where_the_last_one_was(pumps, tmp_path, whole):
    directory = tmp_path / "data"
    await catch_up([Node("a", pumps.sealed[:2])], pumps.founding, Dataset.open(directory))
    other = Node("b", pumps.sealed)
    dataset = Dataset.open(directory)
    await catch_up([other], pumps.founding, dataset)
    assert other.asked == 1
    assert select(dataset, Query(PUMP)).reference == whole


async def test_a_node_with_another_head_is_told_of(pumps, tmp_path):
    """The validators have signed two blocks of one height: this is for people to look into."""
    directory = tmp_path / "data"
    rival = pumps.certify(pumps.block(pumps.readings(pumps.board, ROW)))
    await catch_up([Node("a", [*pumps.sealed, rival])], pumps.founding, Dataset.open(directory))
    other = pumps.seal()
    assert other.block != rival.block
    with pytest.raises(ChainError, match=r"block 4: http://b has another one"):
        await catch_up([Node("b", pumps.sealed)], pumps.founding, Dataset.open(directory))
    assert Dataset.open(directory).height == 4


def test_a_collector_that_is_killed_at_any_step_loses_and_doubles_nothing(tmp_path):
    """Real processes, SIGKILL; see support/killed_collector.py."""
    script = (
        "from pathlib import Path\n"
        "from tests.unit.cloud.conftest import Chain, PUMP, pumps\n"
        "from support.killed_collector import kill_at_each_step\n"
        "chain = pumps.__wrapped__(Chain())\n"
        f"place = Path({str(tmp_path)!r})\n"
        "print(kill_at_each_step(place, chain.sealed[:2], chain.founding, PUMP))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=TESTS.parent,
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Two blocks, the second with several files and folders: each is opened, synced and renamed.
    assert int(done.stdout) > 30
