"""Releases on the board: what is installed, what is refused, and every power cut on the way."""

import hashlib
import io

from fogline import bundle, cbor, download, update, updates
from fogline.bundle import MAX_MANIFEST_BYTES
from fogline.download import CHUNK_BYTES, MAX_DOWNLOADS, parse_chunk
from fogline.errors import ModelError, RestartNeeded
from fogline.flash import Flash
from fogline.update import MAX_TRIAL_STARTS, TRIAL_VERDICTS, Updater
from support import raises, vectors

# The releases alone take 100 KB.
NEEDS = ("large_heap", "viper")
TEST_NEEDS = {"test_every_power_cut_leaves_the_old_or_the_new_model": ("fast",)}
RELEASES = vectors("releases")
BUNDLES = {name: bytes.fromhex(data) for name, data in RELEASES["bundles"].items()}
ENOENT, ENOSPC = 2, 28
SENT_BYTES = 600
REFUSALS = {
    "device": "update.device",
    "signer": "cose.signer",
    "signature": "cose.signature",
    "selftest": "update.selftest",
    "arena": "update.arena",
    "ops_missing": "update.ops",
    "ops_unsupported": "update.ops: TRANSPOSE",
    "channel": "model.channel",
    "payload": "update.payload",
}


class MemoryFlash(Flash):
    """Flash that stays when the board that had it is gone."""

    def __init__(self):
        super().__init__("")
        self.files = {}

    def size(self, name):
        return len(self.files.get(name, b""))

    def open(self, name):
        if name not in self.files:
            raise OSError(ENOENT)
        return io.BytesIO(self.files[name])

    def _write(self, name, mode, data):
        self.files[name] = (self.files.get(name, b"") if mode == "ab" else b"") + data

    def _rename(self, old, new):
        self.files[new] = self.files.pop(old)

    def _remove(self, name):
        if name not in self.files:
            raise OSError(ENOENT)
        del self.files[name]


class FullFlash(MemoryFlash):
    """Flash that has no room while `full`."""

    full = False

    def _write(self, name, mode, data):
        if self.full:
            raise OSError(ENOSPC)
        super()._write(name, mode, data)


class PowerCut(BaseException):
    """The board is off."""


