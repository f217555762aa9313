"""The chain of final blocks as it is in the store."""

from __future__ import annotations

from fog_node.errors import StoreError

from .chain import BlockInfo
from .store import Store


class StoredChain:
    """A chain.Chain: the final blocks from one head down."""

    def __init__(self, head: BlockInfo, genesis: BlockInfo, store: Store) -> None:
        self.head = head
        self._genesis = genesis
        self._store = store

    def times(self, first: int, last: int) -> list[int]:
        """Return times in ms of the blocks from `first` to `last`, both included."""
        if 0 < first <= self._store.meta.base:
            raise StoreError(
                f"ledger: the rules now look back to block {first}, and the checkpoint that this "
                f"ledger began with only to {self._store.meta.base + 1}; begin again with a newer "
                "one: fogline fog join --checkpoint"
            )
        genesis = [self._genesis.time] if first == 0 else []
        return genesis + self._store.times(first, last)

    def miners(self, count: int) -> tuple[bytes, ...]:
        """Miners of the latest `count` blocks, oldest first."""
        if count == 0:
            return ()
        first = max(1, self.head.height - count + 1)
        return tuple(info.miner for info in self._store.infos(first, self.head.height))
