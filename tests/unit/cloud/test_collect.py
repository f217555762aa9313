"""The collector believes the founding file and nobody else."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import replace

import pytest

from cloud.collect import collect
from cloud.dataset import Dataset
from cloud.errors import ChainError, DatasetError
from cloud.selection import Query, select
from fog_node.client import SealedBlock
from fog_node.protocol import block as blocks
from fog_node.protocol import cbor, votes
from fog_node.protocol import transactions as tx
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from tools.vectors.hub import TIME_MS, TIME_S

PUMP = "water-circulation"
ROW = [(0, {"current": 1.0})]


async def gather(chain, directory, first=1, **options) -> Dataset:
    dataset = Dataset.open(directory)
    await collect(chain.stream(first), chain.founding, dataset, **options)
    return dataset


async def refusal(chain, directory, piece: SealedBlock) -> ChainError:
    """What is said of `piece` behind the chain's own blocks, which must stay collected."""
    chain.sealed.append(piece)
    with pytest.raises(ChainError) as raised:
        await gather(chain, directory)
    assert Dataset.open(directory).height == len(chain.sealed) - 1
    assert raised.value.height == len(chain.sealed)
    assert str(raised.value).startswith(f"block {len(chain.sealed)}: ")
    assert "collect from another" in raised.value.remedy
    return raised.value


async def test_the_chain_ends_up_in_the_data_set(pumps, tmp_path):
    told: list[int] = []
    dataset = await gather(pumps, tmp_path, progress=told.append)
    assert dataset.height == 3
    assert told == [3]
    assert len(dataset.readings(PUMP)[pumps.board.kid]) == 4


async def test_it_stops_and_resumes(pumps, tmp_path):
    for height in (1, 2, 3):
        dataset = await gather(pumps, tmp_path, first=height, until_height=height)
        assert dataset.height == height
    assert select(dataset, Query(PUMP)).reference.count == 3
    assert (await gather(pumps, tmp_path, first=1, until_height=2)).height == 3


async def test_small_batches_make_the_same_data_set(pumps, tmp_path, monkeypatch):
    whole = await gather(pumps, tmp_path / "whole")
    monkeypatch.setattr("cloud.collect.BATCH_BYTES", 1)
    told: list[int] = []
    parts = await gather(pumps, tmp_path / "parts", progress=told.append)
    assert told == [1, 2, 3]
    assert select(parts, Query(PUMP)).reference == select(whole, Query(PUMP)).reference
    assert parts.view == whole.view


async def test_blocks_are_not_held_back_when_no_other_follows(pumps, tmp_path, monkeypatch):
    monkeypatch.setattr("cloud.collect.IDLE_S", 0.01)
    closed = False

    async def endless():
        nonlocal closed
        try:
            for piece in pumps.sealed:
                yield piece
            await asyncio.Event().wait()
        finally:
            closed = True

    dataset = Dataset.open(tmp_path)
    written = asyncio.Event()

    def note(height: int) -> None:
        if height == 3:
            written.set()

    async with aclosing(endless()) as source:
        task = asyncio.create_task(collect(source, pumps.founding, dataset, progress=note))
        async with asyncio.timeout(60):
            await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert closed
    assert Dataset.open(tmp_path).height == 3


async def test_what_came_before_a_broken_connection_is_kept(pumps, tmp_path):
    async def breaking():
        yield pumps.sealed[0]
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await collect(breaking(), pumps.founding, Dataset.open(tmp_path))
    assert Dataset.open(tmp_path).height == 1


async def test_another_consortium_needs_another_directory(pumps, tmp_path):
    await gather(pumps, tmp_path)
    other = replace(pumps.founding, name="other")
    with pytest.raises(DatasetError, match="founding file"):
        await collect(pumps.stream(4), other, Dataset.open(tmp_path))


async def test_blocks_must_be_next(pumps, tmp_path):
    with pytest.raises(ChainError, match=r"block 1: coinbase\.height: is 2"):
        await gather(pumps, tmp_path, first=2)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"previous": bytes(32)}, "header.previous"),
        ({"bits": 0x2100FFFF}, "header.bits"),
        ({"time": TIME_S}, "header.time"),
        ({"merkle_root": bytes(32)}, "header.merkle_root"),
        ({"version": 2}, "header.version"),
    ],
)
async def test_a_wrong_header_is_refused_though_it_is_certified(pumps, tmp_path, changed, named):
    piece = pumps.certify(pumps.block(**changed))
    assert named in str(await refusal(pumps, tmp_path, piece))


async def test_work_is_checked(pumps, tmp_path):
    block = pumps.block()
    header = block.header
    while int.from_bytes(header.hash, "little") <= blocks.target_from_bits(header.bits):
        header = replace(header, nonce=header.nonce + 1)
    piece = pumps.certify(blocks.Block(header, block.coinbase, block.transactions))
    assert "header.nonce" in str(await refusal(pumps, tmp_path, piece))


