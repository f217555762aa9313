"""What befalls one run of whole nodes, drawn from its seed.

The network's faults, partitions and liars are those of `fog_node.ledger.simulator`; here
are the ones that only a whole node can meet.
"""

from __future__ import annotations

import random
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from fog_node.ledger.simulator import Scenario
from fog_node.ledger.simulator.scenario import CRASH_POINTS

from . import decisions
from .decisions import Decision
from .disk import POINTS

# Shorter than where only the votes are played: there is more to be done in each ms. What takes
# several faults in a row still comes about in thousands of runs.
FAULTS_MS = (8_000, 22_000)
# Of the transactions that a scenario has, one of so many is a pack of a board's.
SPARSE = 2
# Beyond what a block's time may be ahead (MAX_FUTURE_MS), and within it.
SKEWS_MS = (600_000, -600_000, 600_000, -600_000, 100_000, 100_000, -100_000)
SLOW_DISK_MS = (50, 400, 2500)
TROUBLES = ("clock", "slow disk", "wiped disk", "wiped early")
# How often a validator's disk is wiped where that is promised to do no harm, and how long until
# it is back with an empty one.
WIPE_CHANCE = 0.5
WIPED_MS = (50, 1000, 4000)
# How often that is right after its first precommit for a block, when nobody has one yet.
WIPED_EARLY_CHANCE = 0.4
# How often, where a majority rules, a liar gets the chance to part the others for good.
SIEGE_CHANCE = 0.2


@dataclass(frozen=True)
class Trouble:
    """Something that happens to one node at `at_ms`.

    Attributes:
        kind: one of TROUBLES.
        amount_ms: how far the clock is ahead from then on, or the longest time that an
            access to the disk takes; 0 sets it right. Of a wiped disk, how long the node is
            down; early, that is after its precommit for the first block.
    """

    at_ms: int
    kind: str
    node: int
    amount_ms: int


