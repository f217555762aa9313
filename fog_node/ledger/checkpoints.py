"""Checkpoints of a ledger: made from a store, and a new store made of one."""

from __future__ import annotations

from pathlib import Path

from fog_node.errors import StoreError
from fog_node.protocol.checkpoint import Checkpoint
from fog_node.protocol.founding import Founding
from fog_node.protocol.sealed_header import SealedHeader

from .records import parse_entry
from .state import State
from .store import Store
from .store_reader import StoreReader
from .stored_block import read_sealed
from .validation import look_back


def make_checkpoint(reader: StoreReader, founding: Founding) -> Checkpoint:
    """Make one as of the latest block; raises StoreError where there is none yet."""
    head = reader.head()
    if head is None:
        raise StoreError(f"{reader.path}: has no block yet; wait for the first one")
    entries = reader.state_entries()
    with reader.readable("state"):
        state = State.from_entries(founding, entries, head.time)
    first = max(1, head.height - look_back(state) + 1)
    if first <= reader.meta.base:
        raise StoreError(
            f"{reader.path}: has too few blocks before the latest one to make a checkpoint; ask a "
            "node that has been there for longer"
        )
    heights = [height for height in reader.handovers(head.height - 1) if height < first]
    heights += range(first, head.height + 1)
    blocks = tuple(_sealed(reader, founding, height) for height in heights)
    return Checkpoint(founding.chain_id, blocks, tuple(entries))


def begin_with(
    checkpoint: Checkpoint,
    directory: Path,
    founding: Founding,
    abstain: int = 0,
    *,
    asking: bool = True,
) -> State:
    """Begin a ledger in a data directory, which must have none, with a checkpoint.

    Args:
        checkpoint: as parsed.
        directory: for the database.
        founding: the anchor of all trust.
        abstain: up to this height this validator must not vote.
        asking: whether it must not vote at all before it has heard how far others are.

    Returns:
        The state that it begins with.

    Raises:
        ProofError: the checkpoint does not hold.
        StoreError: there is a ledger already, or the disk is full.
    """
    validators = checkpoint.verify(founding)
    head = checkpoint.head
    state = State.from_entries(founding, checkpoint.entries, head.coinbase.time)
    if state.root() != head.coinbase.state or state.validator_set.hash != validators.hash:
        raise StoreError(
            f"checkpoint: its entries are not the state after block {head.height}; take one from "
            "another node"
        )
    if checkpoint.first > max(1, head.height - look_back(state) + 1):
        raise StoreError("checkpoint: lacks blocks that the rules look back to; make a new one")
    entries = {parse_entry(entry).entry_key: entry for entry in checkpoint.entries}
    store = Store(directory, founding.chain_id)
    try:
        store.adopt(checkpoint.blocks, entries, checkpoint.first - 1, abstain, asking=asking)
    finally:
        store.close()
    return state


def _sealed(reader: StoreReader, founding: Founding, height: int) -> SealedHeader:
    next_ = reader.validator_set(height + 1) or founding.validator_set
    return read_sealed(reader, height, next_)
