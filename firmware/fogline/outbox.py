"""The board's transactions, kept in flash until a receipt says that they are final.

A directory of append-only segments `00000001.box`, ... on littlefs, FAT or POSIX. Every record
is a header (big-endian) and the transaction's bytes:

| header field | bytes | content |
| --- | --- | --- |
| length | 2 | bytes of the transaction; 0 in the mark that opens a segment |
| kind | 1 | MARK, PACK, ALERT or GAP |
| version | 1 | 2 |
| sequence | 8 | the transaction's number; in a mark, the next number |
| dropped | 8 | all numbers below it were dropped when this was written; 0: not known |
| back | 4 | of a gap: how many numbers it gives up; in a mark: how many were skipped |
| moved | 4 | of a copy: by how much its number is above that under which it was signed first |
| crc | 4 | CRC-32 of the above and of the transaction |

What is written and flushed stays; a record that a power cut left half-written fails its length
or CRC, is ignored with all behind it, and never written behind. One that is whole in length and
fails its CRC was damaged later, as far as its header makes sense: its number counts as used, and
what stands behind it is read. So a number is free until its transaction stands in flash, and used
for ever after: its mark or record outlives it, and `dropped`, once signed, is never forgotten.
The last segment is only removed once its successor's mark is durable.

A gap gives up the numbers from `sequence - back` on: what stands under them is *dead*. Nothing
dead is sent; whoever wrote the gap signs what it wants to keep anew, behind the gap (gaps.py),
and then releases the dead.
"""

import os
import struct
from binascii import crc32

from .errors import OutboxError, OutboxFull

DIRECTORY = "outbox"  # of a board
MAX_TRANSACTION_BYTES = 24 * 1024
MIN_BYTES = 48 * 1024
MARK, PACK, ALERT, GAP = 0, 1, 2, 3
# Numbers that one gap may give up (fog_node/protocol/SPEC.md).
MAX_GAP = 1 << 20

_VERSION = 2
_FIELDS = ">HBBQQII"
_FIELDS_BYTES = 28
_HEADER_BYTES = 32
_SEGMENTS = 8  # about so many share the space
# Damaged transactions that are remembered; a segment with more of them ends there.
_MAX_DAMAGED = 64
# What a gap and its note take at most.
_GAP_BYTES = 1024
# How far behind a receipt a board goes on whose flash was lost: farther than anything that it
# can have sent, and not twice to the same place.
_JUMP = 2048
_JUMP_BITS = 10
_ENOENT = 2
_EEXIST = 17
_ENOSPC = 28


class Segment:
    def __init__(self, number):
        self.number = number
        self.size = 0  # bytes of the file, readable or not
        self.first = 0  # what its first transaction needs to be the chain's next; 0 if it has none
        self.end = 0  # the number after its last transaction; 0 if it has none
        self.marked = False  # whether its mark, or more, is in flash


class Record:
    """One transaction in the outbox.

    Attributes:
        sequence, kind: its number; PACK, ALERT or GAP.
        first: the number that must be the chain's next for it; its own, but of a gap.
        origin: the number under which its content was signed first.
        size: bytes of it, header included; `data`, its bytes, or None where not read.
    """

    def __init__(self, sequence, kind, first, origin, size, data):
        self.sequence = sequence
        self.kind = kind
        self.first = first
        self.origin = origin
        self.size = size
        self.data = data


