"""A block's bytes, cut into what is kept for ever and its body, which may be pruned.

The head is header and coinbase; the body is what follows them in the block's CBOR: a byte
string per transaction, one after the other. Nothing is stored twice and the exact bytes come
back.
"""

from __future__ import annotations

import cbor2

from fog_node.protocol.block import HEADER_BYTES, Block
from fog_node.protocol.errors import FormatError

_ARRAY, _BYTES = 0x80, 0x40


def body_of(block: Block) -> bytes:
    """What follows the coinbase in the block's bytes."""
    prefix = _prefix(block.header.encode(), block.coinbase.raw, len(block.transactions))
    return block.raw[len(prefix) :]


def join_block(header: bytes, coinbase: bytes, count: int, body: bytes) -> bytes:
    """Put the bytes of a block of `count` transactions together again."""
    return b"".join((_prefix(header, coinbase, count), body))


def split_body(body: bytes, count: int) -> list[bytes]:
    """Bytes of each transaction of a body; raises FormatError where it is no such body."""
    try:
        entries = cbor2.loads(_head(_ARRAY, count) + body)
    except (cbor2.CBORDecodeError, MemoryError, OverflowError) as error:
        raise FormatError("block.transactions", f"cannot be read: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, bytes) for entry in entries):
        raise FormatError("block.transactions", "are not byte strings")
    return entries


def _prefix(header: bytes, coinbase: bytes, count: int) -> bytes:
    return b"".join(
        (
            _head(_ARRAY, 2),
            _head(_BYTES, HEADER_BYTES),
            header,
            _head(_ARRAY, count + 1),
            _head(_BYTES, len(coinbase)),
            coinbase,
        )
    )


def _head(major: int, length: int) -> bytes:
    """Head of a CBOR array or byte string of this length (RFC 8949 section 3)."""
    if length < 24:
        return bytes([major | length])
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if length < 1 << 8 * size:
            return bytes([major | info]) + length.to_bytes(size, "big")
    raise ValueError(f"length: {length} is beyond any block")
