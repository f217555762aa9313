"""One run of whole nodes: time, air, power cuts, clients, and the end."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fog_node.agreement import CATCH_UP_TIMEOUT_S
from fog_node.ledger import Ledger
from fog_node.ledger.consensus_messages import ReportEquivocation
from fog_node.ledger.simulator import SimulationError
from fog_node.ledger.simulator.air import Air
from fog_node.ledger.simulator.judge import Judge
from fog_node.ledger.simulator.scenario import AMBUSHES, Fault
from fog_node.ledger.vote_book import find_equivocations
from fog_node.network import wire
from fog_node.protocol.block import Block
from fog_node.protocol.governance import (
    AddMember,
    Change,
    RemoveMember,
    RotateKey,
    SetParameters,
    SetRoles,
)
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Transaction
from fog_node.protocol.votes import Certificate, parse_certificate, parse_proposal

from .ballot import Ballot
from .consortium import START_MS, Consortium
from .electorate import Electorate
from .liars import Equivocator, WrongBranchMiner
from .loop import SimulatedLoop
from .network import DIAL_INTERVAL_S, Links
from .node import SimulatedNode
from .script import Script, Trouble

CLIENT_INTERVAL_S = 0.7
# So long it takes at most until a validator is started again with the key that replaced its.
KEY_CHANGE_MS = 2000
MAX_OFFERED = 4
# Blocks and locks are rare: a crash comes at the first or second one.
MAX_CRASH_COUNT = 2
# Rounds until a new block must be final; see World.recovery_bound_ms.
LIVE_ROUNDS = 2
# Time to be connected again, and to ask a second peer where the first gives no answer.
CATCH_UP_MS = 2000 + 1000 * CATCH_UP_TIMEOUT_S
POLL_S = 0.05
# How long a run goes on for which nothing but safety is promised.
SAFE_ONLY_S = 20.0
# How long it still goes on once all agree on a new block all the same.
CALM_S = 2.0
# Where the files of a run live; memory, if there is such a place.
_MEMORY = Path("/dev/shm")  # noqa: S108 - the directory made in it is private
_MINER_MS = 1.0


@dataclass
class Report:
    """What happened in a run.

    Attributes:
        blocks: height of the longest chain of an honest node.
        transactions: how many of them are final.
        recovery_ms: from the end of the faults to a new block on every node; None where
            none is promised.
        bound_ms: what that must not exceed.
        must_live: whether the promise says that it goes on after the faults.
        coverage: how often each fault and each rule came about.
    """

    script: Script
    blocks: int = 0
    transactions: int = 0
    recovery_ms: float | None = None
    bound_ms: float | None = None
    must_live: bool = False
    coverage: Counter[str] = field(default_factory=Counter)


@dataclass
class Client:
    """Somebody with a key and an outbox, as a board is: it keeps all that has no receipt."""

    key: SigningKey
    outbox: list[Transaction] = field(default_factory=list)


class World:
    """One run.

    Attributes:
        now_ms: simulated time since the beginning.
        wall_ms: what a right clock shows.
    """

    def __init__(self, script: Script, directory: Path, log: Callable[[str], None] | None) -> None:
        """Set the stage; `log` is told in words what happens."""
        self.script = script
        self.scenario = scenario = script.scenario
        self.directory = directory
        self.rng = random.Random(scenario.seed + 1)  # noqa: S311 - must replay
        self.coverage: Counter[str] = Counter()
        self.consortium = Consortium(script)
        names = self.consortium.names
        self.validators = tuple(key.kid for key in self.consortium.keys[: scenario.validators])
        replay = f"fogline bench simulate --part nodes --replay {scenario.seed}"
        self._judge = Judge(scenario, self.validators, lambda kid: names[kid], replay)
        self._log = log
        self._air = Air(scenario.nodes, self.rng, self.coverage)
        self.links = Links(self, self._air)
        self._rivals: dict[int, list[bytes]] = {}
        self._states: dict[int, bytes] = {}
        self._electorate = Electorate(self.consortium.founding)
        # Keys that nobody voted with at first.
        self._fresh: set[bytes] = set()
        self._least_quorum = scenario.quorum
        self._receipts: set[bytes] = set()
        self._loop = SimulatedLoop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self.nodes: list[SimulatedNode] = []
        for index, key in enumerate(self.consortium.keys):
            kind = SimulatedNode
            if index == scenario.equivocator:
                kind = Equivocator
            elif index == script.wrong_branch:
                kind = WrongBranchMiner
            self.nodes.append(kind(self, index, key, names[key.kid]))
        self._clients = [Client(self.consortium.operator)]
        self._clients += [Client(board) for board in self.consortium.boards]
        self._last_wish: Transaction | None = None
        self._healed_at = 0

    # For the nodes

    @property
    def now_ms(self) -> float:
        """Simulated time since the beginning."""
        return self._loop.time() * 1000

    @property
    def wall_ms(self) -> int:
        """What a right clock shows."""
        return START_MS + round(self.now_ms)

    @property
    def judge(self) -> Judge:
        """The judge, who knows what time it is."""
        self._judge.now = self.now_ms
        return self._judge

    def count(self, what: str) -> None:
        """Note that something came about."""
        self.coverage[what] += 1

    def at(self, at_ms: float, call: Callable[..., Any], *args: Any) -> None:
        """Call something at a time."""
        self._loop.call_at(at_ms / 1000, call, *args)

    def place_of(self, validator: bytes) -> int:
        """Which node a key belongs to."""
        return self.consortium.place_of(validator)

    def mining_ms(self, node: SimulatedNode) -> float:
        """Draw how long a node's search takes; a lying miner is faster than all."""
        if isinstance(node, Equivocator) and self.is_lying():
            return _MINER_MS
        return self.rng.expovariate(1 / self.scenario.mean_block_ms)

    def is_lying(self) -> bool:
        """Whether now is a time for the equivocator to lie."""
        return self._air.is_split or self.scenario.style != "patient"

    def rivals(self, height: int) -> list[bytes]:
        """Blocks proposed at a height, for a liar to choose from."""
        return self._rivals.get(height, [])

    def reach_of(self, index: int) -> set[int]:
        """The nodes that a node reaches now, itself included."""
        return self._air.reach[index]

    def side_of(self, validator: bytes) -> list[int]:
        """The nodes that a validator reaches now, itself included."""
        return sorted(self._air.reach[self.place_of(validator)])

    def saw_proposal(self, message: wire.Proposal) -> None:
        """Let a liar know what could be voted for."""
        header = parse_proposal(message.header)
        rivals = self._rivals.setdefault(header.height, [])
        if header.block_hash not in rivals:
            rivals.append(header.block_hash)

    def saw_final(self, node: SimulatedNode, block: Block, certificate: Certificate) -> None:
        """Show the judge a block that is final on a node's disk, and who votes on it."""
        before, after, is_new = self._electorate.take(block)
        ids = [transaction.id for transaction in block.transactions]
        self.judge.see_voters(block.height, before.voters)
        self.judge.see_final(node.name, certificate, block.hash, ids, before.voters)
        self.judge.see_voters(block.height + 1, after.voters)
        mine = block.coinbase
        if (mine.validators, mine.next) != (before.set.hash, after.set.hash):
            self.judge.fail(f"{node.name} takes block {block.height}, which names other validators")
        if is_new:
            self._least_quorum = min(self._least_quorum, after.quorum)
            self._count_changes(after.applied)
        fresh = self._fresh.intersection(vote.validator for vote in certificate.votes)
        if fresh:
            self.count("blocks with the vote of a new key")

    def _count_changes(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._tell(f"decided: {change.change}")
            when = "among faults" if self.now_ms < self.scenario.heal_ms else "after them"
            self.count(f"decisions {when}")
            match change:
                case AddMember():
                    self._fresh.add(change.key.kid)
                    self.count("validators added: new members")
                case SetRoles() if "validator" in change.roles:
                    self._fresh.add(change.member)
                    self.count("validators added: observers")
                case SetRoles():
                    self.count("validators removed: observers now")
                case RemoveMember():
                    self.count("validators removed: no members any more")
                case RotateKey():
                    self._fresh.add(change.key.kid)
                    self.count("validators' keys replaced")
                    node = self.nodes[self.place_of(change.member)]
                    key = self.consortium.key_of(change.key.kid)
                    delay_ms = self.rng.uniform(1, KEY_CHANGE_MS)
                    self.at(self.now_ms + delay_ms, self._safely, self._replace_key, node, key)
                case SetParameters():
                    what = "parameters" if change.quorum is None else "quorum's rules"
                    self.count(f"{what} changed")

    def _replace_key(self, node: SimulatedNode, key: SigningKey) -> None:
        """Have a node started again with its member's new key, wherever its own ledger is."""
        node.next_key = key
        if node.is_up and node.fork is None:
            node.stop()
            self.at(self.now_ms + 1, self._safely, self._power_up, node)

    def farthest_ledger(self) -> Ledger | None:
        """Return the ledger of a node that is up which has most blocks."""
        able = [node for node in self._healthy() if node.fork is None]
        return max(able, key=lambda node: node.ledger.height).ledger if able else None

    def offer(self, transaction: Transaction) -> None:
        """Hand a transaction to some node."""
        up = [node for node in self.nodes if node.is_up and node.fork is None]
        if up:
            self.rng.choice(up).offer([transaction])

    def saw_offence(self, node: SimulatedNode, sender: int, reason: str) -> None:
        """Fail where an honest node takes another one for an offender."""
        self.count("offences noted")
        if type(self.nodes[sender]) is SimulatedNode and type(node) is SimulatedNode:
            self.judge.fail(f"{node.name} blames {self.nodes[sender].name}: {reason}")

    def saw_fork(self, node: SimulatedNode) -> None:
        """Check that a node that stopped at a fork had to, and kept both blocks."""
        self.count("nodes stopped at a fork")
        self._tell(f"{node.name} stops: {node.fork}")
        if self.scenario.is_safe:
            self.judge.fail(f"{node.name} stopped at a fork: {node.fork}")
        forks = node.ledger.forks()
        if not forks:
            self.judge.fail(f"{node.name} did not keep the other block")
        for fork in forks:
            ours = node.ledger.block(fork.height)
            assert ours is not None
            self._check_fork(node, parse_certificate(ours[1]), parse_certificate(fork.certificate))

    def _check_fork(self, node: SimulatedNode, ours: Certificate, theirs: Certificate) -> None:
        """Two certificates of one round convict whoever is in both; others convict nobody."""
        pairs = find_equivocations([*ours.votes, *theirs.votes])
        if (ours.round == theirs.round) != bool(pairs):
            self.judge.fail(f"{node.name}: rounds {ours.round}, {theirs.round} convict {pairs}")
        for pair in pairs:
            self.count("forks laid to a validator")
            self.judge.see_report(node.name, ReportEquivocation(*pair))

    def give_receipt(self, node: SimulatedNode, transaction: Transaction) -> None:
        """Let a client drop what is final."""
        if isinstance(node, Equivocator):
            return
        self._receipts.add(transaction.id)
        for client in self._clients:
            if client.key.kid == transaction.signer:
                client.outbox = [t for t in client.outbox if t.sequence != transaction.sequence]

    def check_state(self, node: SimulatedNode) -> None:
        """Check that a node's state is the same as everybody's at that height."""
        if self._judge.has_forked or isinstance(node, Equivocator):
            return
        snapshot = node.ledger.snapshot
        voters = self._electorate.after(snapshot.head.hash).set
        if node.ledger.validator_set_at(snapshot.head.height + 1) != voters:
            self.judge.fail(f"{node.name} lets others vote after block {snapshot.head.height}")
        found = snapshot.state.root()
        if self._states.setdefault(snapshot.head.height, found) != found:
            self.judge.fail(f"{node.name} has another state at height {snapshot.head.height}")

    def fail(self, node: SimulatedNode, error: BaseException) -> None:
        """End the run with what went wrong in a node."""
        if self._failure.done():
            return
        if not isinstance(error, SimulationError):
            try:
                self.judge.fail(f"{node.name} raises {error!r}")
            except SimulationError as failure:
                failure.__cause__ = error
                error = failure
        self._failure.set_exception(error)

    # The run

    def run(self) -> Report:
        """Play the script to its end.

        Raises:
            SimulationError: a promise was broken.
        """
        loop = self._loop
        loop.set_exception_handler(self._on_exception)
        try:
            return loop.run_until_complete(self._run())
        finally:
            loop.run_until_complete(self._end())
            loop.close()

    def recovery_bound_ms(self) -> float:
        """Time in which a new block must be final everywhere, from now on.

        LIVE_ROUNDS rounds after the highest that anybody has reached; in each the proposer
        waits, then those whom it wakes, then all for either kind of vote. Whoever is behind
        has to catch up besides.
        """
        up = [node for node in self.nodes if node.is_up and node.fork is None]
        round_ = max(node.agreement.round for node in up) + LIVE_ROUNDS
        timing = up[0].agreement.timing()
        rest_ms = max(node.ledger.state.parameters.rest_ms for node in up)
        waits_ms = 2 * timing.propose(round_) + 2 * timing.vote(round_) + rest_ms
        return LIVE_ROUNDS * waits_ms + CATCH_UP_MS

    async def _run(self) -> Report:
        scenario, script = self.scenario, self.script
        self._fill_outboxes()
        for number, fault in enumerate(scenario.faults):
            self.at(fault.at_ms, self._safely, self._strike, fault, script.crash_points[number])
        for trouble in script.troubles:
            self.at(trouble.at_ms, self._safely, self._trouble, trouble)
        for node in self.nodes:
            late = node.index == scenario.late_joiner
            self.at(scenario.join_ms if late else 0, self._safely, self._power_up, node)
        parts = (self._dial(), self._offer(), self._decide())
        background = [self._loop.create_task(part) for part in parts]
        for task in background:
            task.add_done_callback(self._background_ended)
        try:
            await self._wait(scenario.heal_ms / 1000 - self._loop.time())
            await self._heal()
            return await self._recover()
        finally:
            for task in background:
                task.cancel()

    async def _recover(self) -> Report:
        begin_ms = self.now_ms
        self._healed_at = max(node.height for node in self.nodes)
        if not self._must_live():
            await self._calm_down(begin_ms)
            return self._conclude(begin_ms, 0)
        bound_ms = self.recovery_bound_ms()
        while self.now_ms - begin_ms < bound_ms and not self._has_recovered():
            await self._wait(POLL_S)
        return self._conclude(begin_ms, bound_ms)

    async def _calm_down(self, begin_ms: float) -> None:
        """Go on where nothing but safety is promised, for a while after all agree if they do."""
        while self.now_ms - begin_ms < SAFE_ONLY_S * 1000 and not self._is_calm():
            await self._wait(POLL_S)
        if self._is_calm():
            await self._wait(CALM_S)

    def _is_calm(self) -> bool:
        """Whether all that have not stopped have a new block, on one chain."""
        going = [node for node in self._healthy() if node.fork is None]
        return self._has_recovered(going) and not self._astray()

    def _must_live(self) -> bool:
        """Whether the promise holds for all who have voted since the faults, or will next."""
        top = max(node.height for node in self.nodes)
        since = [
            voters
            for height in range(self._healed_at + 1, top + 2)
            for voters in self._judge.voters_at(height)
        ]
        abstaining = {node.index for node in self.nodes if node.abstains}
        return self.script.keeps_time(self._least_quorum) and all(
            self.script.must_live(
                {self.place_of(kid) for kid in voters.kids} - abstaining, voters.quorum
            )
            for voters in since
        )

    async def _wait(self, seconds: float) -> None:
        await asyncio.wait([self._failure], timeout=max(0.0, seconds))
        if self._failure.done():
            self._failure.result()

    async def _dial(self) -> None:
        while True:
            self.links.dial()
            await asyncio.sleep(DIAL_INTERVAL_S)

    async def _offer(self) -> None:
        while True:
            for client in self._clients:
                up = [node for node in self.nodes if node.is_up and node.fork is None]
                if client.outbox and up:
                    self.rng.choice(up).offer(client.outbox[:MAX_OFFERED])
            await asyncio.sleep(CLIENT_INTERVAL_S)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _decide(self) -> None:
        for decision in self.script.decisions:
            await asyncio.sleep(decision.at_ms / 1000 - self._loop.time())
            ballot = Ballot(self, decision)
            self._tell(f"to be decided: {decision.kind} {self.nodes[decision.node].name}")
            settled = ballot.go_on()
            while not settled:
                await asyncio.sleep(CLIENT_INTERVAL_S)
                settled = ballot.go_on()

    def _fill_outboxes(self) -> None:
        operator, *boards = self._clients
        operator.outbox = [
            self.consortium.enrolment(board.key, number)
            for number, board in enumerate(boards, start=1)
        ]
        numbers = [0] * len(boards)
        for at_ms, draw in self.scenario.transactions:
            which = draw % len(boards)
            numbers[which] += 1
            pack = self.consortium.pack(boards[which].key, numbers[which])
            # Packs of one board come in order of their numbers, whatever time was drawn.
            self.at(at_ms, self._measured, boards[which], pack)

    def _measured(self, board: Client, pack: Transaction) -> None:
        board.outbox = sorted([*board.outbox, pack], key=lambda item: item.sequence)

    def _safely(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except SimulationError as error:
            if not self._failure.done():
                self._failure.set_exception(error)

    def _power_up(self, node: SimulatedNode) -> None:
        if not node.is_up:
            if node.starts:
                self.count("restarts")
            elif node.index == self.scenario.late_joiner:
                self.count("late joiners")
            node.start()
            self._tell(node.describe())

    def _strike(self, fault: Fault, point: str) -> None:
        self.count(f"faults: {fault.kind}")
        node = self.nodes[fault.node]
        self._tell(f"{fault.kind} {node.name} {fault.groups}")
        if fault.kind == "crash":
            self._plan_crash(node, point, min(fault.count, MAX_CRASH_COUNT), fault.down_ms)
        elif fault.kind == "blackout":
            for other in [other for other in self.nodes if other.starts]:
                other.stop()
                down_ms = max(10, fault.down_ms * self.rng.random())
                self.at(self.now_ms + down_ms, self._safely, self._restart, other)
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
            self.at(self.now_ms + down_ms, self._safely, self._restart, node)

    def _restart(self, node: SimulatedNode) -> None:
        if self.now_ms < self.scenario.heal_ms:
            self._power_up(node)

    def _trouble(self, trouble: Trouble) -> None:
        node = self.nodes[trouble.node]
        self._tell(f"{trouble.kind} {node.name} {trouble.amount_ms} ms")
        if trouble.kind == "wiped disk":
            self.wipe(node, trouble.amount_ms)
            return
        if trouble.kind == "wiped early":
            node.loses_disk_ms = trouble.amount_ms
            return
        if trouble.amount_ms:
            self.count(f"faults: {trouble.kind}")
        if trouble.kind == "clock":
            node.skew_ms = trouble.amount_ms
        else:
            node.slowest_access_ms = trouble.amount_ms

    def wipe(self, node: SimulatedNode, down_ms: int) -> None:
        """Have a node lose its disk, unless it has not been locked at the first height yet.

        Before that, a prevote of its that no other has heeded may be contradicted (CONSENSUS.md).
        """
        if not node.is_up or node.fork is not None:
            return
        if node.ledger.height or node.ledger.saved()[1] is not None:
            height = node.ledger.height + 1
            self.count(f"faults: wiped disk{' at the first height' if height == 1 else ''}")
            node.stop(wiped=True)
            self.judge.forget(node.name)
            self.at(self.now_ms + down_ms, self._safely, self._restart, node)

    async def _heal(self) -> None:
        self._tell("the faults end")
        self._air.clear()
        for node in self.nodes:
            node.crash_at = node.loses_disk_ms = None
            if self.scenario.heals_dark or node.index in self.scenario.gone:
                node.stop()
        await self._wait(0.01)
        for node in self.nodes:
            if node.index not in self.scenario.gone and not node.is_up:
                self._power_up(node)
        operator = self._clients[0]
        board = self.consortium.late_board()
        self._last_wish = self.consortium.enrolment(board, len(self._clients))
        operator.outbox.append(self._last_wish)

    def _healthy(self) -> list[SimulatedNode]:
        return [node for node in self.nodes if node.is_up and not isinstance(node, Equivocator)]

    def _has_recovered(self, nodes: Iterable[SimulatedNode] | None = None) -> bool:
        wish = self._last_wish
        assert wish is not None
        return all(
            node.ledger.state.next_sequence(wish.signer) > wish.sequence
            for node in (self._healthy() if nodes is None else nodes)
            if self._is_member(node)
        )

    def _is_member(self, node: SimulatedNode) -> bool:
        """Whether the others let it follow."""
        farthest = self.farthest_ledger()
        assert farthest is not None
        record = farthest.state.members.get(node.key.kid)
        # A key that was replaced goes on in its successor's name.
        return record is None or record.status != "revoked"

    def _conclude(self, begin_ms: float, bound_ms: float) -> Report:
        healthy = self._healthy()
        report = Report(self.script, coverage=self.coverage)
        for node in healthy:
            self.judge.check_chain(node.name, node.hashes())
        for name in self._astray():
            self.judge.fail(f"{name} is on a fork and does not know")
        if not self._judge.has_forked:
            self._check_receipts(healthy)
        report.must_live = bound_ms > 0 and self._must_live()
        if report.must_live:
            if not self._has_recovered():
                heights = [node.ledger.height for node in healthy]
                self.judge.fail(f"no new block everywhere in time; heights {heights}")
            report.recovery_ms = self.now_ms - begin_ms
            report.bound_ms = bound_ms
        report.blocks = max(node.ledger.height for node in healthy)
        report.transactions = max(node.ledger.counts()["all"] for node in healthy)
        return report

    def _check_receipts(self, healthy: list[SimulatedNode]) -> None:
        """What a client holds a receipt for is on the longest chain, and so on all."""
        longest = max(healthy, key=lambda node: node.ledger.height)
        for transaction_id in sorted(self._receipts):
            if longest.ledger.find(transaction_id) is None:
                self.judge.fail(f"a receipted transaction is lost: {transaction_id.hex()}")

    def _astray(self) -> list[str]:
        """Who goes on, and has another chain than somebody else who does."""
        chains = {node.name: node.hashes() for node in self._healthy() if node.fork is None}
        longest = max(chains.values(), key=len, default=[])
        return [name for name, own in chains.items() if own != longest[: len(own)]]

    async def _end(self) -> None:
        for node in self.nodes:
            node.stop()
        await asyncio.sleep(0.01)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failure.done():
            self._failure.exception()

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        error = context.get("exception") or RuntimeError(context["message"])
        self.fail(self.nodes[0], error)

    def _tell(self, what: str) -> None:
        if self._log is not None:
            self._log(f"{self.now_ms:9.1f} ms  {what}")


def simulate(seed: int, log: Callable[[str], None] | None = None) -> Report:
    """Play the run of one seed.

    Raises:
        SimulationError: a promise was broken.
    """
    return enact(Script.draw(seed), log)


def enact(script: Script, log: Callable[[str], None] | None = None) -> Report:
    """Play a script, drawn or made up."""
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fogline-sim-", dir=memory) as directory:
        return World(script, Path(directory), log).run()
