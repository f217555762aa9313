"""Blocks: Bitcoin's 80-byte header over an RFC 9162 tree of transactions."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .cbor import decode, encode
from .cose import Sign1, parse_sign1, sign1
from .errors import FormatError, ProofError
from .keys import KID_BYTES, SigningKey
from .merkle import HASH_BYTES, leaf_hash, root
from .transactions import MAX_TRANSACTION_BYTES, Transaction, parse_transaction
from .validate import array, octets, text_map, time_ms, uint
from .votes import MAX_ROUND

HEADER_BYTES = 80
VERSION = 1
CONTENT_TYPE_COINBASE = "application/vnd.fogline.coinbase+cbor"
MAX_COINBASE_BYTES = 1024
# Bounds of the founding file's own limits (max_block_bytes, max_block_transactions).
MAX_BLOCK_BYTES = 8 * 1024 * 1024
MAX_BLOCK_TRANSACTIONS = 16384
_HEADER = struct.Struct("<I32s32sIII")
# An array of two, and a byte string of HEADER_BYTES.
_BLOCK_HEAD = b"\x82\x58\x50"


def double_sha256(data: bytes) -> bytes:
    """SHA-256 of the SHA-256, in the order in which the bytes come out."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def header_hash(block: bytes) -> bytes | None:
    """Hash of the header in a block's CBOR, without parsing the rest; None where there is none."""
    begin = len(_BLOCK_HEAD)
    if not block.startswith(_BLOCK_HEAD) or len(block) < begin + HEADER_BYTES:
        return None
    return double_sha256(block[begin : begin + HEADER_BYTES])


def hash_hex(block_hash: bytes) -> str:
    """The form in which people see a block hash: reversed, as Bitcoin's, zeros first."""
    return block_hash[::-1].hex()


def parse_hash(text: str, field: str = "hash") -> bytes:
    """Read a block hash as `hash_hex` writes it; raises FormatError."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES:
        raise FormatError(field, f"{text[:80]!r} is not a block hash", "give its 64 hex digits")
    return value[::-1]


def target_from_bits(bits: int) -> int:
    """Expand a compact target; raises FormatError where Bitcoin calls it negative or too big."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    if bits & 0x800000 and mantissa:
        raise FormatError("header.bits", "is a negative target")
    target = mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)
    if not 0 < target < 2**256:
        raise FormatError("header.bits", "is a target of zero or above 2^256")
    return target


def bits_from_target(target: int) -> int:
    """Compact form of a target: the three leading bytes, cut off, as Bitcoin does."""
    size = (target.bit_length() + 7) // 8
    mantissa = target << 8 * (3 - size) if size <= 3 else target >> 8 * (size - 3)
    if mantissa & 0x800000:
        mantissa >>= 8
        size += 1
    return size << 24 | mantissa


def work(bits: int) -> int:
    """Expected number of hashes for this target."""
    return (1 << 256) // (target_from_bits(bits) + 1)


@dataclass(frozen=True)
class Header:
    """The 80 bytes that are mined; hashes are in internal byte order."""

    previous: bytes
    merkle_root: bytes
    time: int
    bits: int
    nonce: int
    version: int = VERSION

    def encode(self) -> bytes:
        """The 80 bytes."""
        return _HEADER.pack(
            self.version, self.previous, self.merkle_root, self.time, self.bits, self.nonce
        )

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Parse 80 bytes; raises FormatError."""
        if not isinstance(data, bytes) or len(data) != HEADER_BYTES:
            raise FormatError("block.header", f"is not a byte string of {HEADER_BYTES} bytes")
        version, previous, merkle_root, time, bits, nonce = _HEADER.unpack(data)
        return cls(previous, merkle_root, time, bits, nonce, version)

    @cached_property
    def hash(self) -> bytes:
        """Double SHA-256 of the header, internal byte order."""
        return double_sha256(self.encode())

    def check_work(self) -> None:
        """Raise ProofError unless the hash meets the header's own target."""
        if int.from_bytes(self.hash, "little") > target_from_bits(self.bits):
            raise ProofError("header.nonce", "the hash does not meet the target in bits")


@dataclass(frozen=True)
class Coinbase:
    """The first leaf of each block, signed by its miner.

    Attributes:
        height, round: what the block was mined for.
        miner: key id of the validator that mined it.
        state: root of the ledger's state after this block.
        validators: hash of the ValidatorSet that votes on this block.
        next: hash of the one that votes on the block after it.
        time: ms since 1970, the header's time with its milliseconds.
        message: the signed envelope.
    """

    height: int
    round: int
    miner: bytes
    state: bytes
    validators: bytes
    next: bytes
    time: int
    message: Sign1 = field(repr=False)

    @property
    def raw(self) -> bytes:
        """The signed bytes, the first leaf's entry."""
        return self.message.raw


