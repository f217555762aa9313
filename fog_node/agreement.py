"""Carries out what the consensus state machine asks for: signs, stores, sends, mines, commits.

One task takes events one after the other, so that an action is done, on disk where
`ledger/CONSENSUS.md` wants it, before the next one is begun.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import ParamSpec, TypeVar

from .catching_up import CatchingUp
from .errors import LedgerError, PrunedError, StoreError
from .fair_inbox import FairInbox
from .full_disk import when_there_is_room
from .ledger.consensus import Consensus
from .ledger.consensus_messages import (
    Action,
    CastVote,
    Commit,
    Event,
    HeightSetting,
    Mine,
    Mined,
    PeerAhead,
    Proposal,
    Propose,
    ReportEquivocation,
    RequestBlock,
    RoundVotes,
    SaveLock,
    SetTimer,
    Status,
    StopMining,
    TimerExpired,
    Timing,
    WorkAvailable,
)
from .ledger.consensus_messages import Block as Candidate
from .ledger.ledger import Ledger
from .ledger.validation import MAX_FUTURE_MS, check_proposal
from .miner import Miner
from .network import wire
from .network.peers import Peer, PeerNetwork
from .network.score import Offence
from .protocol.block import Block, header_hash
from .protocol.errors import ProtocolError
from .protocol.keys import SigningKey
from .protocol.transactions import Body, Evidence
from .protocol.votes import (
    NO_ROUND,
    Certificate,
    ProposalHeader,
    Vote,
    parse_certificate,
    parse_proposal,
    parse_vote,
    sign_proposal,
    sign_vote,
    verify_proposal,
    verify_vote,
)

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Messages of one peer that wait, and bytes of them; further ones wait in its own send buffer.
MAX_INBOX = 64
MAX_INBOX_BYTES = 8 * 1024 * 1024
# Bytes of final blocks in one answer to a node that catches up.
MAX_BLOCKS_BYTES = 4 * 1024 * 1024
# The same of sealed headers.
MAX_HEADERS_BYTES = 1024 * 1024
# A node that asked for blocks asks another peer after so long.
CATCH_UP_TIMEOUT_S = 5.0
MAX_REMEMBERED_VOTES = 4096
# The founding file stands for the block below it.
FIRST_HEIGHT = 1
# Blocks of the present height that are kept parsed: a few proposals compete.
MAX_KNOWN_BLOCKS = 4

Committed = Callable[[Block, Certificate], None]
Submit = Callable[[Body], None]
Clock = Callable[[], int]


def wall_clock_ms() -> int:
    """Return the time by this machine's clock, in ms since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class _FromPeer:
    peer: Peer
    message: wire.Message


