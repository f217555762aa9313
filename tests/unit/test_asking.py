"""When a validator whose ledger is new votes, and what a node believes of its peers' heights."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.small_chain import SmallChain

from fog_node.agreement import Agreement
from fog_node.ledger.consensus_messages import Mine
from fog_node.miner import Miner
from fog_node.network import wire
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.votes import PRECOMMIT, PREVOTE, sign_vote

STRANGER = SigningKey.from_secret(999)
BOTH = frozenset({"gateway", "validator"})
TAG = b"blk1"


class World:
    """The agreement of one of three validators, two of which agree, and its peers.

    Or of one of more, whom `others` names.
    """

    def __init__(self, directory, *others: str) -> None:
        self.chain = SmallChain(directory, others=dict.fromkeys(others, BOTH))
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
            kid=key.kid,
            status=SimpleNamespace(height=height),
            is_closed=True,
            frame_bytes=100,
            **{"misses": 0, "lowest": 1, **more},
        )
        self.peers.append(peer)
        return peer

    async def says(self, key: SigningKey, *knows: tuple[SigningKey, int], round_: int = 0):
        """A peer tells that it is at the first height, and whose votes of which step it knows."""
        peer = next((peer for peer in self.peers if peer.kid == key.kid), None)
        peer = peer or self.told(key, 1)
        setting = self.agreement._consensus.setting
        known = {(voter.kid, step) for voter, step in knows}
        tags = [
            [TAG if (kid, step) in known else b"" for kid in setting.validators]
            for step in (PREVOTE, PRECOMMIT)
        ]
        votes = [[1, round_, *tags]]
        peer.status = wire.Status(1, setting.parent, round_, -1, False, votes, [])
        await self.agreement.take(peer, peer.status)
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
    await world.says(world.second)
    # These two are a quorum, but the third may have agreed with an earlier self on anything.
    assert world.agreement.is_current()
    assert await world.ask() is None
    await world.says(world.third)
    assert await world.ask() == 0
    assert not world.agreement._consensus.setting.abstains


async def test_at_the_founding_a_vote_of_its_own_that_comes_back_is_heeded(world):
    grown(world, 0)
    chain_id = world.chain.founding.chain_id
    world.agreement._feed(sign_vote(world.me, 1, 0, PREVOTE, bytes(32), chain_id))
    await world.says(world.second)
    await world.says(world.third)
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
    await world.says(world.second)
    await world.says(world.third)
    run = asyncio.create_task(world.agreement.run())
    async with asyncio.timeout(60):
        await done.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert "it votes once 2 other validators have said" in caplog.text
    assert "this node votes" in caplog.text


class TestFirstHeight:
    """Nobody who is heard need have the first block for an earlier self to have agreed on it."""

    @pytest.fixture
    def world(self, tmp_path):
        """Of five validators three agree."""
        world = World(tmp_path / "ledger", "ulsan", "jeju")
        world.fourth, world.fifth = world.chain.others.values()
        grown(world, 0)
        assert world.agreement._consensus.setting.quorum == 3
        yield world
        world.miner.close()
        world.chain.ledger.close()

    @pytest.mark.parametrize("step", [PREVOTE, PRECOMMIT])
    async def test_it_waits_while_a_quorum_with_its_earlier_self_is_possible(
        self, world, caplog, step
    ):
        """The second and the fifth may have made block 1 final with it; one of them says so."""
        await world.says(world.second, (world.second, step))
        await world.says(world.third)
        await world.says(world.fourth)
        assert await world.ask() is None
        assert world.agreement._consensus.setting.abstains
        assert "repair --forget-votes" in caplog.text
        # With the fifth, three others have not voted, and two are no quorum.
        await world.says(world.fifth)
        assert await world.ask() == 0

    async def test_who_has_passed_a_round_has_voted(self, world):
        await world.says(world.second, round_=1)
        await world.says(world.third)
        await world.says(world.fourth)
        assert await world.ask() is None

    async def test_a_vote_of_its_own_that_a_peer_has_is_waited_for(self, world):
        """It comes behind the status that speaks of it."""
        await world.says(world.second, (world.me, PREVOTE))
        await world.says(world.third)
        await world.says(world.fourth)
        assert await world.ask() is None
        chain_id = world.chain.founding.chain_id
        world.agreement._feed(sign_vote(world.me, 1, 0, PREVOTE, bytes(32), chain_id))
        assert await world.ask() == 2

    async def test_what_others_know_of_others_does_not_matter(self, world):
        """Founders that come one after the other must not wait for each other."""
        for key in (world.second, world.third, world.fourth):
            await world.says(key, (world.fifth, PREVOTE))
        assert await world.ask() == 0

    async def test_who_votes_after_it_has_asked_binds_it_to_nothing(self, world):
        """As when the last of the founders wakes all that waited for it."""
        for key in (world.second, world.third):
            await world.says(key)
            assert await world.ask() is None
            await world.says(key, (key, PREVOTE), round_=1)
        await world.says(world.fourth)
        assert await world.ask() == 0

    async def test_the_first_block_of_the_others_ends_the_wait(self, world):
        for key in (world.second, world.third, world.fourth):
            await world.says(key, (key, PREVOTE))
        assert await world.ask() is None
        world.peers[0].status = SimpleNamespace(height=2)
        assert await world.ask() == 3

    @pytest.mark.parametrize("votes", [[], [[1, 1, [b""] * 5, [b""] * 5]], [[1, 0, [b""], [b""]]]])
    async def test_who_does_not_speak_of_its_votes_is_not_believed(self, world, votes):
        await world.says(world.third)
        await world.says(world.fourth)
        peer = await world.says(world.second, (world.second, PREVOTE))
        peer.status = wire.Status(1, peer.status.parent, 0, -1, False, votes, [])
        await world.agreement.take(peer, peer.status)
        assert await world.ask() is None


async def test_where_every_vote_is_needed_it_looks_again_at_each_height(tmp_path):
    """The block that it lacks may let others go on without it, and it may have voted above."""
    world = World(tmp_path / "ledger")
    try:
        grown(world, 4)
        consensus = world.agreement._consensus
        consensus.setting = replace(consensus.setting, quorum=3)
        world.told(world.second, 6)
        world.told(world.third, 5)
        assert await world.ask() is None
        world.peers[0].status.height = 5
        assert await world.ask() == 0
    finally:
        world.miner.close()
        world.chain.ledger.close()


async def test_while_suspended_it_asks_as_many(tmp_path):
    """It may have been reinstated by the next block, and have voted on the one after that."""
    world = World(tmp_path / "ledger")
    try:
        grown(world, 4)
        consensus = world.agreement._consensus
        consensus.setting = replace(consensus.setting, suspended=frozenset({world.me.kid}))
        world.told(world.second, 5)
        assert world.agreement.is_current()
        assert await world.ask() is None
        world.told(world.third, 5)
        assert await world.ask() == 0
    finally:
        world.miner.close()
        world.chain.ledger.close()


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
