"""When a validator whose ledger is new votes, and what a node believes of its peers' heights."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest
from support.small_chain import SmallChain

from fog_node.agreement import Agreement
from fog_node.ledger.consensus_messages import Mine
from fog_node.miner import Miner
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.votes import PREVOTE, sign_vote

STRANGER = SigningKey.from_secret(999)


class World:
    """The agreement of one of three validators, two of which agree, and its peers."""

    def __init__(self, directory) -> None:
        self.chain = SmallChain(directory)
        self.me, self.second, self.third = self.chain.validators
        self.peers = []
        self.miner = Miner("python", 1)
        self.key = self.me

    def begin(self) -> None:
        self.agreement = Agreement(
            self.chain.ledger, self.key, self.miner, lambda *_: None, lambda _: None, lambda: 0
        )
        self.agreement.connect(SimpleNamespace(peers=self.peers))

    def told(self, key: SigningKey, height: int, **more) -> SimpleNamespace:
        """A peer that says it is at this height."""
        peer = SimpleNamespace(
            kid=key.kid, status=SimpleNamespace(height=height), **{"misses": 0, "lowest": 1, **more}
        )
        self.peers.append(peer)
        return peer

    async def ask(self) -> int | None:
        """See whether it may vote now; returns above which height, None while it asks."""
        await self.agreement._stop_asking()
        return None if self.chain.ledger.asking else self.chain.ledger.abstain


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "ledger")
    yield world
    world.miner.close()
    world.chain.ledger.close()


def grown(world: World, blocks: int) -> World:
    for _ in range(blocks):
        world.chain.seal()
    world.begin()
    return world


async def test_at_the_founding_it_votes_once_every_quorum_has_spoken(world):
    grown(world, 0)
    assert world.agreement._consensus.setting.abstains
    assert await world.ask() is None
    world.told(world.second, 1)
    # These two are a quorum, but the third may have agreed with an earlier self on anything.
    assert world.agreement.is_current()
    assert await world.ask() is None
    world.told(world.third, 1)
    assert await world.ask() == 0
    assert not world.agreement._consensus.setting.abstains


async def test_at_the_founding_a_vote_of_its_own_that_comes_back_is_heeded(world):
    grown(world, 0)
    chain_id = world.chain.founding.chain_id
    world.agreement._feed(sign_vote(world.me, 1, 0, PREVOTE, bytes(32), chain_id))
    world.told(world.second, 1)
    world.told(world.third, 1)
    assert await world.ask() == 2


@pytest.mark.parametrize("ahead", [0, 1])
async def test_later_it_lets_pass_what_it_can_have_voted_on(world, caplog, ahead):
    grown(world, 4)
    world.told(world.second, 5 + ahead)
    assert await world.ask() is None
    world.told(world.third, 4)
    assert await world.ask() == 6 + ahead
    assert "repair --forget-votes" in caplog.text
    assert world.agreement._consensus.setting.abstains


async def test_while_it_is_behind_it_goes_on_asking(world):
    grown(world, 4)
    world.told(world.second, 7)
    world.told(world.third, 7)
    assert await world.ask() is None
    for peer in world.peers:
        peer.status.height = 6
    assert await world.ask() == 7


async def test_who_is_no_validator_has_nothing_to_wait_for(world):
    world.key = STRANGER
    grown(world, 4)
    world.told(world.second, 6)
    world.told(world.third, 5)
    # One more block might make it a validator, and might have done so before.
    assert await world.ask() is None
    world.peers[0].status.height = 5
    assert await world.ask() == 0


async def test_what_is_known_already_stays(world):
    world.chain.ledger._store.take_promises((), None, 9, 9, asking=True)
    grown(world, 4)
    world.told(world.second, 5)
    world.told(world.third, 5)
    assert await world.ask() == 9


async def test_it_says_what_it_waits_for_and_works_once_it_may(world, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    grown(world, 0)
    world.chain.ledger.admit([world.chain.incident()])
    done = asyncio.Event()
    monkeypatch.setattr(
        world.agreement, "_mine", lambda action: done.set() if isinstance(action, Mine) else None
    )
    run = asyncio.create_task(world.agreement.run())
    world.told(world.second, 1)
    world.told(world.third, 1)
    async with asyncio.timeout(20):
        await done.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert "it votes once 2 other validators have said" in caplog.text
    assert "this node votes" in caplog.text


class TestBelief:
    """A node that believes whoever says most would never be current again."""

    def test_a_claim_that_was_not_backed_counts_for_nothing(self, world):
        grown(world, 4)
        world.told(world.second, 5)
        assert world.agreement.is_current()
        liar = world.told(world.third, 1000)
        assert not world.agreement.is_current()
        liar.misses = 1
        assert world.agreement.is_current()

    def test_nor_does_one_of_who_could_not_back_it(self, world):
        grown(world, 4)
        world.told(world.second, 5)
        world.told(world.third, 1000, lowest=900)
        assert world.agreement.is_current()

    def test_it_takes_a_quorum_beside_the_claims_that_do_not_count(self, world):
        """Where the others really are ahead and slow to answer, this node is not current."""
        grown(world, 4)
        world.told(world.second, 1000, misses=1)
        world.told(world.third, 1000, misses=3)
        assert not world.agreement.is_current()
