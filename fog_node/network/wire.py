"""Messages between peers: a 4-byte big-endian length, then deterministic CBOR.

Each message is an array whose first item names it; the table in README.md lists them.
What a message carries (transactions, votes, blocks) is parsed by `fog_node.protocol`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from fog_node.protocol.block import MAX_BLOCK_BYTES
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.cose import CHAIN_ID_BYTES
from fog_node.protocol.errors import FormatError
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.sealed_header import MAX_SEALED_HEADER_BYTES
from fog_node.protocol.transactions import MAX_TRANSACTION_BYTES
from fog_node.protocol.validate import array, octets, text, uint
from fog_node.protocol.votes import (
    MAX_CERTIFICATE_BYTES,
    MAX_ROUND,
    MAX_VALIDATORS,
    MAX_VOTE_BYTES,
    NO_ROUND,
)

PROTOCOL_VERSION = 2
LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = MAX_BLOCK_BYTES + MAX_CERTIFICATE_BYTES + 64 * 1024
MAX_TRANSACTIONS = 512
MAX_TRANSACTIONS_BYTES = 4 * 1024 * 1024
MAX_VOTES = 4 * MAX_VALIDATORS
MAX_BLOCKS = 256
MAX_HEADERS = 256
MAX_WANTED = 8
MAX_STATUS_ROUNDS = 4
BLOB_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Hello:
    """First message from either side.

    Attributes:
        version: PROTOCOL_VERSION of the sender.
        chain_id: which ledger it follows.
        name: how it calls itself in logs.
    """

    KIND: ClassVar[str] = "hello"
    version: int
    chain_id: bytes
    name: str

    @classmethod
    def parse(cls, items: list[Any]) -> Hello:
        """Check the items behind the message's name."""
        version, chain_id, name = array(items, "hello", length=3)
        return cls(
            uint(version, "hello.version", 2**16),
            octets(chain_id, "hello.chain_id", CHAIN_ID_BYTES),
            text(name, "hello.name", 64),
        )


@dataclass(frozen=True)
class Status:
    """Where the sender stands and what it lacks; sent every second, and when it changes.

    Attributes:
        height: of the block it agrees on now; its latest final block is one below.
        parent: hash of that final block.
        round, pol_round, has_proposal, wanted: see
            `fog_node.ledger.consensus_messages.Status`.
        votes: [height, round, [prevote tag, ...], [precommit tag, ...]] of the rounds it
            speaks of; see `RoundVotes` there.
    """

    KIND: ClassVar[str] = "status"
    height: int
    parent: bytes
    round: int
    pol_round: int
    has_proposal: bool
    votes: list[list[Any]]
    wanted: list[bytes]

    @classmethod
    def parse(cls, items: list[Any]) -> Status:
        """Check the items behind the message's name."""
        height, parent, round_, pol_round, has, votes, wanted = array(items, "status", length=7)
        if not isinstance(has, bool):
            raise FormatError("status.has_proposal", "is not a boolean")
        for known in array(votes, "status.votes", at_most=MAX_STATUS_ROUNDS):
            of_height, of_round, prevotes, precommits = array(known, "status.votes", length=4)
            uint(of_height, "status.votes.height")
            uint(of_round, "status.votes.round", MAX_ROUND)
            for tags in (prevotes, precommits):
                _byte_strings(tags, "status.votes.tags", MAX_VALIDATORS, HASH_BYTES)
        return cls(
            uint(height, "status.height", at_least=1),
            octets(parent, "status.parent", HASH_BYTES),
            uint(round_, "status.round", MAX_ROUND),
            uint(pol_round, "status.pol_round", MAX_ROUND, NO_ROUND),
            has,
            votes,
            _byte_strings(wanted, "status.wanted", MAX_WANTED, HASH_BYTES),
        )


@dataclass(frozen=True)
class Transactions:
    """Transactions that the sender admitted or was passed."""

    KIND: ClassVar[str] = "transactions"
    raw: list[bytes] = field(repr=False)

    @classmethod
    def parse(cls, items: list[Any]) -> Transactions:
        """Check the items behind the message's name."""
        (raw,) = array(items, "transactions", length=1)
        return cls(_byte_strings(raw, "transactions", MAX_TRANSACTIONS, MAX_TRANSACTION_BYTES))


@dataclass(frozen=True)
class Proposal:
    """A signed proposal with its block and the prevotes that justify proposing it again."""

    KIND: ClassVar[str] = "proposal"
    header: bytes = field(repr=False)
    block: bytes = field(repr=False)
    prevotes: list[bytes] = field(repr=False)

    @classmethod
    def parse(cls, items: list[Any]) -> Proposal:
        """Check the items behind the message's name."""
        header, block, prevotes = array(items, "proposal", length=3)
        return cls(
            _byte_string(header, "proposal.header", MAX_VOTE_BYTES),
            _byte_string(block, "proposal.block", MAX_BLOCK_BYTES),
            _byte_strings(prevotes, "proposal.prevotes", MAX_VALIDATORS, MAX_VOTE_BYTES),
        )


@dataclass(frozen=True)
class Votes:
    """Votes, the sender's own or passed on."""

    KIND: ClassVar[str] = "votes"
    raw: list[bytes] = field(repr=False)

    @classmethod
    def parse(cls, items: list[Any]) -> Votes:
        """Check the items behind the message's name."""
        (raw,) = array(items, "votes", length=1)
        return cls(_byte_strings(raw, "votes", MAX_VOTES, MAX_VOTE_BYTES))


@dataclass(frozen=True)
class Candidate:
    """A block under vote, for who said that it wants it."""

    KIND: ClassVar[str] = "candidate"
    block: bytes = field(repr=False)

    @classmethod
    def parse(cls, items: list[Any]) -> Candidate:
        """Check the items behind the message's name."""
        (block,) = array(items, "candidate", length=1)
        return cls(_byte_string(block, "candidate.block", MAX_BLOCK_BYTES))


