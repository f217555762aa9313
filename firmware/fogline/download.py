"""A release bundle on its way into a file in flash: asked for chunk by chunk, across resets."""

import hashlib
from time import ticks_diff, ticks_ms

from . import bundle as bundles
from . import cbor
from .errors import EncodingError

CHUNK_BYTES = 4096  # asked for at once
REQUEST_TIMEOUT_MS = 5_000  # then a chunk is asked for again
MAX_DOWNLOADS = 3  # of one bundle whose bytes do not have its SHA-256

_MAX_ANNOUNCEMENT_BYTES = 512
_MAX_MESSAGE_BYTES = CHUNK_BYTES + 128
_HASH_BYTES = 32
_READ_BYTES = 1024

# What a chunk, or a start, has led to.
MORE, WHOLE, AGAIN, BAD = 0, 1, 2, 3


class Download:
    """The bundle that a board is fetching, if any.

    Args:
        flash: the Flash that holds the file.
        keep: function(wanted) that makes it durable; raises OSError.

    Attributes:
        wanted: [SHA-256, size, failed attempts] of the bundle on its way, or None.
        file: name of the file that it goes to.
    """

    def __init__(self, flash, keep):
        self._flash = flash
        self._keep = keep
        self.wanted = None
        self.file = None
        self._have = 0  # bytes that are in flash
        self._asked_ms = None  # when the next chunk was asked for

    def resume(self, wanted, file):
        """Go on after a start; returns MORE, WHOLE, AGAIN or BAD. Raises OSError."""
        self.wanted, self.file = wanted, file
        self._have = self._flash.size(file)
        self._asked_ms = None
        return self._outcome()

    def begin(self, digest, size, file):
        """Fetch another bundle; raises OSError."""
        # In this order: what is in the file always belongs to the download.
        self._flash.remove(file)
        self._start([digest, size, 0], file)

    def is_of(self, digest):
        """Whether it is this bundle that is on its way."""
        return self.wanted is not None and self.wanted[0] == digest

    def stop(self):
        """Fetch no more; returns the SHA-256 of what was on its way, or None."""
        digest = self.wanted[0] if self.wanted else None
        self.wanted = None
        return digest

    def next_request(self):
        """Return [SHA-256, offset, length] of the chunk to ask for now, or None."""
        if self.wanted is None:
            return None
        now = ticks_ms()
        if self._asked_ms is not None and ticks_diff(now, self._asked_ms) < REQUEST_TIMEOUT_MS:
            return None
        self._asked_ms = now
        digest, size, _ = self.wanted
        return [digest, self._have, min(CHUNK_BYTES, size - self._have)]

    def chunk(self, fields):
        """Take what `parse_chunk` returned; returns MORE, WHOLE, AGAIN or BAD.

        One that was not asked for, or comes twice, changes nothing. Raises OSError, and
        EncodingError for one that cannot be of this bundle.
        """
        digest, offset, total, data = fields
        if not self.is_of(digest) or offset != self._have:
            return MORE
        if total != self.wanted[1] or offset + len(data) > total:
            raise EncodingError("update.chunk", "size")
        self._flash.append(self.file, data)
        self._have += len(data)
        self._asked_ms = None
        return self._outcome()

    def _start(self, wanted, file):
        self.wanted, self.file = wanted, file
        self._have = 0
        self._asked_ms = None
        self._keep(wanted)

    def _outcome(self):
        digest, size, attempts = self.wanted
        if self._have < size:
            return MORE
        if self._have == size and file_hash(self._flash, self.file) == digest:
            return WHOLE
        if attempts + 1 < MAX_DOWNLOADS:
            self._flash.remove(self.file)
            self._start([digest, size, attempts + 1], self.file)
            return AGAIN
        return BAD


def parse_announcement(payload):
    """Read a gateway's announcement; returns (SHA-256, size, version). Raises EncodingError."""
    fields = cbor.decode(payload, _MAX_ANNOUNCEMENT_BYTES)
    if not isinstance(fields, dict) or set(fields) != {"bundle", "size", "name", "version"}:
        raise EncodingError("update.announcement", "fields")
    digest, size, version = fields["bundle"], fields["size"], fields["version"]
    if not _is_hash(digest) or not _is_count(size) or not _is_count(version):
        raise EncodingError("update.announcement", "values")
    return digest, size, version


def parse_chunk(payload):
    """Read a chunk, CBOR [SHA-256, offset, total, bytes]; raises EncodingError."""
    fields = cbor.decode(payload, _MAX_MESSAGE_BYTES)
    if not isinstance(fields, list) or len(fields) != 4:
        raise EncodingError("update.chunk", "fields")
    data = fields[3]
    if not isinstance(data, bytes) or not 0 < len(data) <= CHUNK_BYTES:
        raise EncodingError("update.chunk", "data")
    return fields


def fits(size):
    """Whether a bundle of this size can be one at all."""
    return 0 < size <= bundles.MAX_BUNDLE_BYTES


def hash_of(file, length=None):
    """Return the SHA-256 of the next `length` bytes of an open file, or of all that is left."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    while length is None or length > 0:
        part = buffer if length is None else buffer[: min(length, _READ_BYTES)]
        count = file.readinto(part)
        if not count:
            break
        digest.update(part[:count])
        if length is not None:
            length -= count
    return digest.digest()


def file_hash(flash, name):
    """Return the SHA-256 of a file."""
    with flash.open(name) as file:
        return hash_of(file)


def _is_hash(value):
    return isinstance(value, bytes) and len(value) == _HASH_BYTES


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
