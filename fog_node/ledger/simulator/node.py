"""A simulated fog node: drives `Consensus` the way the daemon does, against a toy world.

What is on `Disk` survives a crash; everything else is lost. A crash can come at every
point marked by `_may_crash`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fog_node.ledger.consensus import Consensus
from fog_node.ledger.consensus_messages import (
    Action,
    Block,
    CastVote,
    Commit,
    Event,
    HeightSetting,
    Lock,
    Mine,
    Mined,
    PeerAhead,
    Proposal,
    Propose,
    ReportEquivocation,
    RequestBlock,
    SaveLock,
    SetTimer,
    Status,
    StopMining,
    TimerExpired,
    WorkAvailable,
)
from fog_node.ledger.vote_book import MAX_ROUNDS_AHEAD, find_equivocations
from fog_node.protocol.votes import NO_ROUND, PRECOMMIT, PREVOTE, Vote

from .chain import (
    GENESIS,
    MAX_BLOCK_TRANSACTIONS,
    FinalBlock,
    accused,
    decode_block,
    encode_block,
    evidence,
    hash_block,
)

if TYPE_CHECKING:
    from .world import World

TICK_MS = 1500
MAX_FINAL_PER_ANSWER = 4
MAX_PENDING_PER_TICK = 8
RECENT_MINERS = 8
# How often a liar is so careless as to show a peer both sides of its lie.
BOTH_WAYS = 0.1


class CrashError(Exception):
    """The node loses power."""


@dataclass
class Disk:
    """What a node keeps through a crash."""

    chain: list[FinalBlock] = field(default_factory=list)
    miners: list[bytes] = field(default_factory=list)
    sealed: set[bytes] = field(default_factory=set)
    suspended: set[bytes] = field(default_factory=set)
    pending: dict[bytes, None] = field(default_factory=dict)
    votes: list[Vote] = field(default_factory=list)
    lock: Lock | None = None


@dataclass(frozen=True)
class Gossip:
    """What a node tells its peers every now and then."""

    status: Status
    pending: tuple[bytes, ...]


@dataclass(frozen=True)
class Fork:
    """Two certified blocks at one height, both kept; the node has stopped."""

    height: int
    blocks: tuple[FinalBlock, FinalBlock]


@dataclass(frozen=True)
class Found:
    """The miner's search number `search` is over."""

    search: int
    mine: Mine


@dataclass(frozen=True)
class Tick:
    """Time to gossip."""


TICK = Tick()
Item = Vote | Proposal | Block | Gossip | FinalBlock


