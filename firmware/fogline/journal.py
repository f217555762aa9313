"""The outbox with a note beside each transaction: what the board must know to go on behind it.

Note and transaction become durable in one write. Before anything goes from the outbox, by a
receipt or by a gap, the newest note is saved in a file of its own. So after a reset at any
moment the newest note is that of the last pack or alert that was ever stored.
"""

import struct

from . import cbor
from .errors import OutboxError
from .outbox import GAP, PACK

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
        outbox: as given.
        note: the newest note; None without one.
        noted: the number that it stands beside; 0 without one.
        busy: whether numbers are being given up: nothing is sent meanwhile.
    """

    def __init__(self, outbox, flash):
        self.outbox = outbox
        self._flash = flash
        self.noted = 0
        self.note = None
        self.busy = False
        data = flash.load(FILE, MAX_NOTE_BYTES)
        if data is not None:
            self.noted, self.note = cbor.decode(data, MAX_NOTE_BYTES)
        self._saved = self.noted
        # The newest may be among the dead, where the power went before it was saved.
        for dead in (False, True):
            newest = 0
            for record in outbox.records(self.noted + 1, dead, data=False):
                if record.kind != GAP and record.origin == record.sequence:
                    newest = record.sequence
            for record in outbox.records(newest, dead) if newest else ():
                if record.sequence == newest:
                    self.noted, self.note = newest, note_of(record)
                break

    @property
    def next(self):
        """The number for the next transaction."""
        return self.outbox.next

    @property
    def dropped(self):
        """Every transaction with a lower number was dropped."""
        return self.outbox.dropped

    @property
    def synced(self):
        """Whether the next number is known; if not, a receipt must come first."""
        return self.outbox.synced

    @property
    def waiting(self):
        """How many transactions wait for a receipt."""
        return self.outbox.waiting

    def has_room(self, size, note):
        """Whether a transaction of `size` bytes with this note can be stored now."""
        return self.outbox.has_room(_LENGTH_BYTES + len(_encoded(note)) + size)

    def append(self, sequence, transaction, note, kind=PACK, **options):
        """Store a transaction as `Outbox.append` does, and its note, or None.

        The note of what is no copy (`origin`) and no gap is the newest from then on.
        """
        encoded = _encoded(note)
        record = struct.pack(_LENGTH, len(encoded)) + encoded + transaction
        self.outbox.append(sequence, record, kind, **options)
        if note is not None and kind != GAP and options.get("origin") is None:
            self.noted, self.note = sequence, note

    def pending(self, start):
        """Yield (sequence, first, transaction) of what may be sent, from number `start` on.

        `first` is the number that must be the chain's next for it.
        """
        for record in self.outbox.records(start):
            yield record.sequence, record.first, transaction_of(record)

    def drop_below(self, next_number):
        """Let go of all transactions below `next_number`: a receipt says they are final."""
        self.save_note()
        self.outbox.drop_below(next_number)

    def save_note(self):
        """Put the newest note into its file: what holds it in the outbox may go then."""
        if self.noted == self._saved:
            return
        try:
            self._flash.save(FILE, cbor.encode([self.noted, self.note]))
        except OSError as error:
            raise OutboxError("journal.write", f"OSError {error.args[0]}") from None
        self._saved = self.noted


def note_of(record):
    """The note beside a transaction, or None."""
    size = _note_bytes(record.data)
    if not size:
        return None
    return cbor.decode(record.data[_LENGTH_BYTES : _LENGTH_BYTES + size], MAX_NOTE_BYTES)


def transaction_of(record):
    """The transaction's own bytes."""
    return record.data[_LENGTH_BYTES + _note_bytes(record.data) :]


def _note_bytes(data):
    return struct.unpack(_LENGTH, data[:_LENGTH_BYTES])[0]


def _encoded(note):
    encoded = b"" if note is None else cbor.encode(note)
    if len(encoded) > MAX_NOTE_BYTES:
        raise OutboxError("journal.size", f"{len(encoded)} bytes")
    return encoded
