"""Numbers that are given up: the chain goes on, and takes nothing twice.

A little chain stands here for the ledger: it takes a transaction only where the number is the
board's next, or a gap begins there. The power is cut at every operation of the flash, in four
ways, and again while the board recovers.
"""

import os

import vfs
from fogline import cbor, cose
from fogline.errors import OutboxError, OutboxFull
from fogline.flash import Flash as Files
from fogline.gaps import Gaps
from fogline.journal import Journal
from fogline.outbox import ALERT, GAP, MIN_BYTES, PACK, Outbox
from power_cut import MODES, Flash, PowerCut
from support import Random

NEEDS = ("littlefs",)
TEST_NEEDS = {
    "test_power_cuts_while_it_mends": ("fast",),
    "test_power_cuts_while_it_thins": ("fast",),
    "test_power_cuts_while_it_thins_a_second_time": ("fast",),
    "test_thinned_over_and_over_it_spans_the_whole_time_within_its_bounds": ("fast",),
    "test_what_turns_up_after_all_is_not_taken_twice": ("fast",),
}
MOUNT = "/gaps"
CHAIN_ID = bytes(32)
PACK_BYTES = 700
LARGE_BYTES = 2200  # fewer of them fill the outbox
BLOCKS = 32
PAGE = {"progsize": 256}  # as on RP2
ENDLESS = 10_000


class Key:
    """A key that costs nothing: no signature is checked here."""

    kid = bytes(8)

    def sign(self, digest):
        return digest + digest


class Board:
    """The board's part that signs and keeps, on the flash at MOUNT."""

    def __init__(self, new=False, max_bytes=MIN_BYTES):
        self.box = Outbox(MOUNT + "/outbox", max_bytes, new)
        self.journal = Journal(self.box, Files(MOUNT))
        self.gaps = Gaps(Key(), CHAIN_ID, self.journal)
        run(self.gaps.finish())
        note = self.journal.note
        self.row = note[0] if note else 0  # of the next pack

    def append(self, kind, payload, note):
        journal = self.journal
        content_type = cose.ALERT if kind == ALERT else cose.PACK
        data = cose.sign1(Key(), content_type, payload, CHAIN_ID, journal.next, journal.dropped)
        if not journal.has_room(len(data), note):
            raise OutboxFull("outbox.full")
        journal.append(journal.next, data, note, kind)
        return journal.next - 1

    def pack(self, size=PACK_BYTES):
        """Store the next pack; its content is its row. Returns its number."""
        row = self.row
        payload = cbor.encode([row, bytes(size)])
        number = self.append(PACK, payload, [row + 1])
        self.row += 1
        return number

    def alert(self, pack):
        """Store an alert on a pack; its content is the row behind that of the pack, negative."""
        fields = {"time": self.row, "model": bytes(32), "score": 1, "threshold": 1, "pack": pack}
        return self.append(ALERT, cbor.encode(fields), [self.row])

    def thin(self, sent=0):
        return run(self.gaps.thin(sent))


def run(steps):
    """Run a generator to its end; returns whether there was one."""
    if steps is None:
        return False
    for _ in steps:
        pass
    return True


class Chain:
    """What the ledger made final: by number, (kind, content)."""

    def __init__(self):
        self.next = 1
        self.final = {}

    def take(self, data):
        """Take a transaction, if its turn has come; returns whether it had."""
        protected, _, payload, _ = cbor.decode(data, len(data)).value
        header = cbor.decode(protected, 1024)
        number = header[-65537]
        assert header[-65538] <= number
        content_type, fields = header[3], cbor.decode(payload, len(payload))
        first = fields["from"] if content_type == cose.GAP else number
        if first != self.next:
            return False
        if content_type == cose.GAP:
            assert 0 < number - first <= 1 << 20
            self.final[number] = (GAP, fields)
        elif content_type == cose.ALERT:
            assert fields["pack"] < number
            self.final[number] = (ALERT, fields)
        else:
            self.final[number] = (PACK, fields[0])
        self.next = number + 1
        return True

    def rows(self):
        return [content for kind, content in self.contents() if kind == PACK]

    def alerts(self):
        return [content for kind, content in self.contents() if kind == ALERT]

    def contents(self):
        return [self.final[number] for number in sorted(self.final)]

    def drain(self, board):
        """Take all that waits, with a receipt after each, as over a slow line."""
        for _ in range(ENDLESS):
            board.box.drop_below(self.next)
            if board.box.needs_gap():
                run(board.gaps.mend())
            before = self.next
            for _, _, data in board.journal.pending(0):
                if not self.take(data):
                    break
            if self.next == before:
                break
        board.journal.drop_below(self.next)
        assert board.box.waiting == 0, (self.next, board.box.next)


