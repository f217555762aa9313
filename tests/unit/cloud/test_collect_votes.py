"""The collector follows members, keys and parameters as validators change them by vote."""

from __future__ import annotations

import duckdb
import pyarrow.parquet as pq
import pytest
from support.small_chain import DEVICE_TYPE, START_MS, SmallChain

from cloud.collect import collect
from cloud.dataset import Dataset
from cloud.errors import ChainError
from cloud.selection import Query, select
from fog_node.client import SealedBlock
from fog_node.protocol.cose import parse_sign1
from fog_node.protocol.governance import (
    AddMember,
    Approve,
    Propose,
    RemoveMember,
    RotateKey,
    SetParameters,
    prove_key,
)
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Label, Labelled, PackSpan
from fog_node.protocol.senml import Clock
from fog_node.protocol.transactions import Gap

BOARD = SigningKey.from_secret(7)


@pytest.fixture
def chain(tmp_path):
    small = SmallChain(tmp_path / "ledger")
    yield small
    small.ledger.close()


async def stream(chain, first=1):
    for height in range(first, chain.ledger.height + 1):
        block, certificate = chain.ledger.block(height)
        yield SealedBlock(height, block, certificate)


async def gather(chain, directory, first=1) -> Dataset:
    dataset = Dataset.open(directory)
    await collect(stream(chain, first), chain.founding, dataset)
    return dataset


def new_key(chain, secret, name):
    key = SigningKey.from_secret(secret)
    return key, parse_sign1(prove_key(key, name, chain.founding.chain_id), 1024)


@pytest.mark.parametrize("at_once", [True, False])
async def test_packs_without_time_get_it_when_the_board_has_said_it(chain, tmp_path, at_once):
    told = START_MS // 1000
    chain.enrol(BOARD)
    chain.seal(
        chain.pack(BOARD, 1, clock=Clock(-3, 17, 60_000, None)),
        chain.pack(BOARD, 2, clock=Clock(-3, 18, 50_000, None)),
    )
    first = await gather(chain, tmp_path / "data")
    assert first.readings(DEVICE_TYPE) == {}
    (without_time,) = (tmp_path / "data").rglob("readings/**/*.parquet")
    chain.seal(chain.pack(BOARD, 3, clock=Clock(told, 18, 90_000, bytes(8))))
    if at_once:
        dataset = await gather(chain, tmp_path / "anew")
    else:
        dataset = await gather(chain, tmp_path / "data", first.height + 1)
    for opened in (dataset, Dataset.open(tmp_path / ("anew" if at_once else "data"))):
        readings = opened.readings(DEVICE_TYPE)[BOARD.kid]
        # Of start 17 nobody knows when it was.
        assert readings.sequence.tolist() == [2, 2, 3, 3]
        assert readings.times.tolist() == [told - 43, told - 42, told, told + 1]
        assert readings.corrected is not None
        assert readings.corrected.tolist() == [True, True, False, False]
        assert opened.view == dataset.view
    table = pq.read_table(without_time)
    assert table["time"].null_count == table.num_rows
    assert set(table["boot"].to_pylist()) == {17, 18}
    assert table["up_s"].to_pylist() == [57.0, 58.0, 47.0, 48.0]
    if at_once:
        rows = duckdb.sql(
            f"select time, corrected from '{tmp_path}/anew/readings/*/*/*.parquet' order by time"
        ).fetchall()
        assert rows[:3] == [(told - 43, True), (told - 42, True), (told, False)]


async def test_votes_are_followed_and_remembered(chain, tmp_path):
    chain.enrol(BOARD)
    chain.seal(chain.pack(BOARD, 1))
    # A fourth validator, whose vote is needed from then on.
    ulsan, proof = new_key(chain, 500, "ulsan")
    chain.decide(AddMember("ulsan", ulsan.public, frozenset({"validator", "gateway"}), proof))
    chain.validators.append(ulsan)
    assert chain.ledger.state.quorum == 3
    chain.seal(chain.pack(BOARD, 2))
    dataset = await gather(chain, tmp_path / "data")
    assert dataset.view.membership == chain.ledger.state.membership
    # The operator's key is replaced; what it enrols under the new one is believed.
    fresh, proof = new_key(chain, 501, "operator")
    decide(chain, RotateKey(chain.operator.kid, fresh.public, "operator", proof))
    chain.operator = fresh
    other = SigningKey.from_secret(8)
    chain.enrol(other)
    # One of the founders goes, a parameter changes, and a board states a loss.
    decide(chain, RemoveMember(chain.validators[2].kid), SetParameters((("stagger_ms", 9),)))
    del chain.validators[2]
    chain.seal(chain.pack(other, 1), chain.sign(BOARD, Gap(3, "flash was erased"), 9, 9))
    chain.seal(chain.pack(BOARD, 10))
    dataset = await gather(chain, tmp_path / "data", dataset.height + 1)
    assert dataset.height == chain.ledger.height
    assert dataset.view.membership == chain.ledger.state.membership
    assert len(dataset.readings(DEVICE_TYPE)[BOARD.kid]) == 6
    assert dataset.view == (await gather(chain, tmp_path / "anew")).view


def decide(chain, *changes):
    """As SmallChain.decide, with as many approvals as four validators need."""
    until = chain.ledger.head.time + 3_600_000
    proposal = chain.sign(chain.validators[0], Propose(changes, "", until))
    chain.seal(proposal)
    chain.seal(*(chain.sign(key, Approve(proposal.id)) for key in chain.validators[1:3]))


async def test_labels_under_an_old_and_a_new_key_are_of_one_member(chain, tmp_path):
    """What the ledger takes is found in the data set; the new key corrects the old one."""
    chain.enrol(BOARD)
    chain.seal(chain.pack(BOARD, 1))
    span = PackSpan(BOARD.kid, 1, 1)
    chain.seal(chain.sign(chain.trainer, Label((Labelled(span, "anomaly"),), "", START_MS)))
    first = await gather(chain, tmp_path / "data")
    rows = select(first, Query(DEVICE_TYPE)).readings[BOARD.kid]
    assert rows.excluded.tolist() == [True, True]
    fresh, proof = new_key(chain, 502, "trainer")
    chain.decide(RotateKey(chain.trainer.kid, fresh.public, "trainer", proof))
    chain.seal(chain.sign(fresh, Label((Labelled(span, "normal"),), "", START_MS)))
    dataset = await gather(chain, tmp_path / "data", first.height + 1)
    assert [label.member for label in dataset.labels().all] == ["trainer", "trainer"]
    assert dataset.labels().standing() == ["superseded", "stands"]
    rows = select(dataset, Query(DEVICE_TYPE)).readings[BOARD.kid]
    assert rows.excluded.tolist() == [False, False]
    as_then = select(dataset, Query(DEVICE_TYPE, height=first.height))
    assert as_then.reference == select(first, Query(DEVICE_TYPE)).reference
    assert as_then.readings[BOARD.kid].excluded.tolist() == [True, True]


async def test_the_votes_of_who_was_removed_do_not_count(chain, tmp_path):
    chain.decide(RemoveMember(chain.validators[2].kid))
    pieces = [piece async for piece in stream(chain)]
    block, _ = chain.next_block()
    former = chain.certify(block, [chain.validators[0], chain.validators[2]])
    pieces.append(SealedBlock(block.height, block.raw, former.encode()))

    async def lying():
        for piece in pieces:
            yield piece

    with pytest.raises(ChainError, match="no validator here whose vote counts"):
        await collect(lying(), chain.founding, Dataset.open(tmp_path / "data"))
    assert block.coinbase.time > START_MS
