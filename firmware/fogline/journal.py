"""The outbox with a note beside each pack: what the board must know to go on behind it.

Note and transaction become durable in one write. Only a receipt makes transactions go from
the outbox, and before they do, the newest note is saved in a file of its own. So after a
reset at any moment the newest note is that of the last pack that was ever stored.
"""

import struct

from . import cbor
from .errors import OutboxError

FILE = "journal.bin"
MAX_NOTE_BYTES = 6 * 1024
_LENGTH = ">H"
_LENGTH_BYTES = 2


class Journal:
    """See above.

    Args:
        outbox: Outbox.
        flash: Flash for the file.

    Attributes:
        sequence: number of the last pack that has a note; 0 without one.
        note: that note; None without one.
    """

    def __init__(self, outbox, flash):
        self._outbox = outbox
        self._flash = flash
        self.sequence = 0
        self.note = None
        data = flash.load(FILE, MAX_NOTE_BYTES)
        if data is not None:
            self.sequence, self.note = cbor.decode(data, MAX_NOTE_BYTES)
        self._saved = self.sequence
        for sequence, record in outbox.pending():
            size = _note_bytes(record)
            if size:
                note = record[_LENGTH_BYTES : _LENGTH_BYTES + size]
                self.sequence, self.note = sequence, cbor.decode(note, MAX_NOTE_BYTES)

    @property
    def next(self):
        """The number for the next transaction."""
        return self._outbox.next

    @property
    def dropped(self):
        """Every transaction with a lower number was dropped."""
        return self._outbox.dropped

    @property
    def synced(self):
        """Whether the next number is known; if not, a receipt must come first."""
        return self._outbox.synced

    @property
    def waiting(self):
        """How many transactions wait for a receipt."""
        return self._outbox.waiting

    def append(self, sequence, transaction, note):
        """Store a transaction as `Outbox.append` does, and its note: None for an alert."""
        encoded = b"" if note is None else cbor.encode(note)
        if len(encoded) > MAX_NOTE_BYTES:
            raise OutboxError("journal.size", f"{len(encoded)} bytes")
        record = struct.pack(_LENGTH, len(encoded)) + encoded + transaction
        self._outbox.append(sequence, record)
        if note is not None:
            self.sequence, self.note = sequence, note

    def pending(self, start):
        """Yield (sequence, transaction) of what waits, as `Outbox.pending` does."""
        for sequence, record in self._outbox.pending(start):
            yield sequence, record[_LENGTH_BYTES + _note_bytes(record) :]

    def drop_below(self, next_number):
        """Let go of all transactions below `next_number`: a receipt says they are final."""
        if self.sequence != self._saved:
            try:
                self._flash.save(FILE, cbor.encode([self.sequence, self.note]))
            except OSError as error:
                raise OutboxError("journal.write", f"OSError {error.args[0]}") from None
            self._saved = self.sequence
        self._outbox.drop_below(next_number)


def _note_bytes(record):
    return struct.unpack(_LENGTH, record[:_LENGTH_BYTES])[0]
