"""A simulated fog node: everything of the daemon but sockets, gateway and API."""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import types
from collections.abc import Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fog_node.agreement import FIRST_HEIGHT, Agreement
from fog_node.api.access import CHAIN_ROLES
from fog_node.errors import ForkError
from fog_node.ledger import Ledger
from fog_node.ledger.consensus_messages import Action, ReportEquivocation
from fog_node.ledger.simulator import SimulationError
from fog_node.miner import Miner
from fog_node.network import wire
from fog_node.network.peers import STATUS_INTERVAL_S, PeerNetwork
from fog_node.network.score import Offence
from fog_node.protocol.block import Block
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.merkle import leaf_hash
from fog_node.protocol.transactions import Body, Transaction, parse_transaction
from fog_node.protocol.votes import PRECOMMIT, Certificate, Vote
from fog_node.retelling import AGAIN_S, Retelling

from .disk import SimulatedStore
from .loop import DISK
from .miner import SimulatedMiner
from .network import SimulatedPeer, SimulatedPeers, votes_of

if TYPE_CHECKING:
    from .world import World


class CrashError(Exception):
    """The node loses power."""


class WatchedAgreement(Agreement):
    """The real one, with places where the power can go and a judge who looks on."""

    owner: SimulatedNode

    async def _do(self, action: Action) -> None:
        self.owner.may_crash("before an action")
        await super()._do(action)

    def _report(self, report: ReportEquivocation) -> None:
        self.owner.world.judge.see_report(self.owner.name, report)
        self.owner.world.count("equivocations reported")
        super()._report(report)


