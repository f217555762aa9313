"""A reader for FlatBuffers tables that trusts nothing: every read is checked against the bytes.

Only what a `.tflite` file needs: tables, vectors of scalars and of tables, byte vectors.
A walk over fixed fields cannot loop, whatever the offsets say, and no count is believed
beyond the bytes that are there.
"""

from .errors import ModelError


def root(data, identifier):
    """Return the root Table of `data` (memoryview) after checking its 4-byte `identifier`."""
    if len(data) < 8 or bytes(data[4:8]) != identifier:
        raise ModelError("model.file", "not a %s file" % identifier.decode())
    return Table(data, _unsigned(data, 0, 4))


def _unsigned(data, at, size):
    if at < 0 or at + size > len(data):
        raise ModelError("model.file", "cut or damaged at byte %d" % at)
    return int.from_bytes(data[at : at + size], "little")


def signed(data, at, size):
    """Return the little-endian two's-complement number of `size` bytes at `at`."""
    value = _unsigned(data, at, size)
    top = 1 << (8 * size - 1)
    return value - 2 * top if value & top else value


class Table:
    """One table. Fields are named by their number in the schema; absent ones have defaults."""

    def __init__(self, data, at):
        self._data = data
        self._at = at
        self._fields = at - signed(data, at, 4)
        self._size = _unsigned(data, self._fields, 2)

    def _find(self, field):
        """Return where the field's value stands, 0 when the table does not have it."""
        slot = 4 + 2 * field
        if slot + 2 > self._size:
            return 0
        offset = _unsigned(self._data, self._fields + slot, 2)
        return self._at + offset if offset else 0

    def signed(self, field, size, default=0):
        """Return an integer field of `size` bytes."""
        at = self._find(field)
        return signed(self._data, at, size) if at else default

    def unsigned(self, field, size, default=0):
        """Return an unsigned integer, boolean or enumeration field of `size` bytes."""
        at = self._find(field)
        return _unsigned(self._data, at, size) if at else default

    def table(self, field):
        """Return a sub-table, or None."""
        at = self._find(field)
        return Table(self._data, at + _unsigned(self._data, at, 4)) if at else None

    def vector(self, field, size):
        """Return the memoryview over a vector whose elements have `size` bytes, empty if absent."""
        at = self._find(field)
        if not at:
            return self._data[0:0]
        at += _unsigned(self._data, at, 4)
        length = _unsigned(self._data, at, 4) * size
        if length > len(self._data) - at - 4:
            raise ModelError("model.file", "a vector runs past the end")
        return self._data[at + 4 : at + 4 + length]

    def integers(self, field, limit):
        """Return a vector of 32-bit integers as a tuple of at most `limit` numbers."""
        raw = self.vector(field, 4)
        if len(raw) > 4 * limit:
            raise ModelError("model.limit", "%d numbers, at most %d" % (len(raw) // 4, limit))
        return tuple(signed(raw, at, 4) for at in range(0, len(raw), 4))

    def tables(self, field, limit):
        """Return a vector of tables as a list of at most `limit` of them."""
        raw = self.vector(field, 4)
        if len(raw) > 4 * limit:
            raise ModelError("model.limit", "%d tables, at most %d" % (len(raw) // 4, limit))
        if not raw:
            return []
        at = self._find(field)
        at += _unsigned(self._data, at, 4) + 4
        return [
            Table(self._data, i + _unsigned(self._data, i, 4)) for i in range(at, at + len(raw), 4)
        ]
