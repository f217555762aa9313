"""The votes of one height that a node knows, counted, and bounded in number."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

from fog_node.protocol.votes import NO_ROUND, PREVOTE, Vote

MAX_ROUNDS_AHEAD = 4
MAX_ROUNDS_BEHIND = 16
TAG_BYTES = 4

_NIL_TAG = b"nil"
_NO_VOTES: Mapping[bytes, Vote] = MappingProxyType({})


class VoteBook:
    """First vote of each validator per round and step, within a moving window of rounds.

    It holds at most two votes per validator and round of the window, and one more per
    validator: its latest, however far ahead, which shows how far that validator has come.

    Attributes:
        polkas: rounds in which at least the quorum prevoted one block, and that block.
        decisions: rounds in which at least the quorum precommitted one block, and that block.
        latest: each validator's vote of the highest round and step.
    """

    def __init__(self, voters: Iterable[bytes], quorum: int) -> None:
        """Count votes of `voters` only; `quorum` equal votes of one round and step agree."""
        self._voters = frozenset(voters)
        self._quorum = quorum
        self._lowest = 0
        self._highest = MAX_ROUNDS_AHEAD
        self._votes: dict[tuple[int, int], dict[bytes, Vote]] = {}
        self.polkas: dict[int, bytes] = {}
        self.decisions: dict[int, bytes] = {}
        self.latest: dict[bytes, Vote] = {}

    def add(self, vote: Vote) -> Vote | None:
        """Count a vote; return an earlier one of the same validator that it contradicts.

        Votes of rounds outside the window only count as a sign of progress. A vote for the
        same block again is not counted twice, a contradicting one not at all.
        """
        if vote.validator not in self._voters:
            return None
        known = self.latest.get(vote.validator)
        if known is None or (known.round, known.step) < (vote.round, vote.step):
            self.latest[vote.validator] = vote
        if not self._lowest <= vote.round <= self._highest:
            return None
        votes = self._votes.setdefault((vote.round, vote.step), {})
        earlier = votes.setdefault(vote.validator, vote)
        if earlier is vote:
            self._count(vote, votes)
            return None
        return earlier if earlier.block_hash != vote.block_hash else None

    def votes(self, round_: int, step: int) -> Mapping[bytes, Vote]:
        """Known votes of a round and step by validator."""
        return self._votes.get((round_, step), _NO_VOTES)

    def votes_for(self, round_: int, step: int, block_hash: bytes) -> tuple[Vote, ...]:
        """Known votes of a round and step for one block, in order of validator."""
        votes = self.votes(round_, step)
        return tuple(votes[who] for who in sorted(votes) if votes[who].block_hash == block_hash)

    def can_agree(self, round_: int, step: int) -> bool:
        """Whether one block can still get the quorum, with the votes that are out."""
        votes = self.votes(round_, step)
        lacking = self._quorum - (len(self._voters) - len(votes))
        if lacking <= 0:
            return True
        tally: dict[bytes, int] = {}
        for vote in votes.values():
            if vote.block_hash is not None:
                tally[vote.block_hash] = tally.get(vote.block_hash, 0) + 1
        return max(tally.values(), default=0) >= lacking

    @property
    def highest_polka(self) -> int:
        """Latest round with a polka, or NO_ROUND."""
        return max(self.polkas, default=NO_ROUND)

    def has_passed(self, round_: int, step: int) -> int:
        """How many validators have voted at this round and step, or later.

        A validator that voted later will never vote here again, so waiting for it is vain.
        """
        here = (round_, step)
        return sum((vote.round, vote.step) >= here for vote in self.latest.values())

    def round_reached_by(self, others: int, me: bytes | None) -> int:
        """Highest round that at least so many validators other than `me` have voted in."""
        rounds = [vote.round for who, vote in self.latest.items() if who != me]
        if len(rounds) < others:
            return NO_ROUND
        rounds.sort(reverse=True)
        return rounds[others - 1]

    def move_window(self, round_: int) -> None:
        """Keep the votes of the rounds around this one, and each validator's latest."""
        self._lowest = round_ - MAX_ROUNDS_BEHIND
        self._highest = round_ + MAX_ROUNDS_AHEAD
        for key in [key for key in self._votes if key[0] < self._lowest]:
            del self._votes[key]
        for rounds in (self.polkas, self.decisions):
            for old in [old for old in rounds if old < self._lowest]:
                del rounds[old]

    def _count(self, vote: Vote, votes: Mapping[bytes, Vote]) -> None:
        if vote.block_hash is None:
            return
        agreeing = sum(other.block_hash == vote.block_hash for other in votes.values())
        if agreeing >= self._quorum:
            agreed = self.polkas if vote.step == PREVOTE else self.decisions
            agreed[vote.round] = vote.block_hash


def vote_tags(validators: Iterable[bytes], votes: Mapping[bytes, Vote]) -> tuple[bytes, ...]:
    """Say in short what each validator voted: empty where its vote is not known."""
    return tuple(_tag(votes.get(validator)) for validator in validators)


def votes_not_tagged(
    validators: Iterable[bytes], votes: Mapping[bytes, Vote], tags: Iterable[bytes]
) -> list[Vote]:
    """Find the votes that a peer with these tags lacks, or knows to be for another block."""
    return [
        vote
        for validator, tag in zip(validators, tags, strict=False)
        if (vote := votes.get(validator)) is not None and _tag(vote) != tag
    ]


def _tag(vote: Vote | None) -> bytes:
    if vote is None:
        return b""
    return _NIL_TAG if vote.block_hash is None else vote.block_hash[:TAG_BYTES]


def find_equivocations(votes: Iterable[Vote]) -> list[tuple[Vote, Vote]]:
    """Pairs of votes in which a validator contradicts itself, as in two certificates.

    For one height and round, two certificates give at least one pair.
    """
    first: dict[tuple[bytes, int, int, int], Vote] = {}
    return [
        (first[vote.slot], vote)
        for vote in votes
        if first.setdefault(vote.slot, vote).block_hash != vote.block_hash
    ]


def prevotes_for(
    votes: Iterable[Vote], voters: Container[bytes], slot: tuple[int, int], block_hash: bytes
) -> tuple[Vote, ...]:
    """Of any votes, the prevotes of distinct `voters` for a block, in order of validator.

    Args:
        slot: height and round that they must be of.
    """
    found = {
        vote.validator: vote
        for vote in votes
        if (vote.height, vote.round) == slot
        and vote.step == PREVOTE
        and vote.block_hash == block_hash
        and vote.validator in voters
    }
    return tuple(found[validator] for validator in sorted(found))