class SimulatedNode:
    """An honest node.

    Attributes:
        name: key id of its validator.
        is_up: whether it runs.
        crash_at: crash when so many points of this name have been passed.
        fork: set when it has seen two certified blocks at one height.
    """

    def __init__(self, world: World, index: int, name: bytes) -> None:
        """Be a node that has not been started yet."""
        self.world = world
        self.index = index
        self.name = name
        self.disk = Disk()
        self.is_up = False
        self.starts = 0
        self.crash_at: tuple[str, int] | None = None
        self.fork: Fork | None = None
        self._todo: deque[Action] = deque()
        self._search = 0
        self._has_work = False
        self._heard: dict[tuple[bytes, int, int, int], bytes | None] = {}
        self._reported: set[bytes] = set()

    # Life

    def start(self) -> None:
        """Start from what is on disk."""
        world = self.world
        self.is_up = True
        self.starts += 1
        self.crash_at = None
        self._todo.clear()
        self._search += 1
        self._has_work = False
        self._heard.clear()
        self._reported.clear()
        world.judge.check_chain(self.name.decode(), self.hashes())
        self._consensus = Consensus(self.name, world.scenario.timing, self._setting())
        height = self._consensus.setting.height
        votes = [vote for vote in self.disk.votes if vote.height == height]
        lock = self.disk.lock if self.disk.lock and self.disk.lock.height == height else None
        if lock is not None:
            world.count("restarts with a lock")
        self._todo.extend(self._consensus.restore(votes, lock))
        world.schedule(self, world.rng.uniform(0, TICK_MS), TICK)
        self._work_off()

    def stop(self) -> None:
        """Be down."""
        self.is_up = False
        self._todo.clear()

    def take(self, payload: object) -> None:
        """Take in a timer, a tick or the miner's result."""
        if self.fork is not None:
            return
        if isinstance(payload, TimerExpired):
            self._feed(payload)
        elif isinstance(payload, Found):
            self._take_found(payload)
        elif payload is TICK:
            self.world.schedule(self, TICK_MS, TICK)
            self._gossip()
        self._work_off()

    def receive(self, sender: int, items: Iterable[Item]) -> None:
        """Take in what a peer sent."""
        for item in items:
            if self.fork is not None:
                return
            if isinstance(item, Gossip):
                self._take_gossip(sender, item)
            elif isinstance(item, FinalBlock):
                self._take_final(item)
            elif isinstance(item, Proposal):
                self._take_proposal(item)
            elif isinstance(item, Block):
                if self._is_valid(item.block, item.height):
                    self._feed(item)
            else:
                self._take_vote(item)
            self._work_off()

    def describe(self) -> str:
        """Say in brief where the node is."""
        if not self.is_up:
            return f"{self.name.decode()} down"
        machine = self._consensus
        place = f"{machine.setting.height}/{machine.round}/{machine.step.name.lower()}"
        return f"{self.name.decode()} {place}{' stopped at a fork' if self.fork else ''}"

    def hashes(self) -> list[bytes]:
        """Hashes of its final blocks, from height 1 on."""
        return [final.block_hash for final in self.disk.chain]

    def submit(self, transaction: bytes) -> None:
        """Accept a transaction, durably, from a client or a peer."""
        if transaction not in self.disk.sealed:
            self.disk.pending[transaction] = None

    def _take_vote(self, vote: Vote) -> None:
        machine = self._consensus
        counts = (
            vote.height == machine.setting.height
            and vote.validator not in self.disk.suspended
            and abs(vote.round - machine.round) <= MAX_ROUNDS_AHEAD
        )
        self._feed(vote)
        if counts and self._heard.setdefault(vote.slot, vote.block_hash) != vote.block_hash:
            # Whoever holds both votes must have said so, now or before.
            self._work_off()
            if vote.validator not in self._reported:
                self.world.judge.fail(f"{self.name.decode()} overlooks an equivocation")

    # What consensus asks for

    def _feed(self, event: Event) -> None:
        self._todo.extend(self._consensus.handle(event))

    def _work_off(self) -> None:
        while True:
            while self._todo:
                self._do(self._todo.popleft())
            has_work = bool(self.disk.pending) and self.fork is None
            if has_work == self._has_work:
                return
            self._has_work = has_work
            self._feed(WorkAvailable(available=has_work))

    def _do(self, action: Action) -> None:
        self._may_crash("before an action")
        match action:
            case CastVote():
                self._cast(action)
            case SetTimer():
                expired = TimerExpired(action.kind, action.height, action.round)
                self.world.schedule(self, action.delay_ms, expired)
            case SaveLock():
                self.disk.lock = action.lock
                self.world.count("locks saved")
            case Mine():
                self._search += 1
                self.world.schedule(self, self._mining_ms(action), Found(self._search, action))
            case StopMining():
                self._search += 1
            case Propose():
                self._propose(action)
            case Commit():
                self._append(FinalBlock.of(action))
                late = "in a later round" if action.round else "in round 0"
                self.world.count(f"blocks committed {late}")
            case RequestBlock():
                self.world.count("blocks asked for")
                self._gossip()
            case ReportEquivocation():
                self._report(action)
            case PeerAhead():
                self.world.count("peers seen ahead")
                self._gossip()

    def _cast(self, cast: CastVote) -> None:
        vote = self._sign(cast.height, cast.round, cast.step, cast.block_hash)
        if vote.block_hash is None:
            self.world.count("votes for no block")
        self.disk.votes.append(vote)
        self.world.judge.see_vote(vote)
        self._may_crash("vote on disk, not sent")
        self._check_on_disk(vote)
        self._broadcast(vote)
        if cast.step == PRECOMMIT and cast.block_hash is not None:
            self._may_crash("precommit sent")
        self._feed(vote)

    def _check_on_disk(self, vote: Vote) -> None:
        """Fail when a vote is about to leave that a power cut could make us forget."""
        lock = self.disk.lock
        if vote not in self.disk.votes:
            self.world.judge.fail(f"{self.name.decode()} sends a vote that is not on its disk")
        if vote.step == PRECOMMIT and vote.block_hash is not None:
            saved = None if lock is None else (lock.height, lock.round, lock.block_hash)
            if saved != (vote.height, vote.round, vote.block_hash):
                self.world.judge.fail(f"{self.name.decode()} precommits without a lock on disk")

    def _propose(self, propose: Propose) -> None:
        self.world.count("new proposals" if propose.pol_round == NO_ROUND else "re-proposals")
        proposal = self._sign_proposal(propose, propose.block)
        self._broadcast(proposal)
        self._feed(proposal)

    def _sign(self, height: int, round_: int, step: int, block_hash: bytes | None) -> Vote:
        return Vote(self.name, height, round_, step, block_hash, b"")

    def _sign_proposal(self, propose: Propose, block: bytes) -> Proposal:
        return Proposal(
            validator=self.name,
            height=propose.height,
            round=propose.round,
            pol_round=propose.pol_round,
            block_hash=hash_block(block),
            block=block,
            justification=propose.justification,
            raw=b"",
        )

    def _report(self, report: ReportEquivocation) -> None:
        self.world.judge.see_report(self.name.decode(), report)
        self.world.count("equivocations reported")
        who = report.vote_a.validator
        self._reported.add(who)
        if who not in self.disk.suspended:
            self.submit(evidence(who))

    # Blocks

    def _setting(self) -> HeightSetting:
        disk = self.disk
        return HeightSetting(
            height=len(disk.chain) + 1,
            parent=disk.chain[-1].block_hash if disk.chain else GENESIS,
            validators=self.world.validators,
            quorum=self.world.scenario.quorum,
            suspended=frozenset(disk.suspended),
            recent_miners=tuple(disk.miners[-RECENT_MINERS:]),
            spacing=self.world.scenario.spacing,
        )

    def _mining_ms(self, mine: Mine) -> float:
        return mine.delay_ms + self.world.rng.expovariate(1 / self.world.scenario.mean_block_ms)

    def _take_found(self, found: Found) -> None:
        if found.search != self._search or not self.disk.pending:
            return
        mine = found.mine
        chosen = list(self.disk.pending)[:MAX_BLOCK_TRANSACTIONS]
        block = encode_block(mine.parent, mine.height, mine.round, self.name, chosen)
        self._feed(Mined(mine.height, mine.round, hash_block(block), block))

    def _is_valid(self, block: bytes, height: int) -> bool:
        """Whether the block may come next here; one for another height is not judged."""
        if height != len(self.disk.chain) + 1:
            return True
        content = decode_block(block)
        head = self.disk.chain[-1].block_hash if self.disk.chain else GENESIS
        return content.parent == head and self.disk.sealed.isdisjoint(content.transactions)

    def _take_proposal(self, proposal: Proposal) -> None:
        content = decode_block(proposal.block)
        is_own_work = (content.miner, content.round) == (proposal.validator, proposal.round)
        is_fit = is_own_work or proposal.pol_round != NO_ROUND
        if is_fit and self._is_valid(proposal.block, proposal.height):
            self._feed(proposal)

    def _append(self, final: FinalBlock) -> None:
        self._may_crash("final, not on disk")
        content = decode_block(final.block)
        self.world.judge.see_final(
            self.name.decode(), final.certificate, final.block_hash, content.transactions
        )
        disk = self.disk
        disk.chain.append(final)
        disk.miners.append(content.miner)
        disk.votes.clear()
        for transaction in content.transactions:
            disk.sealed.add(transaction)
            disk.pending.pop(transaction, None)
            who = accused(transaction)
            if who is not None:
                disk.suspended.add(who)
        self._may_crash("final, on disk")
        self._todo.extend(self._consensus.advance(self._setting()))
        self._has_work = False

    def _take_final(self, final: FinalBlock) -> None:
        height = final.certificate.height
        known = len(self.disk.chain)
        if not 1 <= height <= known + 1 or not self._is_certified(final):
            return
        if height <= known:
            if self.disk.chain[height - 1].block_hash != final.block_hash:
                self._stop_at_fork(Fork(height, (self.disk.chain[height - 1], final)))
            return
        # Its votes go in first: one of them may contradict a vote known here.
        for vote in final.certificate.votes:
            self._feed(vote)
        self._work_off()
        if len(self.disk.chain) >= height or self.fork is not None:
            return
        if decode_block(final.block).parent == self._consensus.setting.parent:
            self._append(final)
            self.world.count("blocks caught up")

    def _is_certified(self, final: FinalBlock) -> bool:
        certificate = final.certificate
        voters = {v.validator for v in certificate.votes if v.step == PRECOMMIT}
        voters &= set(self.world.validators)
        return (
            hash_block(final.block) == certificate.block_hash == final.block_hash
            and all(vote.block_hash == final.block_hash for vote in certificate.votes)
            and len(voters) >= self.world.scenario.quorum
        )

    def _stop_at_fork(self, fork: Fork) -> None:
        world = self.world
        world.count("nodes stopped at a fork")
        pairs = find_equivocations(v for final in fork.blocks for v in final.certificate.votes)
        if pairs:
            world.count("forks laid to a validator")
        for vote_a, vote_b in pairs:
            world.judge.see_report(self.name.decode(), ReportEquivocation(vote_a, vote_b))
        self.fork = fork
        self._todo.clear()

    # Peers

    def _gossip(self) -> None:
        shared = self.disk.pending if self.world.scenario.shares_pending else ()
        pending = tuple(shared)[:MAX_PENDING_PER_TICK]
        self._broadcast(Gossip(self._consensus.status(), pending))

    def _take_gossip(self, sender: int, gossip: Gossip) -> None:
        for transaction in gossip.pending:
            self.submit(transaction)
        theirs, mine = gossip.status, self._consensus.setting
        if theirs.height > mine.height:
            self.world.send(self.index, sender, (Gossip(self._consensus.status(), ()),))
            return
        items: tuple[Item, ...] = tuple(self._consensus.answer(theirs))
        below = theirs.height - 2
        head = self.disk.chain[below].block_hash if below >= 0 else GENESIS
        if head != theirs.parent:
            items = (self.disk.chain[below],)
        elif theirs.height < mine.height:
            items = tuple(self.disk.chain[below + 1 : below + 1 + MAX_FINAL_PER_ANSWER])
        if items:
            self.world.send(self.index, sender, items)

    def _broadcast(self, item: Item) -> None:
        for peer in self.world.others(self.index):
            self._may_crash("half-way through sending")
            self.world.send(self.index, peer, (item,))

    def _may_crash(self, point: str) -> None:
        if self.crash_at is None or self.crash_at[0] != point:
            return
        left = self.crash_at[1] - 1
        self.crash_at = (point, left)
        if left == 0:
            self.world.count(f"crashes: {point}")
            raise CrashError


