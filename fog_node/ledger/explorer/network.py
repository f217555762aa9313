"""What is explored: a small network, and the bounds within which everything is tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

from fog_node.ledger.consensus_messages import Block, HeightSetting, Proposal
from fog_node.protocol.founding import quorum_of
from fog_node.protocol.votes import NO_ROUND, PRECOMMIT, PREVOTE, Vote

from .replica import Message

HEIGHT = 1
PARENT = bytes(32)


@dataclass(frozen=True)
class Network:
    """A network and its bounds.

    Attributes:
        validators: how many, the liar included; it is the last one.
        rule: the founding file's quorum rule.
        rounds: rounds from 0 on that are followed.
        blocks: how many new blocks are found at the height at most.
        liar: whether one validator signs and sends whatever it likes.
        restarts: how often each honest validator may lose power; None: any number of times.
    """

    validators: int
    rule: str
    rounds: int = 2
    blocks: int = 2
    liar: bool = False
    restarts: int | None = 0

    @cached_property
    def names(self) -> tuple[bytes, ...]:
        """All validators."""
        return tuple(b"v%d" % i for i in range(self.validators))

    @property
    def honest(self) -> tuple[bytes, ...]:
        """Those that keep the rules."""
        return self.names[:-1] if self.liar else self.names

    @property
    def liar_name(self) -> bytes:
        """The one that does not, if there is one."""
        return self.names[-1]

    @property
    def quorum(self) -> int:
        """Votes that make a block final."""
        return quorum_of(self.rule, self.validators)

    @cached_property
    def setting(self) -> HeightSetting:
        """What the machines are told about the height."""
        return HeightSetting(HEIGHT, PARENT, self.names, self.quorum)

    def lies(self) -> Iterator[frozenset[Message]]:
        """Every choice of new blocks that a liar may come with; one of nothing without."""
        most = self.blocks if self.liar else 0
        for count in range(most + 1):
            for rounds in combinations_with_replacement(range(self.rounds), count):
                yield frozenset(
                    self.new_block(self.liar_name, round_, b"%c" % (0x41 + number))
                    for number, round_ in enumerate(rounds)
                )

    def new_block(self, miner: bytes, round_: int, block: bytes) -> Proposal:
        """A proposal of a new block; it is its own hash."""
        return Proposal(miner, HEIGHT, round_, NO_ROUND, block, block, (), b"")

    def messages(self, sent: Iterable[Message]) -> frozenset[Message]:
        """Return all that can reach somebody once these have been sent.

        Besides themselves the blocks in them, on their own, and whatever a liar signs: any
        vote for any of the blocks, and each block again with the prevotes that justify it.
        """
        found = set(sent)
        blocks = {m.block_hash for m in found if isinstance(m, Proposal)}
        found |= {Block(HEIGHT, block, block) for block in blocks}
        if self.liar:
            found |= set(self._false_votes(blocks))
            found |= set(self._again(found, blocks))
        return frozenset(found)

    def _false_votes(self, blocks: set[bytes]) -> Iterator[Vote]:
        for round_ in range(self.rounds):
            for step in (PREVOTE, PRECOMMIT):
                for block in (None, *blocks):
                    yield Vote(self.liar_name, HEIGHT, round_, step, block, b"")

    def _again(self, messages: set[Message], blocks: set[bytes]) -> Iterator[Proposal]:
        prevotes = [m for m in messages if isinstance(m, Vote) and m.step == PREVOTE]
        for round_ in range(1, self.rounds):
            for earlier in range(round_):
                for block in blocks:
                    votes = sorted(
                        (v for v in prevotes if (v.round, v.block_hash) == (earlier, block)),
                        key=lambda vote: vote.validator,
                    )
                    if len(votes) >= self.quorum:
                        yield Proposal(
                            self.liar_name, HEIGHT, round_, earlier, block, block, tuple(votes), b""
                        )
