"""Updates of our own files: what is installed, what is refused, and every power cut on the way."""

import hashlib
import os
import sys

import launcher
import vfs
from fogline import board, cbor, release_keys
from fogline.download import CHUNK_BYTES, MAX_DOWNLOADS, parse_chunk
from fogline.firmware import TRIAL_MS, Firmware
from fogline.flash import Flash
from power_cut import BLOCK_BYTES, PowerCut
from power_cut import Flash as Chip
from support import raises, vectors

VECTORS = vectors("firmware")
BUNDLES = {name: bytes.fromhex(data) for name, data in VECTORS["bundles"].items()}
FILES = {path: bytes.fromhex(data) for path, data in VECTORS["files"].items()}
OPERATOR = bytes.fromhex(VECTORS["release_key"])
SUCCESSOR = bytes.fromhex(VECTORS["successor"])
# The bundles and the chip take 300 KB, and each test starts many boards.
NEEDS = ("large_heap", "fast", "littlefs")
MOUNT = "/flash"
SENT_BYTES = 900
# Of the one chip that there is at a time: a board has no room for many.
DATA = bytearray(48 * BLOCK_BYTES)
REFUSALS = {
    "device": "update.device",
    "signer": "cose.signer",
    "signature": "cose.signature",
    "mpy": "update.mpy",
    "files": "update.files",
    "payload": "update.payload",
}


class Powered:
    """A flash chip at MOUNT, which is the current directory, for one `with` block."""

    def __init__(self, new=True):
        self.chip = Chip(vfs.VfsLfs2, b"")
        self.chip.hold(DATA)
        if new:
            vfs.VfsLfs2.mkfs(self.chip)

    def __enter__(self):
        board.select("unix")
        self._path = list(sys.path)
        self._before = os.getcwd()
        self.chip.mount(MOUNT)
        os.chdir(MOUNT)
        return self

    def __exit__(self, *_):
        os.chdir(self._before)
        vfs.umount(MOUNT)
        sys.path[:] = self._path
        launcher.state = launcher.dog = None


class Board:
    """What a start of the board makes, and what it reported."""

    def __init__(self, provisioned=(OPERATOR,)):
        launcher.select()
        flash = Flash("")
        self.reports = []
        self.keys = release_keys.load(flash, provisioned)

        def keep(keys):
            release_keys.save(flash, provisioned, keys)
            self.keys[:] = keys

        self.firmware = Firmware(
            flash, self.keys, bytes.fromhex(VECTORS["chain_id"]), self._report, keep
        )
        self.firmware.start()

    def _report(self, state, version, digest, reason):
        self.reports.append((state, version, digest, reason))

    def states(self):
        return [report[0] for report in self.reports]

    def fetch(self, name, version):
        """Announce a bundle and answer the board's requests until it asks no more."""
        data = BUNDLES[name]
        self.firmware.announce(announcement(data, version))
        while True:
            request = self.firmware.next_request()
            if request is None:
                return
            digest, offset, length = request
            assert digest == hashlib.sha256(data).digest()
            assert 0 < length <= CHUNK_BYTES
            self.send(data, offset, min(length, SENT_BYTES))

    def send(self, data, offset, length, of=None):
        digest = hashlib.sha256(of or data).digest()
        fields = [digest, offset, len(data), data[offset : offset + length]]
        self.firmware.chunk(parse_chunk(cbor.encode(fields)))


def announcement(data, version):
    digest = hashlib.sha256(data).digest()
    return cbor.encode({"bundle": digest, "size": len(data), "name": "board", "version": version})


def installed():
    """The number of the slot that is on the path, whose files must be whole; 0 for none."""
    for number, slot in enumerate(launcher.SLOTS):
        if slot and sys.path[0] == slot:
            found = {path: read(slot + "/" + path) for path in FILES}
            app = found.pop("fogline/app.py")
            assert app in (b"print('new')\n", b"print('newer')\n"), app
            assert found == {path: FILES[path] for path in found}
            return number
    return 0


def read(path):
    with open(path, "rb") as file:
        return file.read()


def has(name):
    return name in os.listdir()


def test_an_update_runs_after_a_restart_and_is_confirmed():
    powered = Powered()
    with powered:
        first = Board()
        assert (first.firmware.version, installed()) == (1, 0)
        first.fetch("v2", 2)
        assert first.states() == ["downloading", "installed"]
        assert first.firmware.tick(0)  # the board is to start anew
        assert (first.firmware.version, installed()) == (1, 0)
        first.firmware.confirm()  # a receipt to what still runs says nothing of what will
    with powered:
        second = Board()
        assert (second.firmware.version, installed()) == (2, 1)
        assert second.firmware.on_trial
        assert not second.firmware.tick(TRIAL_MS)
        second.firmware.confirm()
        assert second.reports[-1][:2] == ("active", 2)
        assert not second.firmware.tick(TRIAL_MS + 1)
        second.firmware.announce(announcement(BUNDLES["v2"], 2))
        assert second.firmware.next_request() is None
        assert not has("firmware.bin")
        # The next one goes to the other slot, the one after it to the first again.
        second.fetch("v3", 3)
    with powered:
        third = Board()
        assert (third.firmware.version, installed()) == (3, 2)
        third.firmware.confirm()
        third.fetch("v4_after_v3", 4)
    with powered:
        assert (Board().firmware.version, installed()) == (4, 1)


