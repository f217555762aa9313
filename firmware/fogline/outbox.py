"""The board's transactions, kept in flash until a receipt says that they are final.

A directory of append-only segments `00000001.box`, ... on littlefs, FAT or POSIX. Every record
is a header (big-endian) and the transaction's bytes:

| header field | bytes | content |
| --- | --- | --- |
| length | 4 | bytes of the transaction; 0 in the mark that opens a segment |
| sequence | 8 | the transaction's number; in a mark, the next number |
| dropped | 8 | all numbers below it were dropped when this was written; 0: not known |
| crc | 4 | CRC-32 of the above and of the transaction |

What is written and flushed stays; a record that a power cut left half-written fails its length
or CRC, is ignored with all behind it, and never written behind. So a number is free until its
transaction stands in flash, and used for ever after: its mark or record outlives it, and
`dropped`, once signed, is never forgotten. The last segment is only removed once its
successor's mark is durable.
"""

import os
import struct
from binascii import crc32

from .errors import OutboxError, OutboxFull

MAX_TRANSACTION_BYTES = 24 * 1024
MIN_BYTES = 48 * 1024

_FIELDS = ">IQQ"
_FIELDS_BYTES = 20
_HEADER_BYTES = 24
_SEGMENTS = 8  # about so many share the space
_CHUNK_BYTES = 1024
_NAME_CHARS = 12  # 8 hex digits, ".box"
_ENOENT, _EEXIST, _ENOSPC = 2, 17, 28


class _Segment:
    def __init__(self, number):
        self.number = number
        self.size = 0  # bytes of the file, readable or not
        self.end = 0  # the number after its last transaction; 0 if it has none
        self.marked = False  # whether its mark, or more, is in flash


