"""Contents of requests, responses and test reports that are too large for the chain.

The chain has the SHA-256 and the size; the content lies here, under the member that signed the
transaction, so that no member can use up another one's room.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .blobs import BlobError, BlobStore
from .protocol.errors import FormatError, ProofError
from .protocol.keys import kid_hex, parse_kid
from .protocol.requests import MAX_CONTENT_BYTES, Content, Request, Response
from .protocol.rig_reports import TestReport
from .protocol.transactions import Transaction


@dataclass(frozen=True)
class Payload:
    """What a transaction names that lies beside the chain.

    Attributes:
        owner: key id of the transaction's signer.
        content: its hash and size.
    """

    owner: bytes
    content: Content

    def check(self, data: bytes) -> None:
        """Raise ProofError unless `data` is this content."""
        if len(data) != self.content.size:
            raise ProofError(
                "content", f"has {len(data)} bytes, the transaction says {self.content.size}"
            )
        if hashlib.sha256(data).digest() != self.content.sha256:
            raise ProofError("content", "has another SHA-256 than the transaction says")


def content_of(transaction: Transaction) -> Content | None:
    """Return what a transaction carries or names, wherever it lies; None for other kinds."""
    body = transaction.body
    if isinstance(body, TestReport):
        return body.report
    return body.content if isinstance(body, Request | Response) else None


def payload_of(transaction: Transaction) -> Payload | None:
    """Return what a transaction names that lies beside the chain; None where nothing does."""
    content = content_of(transaction)
    if content is None or content.inline is not None:
        return None
    return Payload(transaction.signer, content)


class PayloadStore:
    """The payloads of one directory, a blob store for each owner. Any method may block."""

    def __init__(self, directory: Path, quota_bytes: int, owner_quota_bytes: int) -> None:
        """Open or create; raises BlobError (`disk`) where the directory cannot be used.

        Args:
            directory: holds nothing else, and only this process writes there.
            quota_bytes: of all payloads together.
            owner_quota_bytes: of those of one member.
        """
        self._directory = directory
        self._quota = quota_bytes
        self._owner_quota = owner_quota_bytes
        self._lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            owners = list(_owners(directory))
        except OSError as error:
            raise BlobError(
                "disk",
                f"{directory}: {error.strerror}; choose a data directory that this user may write",
            ) from error
        self._stores = {owner: self._open(owner) for owner in owners}

    def __len__(self) -> int:
        """How many payloads are held."""
        return sum(len(store) for store in list(self._stores.values()))

    @property
    def total_bytes(self) -> int:
        """Size of all payloads together."""
        return sum(store.total_bytes for store in list(self._stores.values()))

    def has(self, payload: Payload) -> bool:
        """Whether it is held."""
        store = self._stores.get(payload.owner)
        return store is not None and store.has(payload.content.sha256)

    def get(self, payload: Payload) -> bytes:
        """The content, checked; raises BlobError absent, damaged, disk."""
        store = self._stores.get(payload.owner)
        if store is None:
            raise BlobError("absent", f"payload {payload.content.sha256.hex()}: is not held here")
        return store.get(payload.content.sha256)

    def put(self, payload: Payload, data: bytes) -> None:
        """Store, on the disk when this returns.

        Raises:
            ProofError: `data` is not this content.
            BlobError: `full`, its owner's room or all of it; `disk`; nothing was stored.
        """
        payload.check(data)
        with self._lock:
            if self.has(payload):
                return
            if self.total_bytes + len(data) > self._quota:
                raise BlobError(
                    "full",
                    f"payloads: {self.total_bytes} of {self._quota} bytes are used, {len(data)} "
                    "more do not fit; raise [limits] payload_mib",
                )
            store = self._stores.get(payload.owner)
            if store is None:
                store = self._stores[payload.owner] = self._open(payload.owner)
            try:
                store.put(data)
            except BlobError as error:
                if error.cause != "full":
                    raise
                raise BlobError(
                    "full",
                    f"payloads of {kid_hex(payload.owner)}: {store.total_bytes} of "
                    f"{self._owner_quota} bytes are used, {len(data)} more do not fit; raise "
                    "[limits] payload_member_mib",
                ) from error

    def find(self, sha256: bytes) -> bytes | None:
        """The content with this hash, whoever's it is; None where none holds it."""
        for store in list(self._stores.values()):
            if store.has(sha256):
                return store.get(sha256)
        return None

    def _open(self, owner: bytes) -> BlobStore:
        # Nothing stays in memory: a payload is read once or twice, a bundle by each board.
        directory = self._directory / kid_hex(owner)
        return BlobStore(directory, self._owner_quota, MAX_CONTENT_BYTES, max_cached_bytes=0)


def _owners(directory: Path) -> Iterator[bytes]:
    for entry in directory.iterdir():
        try:
            yield parse_kid(entry.name)
        except FormatError:
            continue
