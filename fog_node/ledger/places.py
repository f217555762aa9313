"""Where final transactions are: the rows of the index tables that a block adds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fog_node.protocol import senml
from fog_node.protocol.block import MAX_BLOCK_TRANSACTIONS, Block
from fog_node.protocol.cose import parse_sign1
from fog_node.protocol.errors import FormatError
from fog_node.protocol.merkle import leaf_hash
from fog_node.protocol.transactions import KINDS, MAX_TRANSACTION_BYTES, content_type

PREFIX_BYTES = 8
POSITION_BYTES = 2
# A place is height * PLACES + position; the position counts from 1, behind the coinbase.
PLACES = 2**15
assert MAX_BLOCK_TRANSACTIONS < PLACES

_KIND_OF_TYPE = {
    senml.CONTENT_TYPE if kind == "pack" else content_type(kind): kind for kind in KINDS
}


@dataclass(frozen=True)
class Place:
    """Where a final transaction is.

    Attributes:
        index: position in its block, from 1, as in proofs.
        raw: its bytes.
    """

    id: bytes
    signer: bytes
    sequence: int
    kind: str
    height: int
    index: int
    raw: bytes

    @classmethod
    def of(cls, raw: bytes, height: int, index: int) -> Place:
        """Read from the bytes what they are; raises ProtocolError."""
        message = parse_sign1(raw, MAX_TRANSACTION_BYTES, "transaction")
        kind = _KIND_OF_TYPE.get(message.content_type)
        if kind is None or message.sequence is None:
            raise FormatError("transaction", "is of no known kind, or has no number")
        return cls(leaf_hash(raw), message.kid, message.sequence, kind, height, index, raw)


@dataclass
class Run:
    """An unbroken run of one signer's numbers in one block, with their positions."""

    signer: bytes
    first: int
    positions: bytearray

    @property
    def end(self) -> int:
        """The number behind the last one."""
        return self.first + len(self.positions) // POSITION_BYTES

    def spots(self) -> list[int]:
        """Positions, in order of the numbers."""
        count = len(self.positions) // POSITION_BYTES
        return [position_in(self.positions, offset) for offset in range(count)]


def prefix_of(hash_: bytes) -> int:
    """The number that an id or a block hash is found by; others may share it."""
    return int.from_bytes(hash_[:PREFIX_BYTES], "big", signed=True)


def position_in(positions: bytes | bytearray, offset: int) -> int:
    """Read one position of a run."""
    start = offset * POSITION_BYTES
    return int.from_bytes(positions[start : start + POSITION_BYTES], "big")


def runs_of(block: Block) -> list[Run]:
    """Runs of a block, each signer's in order."""
    numbered = enumerate(block.transactions, start=1)
    return _runs((item.signer, item.sequence, position) for position, item in numbered)


def runs_of_places(places: Iterable[Place]) -> list[Run]:
    """Return the same of the places of one block, in order."""
    return _runs((place.signer, place.sequence, place.index) for place in places)


def _runs(numbers: Iterable[tuple[bytes, int, int]]) -> list[Run]:
    open_: dict[bytes, Run] = {}
    runs: list[Run] = []
    for signer, sequence, position in numbers:
        run = open_.get(signer)
        if run is None or run.end != sequence:
            run = open_[signer] = Run(signer, sequence, bytearray())
            runs.append(run)
        run.positions += position.to_bytes(POSITION_BYTES, "big")
    return runs


def ids_of(block: Block) -> Iterator[tuple[int, int]]:
    """Rows of `ids`: prefix and place."""
    start = block.height * PLACES
    for position, transaction in enumerate(block.transactions, start=1):
        yield prefix_of(transaction.id), start + position


def kinds_of(block: Block) -> Iterator[tuple[str, int]]:
    """Rows of `kinds`: all but packs, which are listed by their signer."""
    start = block.height * PLACES
    for position, transaction in enumerate(block.transactions, start=1):
        if transaction.kind != "pack":
            yield transaction.kind, start + position