class SimulatedNode:
    """An honest node.

    Attributes:
        key: its member key.
        next_key: the key that it uses from its next start on.
        is_up: whether it has power.
        fork: set when it has seen two certified blocks at one height and stopped.
        skew_ms: how far its clock is ahead.
        slowest_access_ms: the longest time that its disk takes.
        crash_at: lose power when so many points of this name have been passed.
        loses_disk_ms: lose the disk, too, and be down for so long, once a precommit for the
            first block has been sent; None where that is not planned.
        life: how often it was started or lost power.
    """

    agreement_type: type[WatchedAgreement] = WatchedAgreement

    def __init__(self, world: World, index: int, key: SigningKey, name: str) -> None:
        """Be a node that has not been started yet."""
        self.world = world
        self.index = index
        self.key = self.next_key = key
        self.name = name
        self.is_up = False
        self.starts = 0
        self.life = 0
        self.skew_ms = 0
        self.slowest_access_ms = 0
        self.crash_at: tuple[str, int] | None = None
        self.loses_disk_ms: int | None = None
        self.fork: ForkError | None = None
        self.height = 0
        # Own votes that were found on its disk since it was started.
        self._on_disk: set[bytes] = set()
        self._directory: Path = world.directory / name
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()
        self._context.run(DISK.set, self)
        self._own: asyncio.Queue[Body] = asyncio.Queue()
        self.ledger: Ledger
        self._store: SimulatedStore
        self.agreement: WatchedAgreement
        self.peers: SimulatedPeers
        self._retelling: Retelling

    # Life

    def start(self) -> None:
        """Start from what is on disk."""
        world = self.world
        if self.key is not self.next_key:
            world.count("restarts with a new key")
            self.key = self.next_key
        self.is_up = True
        self.starts += 1
        self.life += 1
        self.crash_at = None
        self._on_disk.clear()
        founding = world.consortium.founding
        self._store = SimulatedStore(self._directory, founding.chain_id, self)
        if self._is_founder:
            # As its operator would say who knows that it has never run: the founders need not
            # all be there before any of them votes.
            self._store.stop_asking(0)
        self.ledger = Ledger(founding, self._store)
        if self.ledger.saved()[1] is not None:
            world.count("restarts with a lock")
        world.judge.check_chain(self.name, self.hashes())
        world.check_state(self)
        self._own = asyncio.Queue()
        miner = SimulatedMiner(lambda: world.mining_ms(self))
        self.agreement = self.agreement_type(
            self.ledger,
            self.key,
            cast("Miner", miner),
            self._committed,
            self._own.put_nowait,
            self.now_ms,
        )
        self.agreement.owner = self
        self.peers = SimulatedPeers(self, self.agreement.status)
        self.agreement.connect(cast("PeerNetwork", self.peers))
        self._retelling = Retelling(self.ledger.has)
        if self.fork is not None:
            # It knows from its disk that it must not go on.
            if self.ledger.fork is None:
                world.judge.fail(f"{self.name} forgot that it stopped at a fork")
            return
        parts = (self.agreement.run(), self._sign_own(), self._send_status(), self._tell_again())
        for part in parts:
            self.spawn(part)

    @property
    def _is_founder(self) -> bool:
        """Whether it has been a validator from the beginning, and has never run before."""
        return self.starts == 1 and self.index < self.world.scenario.validators

    @property
    def abstains(self) -> bool:
        """Whether it does not vote yet, should it be a validator, as its ledger is new."""
        return self.is_up and (self.ledger.asking or self.ledger.abstain > self.ledger.height)

    def stop(self, *, wiped: bool = False) -> None:
        """Lose power, and all that is on the disk where that is wiped."""
        if self.is_up:
            self.is_up = False
            self.life += 1
            self.world.links.lose(self.index)
            # What runs now has to unwind before its files can be closed.
            asyncio.get_running_loop().call_soon(self._bury, list(self._tasks), wiped)
            self._tasks = set()

    def may_crash(self, point: str) -> None:
        """Lose power here, if that is planned."""
        if not self.is_up:
            raise CrashError
        if self.crash_at is None or self.crash_at[0] != point:
            return
        left = self.crash_at[1] - 1
        self.crash_at = (point, left)
        if left == 0:
            self.world.count(f"crashes: {point}")
            self.stop()
            raise CrashError

    def hashes(self) -> list[bytes]:
        """Hashes of its final blocks, from height 1 on."""
        return [info.hash for info in self.ledger.infos(1, self.ledger.height)]

    def now_ms(self) -> int:
        """Time by its own clock, in ms since 1970."""
        return self.world.wall_ms + self.skew_ms

    def disk_delay_ms(self) -> float:
        """How long the next access to its disk takes."""
        if not self.slowest_access_ms:
            return 0.0
        return self.world.rng.uniform(0, self.slowest_access_ms)

    def describe(self) -> str:
        """Say in brief where the node is."""
        if not self.is_up:
            return f"{self.name} down"
        status = self.agreement.status()
        stopped = " stopped at a fork" if self.fork else ""
        return f"{self.name} {status.height}/{status.round}{stopped}"

    def authorises(self, other: SimulatedNode, dialled: bool) -> bool:
        """Whether the daemon would let the other one be its peer; see `Node.authorise`."""
        membership = self.ledger.state.membership
        member = membership.members.get(other.key.kid)
        if member is not None:
            return member.status != "revoked" and bool(CHAIN_ROLES & member.roles)
        return dialled and other.key.kid not in membership.retired

    # What comes in

    def receive(self, peer: SimulatedPeer, message: wire.Message) -> None:
        """Take in what a peer sent."""
        if isinstance(message, wire.Status):
            peer.status = message
        self._begin(self._take(peer, message))

    def joined(self, peer: SimulatedPeer) -> None:
        """Greet a peer that has just been connected, with all that waits here."""
        peer.send(self.agreement.status())
        waiting = self.ledger.waiting_bytes()
        if waiting:
            peer.send(wire.Transactions(waiting))

    def offer(self, transactions: list[Transaction]) -> None:
        """Take transactions from a client; those that are final it gets a receipt for."""
        self._begin(self._admit(transactions))

    async def _take(self, peer: SimulatedPeer, message: wire.Message) -> None:
        if not isinstance(message, wire.Transactions):
            await self.agreement.take(peer, message)
            return
        new = [item for item in message.raw if not self.ledger.has(leaf_hash(item))]
        parsed = [parse_transaction(raw) for raw in new]
        results = await asyncio.to_thread(self.ledger.admit, parsed, durable=False)
        refused = [result.error for result in results if result.error is not None]
        peer.useless(len(refused), sum(result.status == "final" for result in results))
        for error in refused:
            if error.cause == "bad_signature":
                peer.offend(Offence.FORGED_TRANSACTION, str(error))
        if any(result.status == "admitted" for result in results):
            self.agreement.work_changed()

    async def _admit(self, transactions: list[Transaction]) -> None:
        results = await asyncio.to_thread(self.ledger.admit, transactions)
        for result in results:
            if result.status == "final":
                self.world.give_receipt(self, result.transaction)
        self._pass_on([r.transaction for r in results if r.status == "admitted"])

    async def _sign_own(self) -> None:
        while True:
            body = await self._own.get()
            results = await asyncio.to_thread(self.ledger.submit, self.key, [body])
            self._pass_on([r.transaction for r in results if r.status == "admitted"])

    def _pass_on(self, transactions: list[Transaction]) -> None:
        if transactions:
            self.peers.broadcast(wire.Transactions([item.raw for item in transactions]))
            self._retelling.told(transactions, asyncio.get_running_loop().time())
            self.agreement.work_changed()

    async def _tell_again(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            due = self._retelling.due(asyncio.get_running_loop().time())
            if due:
                self.peers.broadcast(wire.Transactions(due))

    async def _send_status(self) -> None:
        await asyncio.sleep(self.world.rng.random() * STATUS_INTERVAL_S)
        while True:
            self.peers.announce()
            await asyncio.sleep(STATUS_INTERVAL_S)

    # What the judge sees

    def saw_final(self, block: Block, certificate: Certificate) -> None:
        """Show the judge a block that is final on this disk."""
        self.height = block.height
        self.world.saw_final(self, block, certificate)
        late = "in a later round" if certificate.round else "in round 0"
        self.world.count(f"blocks committed {late}")

    def stopped_asking(self, abstain: int) -> None:
        """Count how one with a new ledger, who asks first, comes to vote."""
        if not self._is_founder:
            whose = "new" if self.index >= self.world.scenario.validators else "wiped"
            how = "at once" if not abstain else "after a while"
            self.world.count(f"{whose} ledgers that asked first: may vote {how}")

    def saw_vote(self, vote: Vote) -> None:
        """Show the judge a vote that is on this disk now, and may be sent."""
        self.world.judge.see_vote(vote)

    def sends(self, message: wire.Message) -> None:
        """Fail where an own vote is about to leave that a power cut could make us forget."""
        votes = votes_of(message)
        if not votes or self.ledger.asking:
            return
        # What it voted with a disk that is gone comes back from others, and is passed on.
        least = max(self.ledger.height, self.ledger.abstain)
        for vote in votes:
            if vote.validator == self.key.kid and vote.height > least:
                self._check_on_disk(vote)

    def sent(self, message: wire.Message) -> None:
        """Own votes have left."""
        for vote in votes_of(message):
            if (vote.validator, vote.step) == (self.key.kid, PRECOMMIT) and vote.block_hash:
                self._may_lose_disk(vote.height)
                self.may_crash("precommit sent")

    def _may_lose_disk(self, height: int) -> None:
        if height == FIRST_HEIGHT and self.is_up and self.loses_disk_ms is not None:
            down_ms, self.loses_disk_ms = self.loses_disk_ms, None
            self.world.wipe(self, down_ms)
            raise CrashError

    def _check_on_disk(self, vote: Vote) -> None:
        if vote.raw in self._on_disk:
            return
        votes, lock = self.ledger.saved()
        if vote.raw not in {saved.raw for saved in votes}:
            self.world.judge.fail(f"{self.name} sends a vote that is not on its disk")
        if vote.step == PRECOMMIT and vote.block_hash is not None:
            saved = None if lock is None else (lock.height, lock.round)
            if saved is None or saved < (vote.height, vote.round):
                self.world.judge.fail(f"{self.name} precommits without a lock on disk")
        self._on_disk.add(vote.raw)

    def _committed(self, block: Block, certificate: Certificate) -> None:
        del block, certificate
        self.world.check_state(self)
        self.peers.drop_unauthorised()

    # Tasks

    def spawn(self, part: Coroutine[Any, Any, None]) -> None:
        """Run a part of this node until it ends or the power goes."""
        task = asyncio.get_running_loop().create_task(part, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, self.life))

    def _begin(self, part: Coroutine[Any, Any, None]) -> None:
        """Run a part now; it becomes a task only where it has to wait, and mostly it has not."""
        try:
            awaited = self._context.run(part.send, None)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - judged as where a task ends
            self._failed(self.life, error)
        else:
            self.spawn(_go_on(part, awaited))

    def _ended(self, life: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(life, error)

    def _failed(self, life: int, error: BaseException) -> None:
        if isinstance(error, CrashError):
            return
        if life != self.life and not isinstance(error, SimulationError):
            return  # its files were closed under it
        if isinstance(error, ForkError):
            self._stop_at_fork(error)
        else:
            self.world.fail(self, error)

    def _stop_at_fork(self, error: ForkError) -> None:
        if self.fork is not None:
            return
        self.fork = error
        self.world.saw_fork(self)
        for task in self._tasks:
            task.cancel()

    def _bury(self, tasks: list[asyncio.Task[None]], wiped: bool) -> None:
        for task in tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        loop.call_soon(self._store.close)
        if wiped:
            loop.call_soon(shutil.rmtree, self._directory)


@types.coroutine
def _go_on(part: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """Go on with a part that has begun, and waits."""
    while True:
        try:
            try:
                sent = yield awaited
            except BaseException as error:  # noqa: BLE001 - handed on
                awaited = part.throw(error)
            else:
                awaited = part.send(sent)
        except StopIteration:
            return