@dataclass(frozen=True)
class Script:
    """One run of whole nodes.

    Attributes:
        scenario: network, partitions, crashes, liars, clients.
        wrong_branch: a validator that mines on an old block, if any.
        troubles: with clocks and disks.
        skewed: nodes whose clocks are wrong at the end, and stay so.
        crash_points: one for each fault of the scenario, in their order; it takes the
            place of the scenario's.
        decisions: what the validators change by vote, one after the other.
    """

    scenario: Scenario
    wrong_branch: int | None
    troubles: tuple[Trouble, ...]
    skewed: frozenset[int]
    crash_points: tuple[str, ...]
    rest_ms: int
    decisions: tuple[Decision, ...] = ()

    @property
    def lost(self) -> frozenset[int]:
        """Nodes that are of no help after the faults."""
        return self.scenario.gone | self.skewed | self._odd

    @property
    def _odd(self) -> frozenset[int]:
        odd = (self.scenario.equivocator, self.wrong_branch)
        return frozenset(node for node in odd if node is not None)

    def must_live(self, voters: AbstractSet[int], quorum: int) -> bool:
        """Whether the promise says that nodes go on after the faults, where these vote.

        Enough that keep the rules, and whose clocks are right, must be left.
        """
        return self.scenario.is_safe and len(voters - self.lost) >= quorum

    def keeps_time(self, quorum: int) -> bool:
        """Whether those whose clocks were wrong were never enough to make a block final."""
        ever_skewed = {trouble.node for trouble in self.troubles if trouble.kind == "clock"}
        return len(ever_skewed | self._odd) < quorum

    @classmethod
    def draw(cls, seed: int) -> Script:
        """Draw everything from the seed."""
        rng = random.Random(f"whole nodes {seed}")  # noqa: S311 - must replay
        scenario = Scenario.draw(seed, FAULTS_MS)
        scenario = replace(scenario, transactions=scenario.transactions[::SPARSE])
        is_odd = scenario.validators % 2 == 1
        is_besieged = is_odd and scenario.rule == "majority" and rng.random() < SIEGE_CHANCE
        if is_besieged:
            scenario = _besieged(scenario, rng)
        votes = random.Random(f"decisions {seed}")  # noqa: S311 - must replay
        decides = not is_besieged and votes.random() < decisions.CHANCE
        if decides:
            scenario = decisions.calm(votes, scenario)
        if decides and votes.random() < decisions.NEWCOMER_CHANCE:
            scenario = decisions.draw_newcomer(votes, scenario)
        count, quorum, heal_ms = scenario.validators, scenario.quorum, scenario.heal_ms
        odd = {scenario.equivocator, *scenario.gone}
        others = [node for node in range(count) if node not in odd]
        spare = len(others) - quorum
        wrong_branch = rng.choice(others) if spare > 0 and rng.random() < 0.3 else None
        spare -= wrong_branch is not None
        troubles: list[Trouble] = []
        unlucky = rng.sample(others, min(len(others), rng.choice((0, 1, 1, 2))))
        stays_wrong = rng.random() < 0.5
        skewed: set[int] = set()
        for node in unlucky:
            for _ in range(rng.randint(1, 3)):
                amount_ms = rng.choice(SKEWS_MS)
                # Just before the faults end it hurts most.
                at_ms = rng.randint(rng.choice((0, heal_ms - 6000)), heal_ms)
                troubles.append(Trouble(at_ms, "clock", node, amount_ms))
            if stays_wrong and (len(skewed) < spare or rng.random() < 0.1):
                skewed.add(node)
            else:
                troubles.append(Trouble(heal_ms, "clock", node, 0))
        if rng.random() < 0.5:
            node = rng.randrange(scenario.nodes)
            amount_ms = rng.choice(SLOW_DISK_MS)
            troubles.append(Trouble(rng.randint(0, heal_ms), "slow disk", node, amount_ms))
            troubles.append(Trouble(heal_ms, "slow disk", node, 0))
        if not decides:
            troubles += _wipes(random.Random(f"wiped disks {seed}"), scenario)  # noqa: S311
        points = (*CRASH_POINTS, *POINTS)
        script = cls(
            scenario=scenario,
            wrong_branch=wrong_branch,
            troubles=tuple(sorted(troubles, key=lambda trouble: trouble.at_ms)),
            skewed=frozenset(skewed),
            crash_points=tuple(rng.choice(points) for _ in scenario.faults),
            rest_ms=rng.choice(decisions.RESTS_MS),
        )
        if not decides:
            return script
        return replace(script, decisions=decisions.draw_decisions(votes, scenario, script.lost))


def _wipes(rng: random.Random, scenario: Scenario) -> list[Trouble]:
    """Let a validator lose all that is on its disk, once or twice.

    Where a quorum is left without it, and nobody understates its height: then it must not vote
    against what it voted before (CONSENSUS.md, "A new ledger").
    """
    is_promised = scenario.equivocator is None and scenario.validators > scenario.quorum
    if not is_promised or rng.random() >= WIPE_CHANCE:
        return []
    node, heal_ms = rng.randrange(scenario.validators), scenario.heal_ms
    times = [rng.randint(heal_ms // 4, heal_ms) for _ in range(rng.choice((1, 1, 2)))]
    wipes = [Trouble(at_ms, "wiped disk", node, rng.choice(WIPED_MS)) for at_ms in times]
    if rng.random() < WIPED_EARLY_CHANCE:
        wipes[0] = replace(wipes[0], at_ms=0, kind="wiped early")
    return wipes


def _besieged(scenario: Scenario, rng: random.Random) -> Scenario:
    """Part the honest into equal halves, and let a patient liar serve both: a sure fork."""
    order = rng.sample(range(scenario.validators), scenario.validators)
    liar, honest = order[0], order[1:]
    half = len(honest) // 2
    groups = (frozenset(honest[:half]), frozenset(honest[half:]))
    parted = replace(
        scenario.faults[0], at_ms=rng.randint(3000, 8000), kind="halves", groups=groups
    )
    return replace(
        scenario,
        equivocator=liar,
        style="patient",
        gone=frozenset(),
        late_joiner=None,
        faults=(parted,),
    )
