"""What the validators of a run decide by vote, and when; drawn from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from fog_node.ledger.simulator import Scenario
from fog_node.ledger.simulator.scenario import Fault, Silence
from fog_node.protocol.founding import QUORUM_RULES, quorum_of

# How often a run has decisions, and how often one of them is about a newcomer.
CHANCE = 0.5
NEWCOMER_CHANCE = 0.6
COUNTS = (1, 1, 2, 2, 3)
KINDS = (
    "add member",
    "add member",
    "add role",
    "add role",
    "remove role",
    "remove role",
    "remove role",
    "remove member",
    "rotate key",
    "rotate key",
    "rule",
    "parameter",
)
RESTS_MS = (0, 50, 400)
FEWEST_VALIDATORS = 3
# A liar must stay one of fewer than a third.
FEWEST_WITH_A_LIAR = 4
# How often only every other fault comes, so that more gets decided between them.
CALM_CHANCE = 0.5
# How often a decision may leave too few that keep the rules, so that nothing goes on.
RECKLESS_CHANCE = 0.1
_TRIES = 20


@dataclass(frozen=True)
class Decision:
    """Something that the validators begin to decide at `at_ms`.

    Attributes:
        kind: one of KINDS. An added member's node is nobody to the others before; one that
            gets a role follows as an observer, and so does one that loses it. A removed
            member's node is shut out.
        node: whom it is about.
        rule: the new quorum's rule.
        rest_ms: the new parameter.
    """

    at_ms: int
    kind: str
    node: int
    rule: str
    rest_ms: int


class _Outlook:
    """Who votes once all has been decided that was drawn so far."""

    def __init__(self, scenario: Scenario, lost: frozenset[int]) -> None:
        self._scenario = scenario
        self._lost = lost
        self.places = list(range(scenario.validators))
        self.rule = scenario.rule
        self._unused = {"newcomer"} if scenario.observer else set()
        self._rotated: set[int] = set()

    def whom(self, kind: str, rng: random.Random) -> int | None:
        """Whom a decision of this kind could be about; None where there is nobody."""
        scenario = self._scenario
        if kind.startswith("add"):
            return scenario.validators if self._unused else None
        if kind.startswith("remove"):
            strict = scenario.equivocator is not None and "two-thirds" in (self.rule, scenario.rule)
            fewest = FEWEST_WITH_A_LIAR if strict else FEWEST_VALIDATORS
            return rng.choice(self.places) if len(self.places) > fewest else None
        if kind == "rotate key":
            others = [
                place
                for place in self.places
                if place not in self._rotated and place != scenario.equivocator
            ]
            return rng.choice(others) if others else None
        if kind == "rule":
            # With a liar, a smaller quorum would take back what was promised.
            is_free = scenario.equivocator is None or self.rule == "majority"
            return 0 if is_free else None
        return 0

    def after(self, decision: Decision) -> _Outlook:
        """Return what it would be like after one more decision."""
        later = _Outlook(self._scenario, self._lost)
        later.places, later.rule = list(self.places), self.rule
        later._unused, later._rotated = set(self._unused), set(self._rotated)
        if decision.kind.startswith("add"):
            later.places.append(decision.node)
            later._unused = set()
        elif decision.kind.startswith("remove"):
            later.places.remove(decision.node)
        elif decision.kind == "rotate key":
            later._rotated.add(decision.node)
        elif decision.kind == "rule":
            later.rule = decision.rule
        return later

    @property
    def can_live(self) -> bool:
        """Whether enough are left that keep the rules."""
        return len(set(self.places) - self._lost) >= quorum_of(self.rule, len(self.places))


def calm(rng: random.Random, scenario: Scenario) -> Scenario:
    """Take some of the faults away, now and then."""
    if rng.random() >= CALM_CHANCE:
        return scenario
    kept = tuple(fault for fault in scenario.faults if rng.random() < 0.5)
    return replace(scenario, faults=kept)


def draw_newcomer(rng: random.Random, scenario: Scenario) -> Scenario:
    """Add a node that is no validator yet, and let faults befall it like the others."""
    newcomer = scenario.validators
    scenario = replace(scenario, observer=True)
    late_joiner = newcomer if rng.random() < 0.4 else scenario.late_joiner
    faults = tuple(_befalls(fault, newcomer, rng) for fault in scenario.faults)
    return replace(scenario, late_joiner=late_joiner, faults=faults)


def draw_decisions(
    rng: random.Random, scenario: Scenario, lost: frozenset[int]
) -> tuple[Decision, ...]:
    """Draw what is decided.

    Args:
        rng: of this seed.
        scenario: with an observer where somebody may be added.
        lost: nodes that are of no help after the faults.
    """
    outlook = _Outlook(scenario, lost)
    drawn: list[Decision] = []
    end_ms = scenario.heal_ms * 2 // 3
    times = sorted(rng.randint(0, end_ms) for _ in range(rng.choice(COUNTS)))
    for at_ms in times:
        for _ in range(_TRIES):
            kind = rng.choice(KINDS)
            node = outlook.whom(kind, rng)
            if node is None:
                continue
            rule = next(rule for rule in QUORUM_RULES if rule != outlook.rule)
            decision = Decision(at_ms, kind, node, rule, rng.choice(RESTS_MS))
            later = outlook.after(decision)
            if later.can_live or not outlook.can_live or rng.random() < RECKLESS_CHANCE:
                drawn.append(decision)
                outlook = later
                break
    return tuple(drawn)


def _befalls(fault: Fault, newcomer: int, rng: random.Random) -> Fault:
    groups = list(fault.groups)
    if groups:
        some = rng.randrange(len(groups))
        groups[some] |= {newcomer}
    node = newcomer if rng.random() < 1 / (newcomer + 1) else fault.node
    silences = tuple(_silence(silence, newcomer, rng) for silence in fault.silences)
    return replace(fault, groups=tuple(groups), node=node, silences=silences)


def _silence(silence: Silence, newcomer: int, rng: random.Random) -> Silence:
    sets = [silence.mute, silence.no_prevotes, silence.no_precommits]
    for index, some in enumerate(sets):
        if rng.random() < len(some) / newcomer:
            sets[index] = some | {newcomer}
    return Silence(*sets)
