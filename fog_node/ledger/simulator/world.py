"""The simulated world: time, network, power cuts, clients, and the end of a run."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fog_node.ledger.consensus_messages import Proposal
from fog_node.protocol.votes import Vote

from .air import Air, Traffic
from .chain import FinalBlock
from .judge import Judge
from .node import CrashError, Equivocator, Item, SimulatedNode
from .scenario import AMBUSHES, Fault, Scenario

LIVE_ROUNDS = 2
# The proposer's wait, that of those it wakes, and one for either kind of vote.
WAITS_PER_ROUND = 4
LAST_WISH = b"after the storm"


@dataclass
class Report:
    """What happened in a run.

    Attributes:
        blocks: height of the longest chain of an honest node.
        transactions: how many of them are final.
        recovery_ms: from the end of the faults to a new block on every node; None when the
            scenario does not promise one.
        coverage: how often each fault and each rule came about.
    """

    scenario: Scenario
    blocks: int = 0
    transactions: int = 0
    recovery_ms: float | None = None
    coverage: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Delivery:
    """Messages under way."""

    sender: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Submission:
    """A client hands in a transaction."""

    transaction: bytes


@dataclass(frozen=True)
class Restart:
    """Power comes back."""


RESTART = Restart()


class World:
    """One run.

    Attributes:
        scenario: what it is made of.
        validators: their names, in order.
        now: simulated time in ms.
    """

    def __init__(self, scenario: Scenario, log: Callable[[str], None] | None = None) -> None:
        """Set the stage; `log` is told each event in words."""
        self.scenario = scenario
        self.rng = random.Random(scenario.seed + 1)  # noqa: S311 - must replay
        self.validators = tuple(b"v%d" % i for i in range(scenario.validators))
        replay = f"python -m fog_node.ledger.simulator --seed {scenario.seed} -v"
        self.judge = Judge(scenario, self.validators, bytes.decode, replay)
        self.now = 0.0
        self.coverage: Counter[str] = Counter()
        self._log = log
        self._queue: list[tuple[float, int, int, int, object]] = []
        self._sequence = 0
        self._air = Air(scenario.nodes, self.rng, self.coverage)
        self._rivals: dict[int, list[bytes]] = {}
        names = (*self.validators, b"observer")[: scenario.nodes]
        self.nodes = [
            (Equivocator if i == scenario.equivocator else SimulatedNode)(self, i, name)
            for i, name in enumerate(names)
        ]

    # For the nodes

    def count(self, what: str) -> None:
        """Note that something came about."""
        self.coverage[what] += 1

    def others(self, index: int) -> list[int]:
        """All nodes but one."""
        return [i for i in range(self.scenario.nodes) if i != index]

    def side_of(self, validator: bytes) -> list[int]:
        """The nodes that a validator reaches now, itself included."""
        return sorted(self._air.reach[self.validators.index(validator)])

    def is_lying(self) -> bool:
        """Whether now is a time for the equivocator to lie."""
        return self._air.is_split or self.scenario.style != "patient"

    def rivals(self, height: int) -> list[bytes]:
        """Blocks proposed at a height, for a liar to choose from."""
        return self._rivals.get(height, [])

    def schedule(self, node: SimulatedNode, delay_ms: float, payload: object) -> None:
        """Hand the node something after a delay by its own clock, unless it restarts."""
        at = self.now + delay_ms * self.scenario.clock_rates[node.index]
        self._push(at, node.index, node.starts, payload)

    def send(self, sender: int, receiver: int, items: tuple[Item, ...]) -> None:
        """Send messages that share one fate."""
        for item in items:
            if isinstance(item, Proposal):
                rivals = self._rivals.setdefault(item.height, [])
                if item.block_hash not in rivals:
                    rivals.append(item.block_hash)
        passing, arrivals = self._air.carry(self.now, (sender, receiver), items, self._look)
        for at in arrivals:
            self._push(at, receiver, 0, Delivery(sender, tuple(passing)))

    def _look(self, item: Item) -> Traffic:
        if isinstance(item, FinalBlock):
            return Traffic("final", item.certificate.height)
        if not isinstance(item, Vote | Proposal):
            return Traffic("other")
        voter = self.validators.index(item.validator)
        if isinstance(item, Proposal):
            return Traffic("proposal", item.height, item.round, voter=voter)
        return Traffic("vote", item.height, item.round, item.step, voter)

    # The run

    def run(self) -> Report:
        """Play the scenario to its end.

        Raises:
            SimulationError: a promise was broken.
        """
        scenario = self.scenario
        for fault in scenario.faults:
            self._push(fault.at_ms, fault.node, 0, fault)
        for number, (at_ms, index) in enumerate(scenario.transactions):
            self._push(at_ms, index, 0, Submission(b"transaction %d" % number))
        for node in self.nodes:
            late = node.index == scenario.late_joiner
            self._push(scenario.join_ms if late else 0, node.index, 0, RESTART)
        self._play(scenario.heal_ms)
        self._heal()
        deadline = self.now + self.recovery_bound_ms
        self._play(deadline, until=self._has_recovered if scenario.must_live else None)
        return self._conclude()

    @property
    def recovery_bound_ms(self) -> float:
        """Time in which a new block must be final: a few rounds of the longest kind.

        Where waiting transactions are not passed on, the one node that has work may have to
        sit out one round per block of spacing before it may mine.
        """
        scenario = self.scenario
        rounds = LIVE_ROUNDS + (0 if scenario.shares_pending else scenario.spacing)
        return rounds * WAITS_PER_ROUND * scenario.timing.limit_ms * max(scenario.clock_rates)

    def _play(self, end_ms: float, until: Callable[[], bool] | None = None) -> None:
        queue = self._queue
        while queue and queue[0][0] <= end_ms:
            self.now, _, index, starts, payload = heapq.heappop(queue)
            self.judge.now = self.now
            node = self.nodes[index]
            try:
                self._dispatch(node, starts, payload)
            except CrashError:
                node.stop()
            if self._log is not None:
                self._log(self._describe(node, payload))
            if until is not None and until():
                return
        self.now = max(self.now, end_ms)

    def _dispatch(self, node: SimulatedNode, starts: int, payload: object) -> None:
        if isinstance(payload, Delivery):
            if node.is_up:
                node.receive(payload.sender, payload.items)
        elif isinstance(payload, Fault):
            self._strike(node, payload)
        elif payload is RESTART:
            if not node.is_up:
                if node.starts:
                    self.count("restarts")
                elif node.index == self.scenario.late_joiner:
                    self.count("late joiners")
                node.start()
        elif isinstance(payload, Submission):
            if node.is_up:
                node.submit(payload.transaction)
                node.take(None)
        elif node.is_up and starts == node.starts:
            node.take(payload)

    def _strike(self, node: SimulatedNode, fault: Fault) -> None:
        self.count(f"faults: {fault.kind}")
        if fault.kind == "crash":
            self._plan_crash(node, fault.point, fault.count, fault.down_ms)
        elif fault.kind == "blackout":
            for other in [other for other in self.nodes if other.starts]:
                other.stop()
                down_ms = fault.down_ms * self.rng.random()
                self._push(self.now + down_ms, other.index, 0, RESTART)
        elif fault.kind == "weather":
            self._air.change_weather(fault)
        elif fault.kind in AMBUSHES:
            self._air.lie_in_wait(fault)
            if fault.kind != "ambush":
                self._plan_crash(node, "precommit sent", 1, fault.down_ms)
        else:
            self._air.split(fault, self.scenario.equivocator)

    def _plan_crash(self, node: SimulatedNode, point: str, count: int, down_ms: int) -> None:
        if node.is_up:
            node.crash_at = (point, count)
            self._push(self.now + down_ms, node.index, 0, RESTART)

    def _heal(self) -> None:
        self._air.clear()
        # Restarts planned before are no longer due.
        self._queue = [entry for entry in self._queue if entry[4] is not RESTART]
        heapq.heapify(self._queue)
        for node in self.nodes:
            node.crash_at = None
            if self.scenario.heals_dark or node.index in self.scenario.gone:
                node.stop()
            if node.index not in self.scenario.gone and not node.is_up:
                node.start()
        healthy = self._healthy()
        self._push(self.now, healthy[0].index, 0, Submission(LAST_WISH))

    def _healthy(self) -> list[SimulatedNode]:
        return [
            node for node in self.nodes if node.is_up and node.index != self.scenario.equivocator
        ]

    def _has_recovered(self) -> bool:
        return all(LAST_WISH in node.disk.sealed for node in self._healthy())

    def _conclude(self) -> Report:
        scenario, healthy = self.scenario, self._healthy()
        report = Report(scenario, coverage=self.coverage)
        for node in healthy:
            if node.fork is None and not self._agrees_with_all(node):
                self.judge.fail(f"{node.name.decode()} is on a fork and does not know")
            self.judge.check_chain(node.name.decode(), node.hashes())
        if scenario.must_live:
            if not self._has_recovered():
                heights = [len(node.disk.chain) for node in healthy]
                self.judge.fail(f"no new block everywhere in time; heights {heights}")
            report.recovery_ms = self.now - scenario.heal_ms
        report.blocks = max(len(node.disk.chain) for node in healthy)
        report.transactions = max(len(node.disk.sealed) for node in healthy)
        return report

    def _agrees_with_all(self, node: SimulatedNode) -> bool:
        own = node.hashes()
        for other in self._healthy():
            theirs = other.hashes()
            common = min(len(own), len(theirs))
            if other.fork is None and own[:common] != theirs[:common]:
                return False
        return True

    def _push(self, at: float, index: int, starts: int, payload: object) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (at, self._sequence, index, starts, payload))

    def _describe(self, node: SimulatedNode, payload: object) -> str:
        return f"{self.now:9.1f} ms  {node.describe()}  {payload}"


def simulate(seed: int, log: Callable[[str], None] | None = None) -> Report:
    """Play the run of one seed.

    Raises:
        SimulationError: a promise was broken.
    """
    return World(Scenario.draw(seed), log).run()