def sign_coinbase(
    key: SigningKey,
    height: int,
    round_: int,
    state: bytes,
    sets: tuple[bytes, bytes],
    time: int,
    chain_id: bytes,
) -> Coinbase:
    """Sign the coinbase of a block that `key`'s owner is about to mine.

    `sets` are the hashes `validators` and `next`.
    """
    validators, next_ = sets
    payload = encode(
        {
            "height": height,
            "round": round_,
            "miner": key.kid,
            "state": state,
            "validators": validators,
            "next": next_,
            "time": time,
        }
    )
    return parse_coinbase(sign1(key, CONTENT_TYPE_COINBASE, payload, chain_id))


def parse_coinbase(data: bytes) -> Coinbase:
    """Parse a coinbase, without checking its signature; raises EncodingError, FormatError."""
    message = parse_sign1(data, MAX_COINBASE_BYTES, "coinbase")
    if message.content_type != CONTENT_TYPE_COINBASE:
        raise FormatError("coinbase.content type", f"is not {CONTENT_TYPE_COINBASE}")
    if message.sequence is not None or message.dropped is not None:
        raise FormatError("coinbase.protected", "carries a number that only transactions have")
    names = {"height", "round", "miner", "state", "validators", "next", "time"}
    payload = decode(message.payload, MAX_COINBASE_BYTES, "coinbase")
    value = text_map(payload, names, "coinbase")
    miner = octets(value["miner"], "coinbase.miner", KID_BYTES)
    if miner != message.kid:
        raise FormatError("coinbase.miner", "is not the signer")
    return Coinbase(
        height=uint(value["height"], "coinbase.height", at_least=1),
        round=uint(value["round"], "coinbase.round", MAX_ROUND),
        miner=miner,
        state=octets(value["state"], "coinbase.state", HASH_BYTES),
        validators=octets(value["validators"], "coinbase.validators", HASH_BYTES),
        next=octets(value["next"], "coinbase.next", HASH_BYTES),
        time=time_ms(value["time"], "coinbase.time"),
        message=message,
    )


@dataclass(frozen=True)
class Block:
    """A header with its transactions in order; the coinbase is the tree's first leaf."""

    header: Header
    coinbase: Coinbase = field(repr=False)
    transactions: tuple[Transaction, ...] = field(repr=False)

    @property
    def hash(self) -> bytes:
        """Hash of the header."""
        return self.header.hash

    @property
    def height(self) -> int:
        """Number of blocks below this one."""
        return self.coinbase.height

    @cached_property
    def leaves(self) -> tuple[bytes, ...]:
        """Leaf hashes: the coinbase's, then each transaction's id."""
        return block_leaves(self.coinbase, self.transactions)

    @cached_property
    def raw(self) -> bytes:
        """Deterministic CBOR of the block."""
        entries = [self.coinbase.raw, *(transaction.raw for transaction in self.transactions)]
        return encode([self.header.encode(), entries])


def block_leaves(coinbase: Coinbase, transactions: Sequence[Transaction]) -> tuple[bytes, ...]:
    """Leaf hashes of a block with this content."""
    return (leaf_hash(coinbase.raw), *(transaction.id for transaction in transactions))


def parse_block(
    data: bytes,
    max_bytes: int = MAX_BLOCK_BYTES,
    known: Callable[[bytes], Transaction | None] | None = None,
    parse: Callable[[bytes], Transaction] = parse_transaction,
) -> Block:
    """Parse a block and check that header and body belong together.

    Args:
        data: the block's CBOR.
        max_bytes: limit of this ledger's founding file.
        known: gives the parsed transaction for an id, so that what a node has in its
            mempool is not parsed a second time.
        parse: parses the others.

    Raises:
        EncodingError, FormatError: not as SPEC.md says.
        ProofError: the Merkle root is not that of the transactions.
    """
    header, entries = array(decode(data, max_bytes, "block"), "block", length=2)
    listed = array(entries, "block.transactions", at_most=MAX_BLOCK_TRANSACTIONS + 1)
    if not listed or not all(isinstance(entry, bytes) for entry in listed):
        raise FormatError("block.transactions", "is empty or holds what is not a byte string")
    if any(len(entry) > MAX_TRANSACTION_BYTES for entry in listed):
        raise FormatError("block.transactions", f"one is over {MAX_TRANSACTION_BYTES} bytes")
    block = Block(
        header=Header.decode(header),
        coinbase=parse_coinbase(listed[0]),
        transactions=tuple(
            (known(leaf_hash(entry)) if known else None) or parse(entry) for entry in listed[1:]
        ),
    )
    block.__dict__["raw"] = data  # decode() has shown that these are the bytes `raw` would make
    if root(block.leaves) != block.header.merkle_root:
        raise ProofError("header.merkle_root", "is not the root of the block's transactions")
    return block
