"""Whole nodes under faults, each run from one seed; and proof that faults would be found.

FOGLINE_SIM_NODE_RUNS and FOGLINE_SIM_SEED choose how many seeds are played and from which on.
A failing one is named and replays with `fogline bench simulate --part nodes --replay SEED`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from fog_node.agreement import Agreement
from fog_node.errors import ForkError
from fog_node.ledger.consensus import Consensus
from fog_node.ledger.ledger import Ledger
from fog_node.ledger.simulator import SimulationError
from fog_node.ledger.store import Store
from fog_node.protocol.validators import ValidatorSet
from tools.simulation import Script, enact, remembered
from tools.simulation.many import Summary, play
from tools.simulation.script import Trouble

RUNS = int(os.environ.get("FOGLINE_SIM_NODE_RUNS", "1000"))
FIRST_SEED = int(os.environ.get("FOGLINE_SIM_SEED", "0"))
SEEDS_TO_FIND_A_MUTANT = 150
FEWEST_RUNS_FOR_COVERAGE = 1000
JOBS = min(2, len(os.sched_getaffinity(0)))

EXPECTED = {
    "blocks committed in a later round",
    "blocks mined on a wrong branch",
    "blocks with the vote of a new key",
    "connections refused",
    "crashes: admitted, not on disk",
    "crashes: admitted, on disk",
    "crashes: before an action",
    "crashes: final, not on disk",
    "crashes: final, on disk",
    "crashes: half-way through sending",
    "crashes: lock not on disk",
    "crashes: lock on disk",
    "crashes: precommit sent",
    "crashes: vote not on disk",
    "crashes: vote on disk, not sent",
    "decisions among faults",
    "equivocations reported",
    "faults: ambush",
    "faults: ambush with a crash",
    "faults: blackout",
    "faults: clock",
    "faults: halves",
    "faults: majority",
    "faults: one",
    "faults: ring",
    "faults: slow disk",
    "faults: weather",
    "faults: wiped disk",
    "faults: wiped disk at the first height",
    "late joiners",
    "messages cut off",
    "messages delayed tenfold",
    "messages dropped",
    "messages duplicated",
    "messages reordered",
    "new ledgers that asked first: may vote after a while",
    "new ledgers that asked first: may vote at once",
    "nodes stopped at a fork",
    "parameters changed",
    "polkas forged",
    "proposals made two ways",
    "quorum's rules changed",
    "restarts with a lock",
    "restarts with a new key",
    "validators added: new members",
    "validators added: observers",
    "validators removed: no members any more",
    "validators removed: observers now",
    "validators' keys replaced",
    "wiped ledgers that asked first: may vote after a while",
}


@pytest.fixture(scope="module")
def summary():
    """What came of all seeds."""
    return Summary.of(play("nodes", range(FIRST_SEED, FIRST_SEED + RUNS), JOBS))


def test_no_run_breaks_a_promise(summary):
    assert not summary.failures, "\n".join(outcome.failure for outcome in summary.failures)


def test_every_fault_came_about(summary):
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


def test_one_seed_is_one_run_in_any_process():
    """Nothing may depend on the order of a set, which differs from process to process."""
    told = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tools.cli", "bench", "simulate", "--part", "nodes"]
        done = subprocess.run(
            [*command, "--replay", str(FIRST_SEED)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        )
        told.add(done.stdout)
    assert len(told) == 1
    assert b"faults end" in told.pop()


def forget_votes(monkeypatch):
    restore = Consensus.restore
    monkeypatch.setattr(Consensus, "restore", lambda self, votes, lock: restore(self, [], lock))
    monkeypatch.setattr(Consensus, "_resume_after", lambda self, vote: None)


def forget_the_lock(monkeypatch):
    restore = Consensus.restore
    monkeypatch.setattr(Consensus, "restore", lambda self, votes, lock: restore(self, votes, None))


def write_votes_late(monkeypatch):
    cast = Agreement._cast

    async def hasty(self, action):
        save = self._ledger.save_vote
        self._ledger.save_vote = lambda vote: None
        try:
            await cast(self, action)
        finally:
            self._ledger.save_vote = save

    monkeypatch.setattr(Agreement, "_cast", hasty)


def ignore_the_lock(monkeypatch):
    enter = Consensus._enter

    def enter_unlocked(self, round_):
        self._held = None
        enter(self, round_)
        self._book.polkas.clear()

    monkeypatch.setattr(Consensus, "_enter", enter_unlocked)


def receipt_before_final(monkeypatch):
    take = Ledger._take

    def hasty(self, transaction):
        result = take(self, transaction)
        return result._replace(status="final") if result.status == "admitted" else result

    monkeypatch.setattr(Ledger, "_take", hasty)
    monkeypatch.setattr(Ledger, "_load_pending", lambda self: None)


def lose_a_change_of_the_state(monkeypatch):
    commit = Store.commit

    def forgetful(self, block, certificate, changes, *others):
        return commit(self, block, certificate, dict(list(changes.items())[1:]), *others)

    monkeypatch.setattr(Store, "commit", forgetful)


def rest_by_the_clock_of_the_head(monkeypatch):
    def mine(self, mine):
        rest_ms = max(0, self._ledger.earliest_ms() - self._now_ms())
        start = (rest_ms + mine.delay_ms) / 1000
        self._miner.start(
            start, lambda: self._template(self._key, mine), lambda block: self._found(mine, block)
        )

    monkeypatch.setattr(Agreement, "_mine", mine)


def overlook_forks(monkeypatch):
    commit_again = Ledger._commit_again

    def careless(self, block, certificate):
        try:
            return commit_again(self, block, certificate)
        except ForkError:
            self._fork = None

    monkeypatch.setattr(Ledger, "_commit_again", careless)


def lose_a_vote_in_the_air(monkeypatch):
    """Nobody passes on what others voted."""
    monkeypatch.setattr(Consensus, "answer", lambda self, status: [])


def keep_the_founding_validators(monkeypatch):
    """As the founding file says, whatever was decided since."""
    setting, check = Ledger.height_setting, Ledger._check_certificate

    def as_founded(self):
        founding = self.founding
        kids = tuple(member.kid for member in founding.validators)
        return replace(setting(self), validators=kids, quorum=founding.quorum)

    def check_as_founded(self, block, certificate, voters):
        check(self, block, certificate, self.founding.validator_set)

    monkeypatch.setattr(Ledger, "height_setting", as_founded)
    monkeypatch.setattr(Ledger, "_check_certificate", check_as_founded)


def count_removed_validators(monkeypatch):
    """Whoever was a validator at first goes on to be heard."""
    setting, check, append = Ledger.height_setting, Ledger._check_certificate, Agreement._append

    def with_former(self):
        now = setting(self)
        kids = dict.fromkeys([*now.validators, *self.founding.validator_set.by_kid])
        # What is no majority the consensus itself refuses.
        return replace(now, validators=tuple(kids)) if 2 * now.quorum > len(kids) else now

    def check_with_former(self, block, certificate, voters):
        keys = dict.fromkeys([*voters.keys, *self.founding.validator_set.keys])
        check(self, block, certificate, ValidatorSet(voters.quorum, tuple(keys)))

    async def keep_keys(self, block, certificate):
        known = dict(self._keys)
        await append(self, block, certificate)
        self._keys = known | self._keys

    monkeypatch.setattr(Ledger, "height_setting", with_former)
    monkeypatch.setattr(Ledger, "_check_certificate", check_with_former)
    monkeypatch.setattr(Agreement, "_append", keep_keys)


def keep_the_founding_quorum(monkeypatch):
    """Who votes is followed, but not how many votes it takes."""
    setting, check = Ledger.height_setting, Ledger._check_certificate

    def as_founded(self):
        now, quorum = setting(self), self.founding.quorum
        is_majority = len(now.validators) < 2 * quorum <= 2 * len(now.validators)
        return replace(now, quorum=quorum) if is_majority else now

    def check_as_founded(self, block, certificate, voters):
        check(self, block, certificate, replace(voters, quorum=self.founding.quorum))

    monkeypatch.setattr(Ledger, "height_setting", as_founded)
    monkeypatch.setattr(Ledger, "_check_certificate", check_as_founded)


def clock_ahead(seed):
    """A run in which nothing is wrong but one clock, which is set right at the end."""
    drawn = Script.draw(seed)
    scenario = replace(
        drawn.scenario, faults=(), equivocator=None, gone=frozenset(), late_joiner=None
    )
    return replace(
        drawn,
        scenario=scenario,
        wrong_branch=None,
        decisions=(),
        skewed=frozenset(),
        troubles=(
            Trouble(0, "clock", 0, 100_000),
            Trouble(scenario.heal_ms, "clock", 0, 0),
        ),
    )


def test_a_clock_ahead_does_not_make_the_others_wait_for_it(monkeypatch):
    scripts = [clock_ahead(seed) for seed in range(6)]
    with remembered():
        reports = [enact(script) for script in scripts]
        assert all(report.recovery_ms is not None for report in reports)
        rest_by_the_clock_of_the_head(monkeypatch)
        with pytest.raises(SimulationError, match="no new block"):
            list(map(enact, scripts))


def vote_with_a_new_ledger(monkeypatch):
    """Whoever has lost its disk votes at once, as if it never had."""
    create = Store._create

    def without_asking(self, *arguments):
        meta = create(self, *arguments)
        meta.asking = False
        return meta

    monkeypatch.setattr(Store, "_create", without_asking)


def vote_at_once_at_the_first_height(monkeypatch):
    """As if nobody could have voted yet where nobody has a block."""
    may_have_voted = Agreement._may_have_voted

    def whatever_others_voted(self):
        self._unvoted = set(self._consensus.setting.validators)
        return may_have_voted(self)

    monkeypatch.setattr(Agreement, "_may_have_voted", whatever_others_voted)


def any_run(script):
    return True


def may_fork(script):
    return not script.scenario.is_safe


def decides(script):
    return bool(script.decisions)


def wipes_a_disk(script):
    return any(trouble.kind == "wiped disk" for trouble in script.troubles)


def wipes_early(script):
    return any(trouble.kind == "wiped early" for trouble in script.troubles)


@pytest.mark.parametrize(
    ("break_it", "found_as", "among", "first"),
    [
        (forget_votes, "has voted otherwise|contradicts itself", any_run, 0),
        (forget_the_lock, "breaks its lock|second final block", any_run, 26),
        (write_votes_late, "not on its disk", any_run, 0),
        (ignore_the_lock, "breaks its lock|second final block", any_run, 0),
        (receipt_before_final, "receipted transaction is lost", any_run, 0),
        (lose_a_change_of_the_state, "state: is not the one", any_run, 0),
        (overlook_forks, "on a fork and does not know|blames", may_fork, 127),
        (lose_a_vote_in_the_air, "no new block", any_run, 0),
        (keep_the_founding_validators, "is no validator|voters of|blames|no new block", decides, 0),
        (count_removed_validators, "is no validator|voters of", decides, 0),
        (keep_the_founding_quorum, "voters of|no new block", decides, 52),
        (vote_with_a_new_ledger, "contradicts itself|breaks its lock", wipes_a_disk, 0),
        (
            vote_at_once_at_the_first_height,
            "contradicts itself|breaks its lock|not on its disk",
            wipes_early,
            614,
        ),
    ],
)
def test_the_simulation_finds_a_defect(monkeypatch, break_it, found_as, among, first):
    """Wherever the search begins; `first` is where a long one has ended before."""
    break_it(monkeypatch)
    last = max(first, SEEDS_TO_FIND_A_MUTANT) + 1
    order = (*range(first, last), *range(first))
    seeds = [seed for seed in order if among(Script.draw(seed))]
    for outcome in play("nodes", seeds):
        if outcome.failure is not None:
            print(f"found by seed {outcome.seed}")
            assert re.search(found_as, outcome.failure)
            return
    pytest.fail(f"not found in {len(seeds)} runs")
