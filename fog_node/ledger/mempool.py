"""Transactions that wait for a block: in order per signer, bounded, fair between signers.

Not safe to share between threads by itself; the ledger guards it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fog_node.errors import ConflictError, LedgerError
from fog_node.protocol.transactions import BOARD_KINDS, Transaction, parse_transaction

from .state import State

# The head of a byte string of up to MAX_TRANSACTION_BYTES, in CBOR.
ENTRY_OVERHEAD_BYTES = 3
# Kinds that decide who may sign: they go first, so that a stolen key is stopped at once.
URGENT_KINDS = (
    "revoke",
    "enrol",
    "evidence",
    "propose",
    "approve",
    "withdraw",
    "clone",
    "reinstate-device",
)
# Part of the room that devices cannot take: a full pool must not keep a revocation out.
MEMBER_SHARE = 8
# Memory of a parsed transaction: a pack keeps its payload, others are taken to pieces.
PARSED_BYTES = 1024
PARSED_FACTOR = 12


@dataclass(frozen=True)
class Limits:
    """How much may wait.

    Attributes:
        count, total_bytes: in all.
        signer_bytes: per signer; its count is bounded by MAX_SEQUENCE_AHEAD.
        parsed_bytes: memory for what is kept parsed; the rest is kept as bytes alone and
            parsed again when its turn comes.
    """

    count: int = 100_000
    total_bytes: int = 64 * 1024 * 1024
    signer_bytes: int = 8 * 1024 * 1024
    parsed_bytes: int = 96 * 1024 * 1024


@dataclass(slots=True)
class _Entry:
    id: bytes
    signer: bytes
    first: int
    sequence: int
    kind: str
    raw: bytes
    parsed: Transaction | None
    durable: bool = False

    @property
    def size(self) -> int:
        return len(self.raw)

    @property
    def parsed_size(self) -> int:
        """About how many bytes it takes parsed, its own bytes aside."""
        if self.kind == "pack":
            return PARSED_BYTES + len(self.raw)
        return PARSED_BYTES + PARSED_FACTOR * len(self.raw)

    def transaction(self) -> Transaction:
        return self.parsed or parse_transaction(self.raw)


@dataclass(slots=True)
class _Queue:
    signer: bytes
    entries: dict[int, _Entry] = field(default_factory=dict)
    # By the first number that each gives up.
    gaps: dict[int, _Entry] = field(default_factory=dict)
    size: int = 0
    urgent: int = 0

    def at(self, sequence: int) -> _Entry | None:
        """What may come next where this is the signer's next number."""
        return self.entries.get(sequence) or self.gaps.get(sequence)


