"""How waiting transactions lie on the disk: many in one row, as they were admitted together.

A row of its own for each would cost more than all the rest of an admission but the signature.
What leaves is forgotten here at once; its bytes go with the last of its row, or when a row is
written anew: there is much of such waste then, and it takes more than half of the row. After a
restart it is back, and the ledger finds that it can no longer become final.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fog_node.protocol.merkle import leaf_hash

# Bytes of transactions that have left and may yet lie on the disk, before rows are written anew.
MAX_WASTE_BYTES = 8 * 1024 * 1024
_LENGTH = struct.Struct(">I")


@dataclass
class Batch:
    """One row.

    Attributes:
        sizes: bytes of its transactions by id, in order, of those that have left too.
        waiting: ids of those that have not.
        waste: bytes of those that have.
    """

    sizes: dict[bytes, int]
    waiting: set[bytes]
    waste: int = 0


@dataclass
class Departure:
    """What is to be done on the disk when transactions leave.

    Attributes:
        gone: their ids, by the number of the row.
        emptied: rows to delete.
        wasteful: rows to write anew: what still waits, by number.
    """

    gone: dict[int, set[bytes]] = field(default_factory=dict)
    emptied: list[int] = field(default_factory=list)
    wasteful: dict[int, set[bytes]] = field(default_factory=dict)


class WaitingRoom:
    """Which row each waiting transaction is in; follows what was written."""

    def __init__(self) -> None:
        self._batches: dict[int, Batch] = {}
        self._number_of: dict[bytes, int] = {}
        self._waste = 0

    def __contains__(self, transaction_id: bytes) -> bool:
        """Whether this one waits."""
        return transaction_id in self._number_of

    @property
    def next_number(self) -> int:
        """Of the next row: above all others, so that rows are in order of arrival."""
        return 1 + next(reversed(self._batches), 0)

    def stored(self, numbers: Iterable[int]) -> list[bytes]:
        """Ids of all that lies in these rows, whether it waits or not."""
        return [id_ for number in numbers for id_ in self._batches[number].sizes]

    def departure(self, ids: Iterable[bytes]) -> Departure:
        """Plan the departure of those of `ids` that wait; `depart` then takes note of it."""
        plan = Departure()
        for id_ in ids:
            number = self._number_of.get(id_)
            if number is not None:
                plan.gone.setdefault(number, set()).add(id_)
        waste = self._waste
        for number, gone in plan.gone.items():
            batch = self._batches[number]
            if len(gone) == len(batch.waiting):
                plan.emptied.append(number)
                waste -= batch.waste
            else:
                waste += sum(batch.sizes[id_] for id_ in gone)
        if waste > MAX_WASTE_BYTES:
            plan.wasteful = dict(self._wasteful(plan))
        return plan

    def enter(self, number: int, sizes: Mapping[bytes, int]) -> None:
        """Take note of a row that was written: sizes by id."""
        self._batches[number] = Batch(dict(sizes), set(sizes))
        self._number_of |= dict.fromkeys(sizes, number)

    def depart(self, plan: Departure) -> None:
        """Take note that a departure was carried out."""
        for number, gone in plan.gone.items():
            batch = self._batches[number]
            batch.waiting -= gone
            wasted = sum(batch.sizes[id_] for id_ in gone)
            batch.waste += wasted
            self._waste += wasted
            for id_ in gone:
                del self._number_of[id_]
        for number in plan.emptied:
            self._waste -= self._batches.pop(number).waste
        for number, left in plan.wasteful.items():
            batch = self._batches[number]
            self._waste -= batch.waste
            sizes = {id_: size for id_, size in batch.sizes.items() if id_ in left}
            self._batches[number] = Batch(sizes, set(left))

    def _wasteful(self, plan: Departure) -> Iterator[tuple[int, set[bytes]]]:
        for number, batch in self._batches.items():
            if number not in plan.emptied:
                left = batch.waiting - plan.gone.get(number, set())
                total = sum(batch.sizes.values())
                if 2 * sum(batch.sizes[id_] for id_ in left) < total:
                    yield number, left


def join_row(entries: Iterable[bytes]) -> bytes:
    """Put transactions into one row: each after its length in four bytes, big-endian."""
    return b"".join([part for entry in entries for part in (_LENGTH.pack(len(entry)), entry)])


def split_row(row: bytes) -> dict[bytes, bytes]:
    """Read a row: bytes by id, in order; raises ValueError where it is not one."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(row):
        start = at + _LENGTH.size
        if start > len(row):
            raise ValueError("ends within a length")
        at = start + _LENGTH.unpack_from(row, start - _LENGTH.size)[0]
        if at > len(row):
            raise ValueError("ends within a transaction")
        entry = row[start:at]
        found[leaf_hash(entry)] = entry
    return found
