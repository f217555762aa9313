"""The chain of final blocks, as far as the rules look back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fog_node.protocol.block import Block
from fog_node.protocol.founding import Founding


@dataclass(frozen=True)
class BlockInfo:
    """What the rules and the listings need of a block, without its content.

    Attributes:
        hash: of the header, internal byte order.
        previous: hash of the block below.
        time: ms since 1970.
        bits: compact target.
        round: for which it was mined; 0 for the genesis.
        miner: key id; empty for the genesis.
        state: root of the state after it; empty for the genesis.
        transactions: how many, the coinbase not counted.
        size: bytes of the block; 0 for the genesis.
    """

    height: int
    hash: bytes
    previous: bytes
    time: int
    bits: int
    round: int
    miner: bytes
    state: bytes
    transactions: int
    size: int

    @classmethod
    def of_genesis(cls, founding: Founding) -> BlockInfo:
        """Block 0 as the founding file makes it."""
        header = founding.genesis
        return cls(0, header.hash, header.previous, founding.time, header.bits, 0, b"", b"", 0, 0)

    @classmethod
    def of_block(cls, block: Block) -> BlockInfo:
        """Return what a block says of itself."""
        return cls(
            height=block.height,
            hash=block.hash,
            previous=block.header.previous,
            time=block.coinbase.time,
            bits=block.header.bits,
            round=block.coinbase.round,
            miner=block.coinbase.miner,
            state=block.coinbase.state,
            transactions=len(block.transactions),
            size=len(block.raw),
        )


class Chain(Protocol):
    """The final blocks, as far as the rules look back."""

    @property
    def head(self) -> BlockInfo:
        """The latest block."""

    def times(self, first: int, last: int) -> Sequence[int]:
        """Return times in ms of the blocks from height `first` to `last`, both included."""

    def miners(self, count: int) -> tuple[bytes, ...]:
        """Key ids of the miners of the latest `count` blocks, oldest first; fewer at the start."""