class Agreement:
    """This node's part in the consensus; `run` it in a task of its own."""

    def __init__(
        self,
        ledger: Ledger,
        key: SigningKey | None,
        miner: Miner,
        committed: Committed,
        submit: Submit,
        now_ms: Clock = wall_clock_ms,
    ) -> None:
        """Prepare for the height after the ledger's head.

        Args:
            ledger: with `ledger.founding` and the store of votes.
            key: of this node's member: it votes while that is a validator; None for one
                that only ever follows.
            miner: for its blocks.
            committed: is told of each final block, once it is on disk.
            submit: signs and sends a transaction of this node, for evidence.
            now_ms: what the block times of others are held against.
        """
        self._ledger = ledger
        self._key = key
        self._miner = miner
        self._committed = committed
        self._submit = submit
        self._now_ms = now_ms
        self._chain_id = ledger.founding.chain_id
        self._keys = {record.kid: record.key for record in ledger.state.validators}
        self._network: PeerNetwork | None = None
        self._inbox: FairInbox[_FromPeer | Event | None] = FairInbox(MAX_INBOX, MAX_INBOX_BYTES)
        self._is_work_announced = False
        # Of its own: what others do in threads, for people who ask say, must not delay a vote.
        self._executor = ThreadPoolExecutor(1, "agreement")
        self._todo: deque[Action] = deque()
        # Those whose signature was verified, by their bytes.
        self._verified: OrderedDict[bytes, Vote] = OrderedDict()
        self._known_blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._asked_until = 0.0
        self._asked: Peer | None = None
        # Validators that had not voted at the first height yet when this one asked.
        self._unvoted: set[bytes] = set()
        self._is_late_said = False
        self._catching_up = CatchingUp(ledger, self._apart, self._write, self._take_final)
        me = key.kid if key is not None else None
        self._consensus = Consensus(me, self.timing(), ledger.height_setting())

    @property
    def round(self) -> int:
        """The present round."""
        return self._consensus.round

    def connect(self, network: PeerNetwork) -> None:
        """Say over which peers to talk; before `run`."""
        self._network = network

    def status(self) -> wire.Status:
        """What to tell peers."""
        status = self._consensus.status()
        votes = [[v.height, v.round, list(v.prevotes), list(v.precommits)] for v in status.votes]
        return wire.Status(
            status.height,
            status.parent,
            status.round,
            status.pol_round,
            status.has_proposal,
            votes,
            list(status.wanted),
        )

    def is_current(self) -> bool:
        """Whether this node is where a quorum of validators is, or one block behind."""
        setting = self._consensus.setting
        me = {self._key.kid} if self._key is not None else set()
        heights = self._claims()
        told = (heights.keys() | me) & set(setting.validators)
        highest = max(heights.values(), default=0)
        return len(told) >= setting.quorum and highest <= setting.height + 1

    def _claims(self) -> dict[bytes, int]:
        """Which height each peer says it is at, but for those that say more than they back.

        Who is far ahead has the blocks that are lacking here. Where it was asked and gave
        none, or keeps none so old, its word counts for nothing: neither that this node is
        behind, nor towards the quorum.
        """
        height = self._consensus.setting.height
        return {
            peer.kid: peer.status.height
            for peer in self._peers.peers
            if peer.status
            and (peer.status.height <= height + 1 or (peer.lowest <= height and not peer.misses))
        }

    async def take(self, peer: Peer, message: wire.Message) -> None:
        """Queue a peer's message; waits while too many of this peer wait already."""
        if isinstance(message, wire.Status) and self._ledger.asking:
            # At once: it stays true if the connection is replaced by another one meanwhile.
            self._hear(peer, message)
        await self._inbox.put(peer.kid, _FromPeer(peer, message), peer.frame_bytes)

    def work_changed(self) -> None:
        """Look again whether there is something to seal; call after admitting."""
        if not self._is_work_announced:
            self._is_work_announced = True
            self._inbox.post(None)

    async def run(self) -> None:
        """Take part until cancelled; raises ForkError or StoreError when it must stop."""
        if self._key is not None and self._ledger.abstain > self._ledger.height:
            log.warning(
                "this validator does not vote up to height %d: the ledger is new or was repaired, "
                "and how it voted there is lost",
                self._ledger.abstain,
            )
        self._say_what_it_waits_for()
        self._todo.extend(self._consensus.restore(*self._ledger.saved()))
        heartbeat = asyncio.create_task(self._heartbeat())
        try:
            self.work_changed()
            while True:
                if self._ledger.asking:
                    await self._stop_asking()
                if self._todo:
                    await self._work_off()
                item = await self._inbox.get()
                if isinstance(item, _FromPeer):
                    if not item.peer.is_closed:
                        await self._take_message(item.peer, item.message)
                elif item is None:
                    self._is_work_announced = False
                    self._feed(WorkAvailable(self._ledger.work_available(self._now_ms())))
                else:
                    self._feed(item)
        finally:
            heartbeat.cancel()
            self._miner.stop()
            # The ledger may be closed next: what is being written is written first.
            self._executor.shutdown(wait=True)

    async def _apart(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what takes long, or waits for the disk, beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(work, *args, **kwargs))

    async def _write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what writes to the disk; while that is full, stand still."""
        return await when_there_is_room(partial(self._apart, work, *args, **kwargs))

    async def _heartbeat(self) -> None:
        # A heartbeat block may fall due, and a refused block's work may still be there.
        while True:
            await asyncio.sleep(1.0)
            self.work_changed()

    # What it may have voted before its store was made

    def _say_what_it_waits_for(self) -> None:
        setting = self._consensus.setting
        if self._ledger.asking and self._key and self._key.kid in setting.validators:
            log.warning(
                "this validator's ledger is new: it votes once %d other validators have said how "
                "far they are. Where they cannot be reached, and nobody has seen it vote for a "
                "block above %d, stop it and run fogline fog repair --forget-votes",
                _others_to_hear(setting),
                setting.height - 1,
            )

    async def _stop_asking(self) -> None:
        """If enough others are heard, vote above what it can have voted with an earlier store."""
        abstain = self._may_have_voted()
        if abstain is None:
            return
        await self._write(self._ledger.stop_asking, abstain)
        setting = self._ledger.height_setting()
        if not setting.abstains:
            log.info("the others have said how far they are: this node votes if it is a validator")
            self._todo.extend(self._consensus.advance(setting))
            self.work_changed()
            return
        log.warning(
            "this validator's ledger is new, and the others are at height %d: it does not vote up "
            "to %d, where it may have voted before. Where they cannot go on without it, stop it "
            "and run fogline fog repair --forget-votes",
            setting.height,
            self._ledger.abstain,
        )

    def _may_have_voted(self) -> int | None:
        """Up to which height it may have; None until enough others have said where they are.

        Whoever votes at a height has the block below, so a quorum has precommitted that, and
        whoever did so has the block below that. See `ledger/CONSENSUS.md`.
        """
        if self._key is None or not self.is_current():
            return None
        setting, me = self._consensus.setting, self._key.kid
        claims = self._claims()
        highest = max((setting.height, *claims.values()))
        voters = set(setting.validators) - setting.suspended
        heard = (claims.keys() & set(setting.validators)) - {me}
        if me in setting.validators and len(heard) < _others_to_hear(setting):
            return None
        if me not in voters:
            # Where nobody is ahead, it has not been one at any height that is still open.
            return 0 if highest == setting.height else None
        if self._consensus.has_voted:
            return highest + 1
        if len(voters) - 1 < setting.quorum:
            # Nothing goes on without it here; of the height above that is not known yet.
            return 0 if highest == setting.height else None
        if highest > FIRST_HEIGHT:
            return highest + 1
        if len(self._unvoted) < _of_every_quorum(setting):
            self._say_that_it_is_late()
            return None
        return 0

    def _hear(self, peer: Peer, status: wire.Status) -> None:
        """Note who had not voted at the first height yet, after this store was made."""
        setting = self._consensus.setting
        me = self._key.kid if self._key is not None else None
        if setting.height == FIRST_HEIGHT and peer.kid in set(setting.validators) - {me}:
            of = {peer.kid, me}
            if _shows_no_vote(status, [kid in of for kid in setting.validators]):
                self._unvoted.add(peer.kid)

    def _say_that_it_is_late(self) -> None:
        if not self._is_late_said:
            self._is_late_said = True
            log.warning(
                "this validator's ledger is new, and others have voted on the first block, perhaps "
                "with an earlier self of it: it waits for that block. Where they cannot make it "
                "without it, and nobody has seen it vote, stop it and run fogline fog repair "
                "--forget-votes"
            )

    # What consensus asks for

    def _feed(self, event: Event) -> None:
        self._todo.extend(self._consensus.handle(event))

    async def _work_off(self) -> None:
        while self._todo:
            await self._do(self._todo.popleft())

    async def _do(self, action: Action) -> None:
        match action:
            case CastVote():
                await self._cast(action)
            case SaveLock():
                await self._write(self._ledger.save_lock, action.lock)
            case Propose():
                self._propose(action)
            case Commit():
                block = self._known_blocks.get(action.block_hash)
                if block is None:
                    block = self._ledger.parse_block(action.block)
                await self._append(block, action.certificate)
            case Mine():
                self._mine(action)
            case StopMining():
                self._miner.stop()
            case SetTimer():
                expired = TimerExpired(action.kind, action.height, action.round)
                loop = asyncio.get_running_loop()
                loop.call_later(action.delay_ms / 1000, self._inbox.post, expired)
            case RequestBlock():
                self._peers.announce()
            case PeerAhead():
                self._catch_up()
            case ReportEquivocation():
                self._report(action)

    async def _cast(self, cast: CastVote) -> None:
        assert self._key is not None
        vote = sign_vote(
            self._key, cast.height, cast.round, cast.step, cast.block_hash, self._chain_id
        )
        await self._write(self._ledger.save_vote, vote)
        self._peers.broadcast(wire.Votes([vote.raw]))
        self._feed(vote)

    def _propose(self, propose: Propose) -> None:
        assert self._key is not None
        header = sign_proposal(
            self._key,
            propose.height,
            propose.round,
            propose.pol_round,
            propose.block_hash,
            self._chain_id,
        )
        proposal = _proposal(header, propose.block, propose.justification)
        self._peers.broadcast(_proposal_message(proposal))
        self._feed(proposal)

    def _mine(self, mine: Mine) -> None:
        assert self._key is not None
        # A head from a clock ahead of ours may be minutes off; its time binds the next block's,
        # not how long everybody rests.
        rest_ms = self._ledger.state.parameters.rest_ms
        rest_ms = min(max(0, self._ledger.earliest_ms() - self._now_ms()), rest_ms)
        delay_s = (rest_ms + mine.delay_ms) / 1000
        template = partial(self._template, self._key, mine)
        self._miner.start(delay_s, template, partial(self._found, mine))

    def _template(self, key: SigningKey, mine: Mine) -> Block:
        return self._ledger.template(key, mine.round, self._now_ms())

    def _remember(self, block: Block) -> None:
        """Keep a block of the present height parsed; its hash stands for all that is in it."""
        self._known_blocks[block.hash] = block
        if len(self._known_blocks) > MAX_KNOWN_BLOCKS:
            self._known_blocks.popitem(last=False)

    def _found(self, mine: Mine, block: Block) -> None:
        self._remember(block)
        log.debug("mined block %d of round %d", mine.height, mine.round)
        self._inbox.post(Mined(mine.height, mine.round, block.hash, block.raw))

    def _report(self, report: ReportEquivocation) -> None:
        offender = report.vote_a.validator
        if self._key is not None and offender == self._key.kid:
            raise StoreError(
                f"agreement: this node's own key has voted twice at height "
                f"{report.vote_a.height}; another node runs with the same key, or the data "
                "directory was put back from a copy: stop the other node and tell the consortium"
            )
        log.error("validator %s voted twice at height %d", offender.hex(), report.vote_a.height)
        if offender not in self._ledger.state.suspended:
            self._submit(Evidence(report.vote_a, report.vote_b))

    # Blocks

    def timing(self) -> Timing:
        """How long to wait for others, as the parameters say now."""
        parameters = self._ledger.state.parameters
        interval_ms, stagger_ms = parameters.block_interval_ms, parameters.stagger_ms
        return Timing.of_chain(interval_ms, stagger_ms, len(self._keys))

    async def _append(self, block: Block, certificate: Certificate) -> None:
        await self._write(self._ledger.commit, block, certificate)
        self._known_blocks.clear()
        self._keys = {record.kid: record.key for record in self._ledger.state.validators}
        setting = self._ledger.height_setting()
        self._todo.extend(self._consensus.advance(setting, self.timing()))
        self._committed(block, certificate)
        self._peers.announce()
        self.work_changed()

    # Peers

    @property
    def _peers(self) -> PeerNetwork:
        if self._network is None:
            raise RuntimeError("agreement: connect() comes before run()")
        return self._network

    async def _take_message(self, peer: Peer, message: wire.Message) -> None:
        try:
            match message:
                case wire.Status():
                    await self._take_status(peer, message)
                case wire.Votes():
                    for raw in message.raw:
                        self._take_vote(self._read_vote(raw, peer))
                case wire.Proposal():
                    await self._take_proposal(peer, message)
                case wire.Candidate():
                    await self._take_candidate(message)
                case wire.GetBlocks():
                    await self._send_blocks(peer, message.first, message.count)
                case wire.GetHeaders():
                    await self._send_headers(peer, message.first)
                case wire.Headers():
                    await self._catching_up.take_headers(peer, message)
                    self._catch_up()
                case wire.Blocks():
                    await self._take_blocks(peer, message)
        except ProtocolError as error:
            peer.ban(str(error))
        except LedgerError as error:
            # What honest peers may see otherwise, a clock say, was looked at before.
            peer.offend(Offence.BAD_BLOCK, f"{message.KIND} not accepted: {error}")

    def _read_vote(self, raw: bytes, peer: Peer) -> Vote:
        """Parse a vote; one that was not known counts against what the peer may have verified."""
        known = self._verified.get(raw)
        if known is not None:
            return known
        peer.verified(1)
        return parse_vote(raw)

    def _take_vote(self, vote: Vote) -> None:
        # Nothing comes of a vote on a block below the latest one, so it is not verified.
        if vote.height + 1 >= self._consensus.setting.height and self._is_authentic(vote):
            self._feed(vote)

    def _is_authentic(self, vote: Vote) -> bool:
        """Whether a validator signed this; what is no validator's is not looked at."""
        if vote.raw in self._verified:
            return True
        key = self._keys.get(vote.validator)
        if key is None:
            return False
        verify_vote(vote, key, self._chain_id)
        self._verified[vote.raw] = vote
        if len(self._verified) > MAX_REMEMBERED_VOTES:
            self._verified.popitem(last=False)
        return True

    async def _take_proposal(self, peer: Peer, message: wire.Proposal) -> None:
        header = parse_proposal(message.header)
        key = self._keys.get(header.validator)
        if key is None or header.height > self._consensus.setting.height:
            self._catch_up()
            return
        if header.height < self._consensus.setting.height:
            return
        peer.verified(1)
        verify_proposal(header, key, self._chain_id)
        justification = tuple(self._read_vote(raw, peer) for raw in message.prevotes)
        if not all(self._is_authentic(vote) for vote in justification):
            return
        block = self._ledger.parse_block(message.block)
        check_proposal(header, block)
        # A block that comes again was voted for before: its time stands, whatever our clock says.
        now_ms = self._now_ms() if header.pol_round == NO_ROUND else None
        if now_ms is not None and block.coinbase.time > now_ms + MAX_FUTURE_MS:
            log.warning(
                "peer %s: proposes a block %d ms ahead of our clock; check both nodes' clocks",
                peer.name,
                block.coinbase.time - now_ms,
            )
            return
        if block.header.previous != self._consensus.setting.parent:
            log.error("peer %s: proposes a block on another one than ours", peer.name)
            return
        await self._apart(self._ledger.validate, block, now_ms)
        self._remember(block)
        self._feed(_proposal(header, message.block, justification))

    async def _take_candidate(self, message: wire.Candidate) -> None:
        if header_hash(message.block) not in self._consensus.status().wanted:
            return
        block = self._ledger.parse_block(message.block)
        if block.height == self._consensus.setting.height:
            # A quorum has voted for it, or consensus would not have asked: its time stands.
            await self._apart(self._ledger.validate, block, None)
            self._feed(Candidate(block.height, block.hash, message.block))

    async def _take_status(self, peer: Peer, message: wire.Status) -> None:
        mine = self._consensus.setting
        if message.height > mine.height:
            self._catch_up()
            return
        if message.height == mine.height:
            parent: bytes | None = mine.parent
        elif 0 < message.height - 1 <= self._ledger.base:
            return  # so far behind that nothing here can be compared
        else:
            below = await self._apart(self._ledger.info, message.height - 1)
            parent = None if below is None else below.hash
        if parent != message.parent:
            if peer.may_send_again(message.parent):
                log.error("peer %s: has another block %d", peer.name, message.height - 1)
                peer.send(wire.GetBlocks(max(1, message.height - 1)))
            return
        status = Status(
            message.height,
            message.parent,
            message.round,
            message.pol_round,
            message.has_proposal,
            tuple(RoundVotes(h, r, tuple(p), tuple(c)) for h, r, p, c in message.votes),
            tuple(message.wanted),
        )
        votes: list[bytes] = []
        for answer in self._consensus.answer(status):
            match answer:
                case Vote():
                    votes.append(answer.raw)
                case Proposal():
                    if peer.may_send_again(answer.raw):
                        peer.send(_proposal_message(answer))
                case Candidate():
                    if peer.may_send_again(answer.block_hash):
                        peer.send(wire.Candidate(answer.block))
        if votes:
            peer.send(wire.Votes(votes[: wire.MAX_VOTES]))

    # Catching up

    def _catch_up(self) -> None:
        """Ask for the blocks we lack: where they are many, as `catch_up` says.

        Where they are few, one peer at a time: the one farthest ahead, of those that were of
        use when they were asked. What a peer says of its height is no more than its word.
        """
        if self._catching_up.ask(self._peers.peers):
            return
        now = asyncio.get_running_loop().time()
        ahead = [
            peer
            for peer in self._peers.peers
            if peer.status
            and peer.status.height > self._consensus.setting.height
            and peer.lowest <= self._consensus.setting.height
        ]
        gone = self._asked is not None and self._asked not in self._peers.peers
        if not ahead or (now < self._asked_until and not gone):
            return
        if self._asked is not None:
            self._asked.misses += 1  # it did not answer in time
        self._asked_until = now + CATCH_UP_TIMEOUT_S
        self._asked = min(
            ahead, key=lambda peer: (peer.misses, -(peer.status.height if peer.status else 0))
        )
        self._asked.send(wire.GetBlocks(self._consensus.setting.height))

    async def _send_blocks(self, peer: Peer, first: int, count: int) -> None:
        blocks: list[list[bytes]] = []
        size = 0
        for height in range(first, min(self._ledger.height, first + count - 1) + 1):
            try:
                stored = await self._apart(self._ledger.block, height)
            except PrunedError:
                break
            if stored is None:
                break
            block, certificate = stored
            size += len(block) + len(certificate)
            if blocks and size > MAX_BLOCKS_BYTES:
                break
            blocks.append([block, certificate])
        peer.send(wire.Blocks(first, blocks, max(1, self._ledger.pruned)))

    async def _send_headers(self, peer: Peer, first: int) -> None:
        headers: list[bytes] = []
        size = 0
        for height in range(first, min(self._ledger.height, first + wire.MAX_HEADERS - 1) + 1):
            try:
                sealed = await self._apart(self._ledger.sealed_header, height)
            except PrunedError:
                break
            raw = sealed.encode()
            size += len(raw)
            if headers and size > MAX_HEADERS_BYTES:
                break
            headers.append(raw)
        peer.send(wire.Headers(first, headers))

    async def _take_final(self, block: Block, certificate: Certificate) -> None:
        """Take a block on the way to the others, from far below."""
        await self._append(block, certificate)
        await self._work_off()

    async def _take_blocks(self, peer: Peer, message: wire.Blocks) -> None:
        before = self._ledger.height
        peer.lowest = message.lowest
        if await self._catching_up.take_blocks(peer, message):
            self._catch_up()
            return
        for raw, raw_certificate in message.blocks:
            block = self._ledger.parse_block(raw)
            certificate = parse_certificate(raw_certificate)
            if block.height > self._ledger.height + 1:
                # We never ask for blocks from there on.
                peer.offend(Offence.BAD_BLOCK, f"answers with block {block.height} out of order")
                break
            if block.height <= self._ledger.base:
                continue
            if block.height <= self._ledger.height:
                # Raises ForkError where a second certified block exists.
                await self._write(self._ledger.commit, block, certificate)
                continue
            if block.header.previous != self._ledger.head.hash and self._asks_below(peer, block):
                return
            # Its votes go in first: one of them may contradict a vote known here.
            for vote in certificate.votes:
                self._take_vote(vote)
            await self._work_off()
            if self._ledger.height < block.height:
                await self._append(block, certificate)
                await self._work_off()
        if peer is not self._asked:
            return
        peer.misses = 0 if self._ledger.height > before else peer.misses + 1
        self._asked = None
        self._asked_until = 0.0
        self._catch_up()

    def _asks_below(self, peer: Peer, block: Block) -> bool:
        """Ask, once, to see a peer's block where its next one stands on another than ours.

        It may be final there, which is a fork and no offence of the peer's.
        """
        height = self._ledger.height
        if height <= self._ledger.base or not peer.may_send_again(block.header.previous):
            return False
        log.error("peer %s: has another block %d", peer.name, height)
        peer.send(wire.GetBlocks(height))
        return True


