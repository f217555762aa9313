"""Who may mine the next block, and who starts first.

Pure functions of what is on the chain, so that every node comes to the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

PERMILLE = 1000


def mining_spacing(miners: int, quorum: int, diversity_permille: int) -> int:
    """How many of the latest blocks must be another's before a validator may mine again.

    MultiChain's mining diversity: of those who may mine, rounded up, so many must take turns;
    whoever mined one of the latest blocks, one fewer than that, waits. Unlike there it stays
    below the quorum: of any validators that can finalise a block, one may mine it.
    """
    taking_turns = -(-miners * diversity_permille // PERMILLE)
    return max(0, min(taking_turns, quorum) - 1)


@dataclass(frozen=True)
class MiningOrder:
    """The draw of one height.

    Attributes:
        parent: hash of the block to build on.
        candidates: validators that are not suspended.
        recent_miners: miners of the latest blocks, oldest first; of these the last
            `spacing` count.
        spacing: see `mining_spacing`.
    """

    parent: bytes
    candidates: tuple[bytes, ...]
    recent_miners: Sequence[bytes]
    spacing: int

    def may_mine(self, validator: bytes, round_: int) -> bool:
        """Whether a block of this validator is acceptable in this round.

        Each failed round forgives one block of spacing: if those whose turn it is cannot
        mine, in the end everybody may.
        """
        spacing = max(0, self.spacing - round_)
        recent = self.recent_miners[-spacing:] if spacing else ()
        return validator in self._members and validator not in recent

    def rank(self, validator: bytes, round_: int) -> int:
        """Place of a candidate in the draw of this round, counted from 0.

        Only those who may mine are counted; one who may not gets the place it would have.
        """
        own = self._ticket(validator, round_)
        return sum(
            self._ticket(other, round_) < own
            for other in self.candidates
            if other != validator and self.may_mine(other, round_)
        )

    @cached_property
    def _members(self) -> frozenset[bytes]:
        return frozenset(self.candidates)

    def _ticket(self, validator: bytes, round_: int) -> bytes:
        return hashlib.sha256(self.parent + round_.to_bytes(8, "big") + validator).digest()
