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
from dataclasses import dataclass
from pathlib import Path

from .files import open_file, put_file, read_file, write_at

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

    def __init__(self, path: Path) -> None:
        """Open the file; raises StoreError."""
        self.path = path
        self._descriptor = open_file(path, SLOT_BYTES * SLOTS)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def write(self, testimony: Testimony) -> None:
        """Testify; on disk when this returns. Raises StoreError."""
        offset = testimony.writes % SLOTS * SLOT_BYTES
        write_at(self.path, self._descriptor, testimony.encode(), offset)


def read_witness(path: Path) -> Testimony | None:
    """Return the latest testimony; None where no slot can be read. Raises StoreError."""
    data = read_file(path) or b""
    found = [_parse(data[i * SLOT_BYTES : (i + 1) * SLOT_BYTES]) for i in range(SLOTS)]
    return max((item for item in found if item), key=lambda item: item.writes, default=None)


def create_witness(path: Path, testimony: Testimony) -> None:
    """Make or replace the file, at once or not at all. Raises StoreError."""
    put_file(path, testimony.encode().ljust(SLOT_BYTES, b"\0") * SLOTS)


def _parse(slot: bytes) -> Testimony | None:
    end = _SLOT.size + _CHECK.size
    body, check = slot[: _SLOT.size], slot[_SLOT.size : end]
    if len(slot) < end or check != _CHECK.pack(zlib.crc32(body)):
        return None
    magic, chain_id, writes, head, voted = _SLOT.unpack(body)
    return Testimony(chain_id, writes, head, voted) if magic == _MAGIC else None
