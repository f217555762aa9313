"""What goes into the consensus state machine and what comes out of it.

Events: Vote, Proposal, Block, Mined, WorkAvailable, TimerExpired.
Actions: CastVote, Propose, Mine, StopMining, SetTimer, SaveLock, Commit, RequestBlock,
ReportEquivocation, PeerAhead.
Between nodes: Vote, Proposal, Block, and Status, which asks for what the sender lacks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fog_node.protocol.votes import Certificate, Vote

MIN_VOTE_MS = 1000
PROPOSE_INTERVALS = 10
LIMIT_FACTOR = 4


class Timer(StrEnum):
    """What a timer waits for."""

    PROPOSE = "propose"
    TURN = "turn"
    REPROPOSE = "repropose"
    PREVOTE = "prevote"
    PRECOMMIT = "precommit"


@dataclass(frozen=True)
class Timing:
    """Waiting times in ms; they decide how fast a block comes, never which.

    Attributes:
        propose_ms: wait for a proposal in round 0, mining included.
        vote_ms: wait for the votes that are still out in round 0.
        stagger_ms: a miner waits this much per rank in the draw of round 0.
        growth_ms: added to each of these per round.
        limit_ms: none grows beyond.
    """

    propose_ms: int
    vote_ms: int
    stagger_ms: int
    growth_ms: int
    limit_ms: int

    @classmethod
    def of_chain(cls, block_interval_ms: int, stagger_ms: int, validators: int) -> Timing:
        """Choose the waits that suit a chain's block interval."""
        vote_ms = max(MIN_VOTE_MS, block_interval_ms // 2)
        propose_ms = PROPOSE_INTERVALS * block_interval_ms + validators * stagger_ms
        return cls(
            propose_ms=propose_ms,
            vote_ms=vote_ms,
            stagger_ms=stagger_ms,
            growth_ms=vote_ms,
            limit_ms=LIMIT_FACTOR * max(propose_ms, vote_ms),
        )

    def propose(self, round_: int) -> int:
        """Wait for a proposal in this round, in ms."""
        return min(self.propose_ms + round_ * self.growth_ms, self.limit_ms)

    def vote(self, round_: int) -> int:
        """Wait for outstanding votes in this round, in ms."""
        return min(self.vote_ms + round_ * self.growth_ms, self.limit_ms)

    def stagger(self, round_: int, validators: int) -> int:
        """Wait per rank before mining in this round, and before a block is voted for, in ms.

        It grows so that a block found by the first reaches all before the next one counts,
        however slow the network; the last still has its turn within the wait for a proposal.
        """
        return min(self.stagger_ms + round_ * self.growth_ms, self.propose(round_) // validators)


@dataclass(frozen=True)
class HeightSetting:
    """What the chain up to the parent says about one height.

    Attributes:
        height: of the block to agree on.
        parent: hash of the block below.
        validators: key ids in the validators' order, suspended ones included.
        quorum: votes that make a block final; more than half of the validators.
        suspended: validators whose votes and blocks do not count.
        recent_miners: miners of the latest blocks, oldest first.
        spacing: see `mining_order.mining_spacing`.
        abstains: this validator neither votes nor mines here, for it may have voted already
            and does not know how.
    """

    height: int
    parent: bytes
    validators: tuple[bytes, ...]
    quorum: int
    suspended: frozenset[bytes] = frozenset()
    recent_miners: tuple[bytes, ...] = ()
    spacing: int = 0
    abstains: bool = False

    def __post_init__(self) -> None:
        """Refuse a quorum that cannot be safe or cannot be met."""
        if not len(self.validators) < 2 * self.quorum <= 2 * len(self.validators):
            raise ValueError(
                f"quorum: {self.quorum} of {len(self.validators)} validators; "
                "it must be more than half of them and at most all"
            )


@dataclass(frozen=True)
class Lock:
    """A block and the prevotes of a quorum for it in one round.

    Attributes:
        round: of the prevotes.
    """

    height: int
    round: int
    block_hash: bytes
    block: bytes = field(repr=False)
    prevotes: tuple[Vote, ...] = field(repr=False)


@dataclass(frozen=True)
class Proposal:
    """A valid block proposed for a round; event, and message between nodes.

    Attributes:
        validator: who proposes; for a new block also its miner.
        pol_round: NO_ROUND for a block mined for `round`; else the earlier round whose
            prevotes, in `justification`, allow it to be proposed again.
        raw: the signed bytes.
    """

    validator: bytes
    height: int
    round: int
    pol_round: int
    block_hash: bytes
    block: bytes = field(repr=False)
    justification: tuple[Vote, ...] = field(repr=False)
    raw: bytes = field(repr=False)


@dataclass(frozen=True)
class Block:
    """A valid block that was asked for by its hash; event, and message between nodes."""

    height: int
    block_hash: bytes
    block: bytes = field(repr=False)


@dataclass(frozen=True)
class RoundVotes:
    """Which votes of one round a node knows: a tag per validator, empty where it knows none.

    Attributes:
        prevotes, precommits: in order of the validators, the first TAG_BYTES bytes of the
            hash voted for, or `nil`.
    """

    height: int
    round: int
    prevotes: tuple[bytes, ...]
    precommits: tuple[bytes, ...]


@dataclass(frozen=True)
class Status:
    """What a node has at its height, and so what it lacks; a message between nodes.

    Attributes:
        parent: hash of the sender's latest final block, at height - 1.
        round: the sender's present one.
        pol_round: round of the prevotes that justify the block it holds, or NO_ROUND.
        has_proposal: whether it knows a proposal of `round`.
        votes: of the present round, and of the round that ended the height before.
        wanted: hashes of blocks that a quorum voted for and it lacks.
    """

    height: int
    parent: bytes
    round: int
    pol_round: int
    has_proposal: bool
    votes: tuple[RoundVotes, ...]
    wanted: tuple[bytes, ...]


@dataclass(frozen=True)
class Mined:
    """Our miner found a block for this height and round."""

    height: int
    round: int
    block_hash: bytes
    block: bytes = field(repr=False)


@dataclass(frozen=True)
class WorkAvailable:
    """Whether there is anything to seal now (transactions, or a heartbeat is due)."""

    available: bool


@dataclass(frozen=True)
class TimerExpired:
    """A timer set by SetTimer ran out."""

    kind: Timer
    height: int
    round: int


@dataclass(frozen=True)
class CastVote:
    """Sign this vote, have it on disk, send it to all, feed it back."""

    height: int
    round: int
    step: int
    block_hash: bytes | None


@dataclass(frozen=True)
class Propose:
    """Sign this proposal, send it to all, feed it back."""

    height: int
    round: int
    pol_round: int
    block_hash: bytes
    block: bytes = field(repr=False)
    justification: tuple[Vote, ...] = field(repr=False)


@dataclass(frozen=True)
class Mine:
    """Mine on `parent` for this round, after a delay in ms; replaces other mining."""

    height: int
    round: int
    parent: bytes
    delay_ms: int


@dataclass(frozen=True)
class StopMining:
    """Give up the block being mined."""


@dataclass(frozen=True)
class SetTimer:
    """Feed back TimerExpired after a delay in ms; late and stale ones do no harm."""

    kind: Timer
    height: int
    round: int
    delay_ms: int


@dataclass(frozen=True)
class SaveLock:
    """Have this lock on disk before the next action; it replaces the one before."""

    lock: Lock


@dataclass(frozen=True)
class Commit:
    """The block is final."""

    height: int
    round: int
    block_hash: bytes
    block: bytes = field(repr=False)
    certificate: Certificate


@dataclass(frozen=True)
class RequestBlock:
    """A quorum voted for a block we lack: send our Status to all at once."""

    height: int
    block_hash: bytes


@dataclass(frozen=True)
class ReportEquivocation:
    """A validator signed two different votes for one height, round and step."""

    vote_a: Vote
    vote_b: Vote


@dataclass(frozen=True)
class PeerAhead:
    """Somebody votes at a later height: catch up with final blocks."""

    height: int


Event = Vote | Proposal | Block | Mined | WorkAvailable | TimerExpired
Message = Vote | Proposal | Block
Action = (
    CastVote
    | Propose
    | Mine
    | StopMining
    | SetTimer
    | SaveLock
    | Commit
    | RequestBlock
    | ReportEquivocation
    | PeerAhead
)