async def test_another_validator_set_is_refused(pumps, tmp_path):
    members = tuple(m for m in pumps.founding.members if m.name != "validator-2")
    pumps.founding = Founding(
        "vectors", TIME_MS, "majority", pumps.founding.parameters, b"", members
    )
    block = pumps.block()  # for the same chain id, but other voters
    pumps.founding = type(pumps)().founding
    piece = pumps.certify(block)
    assert "coinbase.validators" in str(await refusal(pumps, tmp_path, piece))


async def test_a_block_of_no_validator_is_refused(pumps, tmp_path):
    pumps.validators = [pumps.trainer] * 3
    block = pumps.block()
    pumps.validators = type(pumps)().validators
    assert "coinbase.miner" in str(await refusal(pumps, tmp_path, pumps.certify(block)))


@pytest.mark.parametrize("case", ["few", "stranger", "forged", "other block"])
async def test_a_certificate_that_does_not_hold(pumps, tmp_path, case):
    block = pumps.block()
    if case == "few":
        piece = pumps.certify(block, pumps.validators[:1])
    elif case == "stranger":
        piece = pumps.certify(block, [pumps.validators[0], SigningKey.from_secret(9)])
    elif case == "forged":
        piece = pumps.certify(block)
        value = cbor.decode(piece.certificate, 2**20, "certificate")
        vote = bytearray(value[3][0])
        vote[-1] ^= 1
        value[3][0] = bytes(vote)
        piece = replace(piece, certificate=cbor.encode(value))
    else:
        piece = replace(pumps.certify(block), certificate=pumps.sealed[-1].certificate)
    named = "signature" if case == "forged" else "certificate"
    assert named in str(await refusal(pumps, tmp_path, piece))


async def test_bytes_that_are_no_block(pumps, tmp_path):
    piece = pumps.certify(pumps.block())
    await refusal(pumps, tmp_path, replace(piece, block=piece.block[:-1]))


async def test_a_transaction_of_an_unknown_signer(pumps, tmp_path):
    stranger = SigningKey.from_secret(9)
    piece = pumps.certify(pumps.block(pumps.readings(stranger, ROW)))
    assert stranger.kid.hex() in str(await refusal(pumps, tmp_path, piece))


async def test_a_transaction_that_its_signer_has_not_signed(pumps, tmp_path):
    good = pumps.readings(pumps.board, ROW)
    forged = bytearray(good.raw)
    forged[-1] ^= 1
    transaction = tx.parse_transaction(bytes(forged))
    piece = pumps.certify(pumps.block(transaction))
    error = str(await refusal(pumps, tmp_path, piece))
    assert transaction.id.hex() in error
    assert "signature" in error


async def test_a_reading_cannot_come_twice(pumps, tmp_path):
    again = tx.parse_transaction(pumps.readings(pumps.board, ROW).raw)
    pumps.seal(again)
    piece = pumps.certify(pumps.block(again))
    assert "number 3 is not" in str(await refusal(pumps, tmp_path, piece))


async def test_a_revoked_board_is_no_longer_believed(pumps, tmp_path):
    pumps.seal(pumps.sign(pumps.operator, tx.Revoke(pumps.board.kid, "stolen", TIME_MS)))
    await gather(pumps, tmp_path)  # and it is remembered from one run to the next
    piece = pumps.certify(pumps.block(pumps.readings(pumps.board, ROW)))
    pumps.sealed.append(piece)
    with pytest.raises(ChainError, match="was revoked before"):
        await gather(pumps, tmp_path, first=5)


async def test_a_board_is_enrolled_once(pumps, tmp_path):
    piece = pumps.certify(pumps.block(pumps.enrolment(pumps.board)))
    assert "is enrolled already" in str(await refusal(pumps, tmp_path, piece))


def two_votes(chain, offender: SigningKey) -> tx.Transaction:
    """Evidence that a validator voted twice."""
    pair = [
        votes.sign_vote(offender, 9, 0, votes.PREVOTE, choice, chain.chain_id)
        for choice in (None, hashlib.sha256(b"x").digest())
    ]
    return chain.sign(chain.validators[0], tx.Evidence(*pair))


async def test_the_votes_of_a_suspended_validator_do_not_count(pumps, tmp_path):
    offender = pumps.validators[1]
    pumps.seal(two_votes(pumps, offender))
    pumps.suspended.add(offender.kid)
    piece = pumps.certify(pumps.block(), [pumps.validators[0], offender])
    error = str(await refusal(pumps, tmp_path, piece))
    assert "certificate" in error
    assert offender.kid.hex() in error


async def test_without_a_spare_validator_evidence_suspends_nobody(pumps, tmp_path):
    """Two of three must stay: the second offender goes on voting, as the ledger has it."""
    first, second = pumps.validators[1:]
    rest = [pumps.validators[0], second]
    pumps.seal(two_votes(pumps, first))
    pumps.suspended.add(first.kid)
    pumps.seal(two_votes(pumps, second), keys=rest)
    pumps.seal(keys=rest)
    dataset = await gather(pumps, tmp_path)
    assert dataset.height == 6
    assert dataset.view is not None
    assert dataset.view.suspended == {first.kid}
