"""What the store knows of itself: one checked row, written with every change.

Sums stand for tables whose every row matters at a start: a row that a damaged page has made
vanish is missed, not overlooked.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.cose import CHAIN_ID_BYTES
from fog_node.protocol.errors import FormatError
from fog_node.protocol.validate import array, octets, text, text_map, uint

MAX_META_BYTES = 64 * 1024
_MODULUS = 2**63
_ID_CHECK_BYTES = 7


@dataclass(frozen=True)
class Sum:
    """How many rows a table has, and the sum of their checks."""

    count: int = 0
    total: int = 0

    @classmethod
    def of(cls, checks: Iterable[int]) -> Sum:
        """Add up the checks of all rows."""
        listed = list(checks)
        return cls(len(listed), sum(listed) % _MODULUS)

    def plus(self, *checks: int) -> Sum:
        """With these rows more."""
        return Sum(self.count + len(checks), (self.total + sum(checks)) % _MODULUS)

    def minus(self, *checks: int) -> Sum:
        """With these rows less."""
        return Sum(self.count - len(checks), (self.total - sum(checks)) % _MODULUS)


@dataclass
class Meta:
    """The row.

    Attributes:
        chain_id: of the founding file.
        writes: number of the latest commit, as the witness has it.
        head: height of the latest block.
        base: below this height nothing is kept; 0 where the chain is whole.
        joined: height of the checkpoint that this ledger began with; 0 where it has taken all
            blocks itself.
        pruned: bodies of the blocks below this height were dropped.
        voted: highest height at which this validator has voted.
        abstain: up to this height this validator must not vote, for it may have voted there
            and does not know how.
        asking: this validator has not heard yet how far the others are, since this store was
            made: it may have voted before, at any height, and must not vote at all.
        votes, locks, mempool, forks, sets: sums of the tables votes, lock, mempool, forks and
            validator_sets.
        kinds: how many final transactions there are of each kind.
    """

    chain_id: bytes
    writes: int = 0
    head: int = 0
    base: int = 0
    joined: int = 0
    pruned: int = 0
    voted: int = 0
    abstain: int = 0
    asking: bool = True
    votes: Sum = field(default_factory=Sum)
    locks: Sum = field(default_factory=Sum)
    mempool: Sum = field(default_factory=Sum)
    forks: Sum = field(default_factory=Sum)
    sets: Sum = field(default_factory=Sum)
    kinds: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Meta:
        """Return one to change."""
        return replace(self, kinds=dict(self.kinds))

    def encode(self) -> bytes:
        """Deterministic CBOR."""
        names = ("chain_id", "asking", *_NUMBERS)
        value: dict[str, Any] = {name: getattr(self, name) for name in names}
        for name in _SUMS:
            one: Sum = getattr(self, name)
            value[name] = [one.count, one.total]
        return encode({**value, "kinds": self.kinds})

    @classmethod
    def decode(cls, data: bytes) -> Meta:
        """Parse; raises EncodingError, FormatError."""
        names = {"chain_id", "asking", "kinds", *_NUMBERS, *_SUMS}
        value = text_map(decode(data, MAX_META_BYTES, "meta"), names, "meta")
        kinds = value["kinds"]
        if not isinstance(kinds, dict):
            raise FormatError("meta.kinds", "is not a map")
        asking = value["asking"]
        if not isinstance(asking, bool):
            raise FormatError("meta.asking", "is neither true nor false")
        numbers: dict[str, Any] = {name: uint(value[name], f"meta.{name}") for name in _NUMBERS}
        sums: dict[str, Any] = {name: _sum(value[name], f"meta.{name}") for name in _SUMS}
        return cls(
            octets(value["chain_id"], "meta.chain_id", CHAIN_ID_BYTES),
            asking=asking,
            **numbers,
            **sums,
            kinds={text(k, "meta.kinds", 32): uint(v, "meta.kinds") for k, v in kinds.items()},
        )


_NUMBERS = ("writes", "head", "base", "joined", "pruned", "voted", "abstain")
_SUMS = ("votes", "locks", "mempool", "forks", "sets")


def _sum(value: Any, field: str) -> Sum:
    count, total = array(value, field, length=2)
    return Sum(uint(count, field), uint(total, field))


def check_of_id(id_: bytes) -> int:
    """Check over a row that is known by its hash: part of that."""
    return int.from_bytes(id_[:_ID_CHECK_BYTES], "big")


def check_of(*parts: object) -> int:
    """CRC-32 over the fields of a row, each told apart from the next by type and length."""
    check = 0
    for part in parts:
        if isinstance(part, bytes):
            check = zlib.crc32(part, zlib.crc32(b"b%d:" % len(part), check))
        else:
            check = zlib.crc32(f"{part!r}:".encode(), check)
    return check
