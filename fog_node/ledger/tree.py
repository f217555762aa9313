"""A Merkle tree over a sorted map that hashes again only what changed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise

from fog_node.protocol.merkle import EMPTY_ROOT, node_hash


class SortedTree:
    """RFC 9162 tree over leaf hashes in bytewise order of their keys.

    A changed leaf costs one hash per level. Keys that come or go cost one pass over the
    inner nodes, at the next `root`; leaves are not hashed again.
    """

    def __init__(
        self,
        leaves: Mapping[bytes, bytes] | None = None,
        levels: Sequence[Sequence[bytes]] = (),
    ) -> None:
        """Take over leaf hashes by key, and the inner nodes where they are known."""
        self._leaves = dict(leaves or {})
        self._keys = sorted(self._leaves)
        self._levels = [list(level) for level in levels]
        self._changed: set[bytes] = set()
        self._grown = not levels

    def copy(self) -> SortedTree:
        """Return an independent tree with the same content."""
        self.root()
        return SortedTree(self._leaves, self._levels)

    def set(self, key: bytes, leaf: bytes) -> None:
        """Put a leaf hash under a key, new or not."""
        if key in self._leaves:
            self._changed.add(key)
        else:
            self._grown = True
        self._leaves[key] = leaf

    def remove(self, key: bytes) -> None:
        """Take a leaf away, where there is one."""
        if self._leaves.pop(key, None) is not None:
            self._grown = True

    def root(self) -> bytes:
        """Return the root; of no leaves, the hash of the empty string."""
        if self._grown:
            self._rebuild()
        elif self._changed:
            self._update()
        self._changed.clear()
        return self._levels[-1][0] if self._keys else EMPTY_ROOT

    def prove(self, key: bytes) -> tuple[int, int, list[bytes]]:
        """Return index, number of leaves, and siblings up to the root, of the leaf under a key.

        Raises KeyError where there is none.
        """
        self.root()
        index = place = bisect_left(self._keys, key)
        if index == len(self._keys) or self._keys[index] != key:
            raise KeyError(key)
        path = []
        for level in self._levels[:-1]:
            if place ^ 1 < len(level):
                path.append(level[place ^ 1])
            place //= 2
        return index, len(self._keys), path

    def _rebuild(self) -> None:
        self._keys = sorted(self._leaves)
        # In order, so that the sort in a copy finds nothing to do.
        self._leaves = {key: self._leaves[key] for key in self._keys}
        self._levels = [list(self._leaves.values())]
        while len(below := self._levels[-1]) > 1:
            self._levels.append([_parent(below, i) for i in range((len(below) + 1) // 2)])
        self._grown = False

    def _update(self) -> None:
        places = {bisect_left(self._keys, key) for key in self._changed}
        for place in places:
            self._levels[0][place] = self._leaves[self._keys[place]]
        for below, level in pairwise(self._levels):
            places = {place // 2 for place in places}
            for place in places:
                level[place] = _parent(below, place)


def _parent(below: list[bytes], place: int) -> bytes:
    """Node at `place` over its two children; an only child is carried up as it is."""
    left = 2 * place
    return node_hash(below[left], below[left + 1]) if left + 1 < len(below) else below[left]
