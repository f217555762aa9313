"""What one simulated run is made of, drawn from its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fog_node.ledger.consensus_messages import Timing
from fog_node.ledger.mining_order import mining_spacing
from fog_node.protocol.founding import QUORUM_RULES, quorum_of

MIN_VALIDATORS = 3
MAX_VALIDATORS = 7
PARTITIONS = ("halves", "ring", "one", "majority", "none")
AMBUSHES = ("ambush", "ambush with a crash")
FAULT_KINDS = (*PARTITIONS, *AMBUSHES, *AMBUSHES, "crash", "crash", "blackout", "weather")
AMBUSH_ROUNDS = 3
# How long the faults last, in ms: between these.
FAULTS_MS = (15_000, 40_000)
# Waits measured by clocks that differ by more than STEADY_SPREAD need not ever fit together.
STEADY_SPREAD = 1.25
CLOCK_SPREADS = (1.0, 1.0, STEADY_SPREAD, STEADY_SPREAD, 2.0)
LIAR_STYLES = ("open", "patient", "patient", "spoiler")
CRASH_POINTS = (
    "before an action",
    "vote on disk, not sent",
    "half-way through sending",
    "precommit sent",
    "final, not on disk",
    "final, on disk",
)


@dataclass(frozen=True)
class Weather:
    """How messages fare.

    Attributes:
        drop, duplicate: chance of either per message.
        delay_ms: longest ordinary delay; every delay is drawn on its own, so messages
            overtake each other.
        straggler: chance that a message takes ten times as long.
    """

    drop: float
    duplicate: float
    delay_ms: int
    straggler: float


@dataclass(frozen=True)
class Silence:
    """Which votes of one round get lost, on every way they could travel.

    Attributes:
        mute: nodes whose votes and proposals reach nobody.
        no_prevotes, no_precommits: nodes that hear no such vote of others.
    """

    mute: frozenset[int]
    no_prevotes: frozenset[int]
    no_precommits: frozenset[int]


FAIR = Weather(drop=0.0, duplicate=0.0, delay_ms=60, straggler=0.0)


@dataclass(frozen=True)
class Fault:
    """Something that happens at `at_ms`.

    Attributes:
        kind: one of FAULT_KINDS. A partition, the weather and an ambush last until the next
            of their kind; a blackout is a crash of all nodes at once.
        groups: for a partition, the nodes that still reach each other; a node in no group
            is alone. A ring is given by groups of two.
        silences: for an ambush, what gets lost in the first rounds of the next height, while
            no final block of that height travels. This is what splits nodes into those that
            have decided, those that are locked and those that know nothing.
        node: who crashes.
        point: the crash comes where `count` points of this name have been passed; in an
            ambush right after a precommit.
        down_ms: how long a node stays down.
        weather: the new weather.
    """

    at_ms: int
    kind: str
    groups: tuple[frozenset[int], ...]
    silences: tuple[Silence, ...]
    node: int
    point: str
    count: int
    down_ms: int
    weather: Weather


@dataclass(frozen=True)
class Scenario:
    """One run: a chain, its nodes, and what befalls them until `heal_ms`.

    Attributes:
        validators: how many; `observer` adds a node that only follows.
        clock_rates: how fast each node's clock runs; its waits are multiplied by it.
        equivocator: the validator that votes and proposes two ways, if any.
        style: how it goes about it, one of LIAR_STYLES: at any time; only while the others are
            partitioned; or only with its proposals, at any time and faster than all others.
        late_joiner: the node that starts at `join_ms`, if any.
        gone: nodes that never come back after `heal_ms`.
        heals_dark: whether all nodes lose power just before `heal_ms`.
        mean_block_ms: mean time one miner needs for a block.
        shares_pending: whether nodes pass on waiting transactions.
        transactions: times in ms at which a client hands one to a node.
    """

    seed: int
    validators: int
    rule: str
    quorum: int
    spacing: int
    timing: Timing
    observer: bool
    mean_block_ms: int
    clock_rates: tuple[float, ...]
    equivocator: int | None
    style: str
    late_joiner: int | None
    join_ms: int
    gone: frozenset[int]
    heals_dark: bool
    faults: tuple[Fault, ...]
    shares_pending: bool
    transactions: tuple[tuple[int, int], ...]
    heal_ms: int

    @property
    def nodes(self) -> int:
        """Validators and observers."""
        return self.validators + self.observer

    @property
    def is_safe(self) -> bool:
        """Whether the promise forbids a fork: no liar, or fewer than a third of them."""
        return self.equivocator is None or self.rule == "two-thirds"

    @property
    def must_live(self) -> bool:
        """Whether the promise says that it must go on after `heal_ms`."""
        is_steady = all(1 / STEADY_SPREAD <= rate <= STEADY_SPREAD for rate in self.clock_rates)
        lost = len(self.gone | ({self.equivocator} if self.equivocator is not None else set()))
        return self.is_safe and is_steady and self.validators - lost >= self.quorum

    @classmethod
    def draw(cls, seed: int, faults_ms: tuple[int, int] = FAULTS_MS) -> Scenario:
        """Draw everything from the seed; the faults last between these two times."""
        rng = random.Random(seed)  # noqa: S311 - must replay, need not be secret
        count = rng.randint(MIN_VALIDATORS, MAX_VALIDATORS)
        rule = rng.choice(QUORUM_RULES)
        quorum = quorum_of(rule, count)
        equivocator = rng.randrange(count) if rng.random() < 0.3 else None
        if rule == "two-thirds" and count < 4:
            equivocator = None
        observer = rng.random() < 0.15
        heal_ms = rng.randint(*faults_ms)
        spare = count - quorum - (equivocator is not None)
        others = [node for node in range(count) if node != equivocator]
        gone = frozenset(rng.sample(others, rng.randint(0, max(0, spare))))
        stagger_ms = rng.choice((0, 100, 400))
        timing = Timing(
            propose_ms=4000,
            vote_ms=400,
            growth_ms=rng.choice((100, 400)),
            limit_ms=8000,
            stagger_ms=stagger_ms,
        )
        style = rng.choice(LIAR_STYLES)
        # With a spoiler around, a lone node that has work would need luck, not rounds.
        is_spoiled = equivocator is not None and style == "spoiler"
        spread = rng.choice(CLOCK_SPREADS)
        return cls(
            seed=seed,
            validators=count,
            rule=rule,
            quorum=quorum,
            spacing=mining_spacing(count, quorum, rng.choice((0, 500, 1000))),
            timing=timing,
            observer=observer,
            mean_block_ms=rng.choice((50, 300, 1000)),
            clock_rates=tuple(rng.uniform(1 / spread, spread) for _ in range(count + observer)),
            equivocator=equivocator,
            style=style,
            late_joiner=rng.choice(others) if rng.random() < 0.15 else None,
            join_ms=rng.randint(heal_ms // 3, heal_ms),
            gone=gone,
            heals_dark=rng.random() < 0.3,
            faults=_draw_faults(rng, count, quorum, heal_ms),
            shares_pending=rng.random() < 0.7 or is_spoiled,
            transactions=tuple(
                (rng.randint(0, heal_ms), rng.randrange(count)) for _ in range(rng.randint(10, 40))
            ),
            heal_ms=heal_ms,
        )


def _draw_faults(rng: random.Random, count: int, quorum: int, heal_ms: int) -> tuple[Fault, ...]:
    faults = []
    at_ms = rng.randint(0, 2000)
    while at_ms < heal_ms:
        kind = rng.choice(FAULT_KINDS)
        order = rng.sample(range(count), count)
        faults.append(
            Fault(
                at_ms=at_ms,
                kind=kind,
                groups=_draw_groups(kind, order, quorum),
                silences=tuple(_draw_silence(rng, count, quorum) for _ in range(AMBUSH_ROUNDS)),
                node=order[0],
                point=rng.choice(CRASH_POINTS),
                count=rng.randint(1, 5),
                down_ms=rng.randint(200, 8000),
                weather=_draw_weather(rng),
            )
        )
        at_ms += rng.randint(300, 6000)
    return tuple(faults)


def _draw_groups(kind: str, order: list[int], quorum: int) -> tuple[frozenset[int], ...]:
    if kind == "ring":
        pairs = zip(order, [*order[1:], order[0]], strict=True)
        return tuple(frozenset(pair) for pair in pairs)
    cut = {"halves": len(order) // 2, "one": 1, "majority": quorum}.get(kind, 0)
    return (frozenset(order[:cut]), frozenset(order[cut:]))


def _draw_silence(rng: random.Random, count: int, quorum: int) -> Silence:
    sizes = (0, count - quorum, count - 1)
    return Silence(
        mute=_draw_some(rng, count, rng.choice((0, 1, 1, 2))),
        no_prevotes=_draw_some(rng, count, rng.choice(sizes)),
        no_precommits=_draw_some(rng, count, rng.choice(sizes)),
    )


def _draw_some(rng: random.Random, count: int, size: int) -> frozenset[int]:
    return frozenset(rng.sample(range(count), size))


def _draw_weather(rng: random.Random) -> Weather:
    return Weather(
        drop=rng.choice((0.0, 0.05, 0.3)),
        duplicate=rng.choice((0.0, 0.1, 0.3)),
        delay_ms=rng.choice((20, 200, 1500)),
        straggler=rng.choice((0.0, 0.05)),
    )