class Outbox:
    """See above. Opening reads all of it once, and never fails for what it finds in the files.

    Args:
        directory: made if need be.
        max_bytes: what all segments together may take, at least MIN_BYTES; less where the file
            system has not so much.
        new_key: whether the key was made just now, so that no number was ever used.

    Attributes:
        next: the number for the next transaction.
        dropped: every transaction with a lower number was dropped; to be signed into the next.
        lost: transactions that should be here and cannot be read.
        gaps: (first number given up, number) of each gap.

    Raises OutboxError `outbox.bytes`, `outbox.read`, `outbox.write`.
    """

    def __init__(self, directory, max_bytes, new_key):
        if max_bytes < MIN_BYTES:
            raise OutboxError("outbox.bytes", f"at least {MIN_BYTES}")
        self._directory = directory
        self.max_bytes = max_bytes
        self._segment_bytes = max_bytes // _SEGMENTS
        # Of the space, left for moving things when all the rest is full.
        self._spare_bytes = self._segment_bytes + _GAP_BYTES
        self._segments = []
        self.next = 1
        self.dropped = 0
        self.lost = 0
        self.gaps = []
        self._damaged = []  # numbers
        self._released = (0, 0)  # dead numbers that need not be kept any more
        # Whether the last segment may end in half a record: nothing is written behind that.
        self._torn = False
        from . import outbox_reader

        known = outbox_reader.load(self)
        if not known:
            self.dropped = 1 if new_key else 0
            self.rotate()

    @property
    def synced(self):
        """Whether the next number is known.

        False where there is a key but no outbox: the flash was lost. `append` refuses then,
        until a receipt has told the number (`drop_below`).
        """
        return self.dropped > 0

    @property
    def waiting(self):
        """How many transactions wait for a receipt; those that were lost do, too."""
        count = self.next - max(self.dropped, 1)
        at = max(self.dropped, 1)
        for first, number in sorted(self.gaps):
            if number > max(first, at):
                count -= number - max(first, at)
                at = number
        return count

    def has_room(self, size):
        """Whether a transaction of `size` bytes can be appended now."""
        return self._needed(_HEADER_BYTES + size) <= self.max_bytes - self._spare_bytes

    def append(self, sequence, data, kind=PACK, first=None, origin=None, spare=False):
        """Store the signed transaction `data` (bytes) as number `sequence`, which is `next`.

        Args:
            sequence, data: see above.
            kind: PACK, ALERT or GAP.
            first: of a gap, the first number that it gives up.
            origin: of a copy, the number that it had at first.
            spare: whether to use the space that is left for moving things.

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
        if self._needed(size) > self.max_bytes - (0 if spare else self._spare_bytes):
            raise OutboxFull("outbox.full")
        if self._must_rotate(size):
            self.rotate()
        last = self._segments[-1]
        first = sequence if first is None else first
        moved = 0 if origin is None else sequence - origin
        self._write(last, "ab", (kind, sequence, sequence - first, moved), data)
        self.next = sequence + 1
        self._note(last, sequence, first)

    def records(self, start=0, dead=False, data=True):
        """Yield a Record of each that waits, oldest first, from number `start` on.

        Each is read when it is asked for; what was dropped or appended meanwhile is left out
        or taken in. Those that are dead are left out, or (`dead`) alone taken. `data`: whether
        to read their bytes, too. Raises OutboxError `outbox.read` or `outbox.memory`.
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
            found, offset = self._read(segment, offset, wanted, dead, data)
            if found is None:
                number, offset = number + 1, 0
                continue
            wanted = found.sequence + 1
            yield found

    def is_dead(self, sequence, before=None):
        """Whether a gap gives up this number; one whose own number is below `before`, if given."""
        return any(
            first <= sequence < number and (before is None or number < before)
            for first, number in self.gaps
        )

    def needs_gap(self):
        """Whether nothing here can be the chain's next, as receipts say it: that was lost."""
        if self.dropped >= self.next or not self.synced:
            return False
        for record in self.records(data=False):
            return record.first != self.dropped
        return True

    def starts(self):
        """Yield (first, live bytes) of each segment that holds something, oldest first.

        `first` is what the segment's first transaction needs to be the chain's next.
        """
        for segment in self._segments:
            if segment.end > self.dropped and not self._is_released(segment):
                yield segment.first, segment.size

    def drop_below(self, next_number):
        """Let go of all transactions below `next_number`: a receipt says they are final.

        A receipt of a later number than this board knows tells that the flash was lost. Numbers
        above it may have been used, too, so that the board goes on farther up (and a gap must
        come first, see `needs_gap`). An old receipt does nothing. Raises OutboxError
        `outbox.write`.
        """
        if next_number <= self.dropped:
            return
        self.dropped = next_number
        self.gaps = [gap for gap in self.gaps if gap[1] >= next_number]
        if next_number > self.next:
            self.next = next_number + _JUMP + _random(_JUMP_BITS)
            self.rotate(self.next - next_number)
        else:
            self._clean()

    def reopen(self, next_number):
        """Take back that what is below was dropped, down to `next_number`: it is not final.

        None of it is here any more, so that a gap has to be signed: see `needs_gap`. The files
        still say what they said; whoever starts anew before the gap is final finds out again.
        """
        self.dropped = min(self.dropped, next_number)

    def release(self, first, below):
        """Let go of the dead from `first` to `below`: what is worth it was signed anew."""
        self._released = (first, below)
        self._clean()

    def rotate(self, skipped=0):
        """Begin a segment with a durable mark, then remove what is no longer needed.

        `skipped`: how many numbers before the next one are known to none of our records.
        """
        last = self._segments[-1] if self._segments else Segment(0)
        if last.marked or last.number == 0:
            last = Segment(last.number + 1)
            self._segments.append(last)
        last.size = 0
        self._write(last, "wb", (MARK, self.next, skipped, 0), b"")
        last.marked = True
        self._clean()

    def _path(self, number):
        return f"{self._directory}/{number:08x}.box"

    def _needed(self, size):
        """How many bytes all segments have once `size` more are appended."""
        last = self._segments[-1]
        rotate = self._must_rotate(size)
        needed = size + (_HEADER_BYTES if rotate else last.size)
        for segment in self._segments:
            kept = segment.end > self.dropped and not self._is_released(segment)
            if kept and (rotate or segment is not last):
                needed += segment.size
        return needed

    def _must_rotate(self, size):
        last = self._segments[-1]
        fills = last.size > _HEADER_BYTES and last.size + size > self._segment_bytes
        return self._torn or fills

    def _note(self, segment, sequence, first):
        if not segment.end:
            segment.first = first
        segment.end = sequence + 1
        if first < sequence:
            self.gaps.append((first, sequence))

    def _find(self, number, wanted):
        """The first segment from `number` on with a transaction from `wanted` on."""
        for segment in self._segments:
            if segment.number >= number and segment.end > wanted:
                return segment
        return None

    def _read(self, segment, offset, wanted, dead, with_data):
        """The first that is asked for from `wanted` on: (Record or None, offset behind it)."""
        try:
            with open(self._path(segment.number), "rb") as file:
                while True:
                    file.seek(offset)
                    header = file.read(_HEADER_BYTES)
                    if len(header) < _HEADER_BYTES:
                        return None, 0
                    fields = struct.unpack(_FIELDS, header[:_FIELDS_BYTES])
                    length, kind, version, sequence, _, back, moved = fields
                    if version != _VERSION or length > MAX_TRANSACTION_BYTES:
                        return None, 0
                    if sequence >= segment.end:
                        return None, 0
                    offset += _HEADER_BYTES + length
                    if not length or sequence < wanted or self.is_dead(sequence) != dead:
                        continue
                    if sequence in self._damaged:
                        continue
                    data = None
                    if with_data:
                        data = file.read(length)
                        if len(data) != length or _crc(header, data) != header[_FIELDS_BYTES:]:
                            if len(data) != length or len(self._damaged) >= _MAX_DAMAGED:
                                return None, 0
                            self._damaged.append(sequence)  # since the start
                            continue
                    record = Record(
                        sequence,
                        kind,
                        sequence - back,
                        sequence - moved,
                        _HEADER_BYTES + length,
                        data,
                    )
                    return record, offset
        except OSError as error:
            raise failure("outbox.read", error) from None
        except MemoryError:
            raise OutboxError("outbox.memory") from None

    def _is_released(self, segment):
        first, below = self._released
        return first <= max(segment.first, self.dropped) and segment.end <= below

    def _clean(self):
        kept = []
        for segment in self._segments:
            over = segment.end <= self.dropped or self._is_released(segment)
            if not over or segment is self._segments[-1]:
                kept.append(segment)
            else:
                self._remove(segment)
        self._segments = kept

    def _remove(self, segment):
        try:
            os.remove(self._path(segment.number))
        except OSError as error:
            if error.args[0] != _ENOENT:
                raise failure("outbox.write", error) from None

    def _write(self, segment, mode, fields, data):
        kind, sequence, back, moved = fields
        head = struct.pack(_FIELDS, len(data), kind, _VERSION, sequence, self.dropped, back, moved)
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
            raise failure("outbox.write", error) from None
        self._torn = False


def failure(code, error):
    """The OutboxError for an OSError."""
    return OutboxError(code, f"OSError {error.args[0]}")


def _random(bits):
    return int.from_bytes(os.urandom(2), "big") >> (16 - bits)


def _crc(header, data):
    return crc32(data, crc32(header[:_FIELDS_BYTES])).to_bytes(4, "big")
