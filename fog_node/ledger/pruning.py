"""Forgets the bodies of old blocks: into an archive, or for good.

What stays: headers, coinbases and certificates, so that the chain can be followed and checked;
the index, so that no number is taken twice; the state; and of the bodies the transactions that
say who may sign (enrolments, revocations, releases, what was voted on), each with its path, so
that proofs of what comes later can be made. Proofs that were made before stay valid: they need
nothing but the founding file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fog_node.protocol.validators import ValidatorSet

from .places import Place
from .store import Store
from .stored_block import StoredBlock

# Kinds whose bytes go with the body.
DROPPED_KINDS = frozenset(
    {
        "pack", "alert", "gap", "incident", "request", "response", "test-report", "label",
        "rollout-report", "prediction", "drift", "training-round",
    }
)  # fmt: skip
# However old, so many of the latest blocks keep their bodies: nodes that were away need them.
MIN_KEPT_BLOCKS = 100
# One file of the archive, and one write to the disk.
MAX_CHUNK_BLOCKS = 2048
MAX_CHUNK_BYTES = 64 * 1024 * 1024
# Others may write after each of these.
SHRINK_PAGES = 2048

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ArchivedBlock:
    """A final block as it goes into an archive, and what it is found by there.

    Attributes:
        time: ms since 1970.
        raw, certificate: bytes.
        next: who votes on the block after it, where that is another set.
        places: its transactions, in order.
    """

    height: int
    hash: bytes
    time: int
    raw: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    next: ValidatorSet | None
    places: Sequence[Place] = field(repr=False)


class Archive(Protocol):
    """Where bodies go before they are dropped."""

    def add(self, blocks: Sequence[ArchivedBlock]) -> None:
        """Keep consecutive blocks; on disk when this returns. What it raises stops the pruning."""


@dataclass(frozen=True)
class Pruned:
    """What was dropped.

    Attributes:
        below: bodies below this height are gone.
        blocks, size: how many bodies, and their bytes, this time.
    """

    below: int
    blocks: int
    size: int


def prune(
    store: Store, before_ms: int, archive: Archive | None, progress: Progress | None = None
) -> Pruned:
    """Drop the bodies of blocks that are older than a time, and let the file shrink.

    Others may use the store meanwhile; an interruption leaves less to do for the next time.

    Args:
        store: of the ledger.
        before_ms: blocks of before that time lose their bodies, in ms since 1970.
        archive: takes them first; None drops them for good.
        progress: is told how many blocks of how many are done.

    Raises:
        StoreError: the disk is full, say.
        Exception: of the archive; what it has not taken is still here.
    """
    first = max(1, store.meta.pruned)
    below = _first_since(store, first, before_ms)
    height, size = first, 0
    while height < below:
        chunk = _chunk(store, height, below)
        if archive is not None:
            archive.add([block for block, _ in chunk])
        kept: dict[tuple[int, int], bytes] = {}
        for block, stored in chunk:
            kept[block.height, 0] = stored.kept(0)
            for place in block.places:
                if place.kind not in DROPPED_KINDS:
                    kept[block.height, place.index] = stored.kept(place.index)
        height = chunk[-1][0].height + 1
        size += sum(len(block.raw) for block, _ in chunk)
        store.prune(height, kept)
        if progress is not None:
            progress(height - first, below - first)
    while store.shrink(SHRINK_PAGES):
        pass
    store.settle()
    return Pruned(max(below, store.meta.pruned), max(0, below - first), size)


def _first_since(store: Store, first: int, before_ms: int) -> int:
    """Height of the first block that is not older, or must keep its body anyway."""
    low, high = first, max(first, store.meta.head - MIN_KEPT_BLOCKS + 1)
    while low < high:
        middle = (low + high) // 2
        info = store.info(middle)
        if info is None:
            raise store.damaged(f"block {middle}: is missing")
        if info.time < before_ms:
            low = middle + 1
        else:
            high = middle
    return low


def _chunk(store: Store, first: int, below: int) -> list[tuple[ArchivedBlock, StoredBlock]]:
    chunk: list[tuple[ArchivedBlock, StoredBlock]] = []
    size = 0
    for height in range(first, min(below, first + MAX_CHUNK_BLOCKS)):
        found, info = store.block(height), store.info(height)
        if found is None or info is None:
            raise store.damaged(f"block {height}: is missing")
        raw, certificate = found
        size += len(raw)
        if chunk and size > MAX_CHUNK_BYTES:
            break
        with store.readable(f"block {height}"):
            stored = StoredBlock(raw, certificate)
            entries = enumerate(store.entries(height), start=1)
            places = [Place.of(entry, height, index) for index, entry in entries]
        changes = stored.coinbase.next != stored.coinbase.validators
        block = ArchivedBlock(
            height=height,
            hash=info.hash,
            time=info.time,
            raw=raw,
            certificate=certificate,
            next=store.validator_set(height + 1) if changes else None,
            places=places,
        )
        chunk.append((block, stored))
    return chunk