class Mempool:
    """The waiting transactions of a node."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        # The signer that was served longest ago comes first.
        self._queues: dict[bytes, _Queue] = {}
        self._entries: dict[bytes, _Entry] = {}
        self._size = 0
        self._parsed_bytes = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of them all."""
        return self._size

    def has(self, transaction_id: bytes) -> bool:
        """Whether this one waits."""
        return transaction_id in self._entries

    def get(self, transaction_id: bytes) -> Transaction | None:
        """Return the waiting transaction with this id."""
        entry = self._entries.get(transaction_id)
        return None if entry is None else entry.transaction()

    def at(self, signer: bytes, sequence: int) -> Transaction | None:
        """Return the waiting transaction with this signer and number."""
        queue = self._queues.get(signer)
        entry = queue.entries.get(sequence) if queue else None
        return None if entry is None else entry.transaction()

    def is_durable(self, transaction_id: bytes) -> bool:
        """Whether it waits and is on this node's disk."""
        entry = self._entries.get(transaction_id)
        return entry is not None and entry.durable

    def is_volatile(self, transaction_id: bytes) -> bool:
        """Whether it waits and is not on this node's disk."""
        entry = self._entries.get(transaction_id)
        return entry is not None and not entry.durable

    def mark_durable(self, transaction_ids: Iterable[bytes]) -> None:
        """Take note that these are on this node's disk."""
        for transaction_id in transaction_ids:
            if entry := self._entries.get(transaction_id):
                entry.durable = True

    def add(self, transaction: Transaction) -> bool:
        """Take in a transaction that `check_transaction` let pass.

        Returns:
            Whether it is new here.

        Raises:
            ConflictError: another one of the same signer and number waits already.
            LedgerError: `full`.
        """
        id_, message, body = transaction
        if id_ in self._entries:
            return False
        signer, sequence, kind = message.kid, transaction.sequence, body.kind
        queue = self._queues.get(signer)
        if queue is not None and (existing := queue.entries.get(sequence)):
            raise ConflictError(
                f"transaction.sequence: {signer.hex()} has signed something else "
                f"as number {sequence}, which waits for a block",
                existing.transaction(),
            )
        size = len(message.raw)
        self._check_room(signer, kind, size, queue)
        if queue is None:
            queue = self._queues[signer] = _Queue(signer)
        first = transaction.first
        entry = _Entry(id_, signer, first, sequence, kind, message.raw, None)
        if self._parsed_bytes + (parsed_size := entry.parsed_size) <= self._limits.parsed_bytes:
            self._parsed_bytes += parsed_size
            entry.parsed = transaction
        queue.entries[sequence] = entry
        if first != sequence:
            queue.gaps.setdefault(first, entry)
        queue.size += size
        queue.urgent += kind in URGENT_KINDS
        self._entries[id_] = entry
        self._size += size
        return True

    def remove(self, transaction_ids: Iterable[bytes]) -> None:
        """Forget these; a signer that loses one goes to the end of the line."""
        for transaction_id in transaction_ids:
            entry = self._entries.pop(transaction_id, None)
            if entry is None:
                continue
            self._size -= entry.size
            if entry.parsed is not None:
                self._parsed_bytes -= entry.parsed_size
            queue = self._queues.pop(entry.signer)
            del queue.entries[entry.sequence]
            if queue.gaps.get(entry.first) is entry:
                del queue.gaps[entry.first]
            queue.size -= entry.size
            queue.urgent -= entry.kind in URGENT_KINDS
            if queue.entries:
                self._queues[entry.signer] = queue

    def raw(self) -> list[bytes]:
        """Bytes of all that wait, each signer's in the order in which they came."""
        return [entry.raw for entry in self._entries.values()]

    def waiting_of(self, signer: bytes, below: int | None = None) -> list[bytes]:
        """Ids of all that wait of this signer, or of those for a next number under `below`."""
        queue = self._queues.get(signer)
        if queue is None:
            return []
        return [
            entry.id for entry in queue.entries.values() if below is None or entry.first < below
        ]

    def signers(self) -> list[bytes]:
        """Key ids of all of whom something waits."""
        return list(self._queues)

    def ids(self) -> list[bytes]:
        """Ids of all that wait."""
        return list(self._entries)

    def next_sequence(self, signer: bytes, state: State) -> int:
        """Return the first number from the state's on that is free."""
        sequence = state.next_sequence(signer)
        queue = self._queues.get(signer)
        while queue is not None and sequence in queue.entries:
            sequence += 1
        return sequence

    def is_ready(self, state: State) -> bool:
        """Whether any signer's next transaction waits."""
        return any(
            queue.at(state.next_sequence(signer)) is not None
            for signer, queue in self._queues.items()
        )

    def candidates(self, state: State, max_bytes: int, max_count: int) -> Iterator[Transaction]:
        """Choose what goes into the next block.

        First the transactions of URGENT_KINDS with what their signers numbered before them;
        then one of each signer in turn. Only unbroken runs from the signers' next numbers.

        Args:
            state: after the latest block.
            max_bytes: room for transactions in the block, their CBOR heads included.
            max_count: of transactions.

        Returns:
            What was chosen, in order; what is not kept parsed is parsed as it is taken out.
        """
        choice = _Choice(state, max_bytes, max_count)
        for queue in self._queues.values():
            if queue.urgent:
                choice.take_until_urgent(queue)
        turn = list(self._queues.values())
        while turn and not choice.is_full:
            turn = [queue for queue in turn if choice.take_next(queue)]
        return (entry.transaction() for entry in choice.entries)

    def _check_room(self, signer: bytes, kind: str, size: int, queue: _Queue | None) -> None:
        limits = self._limits
        if queue is not None and queue.size + size > limits.signer_bytes:
            raise LedgerError(
                "full",
                f"mempool: {queue.size} bytes of {signer.hex()} wait, at most "
                f"{limits.signer_bytes} may; send again after the next block",
            )
        count, in_all = limits.count, limits.total_bytes
        if kind in BOARD_KINDS:
            count -= count // MEMBER_SHARE
            in_all -= in_all // MEMBER_SHARE
        if len(self._entries) >= count or self._size + size > in_all:
            raise LedgerError(
                "full",
                f"mempool: {len(self._entries)} transactions of {self._size} bytes wait, which "
                "is all that may; send again after the next block",
            )


class _Choice:
    """What has been chosen for a block so far."""

    def __init__(self, state: State, max_bytes: int, max_count: int) -> None:
        self.entries: list[_Entry] = []
        self._state = state
        self._room = max_bytes
        self._max_count = max_count
        self._next: dict[bytes, int] = {}

    @property
    def is_full(self) -> bool:
        return len(self.entries) >= self._max_count

    def take_next(self, queue: _Queue) -> bool:
        """Take the signer's next one; False where it lacks, or does not fit."""
        sequence = self._next.get(queue.signer) or self._state.next_sequence(queue.signer)
        entry = queue.at(sequence)
        if entry is None or self.is_full:
            return False
        size = entry.size + ENTRY_OVERHEAD_BYTES
        if size > self._room:
            return False
        self._room -= size
        self._next[queue.signer] = entry.sequence + 1
        self.entries.append(entry)
        return True

    def take_until_urgent(self, queue: _Queue) -> None:
        """Take an unbroken run that ends with the signer's last urgent transaction."""
        sequence = self._state.next_sequence(queue.signer)
        count = needed = 0
        while entry := queue.at(sequence):
            sequence = entry.sequence + 1
            count += 1
            if entry.kind in URGENT_KINDS:
                needed = count
        for _ in range(needed):
            if not self.take_next(queue):
                return