def test_an_update_that_no_gateway_answers_is_taken_back():
    powered = Powered()
    with powered:
        Board().fetch("v2", 2)
    with powered:
        second = Board()
        assert second.firmware.tick(TRIAL_MS + 1)
    with powered:
        third = Board()
        assert (third.firmware.version, installed()) == (1, 0)
        assert third.reports[0][:2] == ("rolled_back", 2)
        third.firmware.announce(announcement(BUNDLES["v2"], 2))
        assert third.firmware.next_request() is None  # not that one again
    with powered:
        fourth = Board()
        assert fourth.reports == []  # it was told once
        fourth.fetch("v3", 3)
        assert fourth.states() == ["downloading", "installed"]


def test_an_update_that_does_not_come_up_is_taken_back():
    powered = Powered()
    with powered:
        Board().fetch("v2", 2)
    for _ in range(launcher.MAX_TRIAL_STARTS):
        with powered:
            launcher.select()
            assert installed() == 1
    with powered:
        back = Board()
        assert (back.firmware.version, installed()) == (1, 0)
        assert back.reports[0][:2] == ("rolled_back", 2)


def test_a_failed_update_goes_back_to_the_update_before():
    powered = Powered()
    with powered:
        Board().fetch("v2", 2)
    with powered:
        second = Board()
        second.firmware.confirm()
        second.fetch("v3", 3)
    with powered:
        launcher.select()
        assert installed() == 2
        launcher.go_back("as a test wants")
    with powered:
        back = Board()
        assert (back.firmware.version, installed()) == (2, 1)
        assert not back.firmware.on_trial


class Stopped(Exception):  # noqa: N818 - no error
    pass


def test_files_that_do_not_load_are_given_up_at_once():
    powered = Powered()
    restarts = []

    def restart():
        restarts.append(True)
        raise Stopped

    real, launcher.restart = launcher.restart, restart
    try:
        with powered:
            Board().fetch("v2", 2)
        with powered:
            launcher.select()
            try:
                launcher.recover(SyntaxError("bad"))
            except Stopped:
                pass
        with powered:
            back = Board()
            assert installed() == 0
            assert back.reports[0][3] == "SyntaxError: bad"
            try:
                launcher.recover(ImportError("of what was provisioned"))
            except ImportError:
                restarts.append(False)
    finally:
        launcher.restart = real
    assert restarts == [True, False]


def test_a_slot_whose_files_are_gone_does_not_run():
    powered = Powered()
    with powered:
        Board().fetch("v2", 2)
    with powered:
        launcher.select()
        os.rename("fw_a", "elsewhere")
    with powered:
        back = Board()
        assert installed() == 0
        assert back.reports[0][:2] == ("rolled_back", 2)


def test_bad_bundles_are_refused_for_good():
    for name, reason in REFUSALS.items():
        with Powered():
            first = Board()
            first.fetch(name, 2)
            assert first.states() == ["downloading", "rejected"], name
            assert first.reports[-1][3].startswith(reason), first.reports[-1]
            assert not has("firmware.bin") and not has("fw_a")
            assert not first.firmware.tick(0)
            first.firmware.announce(announcement(BUNDLES[name], 2))
            assert first.firmware.next_request() is None
            first.fetch("v2", 2)  # a good one still comes through
            assert first.states()[-1] == "installed"


def test_versions_only_rise():
    powered = Powered()
    with powered:
        first = Board()
        first.fetch("v4_after_v3", 4)
        assert first.reports[-1][3].startswith("update.version")
        first.fetch("v3", 3)
    with powered:
        second = Board()
        second.firmware.confirm()
        second.firmware.announce(announcement(BUNDLES["v2"], 2))
        assert second.firmware.next_request() is None
        second.fetch("v2", 9)  # announced as what it is not
        assert second.reports[-1][3].startswith("update.version")


def test_a_download_goes_on_where_it_was_and_bounds_its_attempts():
    powered = Powered()
    data = BUNDLES["v2"]
    with powered:
        first = Board()
        first.firmware.announce(announcement(data, 2))
        assert first.firmware.next_request()[1] == 0
        first.send(data, 0, 700)
    with powered:
        second = Board()
        assert second.firmware.next_request()[1] == 700
        second.send(data, 0, 700)  # late, and known
        raises("update.chunk", second.send, data + b"\x00", 700, 100, data)
        wrong = bytes(len(data))
        begun = 0
        while True:
            second.firmware._download._asked_ms = None  # noqa: SLF001 - no waiting
            request = second.firmware.next_request()
            if request is None:
                break
            begun += request[1] == 0
            second.send(wrong, request[1], 2000, data)
        assert begun == MAX_DOWNLOADS - 1  # the first went on from 700
        assert second.states()[-1] == "rejected"
        assert second.reports[-1][3] == "SHA-256 is not the announced one"


