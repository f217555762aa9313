"""Locks and later rounds, explored to the end within bounds that CONSENSUS.md states."""

from __future__ import annotations

import random
from functools import cache

import pytest

from fog_node.ledger.consensus import Consensus
from fog_node.ledger.consensus_messages import Timing
from fog_node.ledger.explorer import (
    Assembly,
    BrokenRuleError,
    Network,
    explore_rounds,
    find_unexplained,
    replica,
    retrace,
    told,
)
from fog_node.ledger.explorer.replica import Mining, Nursery, Restart
from fog_node.ledger.explorer.search import check_conviction
from fog_node.ledger.vote_book import VoteBook

SAFE = [
    Assembly(3, "majority", (2, 2)),
    Assembly(3, "majority", (1, 1, 1)),
    Assembly(3, "two-thirds", (1, 1, 1)),
    Assembly(4, "two-thirds", (2, 1)),
    Assembly(4, "two-thirds", (2, 1), liars=1),
    Assembly(4, "two-thirds", (1, 1, 1), liars=1),
]
WALKS = 200
STEPS = 150
FIRST_SEED = 20_000


@cache
def conduct_in(validators, rule, blocks):
    """What a validator may do is the same whoever else lies."""
    return Assembly(validators, rule, blocks).conduct()


@pytest.mark.parametrize("assembly", SAFE, ids=str)
def test_no_votes_fork(assembly):
    outcome = explore_rounds(
        assembly, conduct_in(assembly.validators, assembly.rule, assembly.blocks)
    )
    print(outcome)
    assert not assembly.may_fork
    assert outcome.decided
    assert not outcome.forks


@pytest.mark.parametrize("blocks", [(2,), (1, 1)], ids=str)
def test_one_liar_forks_a_majority_within_a_round_and_between_two(blocks):
    """And what is found by counting happens on whole machines, message by message."""
    assembly = Assembly(3, "majority", blocks, liars=1)
    outcome = explore_rounds(assembly)
    assert assembly.may_fork
    ways = [outcome.fork_of_one_round]
    if len(blocks) > 1:
        ways.append(outcome.fork_of_two_rounds)
    network = Network(3, "majority", liar=True)
    for way, rounds in zip(ways, (1, 2), strict=False):
        state, steps = retrace(assembly, way)
        print("\n".join(told(steps)))
        certificates = state.certificates
        assert len({certificate.round for certificate in certificates}) == rounds
        # Fails where one round convicts anybody but the liar, or two convict somebody.
        check_conviction(network, certificates)


def forget_the_lock(monkeypatch):
    restore = Consensus.restore
    monkeypatch.setattr(Consensus, "restore", lambda self, votes, lock: restore(self, votes, None))


def ignore_the_lock(monkeypatch):
    enter = Consensus._enter

    def enter_unlocked(self, round_):
        self._held = None
        enter(self, round_)
        self._book.polkas.clear()

    monkeypatch.setattr(Consensus, "_enter", enter_unlocked)


@pytest.mark.parametrize("break_it", [forget_the_lock, ignore_the_lock])
def test_honest_validators_without_a_lock_fork(monkeypatch, break_it):
    break_it(monkeypatch)
    outcome = explore_rounds(Assembly(3, "majority", (1, 1)))
    assert not outcome.forks_of_one_round
    state, steps = retrace(outcome.assembly, outcome.fork_of_two_rounds)
    print("\n".join(told(steps)))
    assert len(state.certificates) == 2


def a_vote_less(monkeypatch):
    build = VoteBook.__init__
    monkeypatch.setattr(
        VoteBook, "__init__", lambda self, voters, quorum: build(self, voters, quorum - 1)
    )


def forget_own_votes(monkeypatch):
    restore = Consensus.restore
    monkeypatch.setattr(Consensus, "restore", lambda self, votes, lock: restore(self, [], lock))
    monkeypatch.setattr(Consensus, "_resume_after", lambda self, vote: None)


@pytest.mark.parametrize("break_it", [a_vote_less, forget_own_votes])
def test_what_no_single_validator_may_do_is_found_in_one(monkeypatch, break_it):
    break_it(monkeypatch)
    with pytest.raises(BrokenRuleError) as found:
        explore_rounds(Assembly(3, "majority", (1,)))
    print(found.value)


class Walk:
    """A network of real machines that forget nothing, to which anything may happen."""

    def __init__(self, assembly, seed):
        self.chance = random.Random(seed)
        self.network = Network(
            assembly.validators,
            assembly.rule,
            rounds=len(assembly.blocks),
            liar=bool(assembly.liars),
            restarts=None,
        )
        self.nursery = Nursery(self.network.setting, self.network.rounds, counts=False)
        self.replicas = [self.nursery.first(name) for name in self.network.honest]
        self.blocks = {r: list(blocks) for r, blocks in enumerate(assembly.hashes)}
        self.lies = set()

    def step(self):
        chance = self.chance
        place = chance.randrange(len(self.replicas))
        here = self.replicas[place]
        event = self.draw(here)
        if chance.random() < 0.05:
            cuts = [None, *self.nursery.restarts(here, event)] if event else [None]
            there = chance.choice(cuts) or self.nursery.after(here, Restart())
        else:
            there = event and self.nursery.after(here, event)
        if there is not None:
            self.replicas[place] = there

    def draw(self, here):
        chance, round_ = self.chance, here.machine.round
        if chance.random() < 0.1 and here.armed:
            return chance.choice(sorted(here.armed))
        if chance.random() < 0.1 and self.blocks[round_]:
            if self.network.liar and chance.random() < 0.5:
                block = self.blocks[round_].pop()
                self.lies.add(self.network.new_block(self.network.liar_name, round_, block))
            elif here.is_mining:
                return Mining(self.blocks[round_].pop())
        messages = self.network.messages(self.lies.union(*(r.sent for r in self.replicas)))
        return chance.choice(sorted(messages, key=repr)) if messages else None


@pytest.mark.parametrize(
    "assembly",
    [
        Assembly(3, "majority", (1, 1, 1)),
        Assembly(4, "two-thirds", (2, 1), liars=1),
        Assembly(3, "majority", (2, 2), liars=1),
    ],
    ids=str,
)
def test_whatever_happens_to_real_machines_has_been_explored(monkeypatch, assembly):
    """Also with turns, which the exploration of rounds takes to be always over."""
    conduct = conduct_in(assembly.validators, assembly.rule, assembly.blocks)
    monkeypatch.setattr(replica, "TIMING", Timing(9, 1, 1, 0, 9))
    print(f"seeds from {FIRST_SEED} on")
    votes_in_rounds, again = [0] * len(assembly.blocks), 0
    for seed in range(FIRST_SEED, FIRST_SEED + WALKS):
        walk = Walk(assembly, seed)
        for _ in range(STEPS):
            walk.step()
        votes = [vote for r in walk.replicas for vote in r.votes]
        assert find_unexplained(assembly, conduct, votes) is None, f"seed {seed}"
        for vote in votes:
            votes_in_rounds[vote.round] += vote.block_hash is not None
        again += any(
            vote.block_hash and vote.block_hash[-1:] != b"%d" % vote.round for vote in votes
        )
    print(f"votes for a block by round: {votes_in_rounds}; runs with a block again: {again}")
    assert all(votes_in_rounds)
    assert again
