"""Numbers that are given up, and what of them is signed anew.

A chain takes a board's numbers one behind the other; what it skips, a signed gap must give up.
Every number is used once, also one whose transaction is thinned out before it was ever sent. So
whatever begins here does the same, in this order:

1. a gap is signed under the next number: it gives up all numbers from `first` on;
2. what shall be kept of them is signed again, as a copy behind the gap: from the oldest on;
3. the old ones are let go of, segment by segment, as soon as their copies stand in flash.

The chain takes either what was under the old numbers or the gap, and the copies only behind the
gap: nothing is there twice, even if an old one was sent before. Where old ones became final after
all, the gap does not fit any more, and a second one must take its place. So beside each copy stand
the numbers that its content had before, each with the gap that gave it up: what was final under one
of them is not signed again.

The steps are generators that give way after each signature; whoever runs them sends nothing
meanwhile. A power cut leaves them to `finish`, which goes on behind the last copy.
"""

from . import cbor, cose
from .errors import OutboxFull
from .journal import note_of, transaction_of
from .outbox import ALERT, GAP, MAX_GAP, PACK

REASON_FULL = "outbox full: {} packs and {} alerts dropped"
REASON_LOST = "not in flash any more"
# Of the space: what stays whole of the oldest, and what the thinned rest may take.
OLDEST_PART = 3
KEPT_PART = 5
_MAX_STRIDE_BITS = 20
# Earlier numbers of a copy that are remembered: the first one and the latest.
_MAX_HISTORY = 8