def _others_to_hear(setting: HeightSetting) -> int:
    """How many other validators must say how far they are: one at least of every quorum."""
    others = len(setting.validators) - 1
    return min(others, max(setting.quorum - 1, _of_every_quorum(setting)))


def _of_every_quorum(setting: HeightSetting) -> int:
    """How many other validators have one among them of every quorum that this one is part of."""
    return len(setting.validators) - setting.quorum + 1


def _shows_no_vote(status: wire.Status, of: list[bool]) -> bool:
    """Whether a peer at the first height has passed no round and knows no vote `of` these."""
    if (status.height, status.round) != (FIRST_HEIGHT, 0):
        return False
    rounds = [known[2:] for known in status.votes if known[:2] == [FIRST_HEIGHT, 0]]
    return len(rounds) == 1 and all(
        len(tags) == len(of) and not any(compress(tags, of)) for tags in rounds[0]
    )


def _proposal(header: ProposalHeader, block: bytes, justification: tuple[Vote, ...]) -> Proposal:
    return Proposal(
        validator=header.validator,
        height=header.height,
        round=header.round,
        pol_round=header.pol_round,
        block_hash=header.block_hash,
        block=block,
        justification=justification,
        raw=header.raw,
    )


def _proposal_message(proposal: Proposal) -> wire.Proposal:
    return wire.Proposal(
        proposal.raw, proposal.block, [vote.raw for vote in proposal.justification]
    )