class Mounted:
    """A fresh or restarted flash at MOUNT for one `with` block."""

    def __init__(self, flash=None):
        self.flash = flash or Flash(vfs.VfsLfs2, blocks=BLOCKS, **PAGE)

    def __enter__(self):
        self.flash.mount(MOUNT)
        return self.flash

    def __exit__(self, *_):
        vfs.umount(MOUNT)


def fill(board, size=PACK_BYTES):
    """Store packs until there is no room; returns how many."""
    count = 0
    try:
        while True:
            board.pack(size)
            count += 1
    except OutboxFull:
        return count


def sizes():
    folder = MOUNT + "/outbox/"
    return sum(os.stat(folder + name)[6] for name in os.listdir(folder))


# Thinning -------------------------------------------------------------------------------------


def test_a_full_outbox_keeps_the_oldest_and_thins_the_rest():
    with Mounted():
        board = Board(True)
        count = fill(board)
        assert board.thin()
        assert fill(board) > count // 8
        last = board.row - 1
        chain = Chain()
        chain.drain(board)
        rows = chain.rows()
        assert rows == sorted(set(rows))
        # The oldest third whole, then gaps, then the newest whole.
        third = count // 3
        assert rows[:third] == list(range(third))
        assert rows[-1] == last
        ((_, gap),) = [item for item in chain.contents() if item[0] == GAP]
        assert gap["reason"] == f"outbox full: {last + 1 - len(rows)} packs and 0 alerts dropped"


def test_thinned_over_and_over_it_spans_the_whole_time_within_its_bounds():
    with Mounted():
        board = Board(True)
        fill(board)
        for _ in range(30):
            assert board.thin()
            assert fill(board)
            assert sizes() <= MIN_BYTES
        last = board.row - 1
        board = Board()
        assert board.row == last + 1
        assert board.box.lost == 0
        chain = Chain()
        chain.drain(board)
        rows = chain.rows()
        assert rows == sorted(set(rows))
        assert rows[-1] == last > 250
        half = rows.index(max(row for row in rows[:40] if row == rows.index(row)))
        steps = [b - a for a, b in zip(rows[half:], rows[half + 1 :])]
        # Evenly over the outage; nothing but the newest part is denser.
        assert max(steps) <= (last + 1) // 4, steps
        assert len([step for step in steps if step > 1]) > 8, steps
        gaps = [fields for kind, fields in chain.contents() if kind == GAP]
        assert len(gaps) == 1
        dropped = last + 1 - len(rows)
        assert gaps[0]["reason"] == f"outbox full: {dropped} packs and 0 alerts dropped"


def test_the_newest_alerts_stay_with_their_packs():
    with Mounted():
        board = Board(True)
        random = Random(7)
        told = []  # rows of the packs that alerts are about
        for _ in range(6):
            try:
                while True:
                    pack = board.pack()
                    if random.below(5) == 0:
                        board.alert(pack)
                        told.append(board.row)
            except OutboxFull:
                assert board.thin()
        chain = Chain()
        chain.drain(board)
        alerts = chain.alerts()
        times = [alert["time"] for alert in alerts]
        assert times == sorted(set(times))
        newest = told[-8:]
        assert times[-8:] == newest
        # An alert names its pack by the number that it has now, where that is there.
        named = 0
        for alert in alerts:
            kind, row = chain.final.get(alert["pack"], (None, None))
            if kind == PACK:
                assert row == alert["time"] - 1
                named += 1
        assert named >= 6
        assert chain.final[alerts[-1]["pack"]] == (PACK, alerts[-1]["time"] - 1)


def test_what_was_sent_is_not_touched():
    with Mounted():
        board = Board(True)
        count = fill(board)
        assert not board.thin(sent=count)
        sent = count * 3 // 4
        assert board.thin(sent)
        assert [record.sequence for record in board.box.records()][:sent] == list(
            range(1, sent + 1)
        )


def test_a_second_outage_behind_a_gap_that_is_final():
    with Mounted():
        board = Board(True)
        fill(board)
        board.thin()
        fill(board)
        chain = Chain()
        for _, _, data in board.journal.pending(0):
            assert chain.take(data)
            if len(chain.final) == 32:  # some copies are final, some are not
                break
        assert [kind for kind, _ in chain.contents()].count(GAP) == 1
        board.journal.drop_below(chain.next)
        for _ in range(5):
            fill(board)
            assert board.thin()
        last = board.row
        board.pack()
        chain.drain(board)
        rows = chain.rows()
        assert rows == sorted(set(rows))
        assert rows[-1] == last
        assert len([kind for kind, _ in chain.contents() if kind == GAP]) == 2


