"""Many runs over several processes, and what came of them together."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

from fog_node.ledger import simulator
from fog_node.ledger.simulator import SimulationError

from . import world
from .remembered import remembered

PARTS = ("consensus", "nodes")
_CHUNK = 10
_YOUNG_OBJECTS = 200_000


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Attributes:
        failure: which promise was broken, with the command that replays it; None if none.
        coverage: how often each fault and each rule came about.
        must_live: whether the promise says that it goes on after the faults.
        recovery_ms: how long that took.
    """

    part: str
    seed: int
    failure: str | None
    validators: int = 0
    rule: str = ""
    must_live: bool = False
    recovery_ms: float | None = None
    blocks: int = 0
    transactions: int = 0
    coverage: Counter[str] = field(default_factory=Counter)


@dataclass
class Summary:
    """What came of many runs.

    Attributes:
        runs_with, events: per fault or rule, in how many runs and how often it came about.
        slowest: the run that took longest to go on after its faults.
    """

    runs: int = 0
    live: int = 0
    failures: list[Outcome] = field(default_factory=list)
    runs_with: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    networks: Counter[tuple[int, str]] = field(default_factory=Counter)
    slowest: Outcome | None = None
    idle: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Take one more run into account."""
        self.runs += 1
        if outcome.failure is not None:
            self.failures.append(outcome)
            return
        self.live += outcome.must_live
        self.events += outcome.coverage
        self.runs_with.update(outcome.coverage.keys())
        self.networks[outcome.validators, outcome.rule] += 1
        if outcome.must_live and not outcome.blocks:
            self.idle.append(outcome)
        if self.slowest is None or (outcome.recovery_ms or 0) > (self.slowest.recovery_ms or 0):
            self.slowest = outcome

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Summary:
        """Sum up."""
        summary = cls()
        for outcome in sorted(outcomes, key=lambda outcome: outcome.seed):
            summary.add(outcome)
        return summary


def play(part: str, seeds: Sequence[int], jobs: int = 1) -> Iterator[Outcome]:
    """Play a run per seed, in any order.

    Args:
        part: `consensus`, the voting on a chain of its own, or `nodes`, whole nodes.
        jobs: processes; 1 plays in this one.
    """
    if jobs == 1:
        yield from _play_some(part, seeds)
        return
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_play_all, part, chunk) for chunk in chunks]):
            yield from done.result()


def _play_all(part: str, seeds: Sequence[int]) -> list[Outcome]:
    return list(_play_some(part, seeds))


def _play_some(part: str, seeds: Sequence[int]) -> Iterator[Outcome]:
    if part not in PARTS:
        raise ValueError(f"part: {part!r} is none of {', '.join(PARTS)}")
    # Daemons warn of what is done to them here on purpose.
    before, thresholds = logging.root.manager.disable, gc.get_threshold()
    logging.disable()
    # What is remembered is a lot; looking through it every now and then takes a tenth of the time.
    gc.set_threshold(_YOUNG_OBJECTS, *thresholds[1:])
    try:
        if part == "consensus":
            yield from map(_play_consensus, seeds)
        else:
            with remembered():
                yield from map(_play_nodes, seeds)
    finally:
        gc.set_threshold(*thresholds)
        logging.disable(before)


def _play_consensus(seed: int) -> Outcome:
    try:
        report = simulator.simulate(seed)
    except SimulationError as error:
        return Outcome("consensus", seed, str(error))
    return Outcome(
        part="consensus",
        seed=seed,
        failure=None,
        validators=report.scenario.validators,
        rule=report.scenario.rule,
        must_live=report.scenario.must_live,
        recovery_ms=report.recovery_ms,
        blocks=report.blocks,
        transactions=report.transactions,
        coverage=report.coverage,
    )


def _play_nodes(seed: int) -> Outcome:
    try:
        report = world.simulate(seed)
    except SimulationError as error:
        return Outcome("nodes", seed, str(error))
    scenario = report.script.scenario
    return Outcome(
        part="nodes",
        seed=seed,
        failure=None,
        validators=scenario.validators,
        rule=scenario.rule,
        must_live=report.must_live,
        recovery_ms=report.recovery_ms,
        blocks=report.blocks,
        transactions=report.transactions,
        coverage=report.coverage,
    )
