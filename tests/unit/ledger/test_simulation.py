"""Thousands of faulty networks, each from one seed; and proof that faults would be found.

FOGLINE_SIM_RUNS and FOGLINE_SIM_SEED choose how many seeds are played and from which on.
A failing one is named and replays with `python -m fog_node.ledger.simulator --seed N -v`.
"""

from __future__ import annotations

import os

import pytest

from fog_node.ledger.consensus import Consensus
from fog_node.ledger.consensus_messages import Lock, SaveLock
from fog_node.ledger.simulator import Scenario, SimulationError, simulate
from fog_node.ledger.simulator.node import SimulatedNode
from fog_node.ledger.vote_book import VoteBook
from tools.simulation.many import Summary, play

RUNS = int(os.environ.get("FOGLINE_SIM_RUNS", "1000"))
FIRST_SEED = int(os.environ.get("FOGLINE_SIM_SEED", "0"))
SEEDS_TO_FIND_A_MUTANT = 600
FEWEST_RUNS_FOR_COVERAGE = 1000
JOBS = min(2, len(os.sched_getaffinity(0)))

EXPECTED = {
    "blocks asked for",
    "blocks caught up",
    "blocks committed in a later round",
    "crashes: before an action",
    "crashes: final, not on disk",
    "crashes: final, on disk",
    "crashes: half-way through sending",
    "crashes: precommit sent",
    "crashes: vote on disk, not sent",
    "equivocations reported",
    "faults: ambush",
    "faults: ambush with a crash",
    "faults: blackout",
    "faults: halves",
    "faults: majority",
    "faults: one",
    "faults: ring",
    "faults: weather",
    "late joiners",
    "messages cut off",
    "messages delayed tenfold",
    "messages dropped",
    "messages duplicated",
    "messages reordered",
    "nodes stopped at a fork",
    "polkas forged",
    "re-proposals",
    "restarts with a lock",
}


@pytest.fixture(scope="module")
def summary():
    """What came of all seeds."""
    return Summary.of(play("consensus", range(FIRST_SEED, FIRST_SEED + RUNS), JOBS))


def test_no_run_breaks_a_promise(summary):
    assert not summary.failures, "\n".join(outcome.failure for outcome in summary.failures)


def test_every_fault_and_every_rule_came_about(summary):
    if RUNS < FEWEST_RUNS_FOR_COVERAGE:
        pytest.skip(f"only {RUNS} runs asked for")
    for what, count in sorted(summary.events.items()):
        print(f"{summary.runs_with[what]:8d} {count:8d}  {what}")
    assert not EXPECTED - set(summary.events)
    every = {(n, rule) for n in range(3, 8) for rule in ("majority", "two-thirds")}
    assert set(summary.networks) == every


def test_runs_get_work_done(summary):
    assert not summary.idle
    assert summary.live > summary.runs / 2


def test_one_seed_is_one_run():
    logs = []
    for _ in range(2):
        log = []
        simulate(FIRST_SEED, log.append)
        logs.append(log)
    assert logs[0] == logs[1]
    assert Scenario.draw(FIRST_SEED) != Scenario.draw(FIRST_SEED + 1)


def forget_the_lock(monkeypatch):
    restore = Consensus.restore
    monkeypatch.setattr(Consensus, "restore", lambda self, votes, lock: restore(self, votes, None))


def forget_own_votes(monkeypatch):
    restore = Consensus.restore
    monkeypatch.setattr(Consensus, "restore", lambda self, votes, lock: restore(self, [], lock))
    monkeypatch.setattr(Consensus, "_resume_after", lambda self, vote: None)


def ignore_the_lock(monkeypatch):
    enter = Consensus._enter

    def enter_unlocked(self, round_):
        self._held = None
        enter(self, round_)
        self._book.polkas.clear()

    monkeypatch.setattr(Consensus, "_enter", enter_unlocked)


def save_the_lock_last(monkeypatch):
    handle = Consensus.handle

    def reordered(self, event):
        actions = handle(self, event)
        return sorted(actions, key=lambda action: isinstance(action, SaveLock))

    monkeypatch.setattr(Consensus, "handle", reordered)


def send_before_writing(monkeypatch):
    def cast(self, action):
        vote = self._sign(action.height, action.round, action.step, action.block_hash)
        self.world.judge.see_vote(vote)
        self._broadcast(vote)
        self._may_crash("vote on disk, not sent")
        self.disk.votes.append(vote)
        self._feed(vote)

    monkeypatch.setattr(SimulatedNode, "_cast", cast)


def count_votes_twice(monkeypatch):
    add = VoteBook.add

    def add_again(self, vote):
        earlier = add(self, vote)
        votes = self._votes.get((vote.round, vote.step))
        if votes is not None:
            votes[vote.validator + b" again"] = vote
        return earlier

    monkeypatch.setattr(VoteBook, "add", add_again)


def trust_every_justification(monkeypatch):
    def take(self, proposal):
        block_hash, block = proposal.block_hash, proposal.block
        self._hold(Lock(proposal.height, proposal.pol_round, block_hash, block, ()))
        return True

    monkeypatch.setattr(Consensus, "_take_justification", take)


def overlook_forks(monkeypatch):
    monkeypatch.setattr(SimulatedNode, "_stop_at_fork", lambda self, fork: None)


def overlook_equivocation(monkeypatch):
    monkeypatch.setattr(Consensus, "_report", lambda self, vote_a, vote_b: None)


def never_move_on(monkeypatch):
    monkeypatch.setattr(Consensus, "_has_quorum_passed", lambda self, step: False)


def play_until_failure(first):
    """Wherever the search begins; `first` is where a long one has ended before."""
    for seed in (*range(first, SEEDS_TO_FIND_A_MUTANT), *range(first)):
        simulate(seed)


@pytest.mark.parametrize(
    ("break_it", "found_as", "first"),
    [
        (forget_the_lock, "breaks its lock|second final block", 0),
        (forget_own_votes, "contradicts itself", 0),
        (ignore_the_lock, "breaks its lock|second final block", 0),
        (save_the_lock_last, "without a lock on disk", 0),
        (send_before_writing, "contradicts itself", 0),
        (count_votes_twice, "voters|holds a vote", 0),
        (trust_every_justification, "breaks its lock|second final block", 0),
        (overlook_forks, "on a fork and does not know", 277),
        (overlook_equivocation, "overlooks an equivocation", 0),
        (never_move_on, "no new block", 0),
    ],
)
def test_the_simulator_finds_a_broken_rule(monkeypatch, break_it, found_as, first):
    break_it(monkeypatch)
    with pytest.raises(SimulationError, match=found_as) as found:
        play_until_failure(first)
    print(f"found by seed {found.value.seed}: {found.value.problem}")
