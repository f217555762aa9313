"""Makes proofs from final blocks, wherever those are kept: a node's store, or an archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fog_node.protocol.founding import Founding
from fog_node.protocol.proof import (
    MAX_SUBJECTS,
    Claim,
    EnrolmentClaim,
    Inclusion,
    Proof,
    RangeClaim,
    StateRecord,
    TransactionClaim,
)
from fog_node.protocol.sealed_header import SealedHeader
from fog_node.protocol.validators import ValidatorSet

from .stored_block import PrunedBlock, StoredBlock


@dataclass(frozen=True)
class Located:
    """Where a final transaction is: height of its block, and index in it, from 1."""

    height: int
    index: int


class ProofSource(Protocol):
    """Final blocks, and where to find things in them."""

    @property
    def founding(self) -> Founding:
        """What the chain began with."""

    def stored_block(self, height: int) -> StoredBlock | PrunedBlock:
        """Return a final block; raises a FogNodeError where it is not at hand."""

    def validator_set_at(self, height: int) -> ValidatorSet:
        """Return who votes on the block at this height."""

    def handovers(self, last: int) -> Sequence[int]:
        """Heights up to `last` of the blocks after which another set votes, lowest first."""

    def introduction(self, kid: bytes) -> tuple[Located, bytes] | None:
        """Where a key came in that the founding file lacks, and who signed that.

        None for a founding member's key.
        """


class ProofMaker:
    """Makes one proof: gathers the blocks that it needs, each once."""

    def __init__(self, source: ProofSource) -> None:
        self._source = source
        self._founding = source.founding
        # The latest one; a range has many of a block behind each other.
        self._stored: tuple[int, StoredBlock | PrunedBlock] | None = None
        self._sealed: dict[int, SealedHeader] = {}

    def transaction(self, id_: bytes, signer: bytes, at: Located) -> Proof:
        """Prove that one transaction is final."""
        return self._proof(TransactionClaim(id_), signer, [at])

    def range(self, signer: bytes, first: int, last: int, places: Sequence[Located]) -> Proof:
        """Prove that `places` hold all that a signer numbered `first` to `last`."""
        if len(places) > MAX_SUBJECTS:
            raise ValueError(f"places: are {len(places)}, one proof holds {MAX_SUBJECTS}")
        return self._proof(RangeClaim(signer, first, last), signer, places)

    def enrolment(
        self,
        device: bytes,
        signer: bytes,
        at: Located,
        height: int,
        record: tuple[bytes, int, int, Sequence[bytes]],
    ) -> Proof:
        """Prove that a device was enrolled, and how it stands after the block at `height`.

        Args:
            device: key id.
            signer: of the enrolment.
            at: where that is.
            height: of the block whose state holds `record`.
            record: entry, index, size and path, as State.prove gives them.
        """
        entry, index, size, path = record
        shown = StateRecord(self._block(height), entry, index, size, tuple(path))
        return self._proof(EnrolmentClaim(device), signer, [at], shown)

    def _proof(
        self,
        claim: Claim,
        signer: bytes,
        places: Iterable[Located],
        record: StateRecord | None = None,
    ) -> Proof:
        introductions = self._introductions(signer)
        subjects = [self._inclusion(place) for place in places]
        highest = max(self._sealed)
        for height in self._source.handovers(highest - 1):
            self._block(height)
        return Proof(
            chain_id=self._founding.chain_id,
            claim=claim,
            blocks=tuple(self._sealed[height] for height in sorted(self._sealed)),
            introductions=tuple(introductions),
            subjects=tuple(subjects),
            record=record,
        )

    def _introductions(self, signer: bytes) -> list[Inclusion]:
        """Return what brought in the signer's key, and its signer's, back to the founding."""
        found: dict[tuple[int, int], Inclusion] = {}
        while (introduced := self._source.introduction(signer)) is not None:
            place, signer = introduced
            found[place.height, place.index] = self._inclusion(place)
        return [found[place] for place in sorted(found)]

    def _inclusion(self, place: Located) -> Inclusion:
        stored = self._read(place.height)
        return stored.inclusion(place.index, self._block(place.height))

    def _block(self, height: int) -> SealedHeader:
        if height not in self._sealed:
            next_ = self._source.validator_set_at(height + 1)
            self._sealed[height] = self._read(height).sealed_header(next_)
        return self._sealed[height]

    def _read(self, height: int) -> StoredBlock | PrunedBlock:
        if self._stored is None or self._stored[0] != height:
            self._stored = height, self._source.stored_block(height)
        return self._stored[1]
