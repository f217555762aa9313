"""Blocks of the simulated chain: just enough content to lose, double or fork something."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from fog_node.ledger.consensus_messages import Commit
from fog_node.protocol.votes import Certificate

GENESIS = hashlib.sha256(b"genesis").digest()
MAX_BLOCK_TRANSACTIONS = 8
_EVIDENCE = b"evidence against "


@dataclass(frozen=True)
class Content:
    """A block taken apart."""

    parent: bytes
    height: int
    round: int
    miner: bytes
    transactions: tuple[bytes, ...]


@dataclass(frozen=True)
class FinalBlock:
    """A block and the certificate that makes it final."""

    block_hash: bytes
    block: bytes = field(repr=False)
    certificate: Certificate = field(repr=False)

    @classmethod
    def of(cls, commit: Commit) -> FinalBlock:
        """Keep what a commit says."""
        return cls(commit.block_hash, commit.block, commit.certificate)


def encode_block(
    parent: bytes, height: int, round_: int, miner: bytes, transactions: Sequence[bytes]
) -> bytes:
    """Put a block together."""
    fields = (parent.hex().encode(), b"%d" % height, b"%d" % round_, miner, *transactions)
    return b"\n".join(fields)


def decode_block(block: bytes) -> Content:
    """Take a block apart."""
    parent, height, round_, miner, *transactions = block.split(b"\n")
    return Content(
        bytes.fromhex(parent.decode()), int(height), int(round_), miner, tuple(transactions)
    )


def hash_block(block: bytes) -> bytes:
    """Hash of a block."""
    return hashlib.sha256(block).digest()


def evidence(validator: bytes) -> bytes:
    """Make the transaction that suspends a validator."""
    return _EVIDENCE + validator


def accused(transaction: bytes) -> bytes | None:
    """Tell whom a transaction suspends, if it is evidence."""
    if transaction.startswith(_EVIDENCE):
        return transaction.removeprefix(_EVIDENCE)
    return None