def test_release_keys_change_with_a_confirmed_update_alone():
    powered = Powered()
    with powered:
        first = Board()
        first.fetch("v3_successor", 3)
        assert first.reports[-1][3].startswith("cose.signer")
        first.fetch("v2_keys", 2)
        assert first.keys == [OPERATOR]
    with powered:
        second = Board()
        assert second.keys == [OPERATOR]  # on trial still
        second.firmware.confirm()
        assert second.keys == [SUCCESSOR]
    with powered:
        third = Board()
        assert third.keys == [SUCCESSOR]
        third.fetch("v3", 3)
        assert third.reports[-1][3].startswith("cose.signer")
    with powered:
        # Provisioned anew, with other keys: those have the last word.
        assert Board((OPERATOR, SUCCESSOR)).keys == [OPERATOR, SUCCESSOR]
        assert Board().keys == [SUCCESSOR]


def life(powered, confirms):
    """One start of a board that is offered an update; returns whether it has come to an end."""
    with powered:
        here = Board()
        if here.firmware.restart_wanted:  # the download was complete
            return False
        slot = installed()
        assert slot == (1 if here.firmware.version == 2 else 0)
        if here.firmware.on_trial:
            if not confirms:
                return False  # it does not come up
            here.firmware.confirm()
            return not here.firmware.on_trial
        if slot or launcher.state["refused"]:
            return True
        here.fetch("v2", 2)
        return False


def lives(powered, confirms):
    """Start until it has come to an end; returns how it ended."""
    for _ in range(2 * launcher.MAX_TRIAL_STARTS + 4):
        try:
            ended = life(powered, confirms)
        except Exception:
            if not powered.chip.off:
                raise
        if powered.chip.off:  # closing a file then fails, which hides the cut itself
            raise PowerCut
        if ended:
            with powered:
                state = Board().firmware
                return installed(), state.version, state.on_trial
    raise AssertionError("it comes to no end")


def cut_everywhere(confirms, expected):
    cut = 0
    while True:
        cut += 1
        powered = Powered()
        powered.chip.cut = powered.chip.writes + cut
        try:
            assert lives(powered, confirms) == expected
            break  # there were fewer writes
        except PowerCut:
            pass
        again = Powered(new=False)
        # The power goes a second time, on the way there or back.
        again.chip.cut = 1 + cut * 7 % 40
        try:
            assert lives(again, confirms) == expected, cut
        except PowerCut:
            assert lives(Powered(new=False), confirms) == expected, cut
    return cut


def test_every_power_cut_on_the_way_there_leaves_the_old_or_the_new():
    assert cut_everywhere(True, (1, 2, False)) > 20


def test_every_power_cut_on_the_way_back_leaves_the_old_or_the_new():
    assert cut_everywhere(False, (0, 1, False)) > 20


class FakeDog:
    made = []

    def __init__(self, timeout):
        self.timeout = timeout
        self.fed = 0
        FakeDog.made.append(self)

    def feed(self):
        self.fed += 1


class FakeMachine:
    WDT = FakeDog


def test_a_watchdog_covers_the_trial_alone():
    powered = Powered()
    real = sys.modules.get("machine")
    sys.modules["machine"] = FakeMachine
    FakeDog.made.clear()
    try:
        with powered:
            Board().fetch("v2", 2)
            assert FakeDog.made == []
        with powered:
            second = Board()
            (dog,) = FakeDog.made
            assert dog.timeout == launcher.WATCHDOG_MS
            launcher.feed()
            assert dog.fed == 1
            second.firmware.confirm()
        with powered:
            Board()
            launcher.feed()
            assert FakeDog.made == [dog] and dog.fed == 1
    finally:
        if real is None:
            del sys.modules["machine"]
        else:
            sys.modules["machine"] = real


def test_a_damaged_state_is_as_good_as_none():
    powered = Powered()
    with powered:
        Board().fetch("v2", 2)
        with open("firmware.state", "r+b") as file:
            file.write(b"!")
    with powered:
        assert (Board().firmware.version, installed()) == (1, 0)


def test_a_bundle_that_cannot_be_removed_does_not_confirm_what_does_not_run_yet():
    powered = Powered()
    with powered:
        first = Board()

        def refuse(name):
            raise OSError(5 if has(name) else 2)

        first.firmware._flash._remove = refuse  # noqa: SLF001 - as a worn flash does
        first.fetch("v2", 2)
        assert first.states() == ["downloading", "installed"]
        first.firmware.confirm()
        assert first.firmware.tick(0)
    with powered:
        second = Board()
        assert (installed(), second.firmware.on_trial) == (1, True)


def test_a_full_flash_gives_the_download_up():
    with Powered():
        first = Board()
        size = 180_000
        with open("filling", "wb") as file:
            while size > 0:
                file.write(bytes(2000))
                size -= 2000
        first.fetch("v2", 2)
        assert first.states()[-1] == "rejected"
        assert first.firmware.next_request() is None
        os.remove("filling")
        first.fetch("v2", 2)
        assert first.states()[-1] == "installed"
