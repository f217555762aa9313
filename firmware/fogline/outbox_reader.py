"""How a start finds the outbox: all of it is read once, and nothing in it makes that fail.

The format is in `outbox.py`, which loads this; a board at work forgets it.
"""

# ruff: noqa: SLF001 - the outbox's own, in a file of its own

import os
import struct
from binascii import crc32

from .outbox import (
    _EEXIST,
    _FIELDS,
    _FIELDS_BYTES,
    _GAP_BYTES,
    _HEADER_BYTES,
    _MAX_DAMAGED,
    _SEGMENTS,
    _VERSION,
    ALERT,
    GAP,
    MARK,
    MAX_GAP,
    MAX_TRANSACTION_BYTES,
    MIN_BYTES,
    PACK,
    Segment,
    failure,
)

_CHUNK_BYTES = 1024
_NAME_CHARS = 12  # 8 hex digits, ".box"


def load(box):
    """Read what is there into a new Outbox; returns whether there was any whole record."""
    try:
        os.mkdir(box._directory)
    except OSError as error:
        if error.args[0] != _EEXIST:
            raise failure("outbox.write", error) from None
    try:
        names = os.listdir(box._directory)
    except OSError as error:
        raise failure("outbox.read", error) from None
    good = False
    holes = []
    for number in sorted(_number(name) for name in names):
        if number:
            good = _load_segment(box, number, holes) or good
    box.gaps = [gap for gap in box.gaps if gap[1] >= box.dropped]
    _explain(box, holes)
    _fit(box)
    return good


def _fit(box):
    """Take no more than the file system has, so that moving things finds its space."""
    try:
        stat = os.statvfs(box._directory)
    except (OSError, AttributeError):
        return
    free = stat[0] * (stat[3] - _SEGMENTS - 2)  # each file ends within a block
    usable = max(MIN_BYTES, free + sum(segment.size for segment in box._segments))
    if usable < box.max_bytes:
        box.max_bytes = usable
        box._segment_bytes = usable // _SEGMENTS
        box._spare_bytes = box._segment_bytes + _GAP_BYTES


def _load_segment(box, number, holes):
    segment = Segment(number)
    box._segments.append(segment)
    box._torn = True
    at = 0
    try:
        with open(box._path(number), "rb") as file:
            segment.size = file.seek(0, 2)
            file.seek(0)
            while at < segment.size:
                record, good = _scan(file, segment.size - at)
                if record is None or not (good or _damage(box, record)):
                    break
                at += _take(box, segment, record, holes)
                file.seek(at)
    except OSError:
        return segment.marked  # a block that cannot be read ends it like a torn record
    box._torn = at < segment.size or not segment.marked
    return segment.marked


def _damage(box, record):
    """Whether a record that fails its CRC is to be passed over, rather than to end a segment.

    Its header must be what the next one's would be: a torn one's is not, or hardly ever.
    """
    _, kind, _, sequence, dropped, back, moved = record
    plausible = kind in (PACK, ALERT, GAP) and sequence == box.next
    plausible = plausible and box.dropped <= dropped <= sequence and box.synced
    plausible = plausible and back <= MAX_GAP and moved <= sequence
    if not plausible or len(box._damaged) >= _MAX_DAMAGED:
        return False
    box._damaged.append(sequence)
    box.lost += 1
    return True


def _take(box, segment, record, holes):
    length, kind, _, sequence, dropped, back, _ = record
    segment.marked = True
    skipped = kind == MARK and back
    if sequence > box.next and not skipped:
        is_first = box._segments[0] is segment
        holes.append((0 if is_first else max(box.next, dropped), sequence))
    box.next = sequence
    damaged = sequence in box._damaged and length
    box.dropped = max(box.dropped, dropped)
    if length:
        box._note(segment, sequence, sequence if damaged else sequence - back)
        box.next += 1
    else:
        # A number below what was read: the append of that number failed and was told to
        # the caller, yet reached the flash. It was free again; what stands there was
        # never sent.
        for earlier in box._segments:
            earlier.end = min(earlier.end, sequence)
        box.gaps = [gap for gap in box.gaps if gap[1] < sequence]
    return _HEADER_BYTES + length


def _explain(box, holes):
    """Why numbers are missing: dropped (at the front), given up, or lost."""
    for start, found in holes:
        given = [first for first, number in box.gaps if first < found <= number]
        end = min(given) if given else found
        if not start:
            box.dropped = max(box.dropped, end)
        elif end > max(start, box.dropped):
            box.lost += end - max(start, box.dropped)


def _number(name):
    """The number in a segment's file name, or 0 for any other file."""
    if len(name) == _NAME_CHARS and name.endswith(".box"):
        try:
            return int(name[:8], 16)
        except ValueError:
            pass
    return 0


def _scan(file, room):
    """Read the record that begins here: (its fields or None, whether it is whole)."""
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return None, False
    record = struct.unpack(_FIELDS, header[:_FIELDS_BYTES])
    left = record[0]
    if record[2] != _VERSION or left > MAX_TRANSACTION_BYTES or left > room - _HEADER_BYTES:
        return None, False
    check = crc32(header[:_FIELDS_BYTES])
    while left:
        chunk = file.read(min(left, _CHUNK_BYTES))
        if not chunk:
            return None, False
        check = crc32(chunk, check)
        left -= len(chunk)
    return record, check.to_bytes(4, "big") == header[_FIELDS_BYTES:]
