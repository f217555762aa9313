"""Merkle trees of RFC 9162 section 2.1 (0x00 before a leaf, 0x01 before a node)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .errors import ProofError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one entry; for a transaction this is its id."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node over its two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes; of no leaves, the hash of the empty string.

    Pairing level by level with an odd last node carried up gives the same tree as the
    RFC's split at the largest power of two.
    """
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from the leaf at `index` up to the root (RFC 9162 section 2.1.3.1)."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree of {len(leaves)}")
    path = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
        index //= 2
    return path


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes
) -> None:
    """Raise ProofError unless `path` leads from `leaf` to the root (RFC 9162 2.1.3.2).

    Args:
        leaf: leaf hash, 32 bytes.
        index: position of the leaf, from 0.
        size: number of leaves in the tree.
        path: sibling hashes, leaf first.
        expected_root: the root that the tree must have.
    """
    if not 0 <= index < size:
        raise ProofError("inclusion.index", f"{index} is not in a tree of {size} leaves")
    position, last, value = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofError("inclusion.path", "is longer than the tree is high")
        if position % 2 or position == last:
            value = node_hash(sibling, value)
            while position % 2 == 0 and position:
                position >>= 1
                last >>= 1
        else:
            value = node_hash(value, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofError("inclusion.path", "ends below the root")
    if value != expected_root:
        raise ProofError("inclusion.path", "leads to another root than the block's")