class Outbox:
    """See above. Opening reads all of it once, and never fails for what it finds in the files.

    Args:
        directory: made if need be.
        max_bytes: what all segments together may take, at least MIN_BYTES.
        new_key: whether the key was made just now, so that no number was ever used.

    Attributes:
        next: the number for the next transaction.
        dropped: every transaction with a lower number was dropped; to be signed into the next.
        lost: transactions that should be here and cannot be read.

    Raises OutboxError `outbox.bytes`, `outbox.read`, `outbox.write`.
    """

    def __init__(self, directory, max_bytes, new_key):
        if max_bytes < MIN_BYTES:
            raise OutboxError("outbox.bytes", f"at least {MIN_BYTES}")
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = max_bytes // _SEGMENTS
        self._segments = []
        self.next = 1
        self.dropped = 0
        self.lost = 0
        # Whether the last segment may end in half a record: nothing is written behind that.
        self._torn = False
        if not self._load():
            self.dropped = 1 if new_key else 0
            self._rotate()

    @property
    def synced(self):
        """Whether the next number is known.

        False where there is a key but no outbox: the flash was lost. `append` refuses then,
        until a receipt has told the number (`drop_below`).
        """
        return self.dropped > 0

    @property
    def waiting(self):
        """How many transactions wait for a receipt."""
        return self.next - max(self.dropped, 1)

    def append(self, sequence, data):
        """Store the signed transaction `data` (bytes) as number `sequence`, which is `next`.

        It is in flash when this returns, and may be sent. Raises OutboxFull where there is no
        room; OutboxError `outbox.sequence`, `outbox.unsynced`, `outbox.size`, `outbox.write`.
        The number stays free where this raises.
        """
        if not self.synced:
            raise OutboxError("outbox.unsynced", "wait for a receipt")
        if sequence != self.next:
            raise OutboxError("outbox.sequence", f"{sequence}, next is {self.next}")
        if not 0 < len(data) <= MAX_TRANSACTION_BYTES:
            raise OutboxError("outbox.size", f"{len(data)} bytes")
        size = _HEADER_BYTES + len(data)
        last = self._segments[-1]
        rotate = self._torn or (
            last.size > _HEADER_BYTES and last.size + size > self._segment_bytes
        )
        needed = size + (_HEADER_BYTES if rotate else last.size)
        needed += sum(s.size for s in self._segments if s.end > self.dropped and s is not last)
        if rotate and last.end > self.dropped:
            needed += last.size
        if needed > self._max_bytes:
            raise OutboxFull("outbox.full")
        if rotate:
            self._rotate()
            last = self._segments[-1]
        self._write(last, "ab", sequence, data)
        self.next = last.end = sequence + 1

    def pending(self, start=0):
        """Yield (sequence, bytes) of what waits, oldest first, from number `start` on.

        Each is read when it is asked for; what was dropped or appended meanwhile is left out
        or taken in. Raises OutboxError `outbox.read` or `outbox.memory`.
        """
        wanted = max(start, self.dropped)
        number, offset = 0, 0
        while True:
            wanted = max(wanted, self.dropped)
            segment = self._find(number, wanted)
            if segment is None:
                return
            if segment.number != number:
                number, offset = segment.number, 0
            found = self._read(segment, offset, wanted)
            if found is None:
                number, offset = number + 1, 0
                continue
            sequence, data, offset = found
            wanted = sequence + 1
            yield sequence, data

    def drop_below(self, next_number):
        """Let go of all transactions below `next_number`: a receipt says they are final.

        A receipt of a later number than this board knows tells that the flash was lost: the
        sequence is raised, durably. An old receipt does nothing. Raises OutboxError
        `outbox.write`.
        """
        if next_number <= self.dropped:
            return
        self.dropped = next_number
        if next_number > self.next:
            self.next = next_number
            self._rotate()
        else:
            self._clean()

    def _path(self, number):
        return f"{self._directory}/{number:08x}.box"

    def _load(self):
        """Read what is there; returns whether there was any whole record."""
        try:
            os.mkdir(self._directory)
        except OSError as error:
            if error.args[0] != _EEXIST:
                raise _failure("outbox.write", error) from None
        try:
            names = os.listdir(self._directory)
        except OSError as error:
            raise _failure("outbox.read", error) from None
        good = False
        for number in sorted(_number(name) for name in names):
            if number:
                good = self._load_segment(number) or good
        return good

    def _load_segment(self, number):
        segment = _Segment(number)
        self._segments.append(segment)
        self._torn = True
        try:
            with open(self._path(number), "rb") as file:
                segment.size = file.seek(0, 2)
                file.seek(0)
                at = 0
                while at < segment.size:
                    record = _scan(file, segment.size - at)
                    if record is None:
                        break
                    at += self._take(segment, record)
        except OSError:
            return segment.marked  # a block that cannot be read ends it like a torn record
        self._torn = at < segment.size or not segment.marked
        return segment.marked

    def _take(self, segment, record):
        length, sequence, dropped = record
        segment.marked = True
        if sequence > self.next:
            if self._segments[0] is segment:
                dropped = sequence  # only what was dropped is ever removed
            else:
                self.lost += sequence - max(self.next, dropped)
        if length:
            sequence += 1
            segment.end = sequence
        else:
            # A number below what was read: the append of that number failed and was told to
            # the caller, yet reached the flash. It was free again; what stands there was
            # never sent.
            for earlier in self._segments:
                earlier.end = min(earlier.end, sequence)
        self.next = sequence
        self.dropped = max(self.dropped, dropped)
        return _HEADER_BYTES + length

    def _find(self, number, wanted):
        """The first segment from `number` on with a transaction from `wanted` on."""
        for segment in self._segments:
            if segment.number >= number and segment.end > wanted:
                return segment
        return None

    def _read(self, segment, offset, wanted):
        """The first transaction from `wanted` on: (sequence, data, offset behind it) or None."""
        try:
            with open(self._path(segment.number), "rb") as file:
                while True:
                    file.seek(offset)
                    header = file.read(_HEADER_BYTES)
                    if len(header) < _HEADER_BYTES:
                        return None
                    length, sequence, _ = struct.unpack(_FIELDS, header[:_FIELDS_BYTES])
                    if length > MAX_TRANSACTION_BYTES or sequence >= segment.end:
                        return None
                    offset += _HEADER_BYTES + length
                    if length and sequence >= wanted:
                        data = file.read(length)
                        good = len(data) == length and _crc(header, data) == header[_FIELDS_BYTES:]
                        return (sequence, data, offset) if good else None
        except OSError as error:
            raise _failure("outbox.read", error) from None
        except MemoryError:
            raise OutboxError("outbox.memory") from None

    def _rotate(self):
        """Begin a segment with a durable mark, then remove what is no longer needed."""
        last = self._segments[-1] if self._segments else _Segment(0)
        if last.marked or last.number == 0:
            last = _Segment(last.number + 1)
            self._segments.append(last)
        last.size = 0
        self._write(last, "wb", self.next, b"")
        last.marked = True
        self._clean()

    def _clean(self):
        kept = []
        for segment in self._segments:
            if segment.end > self.dropped or segment is self._segments[-1]:
                kept.append(segment)
            else:
                self._remove(segment)
        self._segments = kept

    def _remove(self, segment):
        try:
            os.remove(self._path(segment.number))
        except OSError as error:
            if error.args[0] != _ENOENT:
                raise _failure("outbox.write", error) from None

    def _write(self, segment, mode, sequence, data):
        head = struct.pack(_FIELDS, len(data), sequence, self.dropped)
        self._torn = True
        try:
            with open(self._path(segment.number), mode) as file:
                segment.size += _HEADER_BYTES + len(data)
                file.write(head + _crc(head, data))
                file.write(data)
                file.flush()  # to flash: MicroPython syncs here
        except OSError as error:
            if error.args[0] == _ENOSPC:
                raise OutboxFull("outbox.full", "no space on the file system") from None
            raise _failure("outbox.write", error) from None
        self._torn = False


def _failure(code, error):
    return OutboxError(code, f"OSError {error.args[0]}")


def _number(name):
    """The number in a segment's file name, or 0 for any other file."""
    if len(name) == _NAME_CHARS and name.endswith(".box"):
        try:
            return int(name[:8], 16)
        except ValueError:
            pass
    return 0


def _crc(header, data):
    return crc32(data, crc32(header[:_FIELDS_BYTES])).to_bytes(4, "big")


def _scan(file, room):
    """Check the record that begins here; returns (length, sequence, dropped) or None."""
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return None
    record = struct.unpack(_FIELDS, header[:_FIELDS_BYTES])
    left = record[0]
    if left > MAX_TRANSACTION_BYTES or left > room - _HEADER_BYTES:
        return None
    check = crc32(header[:_FIELDS_BYTES])
    while left:
        chunk = file.read(min(left, _CHUNK_BYTES))
        if not chunk:
            return None
        check = crc32(chunk, check)
        left -= len(chunk)
    return record if check.to_bytes(4, "big") == header[_FIELDS_BYTES:] else None
