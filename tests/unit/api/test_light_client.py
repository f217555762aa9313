"""The light client, over the API of one or two nodes, honest and other."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import httpx
import pytest
from support.small_chain import SmallChain

from fog_node.api.app import create_app
from fog_node.blobs import BlobStore
from fog_node.client import Client, UnreachableError
from fog_node.errors import ForkError
from fog_node.light_client import LightClient, LightClientError
from fog_node.protocol.founding import parse_founding
from fog_node.protocol.sealed_header import SealedHeader
from fog_node.protocol.transactions import Evidence
from fog_node.protocol.votes import PREVOTE, parse_certificate, sign_vote


@pytest.fixture
def founding(chain):
    return parse_founding(chain.founding.raw)


def asking(world):
    """A client that talks to this node without a socket."""
    return Client(["http://localhost"], transport=httpx.ASGITransport(create_app(world.services())))


@contextlib.asynccontextmanager
async def light(founding, *worlds, kept=None):
    async with LightClient([asking(world) for world in worlds], founding, kept) as client:
        yield client


async def test_it_follows_to_the_head_and_keeps_it(world, chain, board, founding, tmp_path):
    kept = tmp_path / "head.cbor"
    for number in range(1, 4):
        world.seal(chain.pack(board, number))
    async with light(founding, world, kept=kept) as client:
        assert (await client.sync()).head == chain.ledger.head.hash
    world.seal(pack := chain.pack(board, 4))
    async with light(founding, world, kept=kept) as client:
        assert client.chain.height == chain.ledger.height - 1
        assert (await client.sync()).head == chain.ledger.head.hash
        assert (await client.proof(pack.id)).subject.transaction.id == pack.id


async def test_it_goes_on_behind_a_change_of_validators(world, chain, board, founding, tmp_path):
    offender, chain_id = chain.validators[2], chain.founding.chain_id
    votes = [sign_vote(offender, 1, 9, PREVOTE, bytes([n] * 32), chain_id) for n in (1, 2)]
    world.seal(chain.sign(chain.validators[1], Evidence(*votes)))
    chain.validators = chain.validators[:2]
    world.seal(pack := chain.pack(board, 1))
    async with light(founding, world, kept=tmp_path / "head.cbor") as client:
        assert len((await client.sync()).validators.keys) == 2
        await client.proof(pack.id)


async def test_a_damaged_file_is_named(world, founding, tmp_path):
    kept = tmp_path / "head.cbor"
    async with light(founding, world, kept=kept) as client:
        await client.sync()
    data = bytearray(kept.read_bytes())
    data[-40] ^= 1
    kept.write_bytes(data)
    with pytest.raises(LightClientError, match=f"{kept}: cannot be used.*delete it to follow"):
        LightClient([asking(world)], founding, kept)


async def test_a_file_of_another_consortium_is_refused(world, founding, tmp_path):
    kept = tmp_path / "head.cbor"
    async with light(founding, world, kept=kept) as client:
        await client.sync()
    other = replace(founding, name="other")
    with pytest.raises(LightClientError, match="is another consortium's"):
        LightClient([asking(world)], other, kept)


async def test_a_node_that_makes_up_a_block_is_refused(world, chain, board, founding, monkeypatch):
    world.seal(chain.pack(board, 1))
    true = chain.ledger.sealed_header

    def lie(height):
        sealed = true(height)
        votes = sealed.certificate.votes[:1]
        return replace(sealed, certificate=replace(sealed.certificate, votes=votes))

    monkeypatch.setattr(chain.ledger, "sealed_header", lie)
    async with light(founding, world) as client:
        with pytest.raises(
            LightClientError,
            match=r"height 1: a node gives what does not hold: .*; give the founding",
        ):
            await client.sync()
        assert client.chain.height == 0


async def test_a_node_that_is_away_is_passed_over(world, chain, board, founding):
    world.seal(chain.pack(board, 1))
    nowhere = Client(["http://127.0.0.1:9"])
    async with LightClient([nowhere, asking(world)], founding) as client:
        assert (await client.sync()).height == chain.ledger.height
    async with LightClient([Client(["http://127.0.0.1:9"])], founding) as client:
        with pytest.raises(UnreachableError):
            await client.sync()


@pytest.fixture
def other_world(world, chain, board, tmp_path):
    """A node of the same consortium with another block 2, certified by the same validators."""
    other = SmallChain(tmp_path / "other")
    raw, certificate = chain.ledger.block(1)
    block = other.ledger.parse_block(raw)
    other.ledger.commit(block, parse_certificate(certificate))
    blobs = BlobStore(tmp_path / "other blobs", 1_000_000)
    yield replace(world, chain=other, blobs=blobs)
    other.ledger.close()


async def test_two_certified_blocks_at_one_height_are_a_fork(
    world, other_world, chain, board, founding, tmp_path
):
    kept = tmp_path / "head.cbor"
    world.seal(chain.pack(board, 1, value=1.0))
    other_world.seal(other_world.chain.pack(board, 1, value=2.0))
    async with light(founding, world, other_world, kept=kept) as client:
        with pytest.raises(ForkError, match="two certified blocks at height 2"):
            await client.sync()


async def test_another_block_without_its_votes_is_a_lie_and_no_fork(
    world, other_world, chain, board, founding, monkeypatch
):
    world.seal(chain.pack(board, 1, value=1.0))
    ledger = other_world.chain.ledger
    other_world.seal(other_world.chain.pack(board, 1, value=2.0))
    true = ledger.sealed_header
    monkeypatch.setattr(
        ledger,
        "sealed_header",
        lambda height: replace(
            true(height), certificate=chain.ledger.sealed_header(height).certificate
        ),
    )
    async with light(founding, world, other_world) as client:
        with pytest.raises(LightClientError, match="gives another block, without the votes"):
            await client.sync()


def test_sealed_headers_are_small(chain, board):
    """A light client of a chain of full blocks reads a fraction of it."""
    chain.seal(*(chain.pack(board, number, rows=60) for number in range(1, 101)))
    raw, certificate = chain.ledger.block(2)
    sealed = chain.ledger.sealed_header(2)
    assert SealedHeader.decode(sealed.encode()) == sealed
    assert len(sealed.encode()) < (len(raw) + len(certificate)) / 50
