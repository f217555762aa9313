"""Content-addressed files, named by their SHA-256: the bundles that releases name.

A file is complete or not there: it is written beside its place, brought to the disk and
renamed. What is read is checked against its name first, so that a damaged disk never hands
out a damaged bundle.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Literal

from .errors import FogNodeError
from .protocol.manifest import MAX_BUNDLE_BYTES

MAX_BLOB_BYTES = MAX_BUNDLE_BYTES
# Checked content that stays in memory, since boards fetch one bundle in many small parts.
MAX_CACHED_BYTES = 4 * MAX_BLOB_BYTES
INCOMING = "incoming"
SHA256_BYTES = 32
_SHARD_DIGITS = 2

BlobCause = Literal["absent", "damaged", "disk", "full", "range", "size"]


class BlobError(FogNodeError):
    """The blob store cannot do what was asked.

    Attributes:
        cause: `absent`: not held here; `damaged`: was held, but the disk has changed it, so
            that it is gone; `disk`: cannot be read or written; `full`: the quota is used up;
            `range`: begins behind the blob's end; `size`: larger than a blob may be.
    """

    def __init__(self, cause: BlobCause, message: str) -> None:
        super().__init__(message)
        self.cause: BlobCause = cause


class BlobStore:
    """The blobs of one directory. Any method may be called from any thread; all may block."""

    def __init__(
        self,
        directory: Path,
        quota_bytes: int,
        max_blob_bytes: int = MAX_BLOB_BYTES,
        max_cached_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        """Open or create; raises BlobError (`disk`) where the directory cannot be used.

        Args:
            directory: holds nothing else, and only this process writes there.
            quota_bytes: of all blobs together.
            max_blob_bytes: of one blob.
            max_cached_bytes: of what stays in memory.
        """
        self._directory = directory
        self._quota = quota_bytes
        self._max_blob = max_blob_bytes
        self._max_cached = max_cached_bytes
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached_bytes = 0
        try:
            self._sizes = self._scan()
        except OSError as error:
            raise BlobError(
                "disk",
                f"{directory}: {error.strerror}; choose a data directory that this user may write",
            ) from error
        self._total = sum(self._sizes.values())

    def __len__(self) -> int:
        """How many blobs are held."""
        return len(self._sizes)

    @property
    def total_bytes(self) -> int:
        """Size of all blobs together."""
        return self._total

    def has(self, sha256: bytes) -> bool:
        """Whether this blob is held."""
        return sha256 in self._sizes

    def size(self, sha256: bytes) -> int | None:
        """Size in bytes; None where the blob is not held."""
        return self._sizes.get(sha256)

    def get(self, sha256: bytes) -> bytes:
        """The whole blob, checked against its name; raises BlobError absent, damaged, disk."""
        with self._lock:
            data = self._cache.get(sha256)
            if data is None:
                data = self._read(sha256)
                self._remember(sha256, data)
            else:
                self._cache.move_to_end(sha256)
            return data

    def part(self, sha256: bytes, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; raises BlobError, `range` behind the end."""
        data = self.get(sha256)
        if not 0 <= offset < len(data):
            raise BlobError(
                "range", f"blob {sha256.hex()}: offset {offset} is not in its {len(data)} bytes"
            )
        return data[offset : offset + length]

    def put(self, data: bytes) -> bytes:
        """Store `data`, on the disk when this returns; returns its SHA-256.

        Raises:
            BlobError: `size`, `full` or `disk`; nothing was stored.
        """
        sha256 = hashlib.sha256(data).digest()
        if len(data) > self._max_blob:
            raise BlobError(
                "size", f"blob {sha256.hex()}: {len(data)} bytes, at most {self._max_blob} may be"
            )
        with self._lock:
            if sha256 in self._sizes:
                return sha256
            if self._total + len(data) > self._quota:
                raise BlobError(
                    "full",
                    f"blob store: {self._total} of {self._quota} bytes are used, {len(data)} more "
                    "do not fit; raise [limits] blob_mib",
                )
            try:
                self._write(sha256, data)
            except OSError as error:
                raise BlobError("disk", f"blob {sha256.hex()}: {error.strerror}") from error
            self._sizes[sha256] = len(data)
            self._total += len(data)
        return sha256

    def path(self, sha256: bytes) -> Path:
        """Where the blob lies, if it is held."""
        name = sha256.hex()
        return self._directory / name[:_SHARD_DIGITS] / name

    def _scan(self) -> dict[bytes, int]:
        incoming = self._directory / INCOMING
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in incoming.iterdir():
            leftover.unlink()
        sizes = {}
        for shard in self._directory.iterdir():
            if shard == incoming or not shard.is_dir():
                continue
            for file in shard.iterdir():
                try:
                    sha256 = bytes.fromhex(file.name)
                except ValueError:
                    continue
                if file == self.path(sha256) and len(sha256) == SHA256_BYTES:
                    sizes[sha256] = file.stat().st_size
        return sizes

    def _read(self, sha256: bytes) -> bytes:
        if sha256 not in self._sizes:
            raise BlobError("absent", f"blob {sha256.hex()}: is not held here")
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            self._forget(sha256)
            raise BlobError("damaged", f"{path}: is gone; it must be fetched again") from error
        except OSError as error:
            raise BlobError("disk", f"{path}: {error.strerror}") from error
        if hashlib.sha256(data).digest() != sha256:
            path.unlink(missing_ok=True)
            self._forget(sha256)
            raise BlobError(
                "damaged",
                f"{path}: its content is not what its name says, so it was removed and must be "
                "fetched again; check the disk",
            )
        return data

    def _write(self, sha256: bytes, data: bytes) -> None:
        path = self.path(sha256)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._directory / INCOMING)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        for directory in (path.parent, self._directory):
            _sync_directory(directory)

    def _forget(self, sha256: bytes) -> None:
        self._total -= self._sizes.pop(sha256)

    def _remember(self, sha256: bytes, data: bytes) -> None:
        self._cache[sha256] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > self._max_cached:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
