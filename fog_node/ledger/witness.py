"""A second, independent word on how far the database had come.

SQLite takes the end of its write-ahead log for a torn write and drops it, whether a power
cut tore it or a bit flipped in it long after it was synced. So after each commit that somebody
relies on, the number of that commit is written here too. A database that is behind its
witness has lost writes, which may have been votes: the store then refuses to open.

The file has a fixed size and two slots, in sectors of their own, written in turn: a torn slot
leaves the other one, and a write never needs room on the disk.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fog_node.errors import StoreError

WITNESS = "witness"
SLOT_BYTES = 4096
SLOTS = 2
_MAGIC = b"FogW0001"
_SLOT = struct.Struct(">8s32sQQQ")
_CHECK = struct.Struct(">I")


@dataclass(frozen=True)
class Testimony:
    """What one slot says.

    Attributes:
        writes: number of the database's latest commit that was told of.
        head: height of its latest block then.
        voted: highest height at which this validator had voted.
    """

    chain_id: bytes
    writes: int
    head: int
    voted: int

    def encode(self) -> bytes:
        """The slot's bytes."""
        body = _SLOT.pack(_MAGIC, self.chain_id, self.writes, self.head, self.voted)
        return body + _CHECK.pack(zlib.crc32(body))


class Witness:
    """The witness file of one data directory, open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over an open file; `open_witness` and `create_witness` are the usual ways."""
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def write(self, testimony: Testimony) -> None:
        """Testify; on disk when this returns. Raises StoreError."""
        with _guarded(self.path):
            offset = testimony.writes % SLOTS * SLOT_BYTES
            os.pwrite(self._descriptor, testimony.encode(), offset)
            os.fdatasync(self._descriptor)


def read_witness(path: Path) -> Testimony | None:
    """Return the latest testimony; None where no slot can be read. Raises StoreError."""
    with _guarded(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    found = [_parse(data[i * SLOT_BYTES : (i + 1) * SLOT_BYTES]) for i in range(SLOTS)]
    return max((item for item in found if item), key=lambda item: item.writes, default=None)


def open_witness(path: Path) -> Witness:
    """Open the file, put back to its size where it was cut. Raises StoreError."""
    with _guarded(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(descriptor).st_size != SLOT_BYTES * SLOTS:
            os.ftruncate(descriptor, SLOT_BYTES * SLOTS)
            os.fsync(descriptor)
    return Witness(path, descriptor)


def create_witness(path: Path, testimony: Testimony) -> None:
    """Make or replace the file, at once or not at all. Raises StoreError."""
    fresh = path.with_suffix(".new")
    content = testimony.encode().ljust(SLOT_BYTES, b"\0") * SLOTS
    with _guarded(path):
        with suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(slot: bytes) -> Testimony | None:
    end = _SLOT.size + _CHECK.size
    if len(slot) < end or _CHECK.unpack(slot[_SLOT.size : end])[0] != zlib.crc32(
        slot[: _SLOT.size]
    ):
        return None
    magic, chain_id, writes, head, voted = _SLOT.unpack(slot[: _SLOT.size])
    return Testimony(chain_id, writes, head, voted) if magic == _MAGIC else None


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}; look at the disk and the system's log, then start again"
        ) from error