# Losses ---------------------------------------------------------------------------------------


def damage(number):
    """Destroy the transaction of this number, with what stands behind it in its segment."""
    folder = MOUNT + "/outbox/"
    for name in sorted(os.listdir(folder)):
        with open(folder + name, "rb") as file:
            data = bytearray(file.read())
        at = 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 2], "big")
            if length and int.from_bytes(data[at + 4 : at + 12], "big") == number:
                data[at + 40] ^= 0xFF
                with open(folder + name, "wb") as file:
                    file.write(data)
                return
            at += 32 + length
    raise AssertionError("no such number")


def stored(count, alerts=()):
    board = Board(True)
    for _ in range(count):
        number = board.pack()
        if number in alerts:
            board.alert(number)
    return board


def test_a_lost_transaction_is_given_up_and_nothing_else():
    for lost in (1, 7, 12, 20):
        with Mounted():
            stored(20)
            damage(lost)
            board = Board()
            gone = set(range(20)) - {
                cbor.decode(cose.split(data)[1], 4096)[0] for _, _, data in board.journal.pending(0)
            }
            assert gone == {lost - 1}
            chain = Chain()
            chain.drain(board)
            assert chain.rows() == [row for row in range(20) if row not in gone]
            reasons = [fields["reason"] for kind, fields in chain.contents() if kind == GAP]
            assert reasons == ["not in flash any more"]


def test_two_losses_take_two_gaps():
    with Mounted():
        stored(24, alerts=(3, 9, 15))
        damage(4)
        damage(18)
        board = Board()
        chain = Chain()
        chain.drain(board)
        rows = chain.rows()
        assert rows == sorted(set(rows))
        assert rows == [row for row in range(24) if row != 14]
        assert [alert["time"] for alert in chain.alerts()] == [8, 13]
        assert len([kind for kind, _ in chain.contents() if kind == GAP]) in (1, 2)
        for alert in chain.alerts():
            kind, row = chain.final.get(alert["pack"], (None, None))
            assert kind != PACK or row == alert["time"] - 1


def test_what_turns_up_after_all_is_not_taken_twice():
    """The gateway has some of them already, and the chain takes these before the gap."""
    for sent in (0, 1, 2, 5, 9):
        for lost in (1, 4, 8):
            with Mounted():
                board = stored(20)
                early = [data for _, _, data in board.journal.pending(0)][lost - 1 : lost + sent]
                chain = Chain()
                for _, _, data in board.journal.pending(0):
                    if chain.next == lost:
                        break
                    chain.take(data)
                damage(lost)
                board = Board()
                board.journal.drop_below(chain.next)
                assert board.box.needs_gap()
                run(board.gaps.mend())
                gap = next(board.journal.pending(0))[2]
                for data in early:
                    assert chain.take(data)
                assert not chain.take(gap)
                chain.drain(Board())
                rows = chain.rows()
                assert rows == sorted(set(rows)), (sent, lost, rows)
                assert rows[:sent] == list(range(sent))
                assert rows[-1] == 19


def test_a_lost_flash_goes_on_where_nothing_sent_can_be_met():
    with Mounted():
        chain = Chain()
        board = stored(9)
        sent = [data for _, _, data in board.journal.pending(0)]
        for data in sent[:5]:
            chain.take(data)
    used = {6, 7, 8, 9}
    for _ in range(3):  # and lost again before the gap was final
        with Mounted():
            board = Board()
            assert not board.box.synced
            board.journal.drop_below(chain.next)
            assert board.box.needs_gap()
            run(board.gaps.mend())
            board.pack()
            numbers = [record.sequence for record in board.box.records()]
            assert not used & set(numbers[:1])
            used |= set(numbers[:1])  # what is behind the gap is not sent before its receipt
    with Mounted():
        board = Board()
        board.journal.drop_below(chain.next)
        run(board.gaps.mend())
        for data in sent[5:7]:  # late, and before the gap
            assert chain.take(data)
        board.pack()
        chain.drain(board)
        assert [kind for kind, _ in chain.contents()].count(GAP) == 1
        assert chain.rows()[:7] == list(range(7))


def test_a_flash_of_an_older_day_goes_on_too():
    with Mounted() as flash:
        board = stored(6)
        old = bytes(flash.data)
        for _ in range(5):
            board.pack()
        chain = Chain()
        chain.drain(board)
    with Mounted(Flash(vfs.VfsLfs2, old, **PAGE)):
        board = Board()
        assert board.box.next == 7
        board.pack()
        chain.drain(board)
        board.pack()
        chain.drain(board)
        assert chain.contents()[11][0] == GAP


