"""Agreement on one block per height: the rules of CONSENSUS.md as a pure state machine.

Tendermint (Buchman, Kwon, Milosevic: "The latest gossip on BFT consensus",
arXiv:1807.04938) with proof of work in place of the proposer's turn.

No clock, socket, disk, key or chance in here. Events go in through `Consensus.handle`,
actions come out, and the caller carries them out one after the other: an action is done,
on disk where it says so, before the next one is begun. Signatures, proof of work and the
content of blocks have been checked before an event goes in.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from fog_node.protocol.votes import NO_ROUND, PRECOMMIT, PREVOTE, Certificate, Vote

from .consensus_messages import (
    Action,
    Block,
    CastVote,
    Commit,
    Event,
    HeightSetting,
    Lock,
    Message,
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
    Timer,
    TimerExpired,
    Timing,
    WorkAvailable,
)
from .mining_order import MiningOrder
from .vote_book import MAX_ROUNDS_AHEAD, VoteBook, prevotes_for, vote_tags, votes_not_tagged

MAX_WANTED_BLOCKS = 2
MAX_STATUS_ROUNDS = 2


class Step(IntEnum):
    """How far a node is within a round; the names are those of the vote cast last."""

    PROPOSE = 0
    PREVOTE = PREVOTE
    PRECOMMIT = PRECOMMIT
    COMMIT = 3


class Consensus:
    """One node's part in agreeing on a chain of blocks, one height after the other.

    Attributes:
        setting: what the chain says about the present height.
        round: the present round.
        step: how far the node is in it; COMMIT once the height is decided.
    """

    def __init__(self, me: bytes | None, timing: Timing, setting: HeightSetting) -> None:
        """Take part as validator `me`, or only follow: `me` None, suspended or unknown."""
        self._me = me
        self._timing = timing
        self._actions: list[Action] = []
        self._ended: tuple[VoteBook, HeightSetting, int] | None = None
        self.round: int
        self.step: Step
        self._mining: bool
        self._begin(setting)

    def restore(self, votes: Iterable[Vote], lock: Lock | None) -> list[Action]:
        """Take up this height where it was left; before any `handle`, once.

        Args:
            votes: own votes of this height found on disk, in any order; the latest do.
            lock: the lock of this height found on disk.
        """
        votes = sorted(votes, key=lambda vote: (vote.round, vote.step))
        for kept in (*votes, *((lock,) if lock else ())):
            if kept.height != self.setting.height:
                raise ValueError(
                    f"restored height: {kept.height} instead of {self.setting.height}; "
                    "give only the votes and the lock of the present height"
                )
        if lock is not None:
            self._hold(lock)
            if lock.round > self.round:
                self._enter(lock.round)
        for vote in votes:
            self._count(vote)
        self._settle()
        return self._take_actions()

    def advance(self, setting: HeightSetting, timing: Timing | None = None) -> list[Action]:
        """Go on to a later height, once the blocks below it are final and on disk.

        Or begin the present one anew, as a validator that abstained and may vote from now on.
        Says StopMining if need be. There is no work until WorkAvailable says so. `timing` is
        given where the chain's parameters or validators have changed it.
        """
        self._timing = timing or self._timing
        self._stop_mining()
        if setting.height != self.setting.height:
            follows = setting.height == self.setting.height + 1
            round_ = max(self._book.decisions, default=self.round)
            self._ended = (self._book, self.setting, round_) if follows else None
        self._begin(setting)
        return self._take_actions()

    def handle(self, event: Event) -> list[Action]:
        """Take in one event and return what is to be done about it, in order."""
        match event:
            case Vote():
                self._on_vote(event)
            case Proposal():
                self._on_proposal(event)
            case Block():
                self._on_block(event)
            case Mined():
                self._on_mined(event)
            case WorkAvailable():
                self._work = event.available
            case TimerExpired():
                self._on_timer(event)
        self._settle()
        return self._take_actions()

    @property
    def has_voted(self) -> bool:
        """Whether a vote of this node's key for the present height is known."""
        return self._me in self._book.latest

    def status(self) -> Status:
        """Say what this node has and lacks, for a peer to answer."""
        votes = [_round_votes(self._book, self.setting, self.round)]
        if self._ended is not None:
            votes.append(_round_votes(*self._ended))
        return Status(
            height=self.setting.height,
            parent=self.setting.parent,
            round=self.round,
            pol_round=self._held_round,
            has_proposal=bool(self._proposals.get(self.round)),
            votes=tuple(votes),
            wanted=tuple(self._wanted),
        )

    def answer(self, status: Status) -> list[Message]:
        """Give what a peer at this height lacks of what this node has.

        At most MAX_WANTED_BLOCKS blocks, one proposal and five votes per validator.
        Empty for a peer at another height or on another chain.
        """
        if (status.height, status.parent) != (self.setting.height, self.setting.parent):
            return []
        messages: list[Message] = [
            Block(status.height, block_hash, self._blocks[block_hash])
            for block_hash in status.wanted[:MAX_WANTED_BLOCKS]
            if block_hash in self._blocks
        ]
        messages += [vote for vote in self._book.latest.values() if vote.round > status.round]
        for known in status.votes[:MAX_STATUS_ROUNDS]:
            messages += self._votes_lacking(known)
        proposal = self._proposal_lacking(status)
        if proposal is not None:
            messages.append(proposal)
        return messages

    # Events

    def _on_vote(self, vote: Vote) -> None:
        if vote.height == self.setting.height:
            self._count(vote)
        elif self._ended is not None and vote.height == self._ended[1].height:
            earlier = self._ended[0].add(vote)
            if earlier is not None:
                self._report(earlier, vote)
        else:
            self._look_ahead(vote.validator, vote.height)

    def _on_proposal(self, proposal: Proposal) -> None:
        if proposal.height != self.setting.height:
            self._look_ahead(proposal.validator, proposal.height)
            return
        if proposal.validator not in self._voters or self.step is Step.COMMIT:
            return
        if proposal.pol_round == NO_ROUND:
            if not self._order.may_mine(proposal.validator, proposal.round):
                return
        elif not self._take_justification(proposal):
            return
        if self.round <= proposal.round <= self.round + MAX_ROUNDS_AHEAD:
            of_round = self._proposals.setdefault(proposal.round, {})
            if of_round.setdefault(proposal.validator, proposal) is proposal:
                self._blocks[proposal.block_hash] = proposal.block
        for vote in proposal.justification:
            self._count(vote)

    def _on_block(self, block: Block) -> None:
        if block.height == self.setting.height and block.block_hash in self._wanted:
            self._blocks[block.block_hash] = block.block

    def _on_mined(self, mined: Mined) -> None:
        here = (self.setting.height, self.round)
        if (mined.height, mined.round) == here and self._mining:
            self._mining = False
            self._blocks[mined.block_hash] = mined.block
            self._do(
                Propose(
                    height=mined.height,
                    round=mined.round,
                    pol_round=NO_ROUND,
                    block_hash=mined.block_hash,
                    block=mined.block,
                    justification=(),
                )
            )
            self._cast(PREVOTE, mined.block_hash)

    def _on_timer(self, timer: TimerExpired) -> None:
        if (timer.height, timer.round) != (self.setting.height, self.round):
            return
        if self.step is Step.COMMIT or timer.kind not in self._timers:
            return
        match timer.kind:
            case Timer.PROPOSE if self.step is Step.PROPOSE and self._is_awake():
                self._cast(PREVOTE, None)
            case Timer.PROPOSE:
                self._timers.discard(Timer.PROPOSE)
            case Timer.TURN:
                self._timers.discard(Timer.TURN)
                self._turn += 1
            case Timer.REPROPOSE:
                self._propose_again()
            case Timer.PREVOTE if self.step is Step.PREVOTE:
                self._cast(PRECOMMIT, None)
            case Timer.PRECOMMIT:
                self._enter(self.round + 1)

    # Rules, each true when it changed something

    def _settle(self) -> None:
        while self.step is not Step.COMMIT and (
            self._commit()
            or self._skip_rounds()
            or self._take_polka()
            or self._prevote()
            or self._precommit()
        ):
            pass
        if self.step is not Step.COMMIT:
            self._wait()

    def _commit(self) -> bool:
        for round_, block_hash in self._book.decisions.items():
            if block_hash in self._blocks:
                votes = self._book.votes_for(round_, PRECOMMIT, block_hash)
                certificate = Certificate(self.setting.height, round_, block_hash, votes)
                self._stop_mining()
                self.step = Step.COMMIT
                self._do(
                    Commit(
                        height=self.setting.height,
                        round=round_,
                        block_hash=block_hash,
                        block=self._blocks[block_hash],
                        certificate=certificate,
                    )
                )
                return True
        return False

    def _skip_rounds(self) -> bool:
        reached = self._book.round_reached_by(self._skip_threshold, self._me)
        if reached <= self.round:
            return False
        self._enter(reached)
        return True

    def _take_polka(self) -> bool:
        round_ = self._book.highest_polka
        if round_ <= self._held_round or self._book.polkas[round_] not in self._blocks:
            return False
        block_hash = self._book.polkas[round_]
        self._hold(
            Lock(
                height=self.setting.height,
                round=round_,
                block_hash=block_hash,
                block=self._blocks[block_hash],
                prevotes=self._book.votes_for(round_, PREVOTE, block_hash),
            )
        )
        return True

    def _prevote(self) -> bool:
        if self.step is not Step.PROPOSE:
            return False
        if self._held is not None:
            # Whoever is locked is here: a lock is a held block, never given up for an
            # older polka, and what is held is what gets the prevote.
            self._cast(PREVOTE, self._held.block_hash)
            self._plan_repropose()
            return True
        proposals = self._proposals.get(self.round, {})
        ranks = {self._order.rank(who, self.round): who for who in proposals}
        if not ranks or (min(ranks) > self._turn and self._stagger_ms):
            return False
        self._cast(PREVOTE, proposals[ranks[min(ranks)]].block_hash)
        return True

    def _precommit(self) -> bool:
        if self.step is not Step.PREVOTE:
            return False
        if self._held is not None and self._held.round == self.round:
            if self._is_voter:
                self._do(SaveLock(self._held))
            self._cast(PRECOMMIT, self._held.block_hash)
            return True
        if not self._book.can_agree(self.round, PREVOTE):
            self._cast(PRECOMMIT, None)
            return True
        return False

    def _wait(self) -> None:
        """Ask, set timers and mine while no rule applies."""
        self._request_blocks()
        if self.step is Step.PROPOSE and self._is_awake():
            self._set_timer(Timer.PROPOSE, self._timing.propose(self.round))
            if self._stagger_ms and self._turn < len(self._voters) - 1:
                self._set_timer(Timer.TURN, self._stagger_ms)
        if self.step is Step.PREVOTE and self._has_quorum_passed(PREVOTE):
            self._set_timer(Timer.PREVOTE, self._timing.vote(self.round))
        if self._has_quorum_passed(PRECOMMIT):
            self._set_timer(Timer.PRECOMMIT, self._timing.vote(self.round))
        if self.step is Step.PROPOSE and self._work:
            self._mine()
        else:
            self._stop_mining()

    # Parts of the rules

    def _begin(self, setting: HeightSetting) -> None:
        self.setting = setting
        members = tuple(v for v in setting.validators if v not in setting.suspended)
        self._voters = frozenset(members)
        self._is_voter = self._me in self._voters and not setting.abstains
        self._order = MiningOrder(setting.parent, members, setting.recent_miners, setting.spacing)
        count, quorum = len(setting.validators), setting.quorum
        self._skip_threshold = max(1, min(count - quorum + 1, quorum - 1))
        self._book = VoteBook(members, quorum)
        self._proposals: dict[int, dict[bytes, Proposal]] = {}
        self._blocks: dict[bytes, bytes] = {}
        self._wanted: list[bytes] = []
        self._reported: set[bytes] = set()
        self._held: Lock | None = None
        self._height_ahead = setting.height
        self._mining = False
        self._work = False
        self.round = 0
        self.step = Step.PROPOSE
        self._turn = 0
        self._timers: set[Timer] = set()

    def _enter(self, round_: int) -> None:
        self._stop_mining()
        self.round = round_
        self.step = Step.PROPOSE
        self._turn = 0
        self._timers.clear()
        self._book.move_window(round_)
        self._proposals = {r: p for r, p in self._proposals.items() if r >= round_ - 1}
        # A block still of interest later on is asked for again by its hash.
        kept = {p.block_hash: p.block for of in self._proposals.values() for p in of.values()}
        if self._held is not None:
            kept[self._held.block_hash] = self._held.block
        self._blocks = kept

    def _count(self, vote: Vote) -> None:
        if vote.height != self.setting.height:
            return
        if vote.validator == self._me and self._is_voter and self.step is not Step.COMMIT:
            self._resume_after(vote)
        earlier = self._book.add(vote)
        if earlier is not None:
            self._report(earlier, vote)

    def _resume_after(self, vote: Vote) -> None:
        """Never vote again where a vote of ours is known, be it from disk or from a peer."""
        if vote.round > self.round:
            self._enter(vote.round)
        if vote.round == self.round and vote.step > self.step:
            self.step = Step(vote.step)

    def _take_justification(self, proposal: Proposal) -> bool:
        """Hold the block if it is justified by a later polka; tell whether it is by any.

        The votes are counted as they stand: our book may hold an equivocator's other vote.
        """
        slot = (proposal.height, proposal.pol_round)
        polka = prevotes_for(proposal.justification, self._voters, slot, proposal.block_hash)
        if len(polka) < self.setting.quorum or proposal.pol_round >= proposal.round:
            return False
        if proposal.pol_round > self._held_round:
            block_hash, block = proposal.block_hash, proposal.block
            self._hold(Lock(proposal.height, proposal.pol_round, block_hash, block, polka))
        return True

    def _hold(self, lock: Lock) -> None:
        self._held = lock
        self._blocks[lock.block_hash] = lock.block

    @property
    def _stagger_ms(self) -> int:
        return self._timing.stagger(self.round, len(self.setting.validators))

    @property
    def _held_round(self) -> int:
        return NO_ROUND if self._held is None else self._held.round

    def _is_awake(self) -> bool:
        """Whether rounds may pass: there is work, or others propose or vote."""
        others_vote = self._book.round_reached_by(1, self._me) >= self.round
        return self._work or others_vote or bool(self._proposals.get(self.round))

    def _has_quorum_passed(self, step: int) -> bool:
        return self._book.has_passed(self.round, step) >= self.setting.quorum

    def _cast(self, step: int, block_hash: bytes | None) -> None:
        self.step = Step(step)
        if self._is_voter:
            self._do(CastVote(self.setting.height, self.round, step, block_hash))

    def _plan_repropose(self) -> None:
        if not self._is_voter or self._me is None:
            return
        rank = self._order.rank(self._me, self.round)
        if rank == 0:
            self._propose_again()
        else:
            share = self._timing.vote(self.round) // len(self.setting.validators)
            self._set_timer(Timer.REPROPOSE, rank * share)

    def _propose_again(self) -> None:
        held = self._held
        if held is None or held.round >= self.round:
            return
        of_round = self._proposals.get(self.round, {}).values()
        if any(proposal.block_hash == held.block_hash for proposal in of_round):
            return
        self._do(
            Propose(
                height=held.height,
                round=self.round,
                pol_round=held.round,
                block_hash=held.block_hash,
                block=held.block,
                justification=held.prevotes,
            )
        )

    def _mine(self) -> None:
        if self._mining or not self._is_voter or self._me is None:
            return
        if self._order.may_mine(self._me, self.round):
            self._mining = True
            delay_ms = self._order.rank(self._me, self.round) * self._stagger_ms
            self._do(Mine(self.setting.height, self.round, self.setting.parent, delay_ms))

    def _stop_mining(self) -> None:
        if self._mining:
            self._mining = False
            self._do(StopMining())

    def _set_timer(self, kind: Timer, delay_ms: int) -> None:
        if kind not in self._timers:
            self._timers.add(kind)
            self._do(SetTimer(kind, self.setting.height, self.round, delay_ms))

    def _request_blocks(self) -> None:
        before = self._wanted
        hashes = list(self._book.decisions.values())
        if (highest := self._book.highest_polka) > self._held_round:
            hashes.append(self._book.polkas[highest])
        lacking = [h for h in dict.fromkeys(hashes) if h not in self._blocks]
        self._wanted = lacking[:MAX_WANTED_BLOCKS]
        for block_hash in self._wanted:
            if block_hash not in before:
                self._do(RequestBlock(self.setting.height, block_hash))

    def _votes_lacking(self, known: RoundVotes) -> list[Vote]:
        book, setting = self._book, self.setting
        if self._ended is not None and known.height == self._ended[1].height:
            book, setting = self._ended[:2]
        if known.height != setting.height:
            return []
        prevotes = book.votes(known.round, PREVOTE)
        precommits = book.votes(known.round, PRECOMMIT)
        return [
            *votes_not_tagged(setting.validators, prevotes, known.prevotes),
            *votes_not_tagged(setting.validators, precommits, known.precommits),
        ]

    def _proposal_lacking(self, status: Status) -> Proposal | None:
        """Choose the proposal of the peer's round that helps it most, if it lacks one."""
        proposals = list(self._proposals.get(status.round, {}).values())
        justified = [p for p in proposals if p.pol_round > status.pol_round]
        if justified:
            return max(justified, key=lambda proposal: proposal.pol_round)
        return proposals[0] if proposals and not status.has_proposal else None

    def _report(self, vote_a: Vote, vote_b: Vote) -> None:
        if vote_a.validator not in self._reported:
            self._reported.add(vote_a.validator)
            self._do(ReportEquivocation(vote_a, vote_b))

    def _look_ahead(self, validator: bytes, height: int) -> None:
        if validator in self._voters and height > self._height_ahead:
            self._height_ahead = height
            self._do(PeerAhead(height))

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions


def _round_votes(book: VoteBook, setting: HeightSetting, round_: int) -> RoundVotes:
    return RoundVotes(
        height=setting.height,
        round=round_,
        prevotes=vote_tags(setting.validators, book.votes(round_, PREVOTE)),
        precommits=vote_tags(setting.validators, book.votes(round_, PRECOMMIT)),
    )