class Gaps:
    """See above.

    Args:
        key: BoardKey.
        chain_id: SHA-256 of the founding file.
        journal: Journal.
    """

    def __init__(self, key, chain_id, journal):
        self._key = key
        self._chain_id = chain_id
        self._journal = journal
        self._outbox = journal.outbox

    def mend(self):
        """Go on where the chain waits for a number that is not in flash any more: a generator."""
        first = self._outbox.dropped
        if self._outbox.next - first > MAX_GAP:
            # Only a gateway that lies can lead here; the chain takes no longer gap.
            first = self._outbox.next - MAX_GAP
        return self._give_up(first, _Choice(0, 0, 0), REASON_LOST)

    def thin(self, sent):
        """Make room: a generator, or None where nothing may go.

        The oldest third stays as it is, and all up to the number `sent`; of the rest the newest
        alerts are kept, each with its pack, and of the other packs every second, fourth, ...
        """
        first = self._thin_from(sent)
        if first is None:
            return None
        choice, packs, alerts = self._choose(first)
        if not packs + alerts:
            return None
        packs, alerts = self._with_earlier(first, packs, alerts)
        reason = REASON_FULL.format(packs, alerts)
        return self._give_up(first, choice, reason, packs, alerts)

    def finish(self):
        """Go on where the power was cut: a generator, or None where all was done."""
        newest = None
        for record in self._outbox.records(data=False):
            if record.kind == GAP:
                newest = record
        if newest is None:
            return None
        for _ in self._outbox.records(newest.first, dead=True, data=False):
            note = note_of(self._whole(newest, False))
            return self._copy(newest.first, newest.sequence, _Choice(*note[:3]))
        return None

    def _give_up(self, first, choice, reason, packs=0, alerts=0):
        journal, outbox = self._journal, self._outbox
        journal.busy = True
        try:
            journal.save_note()
            outbox.rotate()  # so that the old ones share no segment with the copies
            number = outbox.next
            payload = cbor.encode({"from": first, "reason": reason})
            note = [choice.stride_bits, choice.alerts_from, choice.named_from, packs, alerts]
            self._append(cose.GAP, payload, note, GAP, first=first)
            yield number
            for copied in self._copy(first, number, choice):
                yield copied
        finally:
            journal.busy = False

    def _copy(self, first, number, choice):
        """Sign anew what is chosen of the numbers from `first` to the gap's own."""
        self._journal.busy = True
        try:
            last, copied_pack = self._last_copy(number)
            pack = (0, 0)  # old and new number of the pack before, which its alerts name
            for record, wanted in self._chosen(first, number, choice):
                if record.origin == copied_pack[0]:
                    pack = (record.sequence, copied_pack[1])
                if wanted and record.origin > last:
                    copy = self._sign_anew(record, first, number, pack)
                    if copy is not None:
                        if record.kind == PACK:
                            pack = (record.sequence, copy)
                        yield copy
                self._outbox.release(first, record.sequence + 1)
            self._outbox.release(first, number)
        finally:
            self._journal.busy = False

    def _sign_anew(self, record, first, gap, pack):
        """Sign a record's content under the next number.

        None where it is final by now, or cannot be read any more, or there is no room for it.
        """
        whole = self._whole(record, True)
        if whole is None:
            return None
        history = [] if whole.origin == whole.sequence else note_of(whole)
        for at in range(0, len(history), 2):
            if history[at] < first <= history[at + 1]:
                return None
        history += [whole.sequence, gap]
        if len(history) > 2 * _MAX_HISTORY:
            history[2:4] = []
        content_type, payload = cose.split(transaction_of(whole))
        if whole.kind == ALERT and pack[0]:
            fields = cbor.decode(payload, len(payload))
            if fields["pack"] == pack[0]:
                fields["pack"] = pack[1]
                payload = cbor.encode(fields)
        number = self._outbox.next
        try:
            self._append(content_type, payload, history, whole.kind, origin=whole.origin)
        except OutboxFull:
            return None
        return number

    def _whole(self, record, dead):
        """The record with its bytes; None where they cannot be read."""
        for whole in self._outbox.records(record.sequence, dead=dead):
            return whole if whole.sequence == record.sequence else None
        return None

    def _append(self, content_type, payload, note, kind, **options):
        outbox = self._outbox
        data = cose.sign1(
            self._key, content_type, payload, self._chain_id, outbox.next, outbox.dropped
        )
        self._journal.append(outbox.next, data, note, kind, spare=True, **options)

    def _last_copy(self, number):
        """The last copied origin behind the gap, and (origin, number) of the last copied pack."""
        last, pack = 0, (0, 0)
        for record in self._outbox.records(number + 1, data=False):
            if record.origin < number:
                last = record.origin
                if record.kind == PACK:
                    pack = (record.origin, record.sequence)
        return last, pack

    def _chosen(self, first, number, choice):
        """Yield (record, whether it is to be kept) of the old ones, bytes not read."""
        held = None
        for record in self._outbox.records(first, dead=True, data=False):
            if record.sequence >= number:
                break
            if self._outbox.is_dead(record.sequence, before=number):
                continue  # what is worth it was signed anew behind that gap
            if held is not None:
                yield held, choice.keeps(held, record)
            held = record
        if held is not None:
            yield held, choice.keeps(held, None)

    # What to keep -------------------------------------------------------------------------

    def _thin_from(self, sent):
        """The number from which on may be thinned: where a segment begins; None for nowhere."""
        room = self._outbox.max_bytes // OLDEST_PART
        least = max(sent + 1, self._outbox.next - MAX_GAP)
        for first, size in self._outbox.starts():
            if room <= 0 and first >= least:
                return first
            room -= size
        return None

    def _choose(self, first):
        """Choose what to keep from `first` on: (choice, packs dropped, alerts dropped)."""
        budget = self._outbox.max_bytes // KEPT_PART
        choice = _Choice(0, 0, 0)
        budget -= self._choose_alerts(first, choice, budget // 2)
        budget -= self._choose_named(first, choice, budget * 3 // 4)
        self._choose_stride(first, choice, budget)
        packs = alerts = 0
        for record, following in self._living(first):
            if record.kind != GAP and not choice.keeps(record, following):
                packs += record.kind == PACK
                alerts += record.kind == ALERT
        return choice, packs, alerts

    def _choose_alerts(self, first, choice, budget):
        """The newest alerts that fit; returns their bytes."""
        size = sum(record.size for record, _ in self._living(first) if record.kind == ALERT)
        for record, _ in self._living(first):
            if size <= budget:
                break
            if record.kind == ALERT:
                size -= record.size
                choice.alerts_from = record.sequence + 1
        return size

    def _choose_named(self, first, choice, budget):
        """The packs of the newest of these; returns their bytes."""
        size = 0
        for record, following in self._living(first):
            if record.kind == PACK and choice.is_named(following):
                size += record.size
        for record, following in self._living(first):
            if size <= budget:
                break
            if record.kind == PACK and choice.is_named(following):
                size -= record.size
                choice.named_from = following.sequence + 1
        return size

    def _choose_stride(self, first, choice, budget):
        """Of the other packs every second, fourth, ...: by how often 2 divides their number."""
        by_bits = [0] * (_MAX_STRIDE_BITS + 1)
        for record, following in self._living(first):
            if record.kind == PACK and not choice.is_named(following):
                by_bits[_twos(record.origin)] += record.size
        bits = 1
        while bits < _MAX_STRIDE_BITS and sum(by_bits[bits:]) > budget:
            bits += 1
        choice.stride_bits = bits

    def _living(self, first):
        """Yield (record, the one behind it or None) from `first` on."""
        held = None
        for record in self._outbox.records(first, data=False):
            if held is not None:
                yield held, record
            held = record
        if held is not None:
            yield held, None

    def _with_earlier(self, first, packs, alerts):
        """Add what the gaps say that this one takes the place of."""
        for record in self._outbox.records(first):
            if record.kind == GAP:
                note = note_of(record)
                packs += note[3]
                alerts += note[4]
        return packs, alerts


class _Choice:
    """Which of the old ones are kept.

    Alerts from a number on, the packs of the latest of them, and of the other packs those whose
    first number 2 divides `stride_bits` times.
    """

    def __init__(self, stride_bits, alerts_from, named_from):
        self.stride_bits = stride_bits
        self.alerts_from = alerts_from
        self.named_from = named_from

    def keeps(self, record, following):
        if record.kind == ALERT:
            return record.sequence >= self.alerts_from
        if record.kind == PACK:
            return _twos(record.origin) >= self.stride_bits or self.is_named(following)
        return False

    def is_named(self, following):
        """Whether the pack before `following` is the one of an alert that is kept."""
        return (
            following is not None
            and following.kind == ALERT
            and following.sequence >= max(self.alerts_from, self.named_from)
        )


def _twos(number):
    """How many times 2 divides the number, up to _MAX_STRIDE_BITS."""
    bits = 0
    while bits < _MAX_STRIDE_BITS and not number >> bits & 1:
        bits += 1
    return bits