# Power cuts -----------------------------------------------------------------------------------


def full_with_alerts():
    """A full outbox with alerts, ready to be thinned."""
    board = Board(True)
    try:
        while True:
            pack = board.pack(LARGE_BYTES)
            if pack % 5 == 0:
                board.alert(pack)
    except OutboxFull:
        return


def thinned_once():
    full_with_alerts()
    board = Board()
    board.thin()
    fill(board, LARGE_BYTES)


def with_a_loss():
    stored(10, alerts=(3, 7))
    damage(5)


def work_thin(board, told):
    """Thin, and go on sampling."""
    board.thin()
    told["trying"] = board.row
    number = board.pack()
    told["stored"] = board.row
    board.alert(number)


def work_mend(board, told):
    """Deliver up to the loss, mend it, and go on."""
    board.journal.drop_below(told["chain"].next)
    if board.box.needs_gap():
        run(board.gaps.mend())
    told["trying"] = board.row
    board.pack()
    told["stored"] = board.row


def image(prepare):
    with Mounted() as flash:
        prepare()
        board = Board()
        chain = Chain()
        if prepare is with_a_loss:
            for _, _, data in board.journal.pending(0):
                if not chain.take(data):
                    break
        rows = rows_of(board)
    return bytes(flash.data), chain, rows


def rows_of(board):
    return [
        cbor.decode(cose.split(data)[1], 4096)[0]
        for _, _, data in board.journal.pending(0)
        if cose.split(data)[0] == cose.PACK
    ]


def attempt(data, cut, mode, work, told):
    """One life of the board on this flash; returns (flash, whether the power held)."""
    flash = Flash(vfs.VfsLfs2, data, **PAGE)
    flash.cut, flash.mode = cut, mode
    with Mounted(flash):
        try:
            work(Board(), told)
        except (PowerCut, OutboxError, OSError):
            assert flash.off, "the board failed though the power was on"
    return flash, not flash.off


def after(flash, told, chain, rows, keeps_all):
    """The board starts once more, and the chain takes all."""
    with Mounted(flash.restarted()):
        board = Board()
        assert board.row in (told["stored"], told["trying"] + 1), told
        try:
            board.pack()
        except OutboxFull:
            assert board.thin()
            board.pack()
        last = board.row - 1
        copy = Chain()
        copy.next, copy.final = chain.next, dict(chain.final)
        copy.drain(board)
        taken = copy.rows()
        assert taken == sorted(set(taken)), taken
        assert taken[-1] == last
        newest = list(range(told["base"], told["stored"]))
        assert not newest or newest[-1] in taken
        if keeps_all:
            assert set(rows) <= set(taken), set(rows) - set(taken)
            assert set(newest) <= set(taken)


def cut_everywhere(prepare, work, keeps_all, modes, every, step=1):
    """Cut at every operation of `work`, so often in other ways; at every so many again.

    `step`: at every so many operations alone, where a target is slow.
    """
    data, chain, rows = image(prepare)
    with Mounted(Flash(vfs.VfsLfs2, data, **PAGE)):
        base = Board().row
    cut = again = 0
    held = False
    while not held:
        cut += step
        for way in range(modes):
            told = {"trying": base, "stored": base, "base": base, "chain": chain}
            mode = MODES[(cut + way) % len(MODES)]
            flash, held = attempt(data, cut, mode, work, told)
            if held:
                break
            after(flash, told, chain, rows, keeps_all)
            if cut % every or way:
                continue
            # The power fails in the recovery, too: at each of its operations.
            second, whole = 0, False
            while not whole:
                second += 1
                other = MODES[(cut + second) % len(MODES)]
                cut_again, whole = attempt(flash.data, second, other, lambda *_: None, told)
                if not whole:
                    again += 1
                    after(cut_again, told, chain, rows, keeps_all)
    return cut, again


def test_some_power_cuts():
    assert cut_everywhere(with_a_loss, work_mend, True, 1, ENDLESS, 29)[0] > 29


def test_power_cuts_while_it_thins():
    cuts, again = cut_everywhere(full_with_alerts, work_thin, False, 2, 5)
    assert cuts > 50, cuts
    assert again > 30, again


def test_power_cuts_while_it_thins_a_second_time():
    cuts, _ = cut_everywhere(thinned_once, work_thin, False, 1, 25)
    assert cuts > 50, cuts


def test_power_cuts_while_it_mends():
    cuts, again = cut_everywhere(with_a_loss, work_mend, True, 2, 5)
    assert cuts > 30, cuts
    assert again > 30, again