class Equivocator(SimulatedNode):
    """A validator that votes and proposes one way to some and another way to the others."""

    def _votes_falsely(self) -> bool:
        return self.world.is_lying() and self.world.scenario.style != "spoiler"

    def _cast(self, cast: CastVote) -> None:
        wish = None if self.world.scenario.style == "spoiler" else cast.block_hash
        vote = false = self._sign(cast.height, cast.round, cast.step, wish)
        self.disk.votes.append(vote)
        rivals = [known for known in self.world.rivals(cast.height) if known != cast.block_hash]
        if self._votes_falsely() and (rivals or cast.block_hash is not None):
            lie = self.world.rng.choice([*rivals, None] if cast.block_hash else rivals)
            false = self._sign(cast.height, cast.round, cast.step, lie)
            self.world.count("equivocations made")
        for sent in (vote, false):
            self.world.judge.note_prevote(sent)
        if self.world.scenario.style != "patient" or not self.world.is_lying():
            self._send_two_ways(vote, false)
        # A patient liar shows nobody both sides: it only votes as each side wishes.
        self._feed(vote)

    def _mining_ms(self, mine: Mine) -> float:
        # Waits for nobody and is faster than all.
        return 1.0 if self.world.is_lying() else super()._mining_ms(mine)

    def _propose(self, propose: Propose) -> None:
        proposal = false = self._sign_proposal(propose, propose.block)
        if self.world.is_lying() and propose.pol_round == NO_ROUND:
            content = decode_block(propose.block)
            other = encode_block(content.parent, content.height, content.round, content.miner, ())
            self.world.count("proposals made two ways")
            false = self._sign_proposal(propose, other)
        self._send_two_ways(proposal, false)
        self._feed(proposal)

    def _send_two_ways(self, one: Item, two: Item) -> None:
        side = self.world.rng.randrange(2)
        for peer in self.world.others(self.index):
            side = 1 - side
            some = (one, two) if self.world.rng.random() < BOTH_WAYS else ((one, two)[side],)
            self.world.send(self.index, peer, some)

    def _take_proposal(self, proposal: Proposal) -> None:
        super()._take_proposal(proposal)
        if not self._votes_falsely():
            return
        # Whoever proposes gets, for its side, all the votes it could wish for.
        side = [peer for peer in self.world.side_of(proposal.validator) if peer != self.index]
        for step in (PREVOTE, PRECOMMIT):
            vote = self._sign(proposal.height, proposal.round, step, proposal.block_hash)
            self.world.judge.note_prevote(vote)
            for peer in side:
                self.world.send(self.index, peer, (vote,))

    def _gossip(self) -> None:
        super()._gossip()
        machine = self._consensus
        if machine.round and self.world.is_lying():
            # Claims a polka that never was.
            self.world.count("polkas forged")
            setting = machine.setting
            forged = encode_block(setting.parent, setting.height, machine.round, self.name, ())
            slot = (setting.height, machine.round, machine.round - 1)
            claim = Propose(*slot, hash_block(forged), forged, justification=())
            self._broadcast(self._sign_proposal(claim, forged))

    def _take_gossip(self, sender: int, gossip: Gossip) -> None:
        # Helps nobody to find out what the others have decided.
        if not self._votes_falsely():
            super()._take_gossip(sender, gossip)
