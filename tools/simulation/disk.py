"""A simulated node's disk: the real store, with places where the power can go.

The store is SQLite with each write synced before it returns, so what a cut of power leaves
is all or nothing of each write; which one, the crash point says. Cuts inside a write are
tried file by file elsewhere (tests of the store).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from fog_node.ledger.chain import BlockInfo
from fog_node.ledger.consensus_messages import Lock
from fog_node.ledger.store import Store
from fog_node.protocol.block import Block
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import Certificate, Vote

POINTS = (
    "vote not on disk",
    "vote on disk, not sent",
    "lock not on disk",
    "lock on disk",
    "final, not on disk",
    "final, on disk",
    "admitted, not on disk",
    "admitted, on disk",
)


class Owner(Protocol):
    """Whose disk it is."""

    def may_crash(self, point: str) -> None:
        """Lose power here, if that is planned; always, where the power is gone already."""

    def saw_vote(self, vote: Vote) -> None:
        """A vote of its own is on disk, and may be sent now."""

    def stopped_asking(self, abstain: int) -> None:
        """Its new ledger lets it vote above a height, on disk."""

    def saw_final(self, block: Block, certificate: Certificate) -> None:
        """A block is final, on disk."""


class SimulatedStore(Store):
    """A Store that may lose power before and after each write."""

    def __init__(self, directory: Path, chain_id: bytes, owner: Owner) -> None:
        self._owner = owner
        super().__init__(directory, chain_id)

    def save_vote(self, vote: Vote) -> None:
        """See Store."""
        self._owner.may_crash("vote not on disk")
        super().save_vote(vote)
        self._owner.saw_vote(vote)
        self._owner.may_crash("vote on disk, not sent")

    def save_lock(self, lock: Lock) -> None:
        """See Store."""
        self._owner.may_crash("lock not on disk")
        super().save_lock(lock)
        self._owner.may_crash("lock on disk")

    def commit(
        self,
        block: Block,
        certificate: Certificate,
        changes: Mapping[bytes, bytes | None],
        settled: Iterable[bytes],
        handover: ValidatorSet | None = None,
    ) -> BlockInfo:
        """See Store."""
        self._owner.may_crash("final, not on disk")
        info = super().commit(block, certificate, changes, settled, handover)
        self._owner.saw_final(block, certificate)
        self._owner.may_crash("final, on disk")
        return info

    def stop_asking(self, abstain: int) -> None:
        """See Store."""
        super().stop_asking(abstain)
        self._owner.stopped_asking(abstain)

    def add_pending(self, transactions: Iterable[tuple[bytes, bytes]]) -> None:
        """See Store."""
        self._owner.may_crash("admitted, not on disk")
        super().add_pending(transactions)
        self._owner.may_crash("admitted, on disk")
