"""Errors of the fog node; each message says where, what, and what to do about it.

FogNodeError
├── ConfigurationError    a key of the configuration or a file it names is wrong
├── LedgerError           a transaction or block that the ledger's rules refuse (`cause`)
│   └── ConflictError     its signer has used this number for something else (`existing`)
├── StoreError            the ledger's database cannot be opened, read or written
│   ├── DamagedError      what is on disk does not fit together (`what`)
│   ├── DiskFullError     there is no room; goes on when there is
│   ├── PrunedError       the body of a final block is no longer kept here (`height`)
│   └── ForkError         two certified blocks at one height: the ledger stands still
├── GatewayError          broker, serial line or admission
├── NetworkError          a peer, or the way to it
├── ApiError              an HTTP request that cannot be answered
├── blobs.BlobError       a blob that cannot be kept or read (`cause`)
└── client.ClientError    a node that does not answer, or says no; its own tree is there

Formats that do not parse are fog_node.protocol.errors.ProtocolError; a proof of work that
cannot be done as asked is fog_node.pow.PowError.
"""

from __future__ import annotations

from typing import Literal

from .protocol.transactions import Transaction

Cause = Literal[
    # Those of an incident (fog_node/protocol/SPEC.md):
    "bad_signature",
    "conflict",
    "implausible",
    "malformed",
    "quarantined",
    "revoked_device",
    "unknown_device",
    # Those that say nothing ill of the sender, or of a block:
    "block",
    "certificate",
    "full",
    "not_eligible",
    "role",
    "rule",
    "sequence",
]


class FogNodeError(Exception):
    """Base of everything that the fog node raises by itself."""


class ConfigurationError(FogNodeError):
    """The configuration, or a file that it names, cannot be used."""


class LedgerError(FogNodeError):
    """The ledger's rules refuse a transaction or a block.

    Attributes:
        cause: what kind of refusal, for code to act on:
            `unknown_device`, `revoked_device`: no key, or no longer a trusted one, of a
            device or a member; `quarantined`: two hold the device's key; `bad_signature`;
            `malformed`: breaks a rule that needs nothing but its own signer's record;
            `implausible`: a reading outside of what was enrolled; `conflict`: see
            ConflictError; `role`: the signer may not do this; `rule`: what is on the chain
            speaks against it; `sequence`: not the signer's next number, or too far ahead;
            `full`: the mempool has no room, try again after the next block; `not_eligible`:
            may not mine now; `block`, `certificate`: the block or its certificate breaks a
            rule.
    """

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause: Cause = cause


class ConflictError(LedgerError):
    """A signer has two transactions with one number.

    Attributes:
        existing: the one that came first; final, or waiting.
    """

    def __init__(self, message: str, existing: Transaction) -> None:
        super().__init__("conflict", message)
        self.existing = existing


class StoreError(FogNodeError):
    """The database cannot be opened, read or written; nothing was changed by the attempt."""


class DamagedError(StoreError):
    """Something on disk is not what was written.

    Attributes:
        what: the file or table, and what is wrong with it.
    """

    def __init__(self, path: object, what: str) -> None:
        super().__init__(
            f"{path}: {what}; the file is damaged: stop the node and run fogline fog repair "
            "--config fog.toml, which keeps what is sound, fetches the rest from other nodes and "
            "sees to it that no vote is given twice"
        )
        self.what = what


class DiskFullError(StoreError):
    """Nothing was written for want of room; the same can be tried again."""


class PrunedError(StoreError):
    """The body of a final block was pruned here; other nodes or the archive have it.

    Attributes:
        height: of the block.
    """

    def __init__(self, height: int) -> None:
        super().__init__(
            f"ledger: the body of block {height} was pruned here; ask a node that keeps all, or "
            "the archive: fogline proof get --archive DIR"
        )
        self.height = height


class ForkError(StoreError):
    """A second certified block exists at one height. Both are kept; nothing more is written.

    Attributes:
        height: of the two blocks.
        hashes: of the two, ours first.
    """

    def __init__(self, height: int, hashes: tuple[bytes, bytes]) -> None:
        ours, theirs = (value[::-1].hex() for value in hashes)
        super().__init__(
            f"ledger: two certified blocks at height {height}, {ours} and {theirs}; at least "
            "one validator voted twice: stop, compare the votes in both certificates, and let "
            "the consortium decide"
        )
        self.height = height
        self.hashes = hashes


class GatewayError(FogNodeError):
    """The broker, a serial line or the admission of packs fails."""


class NetworkError(FogNodeError):
    """A peer does what the protocol forbids, or cannot be reached."""


class ApiError(FogNodeError):
    """A request over HTTP that cannot be answered."""
