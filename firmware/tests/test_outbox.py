# ruff: noqa: SLF001 - a test may look inside
"""The outbox: nothing receipted is kept, nothing else is lost, no number is used twice.

The power is cut at every single write of a session, under littlefs and FAT.
"""

import os

import vfs
from fogline import outbox as outbox_module
from fogline.errors import OutboxError, OutboxFull
from fogline.outbox import GAP, MIN_BYTES, Outbox
from power_cut import Flash, PowerCut
from support import raises

NEEDS = ("littlefs",)
TEST_NEEDS = {"test_power_cut_at_every_write_under_littlefs": ("fast",)}
MOUNT = "/flash"
DIRECTORY = MOUNT + "/outbox"
# After which number a receipt comes in a session, and what it says: some let go of everything.
RECEIPTS = {3: 2, 8: 6, 10: 11, 12: 12, 14: 15, 15: 16, 16: 17, 20: 18, 24: 25}
LARGEST = outbox_module.MAX_TRANSACTION_BYTES


def content(sequence, generation=0, size=None):
    """A transaction that differs with its number and with each attempt to make it."""
    head = f"{sequence}/{generation};".encode()
    return head + bytes((sequence & 255,)) * ((size or 700 + 350 * (sequence % 5)) - len(head))


def waiting(box, start=0):
    return [(record.sequence, record.data) for record in box.records(start)]


def expected(first, last):
    return [(sequence, content(sequence)) for sequence in range(first, last + 1)]


def fill(box, first, last):
    for sequence in range(first, last + 1):
        box.append(sequence, content(sequence))


class Mounted:
    """A fresh or restarted flash at MOUNT for one `with` block."""

    def __init__(self, flash):
        self._flash = flash

    def __enter__(self):
        self._flash.mount(MOUNT)
        return self._flash

    def __exit__(self, *_):
        vfs.umount(MOUNT)


def fresh():
    return Mounted(Flash(vfs.VfsLfs2))


def sizes():
    return [os.stat(DIRECTORY + "/" + name)[6] for name in os.listdir(DIRECTORY)]


def test_keeps_order_and_bytes_over_restarts():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        assert (box.next, box.dropped, box.waiting) == (1, 1, 0)
        fill(box, 1, 20)
        assert waiting(box) == expected(1, 20)
        assert waiting(box, 15) == expected(15, 20)
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert (box.next, box.waiting, box.lost) == (21, 20, 0)
        assert waiting(box) == expected(1, 20)


def test_receipts_free_the_flash_and_the_number_goes_on():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        for sequence in range(1, 200):
            box.append(sequence, content(sequence))
            if sequence % 7 == 0:
                box.drop_below(sequence - 2)
                assert waiting(box) == expected(sequence - 2, sequence)
            assert sum(sizes()) <= MIN_BYTES
        box.drop_below(200)
        assert waiting(box) == []
        assert len(sizes()) == 1
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert box.next == 200
        assert box.waiting == len(waiting(box)) < 10
        box.append(200, content(200))
        box.drop_below(200)
        box.append(201, content(201))
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert (box.dropped, waiting(box)) == (200, expected(200, 201))


def test_what_is_dropped_meanwhile_is_not_sent():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 20)
        sent = []
        for record in box.records():
            sequence = record.sequence
            assert record.data == content(sequence)
            sent.append(sequence)
            if sequence == 3:
                box.drop_below(15)
            if sequence == 16:
                fill(box, 21, 22)
        assert sent[:3] == [1, 2, 3]
        assert sent[3:] == list(range(15, 23))


def test_an_old_receipt_does_nothing():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 5)
        box.drop_below(4)
        box.drop_below(2)
        assert box.dropped == 4
        assert waiting(box) == expected(4, 5)