class FailingFlash(MemoryFlash):
    """Cuts the power at the `fatal`-th change of the flash, which is done in part.

    Part 0 is none of it, part 1 the half of what is written, part 2 all.
    """

    def __init__(self, files, fatal, part):
        super().__init__()
        self.files = files
        self.changes = 0
        self._fatal = fatal
        self._part = part

    def _write(self, name, mode, data):
        if self._count():
            if self._part:
                super()._write(name, mode, data[: len(data) // (3 - self._part)])
            raise PowerCut
        super()._write(name, mode, data)

    def _rename(self, old, new):
        self._whole(super()._rename, old, new)

    def _remove(self, name):
        self._whole(super()._remove, name)

    def _whole(self, change, *arguments):
        cut = self._count()
        try:
            if not cut or self._part == 2:
                change(*arguments)
        finally:
            if cut:
                raise PowerCut

    def _count(self):
        self.changes += 1
        return self.changes == self._fatal


class Board:
    """An updater that has just started, and what it reported."""

    def __init__(self, flash):
        self.reports = []
        self.given_up = None  # the bundle that was rolled back
        self.updater = Updater(
            flash,
            [bytes.fromhex(RELEASES["release_key"])],
            bytes.fromhex(RELEASES["chain_id"]),
            "test",
            RELEASES["channels"],
            self._report,
        )
        self.time_ms = 0
        self.updater.start()

    def _report(self, state, version, digest, reason, bundle=None):
        self.reports.append((state, version, digest, reason))
        self.given_up = bundle or self.given_up

    def states(self):
        return [report[0] for report in self.reports]

    def announce(self, data, version):
        self.updater.announce(announcement(data, version))

    def chunk(self, data):
        self.updater.chunk(parse_chunk(data))

    def download(self, data):
        """Answer the board's requests with chunks of `data` until it asks no more."""
        while True:
            request = self.updater.next_request()
            if request is None:
                return
            digest, offset, length = request
            assert digest == hashlib.sha256(data).digest()
            assert 0 < length <= CHUNK_BYTES
            # A gateway may send less than was asked for.
            self.chunk(chunk(data, offset, min(length, SENT_BYTES)))

    def install(self, data, version):
        self.announce(data, version)
        self.download(data)

    def judge(self, verdicts):
        """Push rows until there were so many verdicts."""
        while verdicts:
            self.time_ms += 1000
            if self.updater.push((1.0, 2.0), self.time_ms):
                verdicts -= 1


def announcement(data, version, size=None):
    return cbor.encode(
        {
            "bundle": hashlib.sha256(data).digest(),
            "size": len(data) if size is None else size,
            "name": "test",
            "version": version,
        }
    )


def chunk(data, offset, length):
    part = data[offset : offset + length]
    return cbor.encode([hashlib.sha256(data).digest(), offset, len(data), part])


def board_with(name, version):
    """A board whose model of this bundle is confirmed, and its flash."""
    flash = MemoryFlash()
    board = Board(flash)
    board.install(BUNDLES[name], version)
    board.judge(TRIAL_VERDICTS)
    assert board.updater.version == version
    return board, flash


class SmallHeap:
    """A heap that models can be loaded in while it is empty, and not afterwards."""

    def __init__(self):
        self.too_small = False
        self._preloading = False

    def __enter__(self):
        self._kept = update.Model, update.REST_BYTES
        update.Model = self._model
        update.REST_BYTES = 0
        return self

    def __exit__(self, *error):
        update.Model, update.REST_BYTES = self._kept
        updates.preloaded = updates.prepared = None

    def _model(self, data):
        if self._preloading and not self.too_small:
            return self._kept[0](data)
        raise ModelError("model.memory", "no room")

    def start(self, flash):
        """The board after a reset."""
        self._preloading = True
        update.preload(flash)
        self._preloading = False
        return Board(flash)


def restarts(work, *arguments):
    """Check that the board wants to start anew."""
    try:
        work(*arguments)
    except RestartNeeded:
        return
    raise AssertionError("no restart")


def test_a_small_board_loads_its_model_before_everything_else():
    _, flash = board_with("v1", 1)
    with SmallHeap() as heap:
        board = heap.start(flash)
        assert (board.updater.version, board.states()) == (1, ["active"])
        board.judge(3)


def test_a_small_board_installs_a_release_by_starting_anew():
    _, flash = board_with("v1", 1)
    with SmallHeap() as heap:
        restarts(heap.start(flash).install, BUNDLES["v2"], 2)
        board = heap.start(flash)
        assert (board.updater.version, board.states()[-1]) == (2, "active")
        board.judge(TRIAL_VERDICTS)
        assert heap.start(flash).updater.version == 2


def test_a_small_board_keeps_its_model_when_a_release_is_bad():
    _, flash = board_with("v1", 1)
    with SmallHeap() as heap:
        restarts(heap.start(flash).install, BUNDLES["selftest"], 2)
        restarts(heap.start, flash)  # refused; the model from before has to be loaded again
        board = heap.start(flash)
        assert (board.updater.version, board.states()) == (1, ["active"])
        board.announce(BUNDLES["selftest"], 2)
        assert board.updater.next_request() is None


def test_a_model_that_is_too_large_for_any_start_is_refused():
    _, flash = board_with("v1", 1)
    with SmallHeap() as heap:
        restarts(heap.start(flash).install, BUNDLES["v2"], 2)
        heap.too_small = True
        restarts(heap.start, flash)
        heap.too_small = False
        board = heap.start(flash)
        assert board.updater.version == 1
        board.announce(BUNDLES["v2"], 2)
        assert board.updater.next_request() is None


def test_what_was_loaded_before_is_used_only_as_it_was_signed():
    _, flash = board_with("v1", 1)
    slot = "slot_a.bin" if "slot_a.bin" in flash.files else "slot_b.bin"
    with SmallHeap() as heap:
        whole = flash.files[slot]
        flash.files[slot] = whole[:-1] + bytes([whole[-1] ^ 1])
        board = heap.start(flash)
        assert board.updater.judge is None
        assert board.states() == ["rolled_back"]
        flash.files[slot] = whole[:100]
        assert heap.start(flash).updater.judge is None


def test_a_new_board_has_no_model():
    board = Board(MemoryFlash())
    assert board.updater.judge is None
    assert board.updater.digest is None
    assert board.updater.version == 0
    assert board.updater.push((1.0, 2.0), 0) is None
    assert board.updater.next_request() is None
    assert board.reports == []


def test_install_judge_and_start_again():
    board, flash = board_with("v1", 1)
    assert board.states() == ["downloading", "active"]
    assert board.updater.digest == board.reports[1][2]
    again = Board(flash)
    assert again.updater.version == 1
    assert again.states() == ["active"]
    again.judge(3)


def test_a_second_release_goes_to_the_other_slot():
    board, flash = board_with("v1", 1)
    first = flash.files["slot_b.bin"] if "slot_b.bin" in flash.files else flash.files["slot_a.bin"]
    board.install(BUNDLES["v2"], 2)
    assert sorted(flash.files[name] == first for name in ("slot_a.bin", "slot_b.bin")) == [
        False,
        True,
    ]
    board.judge(TRIAL_VERDICTS)
    board.install(BUNDLES["v3_after_v2"], 3)
    assert board.updater.version == 3
    assert Board(flash).updater.version == 3


def test_bad_releases_are_refused_for_good():
    for name, code in REFUSALS.items():
        board, flash = board_with("v1", 1)
        data = BUNDLES[name]
        board.install(data, 2)
        state, version, digest, reason = board.reports[3]
        assert (state, version) == ("rejected", 2), name
        assert digest == hashlib.sha256(data).digest()
        assert reason.startswith(code), reason
        assert board.updater.version == 1
        board.judge(1)
        for known in (board, Board(flash)):
            known.announce(data, 2)
            assert known.updater.next_request() is None
            assert known.reports[-1] == ("rejected", 2, digest, "refused before")


def test_versions_only_rise():
    board, _ = board_with("v2", 2)
    board.announce(BUNDLES["v1"], 1)
    assert board.reports[-1][0] == "rejected"
    assert board.updater.next_request() is None
    # The announcement is not signed: what the manifest says counts.
    board.install(BUNDLES["v1"], 7)
    assert board.reports[-1][0] == "rejected"
    assert board.reports[-1][3].startswith("update.version")
    assert board.updater.version == 2


def test_a_release_for_later_models_waits_for_them():
    board = Board(MemoryFlash())
    board.install(BUNDLES["v3_after_v2"], 3)
    assert board.reports[-1][0] == "rejected"
    assert board.reports[-1][3].startswith("update.version")


def test_size_is_bounded_before_the_download():
    board = Board(MemoryFlash())
    board.updater.announce(announcement(b"", 1, size=1 << 21))
    assert board.states() == ["rejected"]
    assert board.updater.next_request() is None


def test_malformed_messages():
    board = Board(MemoryFlash())
    digest = bytes(32)
    good = {"bundle": digest, "size": 10, "name": "test", "version": 1}
    for key, value in (("bundle", b"short"), ("size", 0), ("size", True), ("version", "1")):
        bad = dict(good)
        bad[key] = value
        raises("update.announcement", board.updater.announce, cbor.encode(bad))
    raises("update.announcement", board.updater.announce, cbor.encode([1]))
    raises("cbor.size", board.updater.announce, bytes(10_000))
    board.updater.announce(cbor.encode(good))
    raises("update.chunk", board.chunk, cbor.encode([digest, 0, 10]))
    raises("update.chunk", board.chunk, cbor.encode([digest, 0, 10, b""]))
    raises("update.chunk", board.chunk, cbor.encode([digest, 0, 10, "text"]))
    raises("update.chunk", board.chunk, cbor.encode([digest, 0, 11, b"ab"]))
    raises("update.chunk", board.chunk, cbor.encode([digest, 0, 10, bytes(11)]))
    raises("cbor.size", board.chunk, bytes(10_000))


def test_a_download_goes_on_where_it_was():
    flash = MemoryFlash()
    data = BUNDLES["v1"] + BUNDLES["v2"]  # no bundle, but of two chunks and more
    board = Board(flash)
    board.announce(data, 1)
    board.chunk(chunk(data, 0, 1000))
    again = Board(flash)
    assert again.updater.next_request()[1] == 1000
    assert again.updater.next_request() is None  # asked for already
    again.chunk(chunk(data, 0, 1000))  # late, and known
    assert flash.size("slot_a.bin") == 1000
    again.chunk(chunk(data, 1000, 10))
    assert again.updater.next_request()[1] == 1010


def test_a_chunk_is_asked_for_again():
    now = [0]
    ticks_ms, download.ticks_ms = download.ticks_ms, lambda: now[0]
    try:
        board = Board(MemoryFlash())
        board.announce(BUNDLES["v1"], 1)
        assert board.updater.next_request() is not None
        now[0] = download.REQUEST_TIMEOUT_MS - 1
        assert board.updater.next_request() is None
        now[0] = download.REQUEST_TIMEOUT_MS
        assert board.updater.next_request() is not None
    finally:
        download.ticks_ms = ticks_ms


def test_another_release_replaces_a_download():
    board = Board(MemoryFlash())
    board.announce(BUNDLES["v1"], 1)
    board.chunk(chunk(BUNDLES["v1"], 0, 500))
    board.install(BUNDLES["v2"], 2)
    assert board.updater.version == 2


def test_wrong_bytes_are_fetched_anew_and_given_up():
    data = BUNDLES["v1"]
    wrong = bytes(len(data))
    board = Board(MemoryFlash())
    board.announce(data, 1)
    for _ in range(MAX_DOWNLOADS):
        offset = 0
        while board.states() == ["downloading"] and offset < len(data):
            part = wrong[offset : offset + CHUNK_BYTES]
            message = [hashlib.sha256(data).digest(), offset, len(data), part]
            board.chunk(cbor.encode(message))
            offset += len(part)
    assert board.states() == ["downloading", "rejected"]
    assert board.updater.next_request() is None


def test_a_model_that_fails_on_trial_is_rolled_back():
    board, flash = board_with("v1", 1)
    board.install(BUNDLES["v2"], 2)
    board.judge(TRIAL_VERDICTS - 1)
    fail(board.updater)
    assert board.states()[-2:] == ["active", "rolled_back"]
    assert board.reports[-1][1] == 1
    assert "broken" in board.reports[-1][3]
    assert board.given_up == hashlib.sha256(BUNDLES["v2"]).digest()
    board.judge(1)
    again = Board(flash)
    assert again.updater.version == 1
    again.announce(BUNDLES["v2"], 2)
    assert again.updater.next_request() is None


def fail(updater):
    """Let the active model raise on the next row."""

    def broken(row, time_ms):
        raise ValueError("broken")

    updater.judge.push = broken
    assert updater.push((1.0, 2.0), 0) is None


def test_the_first_model_may_fail_too():
    flash = MemoryFlash()
    board = Board(flash)
    board.install(BUNDLES["v1"], 1)
    fail(board.updater)
    assert board.reports[-1][:3] == ("rolled_back", 0, None)
    assert Board(flash).updater.version == 0


def test_a_confirmed_model_that_fails_is_fetched_again():
    board, _ = board_with("v1", 1)
    fail(board.updater)
    assert board.updater.judge is None
    board.install(BUNDLES["v1"], 1)
    assert board.updater.version == 1


def test_restarts_end_a_trial():
    board, flash = board_with("v1", 1)
    board.install(BUNDLES["v2"], 2)
    for _ in range(MAX_TRIAL_STARTS):
        board = Board(flash)
        assert board.updater.version == 2
        board.judge(TRIAL_VERDICTS - 1)
    board = Board(flash)
    assert board.updater.version == 1
    assert board.reports[-1][0] == "rolled_back"


def test_an_announcement_during_a_trial_waits_for_its_end():
    board, _ = board_with("v1", 1)
    board.install(BUNDLES["v2"], 2)
    board.announce(BUNDLES["v3_after_v2"], 3)
    assert board.updater.next_request() is None
    board.judge(TRIAL_VERDICTS)
    board.download(BUNDLES["v3_after_v2"])
    assert board.updater.version == 3


def test_a_damaged_slot_is_noticed_and_fetched_again():
    _, flash = board_with("v1", 1)
    for name in ("slot_a.bin", "slot_b.bin"):
        if name in flash.files:
            data = bytearray(flash.files[name])
            data[-1] ^= 1
            flash.files[name] = bytes(data)
    board = Board(flash)
    assert board.states() == ["rolled_back"]
    board.install(BUNDLES["v1"], 1)
    assert board.updater.version == 1


def test_a_damaged_state_is_as_good_as_none():
    _, flash = board_with("v1", 1)
    for name in list(flash.files):
        if name.startswith(update.STATE_FILE):
            flash.files[name] = flash.files[name][:-1] + b"?"
    board = Board(flash)
    assert board.updater.version == 0
    board.install(BUNDLES["v1"], 1)
    assert board.updater.version == 1


def test_a_full_flash_gives_the_download_up():
    flash = FullFlash()
    board = Board(flash)
    board.install(BUNDLES["v1"], 1)
    board.judge(TRIAL_VERDICTS)
    board.announce(BUNDLES["v2"], 2)
    flash.full = True
    board.download(BUNDLES["v2"])
    assert board.reports[-1][0] == "rejected"
    assert str(ENOSPC) in board.reports[-1][3]
    board.judge(1)
    flash.full = False
    board.install(BUNDLES["v2"], 2)
    assert board.updater.version == 2


def test_a_download_survives_the_model_in_use():
    board, _ = board_with("v1", 1)
    board.announce(BUNDLES["v2"], 2)
    board.chunk(chunk(BUNDLES["v2"], 0, SENT_BYTES))
    fail(board.updater)
    board.download(BUNDLES["v2"])
    assert board.updater.version == 2


def test_a_switch_that_cannot_be_stored_keeps_the_old_model():
    class Stubborn(MemoryFlash):
        left = None

        def _rename(self, old, new):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise OSError(ENOSPC)
            super()._rename(old, new)

    flash = Stubborn()
    board = Board(flash)
    board.install(BUNDLES["v1"], 1)
    board.judge(TRIAL_VERDICTS)
    flash.left = 1  # the download can be noted, the switch cannot
    board.install(BUNDLES["v2"], 2)
    assert board.states()[-2:] == ["rejected", "active"]
    assert board.updater.version == 1
    assert board.updater.next_request() is None
    flash.left = None
    board.install(BUNDLES["v2"], 2)
    assert board.updater.version == 2


def test_an_announcement_waits_for_a_trial_that_fails():
    board, _ = board_with("v1", 1)
    board.install(BUNDLES["v2"], 2)
    board.announce(BUNDLES["device"], 3)
    fail(board.updater)
    assert board.updater.next_request()[0] == hashlib.sha256(BUNDLES["device"]).digest()


def test_a_trial_goes_on_while_the_flash_is_full():
    flash = FullFlash()
    board = Board(flash)
    board.install(BUNDLES["v1"], 1)
    flash.full = True
    board.judge(TRIAL_VERDICTS + 1)
    board = Board(flash)
    assert board.updater.version == 1
    flash.full = False
    board.judge(TRIAL_VERDICTS)
    board.install(BUNDLES["v2"], 2)
    assert board.updater.version == 2


def test_every_power_cut_leaves_the_old_or_the_new_model():
    _, flash = board_with("v1", 1)
    for scenario in (confirm, roll_back):
        for part in range(3):
            fatal = 1
            while cut_during(scenario, dict(flash.files), fatal, part):
                fatal += 1
            assert fatal > 8, (scenario, part, fatal)


def confirm(board):
    board.install(BUNDLES["v2"], 2)
    board.judge(TRIAL_VERDICTS)


def roll_back(board):
    board.install(BUNDLES["v2"], 2)
    fail(board.updater)


def cut_during(scenario, files, fatal, part):
    """Cut the power at a change of the flash, then go on; returns whether it came to that."""
    try:
        scenario(Board(FailingFlash(files, fatal, part)))
    except PowerCut:
        pass
    else:
        return False
    flash = MemoryFlash()
    flash.files = files
    board = Board(flash)
    assert board.updater.version in (1, 2), (scenario, fatal, part, board.reports)
    board.judge(1)
    if scenario is confirm:
        if board.updater.version == 1:
            board.install(BUNDLES["v2"], 2)
        board.judge(TRIAL_VERDICTS)
        assert Board(flash).updater.version == 2, (fatal, part, board.reports)
    return True


def test_spread_is_of_a_calibration_and_one_per_channel():
    signed = cbor.decode(BUNDLES["v1"], len(BUNDLES["v1"]))[0][0]
    manifest = cbor.decode(cbor.decode(signed, len(signed)).value[2], MAX_MANIFEST_BYTES)
    manifest["calibrate"] = 5

    def parse(spread, calibrate=5):
        manifest["calibrate"] = calibrate
        manifest["spread"] = spread
        return bundle.parse(cbor.encode(manifest))["spread"]

    assert parse([1, 1 << 30]) == [1, 1 << 30]
    for spread in ([], [1], [1, 0], [1, (1 << 30) + 1], [1, 2, 3], [1, True], None):
        raises("update.manifest", parse, spread)
    raises("update.manifest", parse, [1, 1], 0)