@dataclass(frozen=True)
class GetBlocks:
    """Asks for final blocks from a height on; the answer holds as many as fit, `count` at most."""

    KIND: ClassVar[str] = "get-blocks"
    first: int
    count: int = MAX_BLOCKS

    @classmethod
    def parse(cls, items: list[Any]) -> GetBlocks:
        """Check the items behind the message's name."""
        first, count = array(items, "get-blocks", length=2)
        return cls(
            uint(first, "get-blocks.first", at_least=1),
            uint(count, "get-blocks.count", MAX_BLOCKS, at_least=1),
        )


@dataclass(frozen=True)
class Blocks:
    """Final blocks with their certificates, from `first` on without a gap.

    Attributes:
        lowest: the sender keeps the bodies of blocks from this height on; none come of those
            below.
    """

    KIND: ClassVar[str] = "blocks"
    first: int
    blocks: list[list[bytes]] = field(repr=False)
    lowest: int = 1

    @classmethod
    def parse(cls, items: list[Any]) -> Blocks:
        """Check the items behind the message's name."""
        first, blocks, lowest = array(items, "blocks", length=3)
        pairs = []
        for pair in array(blocks, "blocks", at_most=MAX_BLOCKS):
            block, certificate = array(pair, "blocks", length=2)
            pairs.append(
                [
                    _byte_string(block, "blocks.block", MAX_BLOCK_BYTES),
                    _byte_string(certificate, "blocks.certificate", MAX_CERTIFICATE_BYTES),
                ]
            )
        return cls(
            uint(first, "blocks.first", at_least=1),
            pairs,
            uint(lowest, "blocks.lowest", at_least=1),
        )


@dataclass(frozen=True)
class GetHeaders:
    """Asks for sealed headers from a height on; the answer holds as many as fit."""

    KIND: ClassVar[str] = "get-headers"
    first: int

    @classmethod
    def parse(cls, items: list[Any]) -> GetHeaders:
        """Check the items behind the message's name."""
        (first,) = array(items, "get-headers", length=1)
        return cls(uint(first, "get-headers.first", at_least=1))


@dataclass(frozen=True)
class Headers:
    """Sealed headers from `first` on without a gap: headers, coinbases and certificates."""

    KIND: ClassVar[str] = "headers"
    first: int
    raw: list[bytes] = field(repr=False)

    @classmethod
    def parse(cls, items: list[Any]) -> Headers:
        """Check the items behind the message's name."""
        first, raw = array(items, "headers", length=2)
        return cls(
            uint(first, "headers.first", at_least=1),
            _byte_strings(raw, "headers", MAX_HEADERS, MAX_SEALED_HEADER_BYTES),
        )


@dataclass(frozen=True)
class GetBlob:
    """Asks for a piece of a blob."""

    KIND: ClassVar[str] = "get-blob"
    sha256: bytes
    offset: int

    @classmethod
    def parse(cls, items: list[Any]) -> GetBlob:
        """Check the items behind the message's name."""
        sha256, offset = array(items, "get-blob", length=2)
        return cls(octets(sha256, "get-blob.sha256", HASH_BYTES), uint(offset, "get-blob.offset"))


@dataclass(frozen=True)
class Blob:
    """A piece of a blob; `total` is 0 where the sender does not hold it."""

    KIND: ClassVar[str] = "blob"
    sha256: bytes
    offset: int
    total: int
    data: bytes = field(repr=False)

    @classmethod
    def parse(cls, items: list[Any]) -> Blob:
        """Check the items behind the message's name."""
        sha256, offset, total, data = array(items, "blob", length=4)
        return cls(
            octets(sha256, "blob.sha256", HASH_BYTES),
            uint(offset, "blob.offset"),
            uint(total, "blob.total"),
            _byte_string(data, "blob.data", BLOB_CHUNK_BYTES),
        )


Message = (
    Hello
    | Status
    | Transactions
    | Proposal
    | Votes
    | Candidate
    | GetBlocks
    | Blocks
    | GetHeaders
    | Headers
    | GetBlob
    | Blob
)
_KINDS: dict[str, type[Message]] = {
    kind.KIND: kind
    for kind in (
        Hello, Status, Transactions, Proposal, Votes, Candidate, GetBlocks, Blocks, GetHeaders,
        Headers, GetBlob, Blob,
    )
}  # fmt: skip


# What is only ever sent as an answer, by what asks for it.
ANSWERS = {
    GetBlocks.KIND: Blocks.KIND,
    GetHeaders.KIND: Headers.KIND,
    GetBlob.KIND: Blob.KIND,
}


def encode_message(message: Message) -> bytes:
    """The frame of a message: length and CBOR."""
    body = encode([message.KIND, *(getattr(message, f.name) for f in fields(message))])
    return LENGTH.pack(len(body)) + body


def parse_message(body: bytes) -> Message:
    """Parse a frame's body; raises EncodingError, FormatError."""
    items = decode(body, MAX_FRAME_BYTES, "frame")
    if not isinstance(items, list) or not items or not isinstance(items[0], str):
        raise FormatError("frame", "is not an array that begins with a message name")
    kind = _KINDS.get(items[0])
    if kind is None:
        raise FormatError("frame", f"{items[0][:40]!r} is not a message name")
    return kind.parse(items[1:])


def _byte_string(value: Any, field: str, at_most: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > at_most:
        raise FormatError(field, f"is not a byte string of at most {at_most} bytes")
    return value


def _byte_strings(value: Any, field: str, at_most: int, each: int) -> list[bytes]:
    return [_byte_string(item, field, each) for item in array(value, field, at_most=at_most)]