def test_full_is_an_error_until_a_receipt_comes():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        sequence = 1
        try:
            while True:
                box.append(sequence, content(sequence))
                sequence += 1
        except OutboxFull as error:
            assert error.code == "outbox.full"
        assert box.next == sequence
        assert sum(sizes()) <= MIN_BYTES
        assert waiting(box) == expected(1, sequence - 1)
        box.drop_below(sequence // 2)
        box.append(sequence, content(sequence))
        assert waiting(box) == expected(sequence // 2, sequence)


def test_a_full_outbox_without_receipts_does_not_grow():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 20)
        for _ in range(50):
            raises("outbox.full", box.append, 21, content(21, size=LARGEST))
        before = sorted(sizes())
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert sorted(sizes()) == before
        assert box.next == 21


def test_the_largest_transactions():
    with fresh():
        box = Outbox(DIRECTORY, 3 * MIN_BYTES, True)
        for sequence in (1, 2, 3, 4):
            box.append(sequence, content(sequence, size=LARGEST))
        assert [len(data) for _, data in waiting(box)] == [LARGEST] * 4
        raises("outbox.size", box.append, 5, bytes(LARGEST + 1))
        raises("outbox.size", box.append, 5, b"")
        assert Outbox(DIRECTORY, 3 * MIN_BYTES, False).next == 5


def test_a_full_file_system_is_full_and_recovers():
    with fresh() as flash:
        box = Outbox(DIRECTORY, 1 << 20, True)
        sequence = 1
        refused = 0
        while refused < 20:
            try:
                box.append(sequence, content(sequence, size=5000))
                sequence += 1
            except OutboxFull:
                refused += 1
        assert len(os.listdir(DIRECTORY)) < 10
        assert [number for number, _ in waiting(box)] == list(range(1, sequence))
        box.drop_below(sequence)
        box.append(sequence, content(sequence, size=5000))
        assert flash.writes > 0
        assert Outbox(DIRECTORY, 1 << 20, False).next == sequence + 1


def test_numbers_come_in_order():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        for wrong in (0, 2):
            raises("outbox.sequence", box.append, wrong, b"x")
        box.append(1, b"x")
        raises("outbox.sequence", box.append, 1, b"y")
        raises("outbox.bytes", Outbox, DIRECTORY, MIN_BYTES - 1, False)


def test_a_lost_flash_waits_for_a_receipt():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert not box.synced
        raises("outbox.unsynced", box.append, 1, b"x")
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert not box.synced
        box.drop_below(57)
        assert box.synced
        following = box.next
        # What the board had sent before the loss may have any number up to here.
        assert following > 57 + 1024 + 64
        for same in (box, Outbox(DIRECTORY, MIN_BYTES, False)):
            assert (same.next, same.dropped, same.synced) == (following, 57, True)
            assert same.needs_gap()
        box.append(following, content(following), GAP, first=57)
        for same in (box, Outbox(DIRECTORY, MIN_BYTES, False)):
            assert waiting(same) == expected(following, following)
            assert (same.waiting, same.lost, same.dropped) == (1, 0, 57)
            assert not same.needs_gap()


def test_a_receipt_of_a_later_number_raises_the_sequence():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 5)
        box.drop_below(1000)
        following = box.next
        assert following > 2000
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert (box.next, box.dropped, box.lost) == (following, 1000, 0)
        assert waiting(box) == []
        assert box.needs_gap()


def test_a_failed_append_leaves_its_number_free():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 3)
        for _ in range(3):
            outbox_module.open = HalfWritten
            try:
                raises("outbox.write", box.append, 4, content(4, 1))
            finally:
                del outbox_module.open
            assert box.next == 4
        box.append(4, content(4))
        assert waiting(box) == expected(1, 4)
        assert waiting(Outbox(DIRECTORY, MIN_BYTES, False)) == expected(1, 4)


class HalfWritten:
    """A file whose device fails behind the first half of a transaction."""

    def __init__(self, path, mode):
        self._file = open(path, mode)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        self._file.write(data[: len(data) // 2] if len(data) > 32 else data)
        if len(data) > 32:
            raise OSError(5, "EIO")

    def flush(self):
        self._file.flush()


def test_an_append_that_failed_after_its_bytes_were_written_is_not_sent():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 3)
        box.append(4, content(4, 1))
        # As if the flush had failed: the caller is told so, the bytes are in flash.
        box.next = box._segments[-1].end = 4
        box._torn = True
        box.append(4, content(4, 2))
        box.append(5, content(5))
        for same in (box, Outbox(DIRECTORY, MIN_BYTES, False)):
            assert waiting(same, 4) == [(4, content(4, 2)), (5, content(5))]
            assert waiting(same)[:3] == expected(1, 3)
            assert same.lost == 0


def test_a_tail_cut_at_any_byte_is_ignored():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        for sequence in (1, 2, 3):
            box.append(sequence, content(sequence, size=40))
        path = DIRECTORY + "/" + os.listdir(DIRECTORY)[0]
        with open(path, "rb") as file:
            whole = file.read()
        for size in range(len(whole) + 1):
            for tail in (b"", b"\x00" * 99, b"\xff" * 99, whole[32:80]):
                for name in os.listdir(DIRECTORY):
                    os.remove(DIRECTORY + "/" + name)
                with open(path, "wb") as file:
                    file.write(whole[:size] + tail)
                records = max(0, (size - 32) // 72)
                # With its header whole and bytes enough, it may be one that was damaged.
                torn = tail and size > 32 and (size - 32) % 72 >= 20
                check_cut_tail(records, size >= 32, torn)


def check_cut_tail(records, marked, torn):
    box = Outbox(DIRECTORY, MIN_BYTES, False)
    stored = [(sequence, content(sequence, size=40)) for sequence in range(1, records + 1)]
    assert waiting(box) == stored
    used = box.lost
    assert used == 0 or (torn and used == 1)
    assert box.synced == marked
    if marked:
        following = records + 1 + used
        assert box.next == following
        box.append(following, b"new")
        stored.append((following, b"new"))
        assert waiting(Outbox(DIRECTORY, MIN_BYTES, False)) == stored


def test_a_damaged_header_ends_its_segment_only():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 22)
        first = sorted(os.listdir(DIRECTORY))[0]
        with open(DIRECTORY + "/" + first, "rb") as file:
            data = bytearray(file.read())
        data[32 + 10] ^= 1  # the first transaction's number
        with open(DIRECTORY + "/" + first, "wb") as file:
            file.write(data)
        readable = waiting(box)
        assert 0 < len(readable) < 22
        box = Outbox(DIRECTORY, MIN_BYTES, False)
        assert waiting(box) == readable == expected(23 - len(readable), 22)
        assert box.next == 23
        assert box.lost == 22 - len(readable)
        assert box.needs_gap()


def test_a_damaged_transaction_costs_itself_only():
    with fresh():
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        for sequence in range(1, 6):
            box.append(sequence, content(sequence, size=200))
        path = DIRECTORY + "/" + os.listdir(DIRECTORY)[0]
        with open(path, "rb") as file:
            data = bytearray(file.read())
        for number, left in ((3, [1, 2, 4, 5]), (5, [1, 2, 3, 4])):
            damaged = bytearray(data)
            damaged[32 + 232 * (number - 1) + 32 + 7] ^= 1
            with open(path, "wb") as file:
                file.write(damaged)
            # Noticed while it runs, and at a start.
            for same in (box, Outbox(DIRECTORY, MIN_BYTES, False)):
                assert [found for found, _ in waiting(same)] == left
                assert [record.sequence for record in same.records(data=False)] == left
                assert same.next == 6  # the last one's number may have been sent
            assert same.lost == 1
            box = Outbox(DIRECTORY, MIN_BYTES, False)
            box._damaged.clear()


def test_foreign_files_are_left_alone():
    with fresh():
        os.mkdir(DIRECTORY)
        for name in ("readme.txt", "zzzzzzzz.box", "00000000.box", "1.box"):
            with open(DIRECTORY + "/" + name, "wb") as file:
                file.write(b"keep")
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 3)
        box.drop_below(4)
        assert len(os.listdir(DIRECTORY)) == 5


def session(box, told):
    """A board's life: appends and receipts; `told` is what the board knows to be in flash."""
    for sequence in range(1, 26):
        told["trying"] = sequence
        box.append(sequence, content(sequence))
        told["stored"] = sequence
        told["signed"] = box.dropped
        if sequence in RECEIPTS:
            told["receipt"] = RECEIPTS[sequence]
            box.drop_below(RECEIPTS[sequence])


def check_after_cut(told, generation=1):
    """Open the outbox after a power cut, hold it against `told`, and go on."""
    box = Outbox(DIRECTORY, MIN_BYTES, told["stored"] == 0)
    assert box.next in (told["stored"] + 1, told["trying"] + 1), told
    assert told["signed"] <= box.dropped <= told["receipt"], told
    assert box.lost == 0
    found = dict(waiting(box))
    for sequence, data in found.items():
        assert data == content(sequence), told
    for sequence in range(told["receipt"], box.next):
        assert sequence in found, told
    # The next number's content is new, and stays.
    following = box.next
    box.append(following, content(following, generation))
    found[following] = content(following, generation)
    again = Outbox(DIRECTORY, MIN_BYTES, False)
    assert again.next == following + 1
    assert dict(waiting(again)) == found
    assert sum(sizes()) <= MIN_BYTES


def cut_at_every_write(kind):
    blank = Flash(kind).data
    cut = 0
    while True:
        cut += 1
        flash = Flash(kind, blank)
        flash.cut = cut
        told = {"trying": 0, "stored": 0, "signed": 0, "receipt": 1}
        with Mounted(flash):
            try:
                session(Outbox(DIRECTORY, MIN_BYTES, True), told)
            except (PowerCut, OutboxError):  # the file system may notice first
                assert flash.off
        if not flash.off:
            break
        with Mounted(flash.restarted()):
            check_after_cut(told)
    assert cut > 100, cut
    return cut


def test_power_cut_at_every_write_under_littlefs():
    cut_at_every_write(vfs.VfsLfs2)


def test_power_cut_at_every_write_under_fat():
    cut_at_every_write(vfs.VfsFat)


def test_a_device_that_fails_is_an_error_of_ours():
    with fresh() as flash:
        box = Outbox(DIRECTORY, MIN_BYTES, True)
        fill(box, 1, 3)
        flash.broken = True
        for call in (lambda: box.append(4, b"x"), lambda: waiting(box)):
            try:
                call()
            except OutboxError:
                continue
            raise AssertionError("expected OutboxError")
        flash.broken = False
        box.append(4, content(4))
        assert waiting(box) == expected(1, 4)
