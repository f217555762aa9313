"""How a board comes to other files of ours, and how it knows that they are good.

An operator releases firmware for a class of boards as a signed bundle. It is fetched, checked and
unpacked into the slot that is not in use, file by file; then the board starts anew and `launcher`
runs that slot, on trial. A gateway that answers our status confirms it: the new files can sample,
sign and speak. Without one within TRIAL_MS, or after too many starts, the board goes back.

The launcher's state file says which slot runs. It is replaced in one step after the slot is
complete: whenever the power goes, the board comes up with the old files or with the new.
"""

import gc
import os
import sys
from binascii import hexlify, unhexlify

import launcher

from . import VERSION_NUMBER, board
from . import bundle as bundles
from .download import BAD, WHOLE, Download, fits, hash_of, parse_announcement
from .errors import FoglineError, UpdateError
from .updates import PREFIX

BUNDLE_FILE = "firmware.bin"
TRIAL_MS = 600_000
# Free flash that an update must leave, for the outbox to go on.
SPARE_BYTES = 16 * 1024
_COPY_BYTES = 1024
_MPY_VERSION = 0x3FF  # version and sub-version of `sys.implementation._mpy`
_ENOENT = 2
_EEXIST = 17


class Firmware:
    """The board's own files.

    Args:
        flash: the Flash that holds bundle and slots.
        release_keys: x || y of those whose releases are trusted; `keep_keys` changes it.
        chain_id: SHA-256 of the founding file.
        report: function(state, version, digest, reason). `state` is "downloading", "installed"
            (the board starts anew), "active" (confirmed), "rejected" or "rolled_back".
        keep_keys: function(keys) that makes new release keys durable; raises OSError.

    Attributes:
        restart_wanted: whether the board is to start anew, with what was installed.
    """

    def __init__(self, flash, release_keys, chain_id, report, keep_keys):
        self._flash = flash
        self._release_keys = release_keys
        self._chain_id = chain_id
        self._report = report
        self._keep_keys = keep_keys
        self._state = launcher.state
        self._running = self._state["version"] or VERSION_NUMBER
        self._version = 0  # of the download, as announced
        self._download = Download(flash, self._keep_download)
        self.restart_wanted = False

    @property
    def version(self):
        """Version of the files that run."""
        return self._running

    @property
    def device_type(self):
        """Under which our releases are announced."""
        return PREFIX + board.board_class  # type: ignore[operator]  # text

    @property
    def busy(self):
        """Whether there is something to do: a trial, a download, a start anew."""
        return self.on_trial or self.restart_wanted or self._download.wanted is not None

    @property
    def on_trial(self):
        """Whether what runs has still to prove itself; what was just installed does not run yet."""
        return self._state["previous"] is not None and not self.restart_wanted

    def start(self):
        """Say what became of an update, and go on with a download."""
        state = self._state
        if state["gone_back"] is not None:
            version, digest, reason = state["gone_back"]
            self._report("rolled_back", version, unhexlify(digest), reason)
            state["gone_back"] = None
            self._store()
        if state["download"] is None:
            return
        digest, size, attempts = state["download"]
        wanted = [unhexlify(digest), size, attempts]
        self._report("downloading", 0, wanted[0], "")
        try:
            self._go_on(self._download.resume(wanted, BUNDLE_FILE))
        except OSError as error:
            self._abandon(_reason(error))

    def tick(self, up_ms):
        """Give a trial up that no gateway has confirmed by now; returns whether to start anew."""
        if self.on_trial and up_ms > TRIAL_MS:
            launcher.go_back("no gateway has answered it within %d s" % (TRIAL_MS // 1000))
            self.restart_wanted = True
        return self.restart_wanted

    def confirm(self):
        """A gateway has answered: what runs is good."""
        if not self.on_trial:
            return
        state = self._state
        try:
            if state["keys"]:
                self._keep_keys([unhexlify(key) for key in state["keys"]])
            previous, state["previous"], state["starts"] = state["previous"], None, 0
            keys, state["keys"] = state["keys"], []
            try:
                launcher.save()
            except OSError:
                state["previous"], state["keys"] = previous, keys
                raise
        except OSError:
            return  # tried again at the next receipt
        self._report("active", self.version, unhexlify(state["bundle"]), "")

    # The download -------------------------------------------------------------------------

    def announce(self, payload):
        """Take a gateway's announcement (CBOR bytes); raises EncodingError."""
        digest, size, version = parse_announcement(payload)
        state = self._state
        name = hexlify(digest).decode()
        if self.on_trial or self.restart_wanted:
            return
        if name == state["bundle"] or name in state["refused"]:
            return
        if self._download.is_of(digest):
            self._version = version
            return
        if version <= self.version:
            return  # what runs was announced once, too
        if not fits(size):
            self._report("rejected", version, digest, "size is over %d" % bundles.MAX_BUNDLE_BYTES)
            return
        self._version = version
        try:
            _remove_tree(launcher.SLOTS[self._spare()])
            self._download.begin(digest, size, BUNDLE_FILE)
        except OSError as error:
            self._abandon(_reason(error))
        else:
            self._report("downloading", version, digest, "")

    def next_request(self):
        """Return [SHA-256, offset, length] of the chunk to ask for now, or None."""
        return self._download.next_request()

    def chunk(self, fields):
        """Take what `parse_chunk` returned; raises EncodingError. See `Download.chunk`."""
        try:
            self._go_on(self._download.chunk(fields))
        except OSError as error:
            self._abandon(_reason(error))

    def _keep_download(self, wanted):
        self._state["download"] = [hexlify(wanted[0]).decode(), wanted[1], wanted[2]]
        launcher.save()

    def _abandon(self, reason):
        """Give up a download that the flash does not take; an announcement begins it anew."""
        self._state["download"] = None
        self._report("rejected", self._version, self._download.stop(), reason)

    def _reject(self, reason):
        """Never take the downloaded bundle again; raises OSError."""
        digest = self._download.stop()
        state = self._state
        state["refused"] = (state["refused"] + [hexlify(digest).decode()])[-launcher.MAX_REFUSED :]
        state["download"] = None
        launcher.save()
        self._flash.remove(BUNDLE_FILE)
        _remove_tree(launcher.SLOTS[self._spare()])
        self._report("rejected", self._version, digest, reason)

    def _go_on(self, outcome):
        """Do what the download has come to; raises OSError."""
        if outcome == WHOLE:
            self._install()
        elif outcome == BAD:
            self._reject("SHA-256 is not the announced one")

    # An update ----------------------------------------------------------------------------

    def _install(self):
        """Check a whole bundle, unpack it, and have the board start with it; raises OSError."""
        gc.collect()
        try:
            manifest, at = self._check()
        except (FoglineError, MemoryError) as error:
            self._reject(_reason(error))
            return
        slot = self._spare()
        try:
            self._unpack(manifest, at, launcher.SLOTS[slot])
        except FoglineError as error:
            self._reject(_reason(error))
            return
        state = self._state
        digest = self._download.wanted[0]
        before = dict(state)
        state["previous"] = [state["slot"], state["version"], state["bundle"]]
        state["slot"], state["version"] = slot, manifest["version"]
        state["bundle"] = hexlify(digest).decode()
        state["keys"] = [hexlify(key).decode() for key in manifest["keys"]]
        state["starts"] = 0
        state["download"] = None
        try:
            launcher.save()
        except OSError:
            state.update(before)
            raise
        # From here on nothing may be taken for a word on what was installed: it does not run yet.
        self.restart_wanted = True
        self._download.stop()
        try:
            self._flash.remove(BUNDLE_FILE)
        except OSError:
            pass  # the next download begins by removing it
        self._report("installed", manifest["version"], digest, "")

    def _check(self):
        """Check all that was signed; returns (manifest, offset of the payload)."""
        with self._flash.open(BUNDLE_FILE) as file:
            manifest, at, length = bundles.open_bundle(
                file, self._flash.size(BUNDLE_FILE), self._release_keys, self._chain_id
            )
            if manifest["type"] != "firmware" or manifest["device_type"] != self.device_type:
                raise UpdateError("update.device", "made for " + manifest["device_type"])
            running = self.version
            if not manifest["min_version"] <= running < manifest["version"]:
                raise UpdateError(
                    "update.version",
                    "%d to %d is running, here it is %d"
                    % (manifest["min_version"], manifest["version"] - 1, running),
                )
            ours = getattr(sys.implementation, "_mpy", 0)
            if manifest["mpy"] and manifest["mpy"] != ours & _MPY_VERSION:
                raise UpdateError("update.mpy", "compiled for another MicroPython")
            payload = manifest["payload"]
            file.seek(at)
            if length != payload["size"] or hash_of(file) != payload["sha256"]:
                raise UpdateError("update.payload", "is not what was signed")
        if not any(item[0].startswith("fogline/app.") for item in manifest["files"]):
            raise UpdateError("update.files", "there is no fogline/app among them")
        free = _free_bytes()
        if free is not None and length + SPARE_BYTES > free:
            raise UpdateError("update.room", "%d bytes, %d are free" % (length, free))
        return manifest, at

    def _unpack(self, manifest, at, slot):
        """Write the files into an empty slot and read each again; raises OSError, UpdateError."""
        _remove_tree(slot)
        _make_directory(slot)
        buffer = memoryview(bytearray(_COPY_BYTES))
        with self._flash.open(BUNDLE_FILE) as source:
            source.seek(at)
            for path, size, digest in manifest["files"]:
                launcher.feed()
                for end in range(1, len(path)):
                    if path[end] == "/":
                        _make_directory(slot + "/" + path[:end])
                name = slot + "/" + path
                self._flash.write_whole(name, source, size, buffer)
                with self._flash.open(name) as written:
                    if hash_of(written) != digest:
                        raise UpdateError("update.payload", path + " is not what was signed")

    def _spare(self):
        return 2 if self._state["slot"] == 1 else 1

    def _store(self):
        try:
            launcher.save()
        except OSError:
            pass  # it is told once more, after the next start


def _make_directory(path):
    try:
        os.mkdir(path)
    except OSError as error:
        if error.args[0] != _EEXIST:
            raise


def _remove_tree(path):
    """Remove a directory and all that is in it, if it is there; raises OSError."""
    try:
        entries = list(os.ilistdir(path))
    except OSError as error:
        if error.args[0] == _ENOENT:
            return
        raise
    for entry in entries:
        name = path + "/" + entry[0]
        if entry[1] & 0x4000:
            if entry[0] not in (".", ".."):
                _remove_tree(name)
        else:
            os.remove(name)
    os.rmdir(path)


def _free_bytes():
    """Return how much flash is free, None where the port cannot say."""
    try:
        found = os.statvfs("")
    except (AttributeError, OSError):
        return None
    return found[0] * found[3]


def _reason(error):
    """Return a few words on an error, for the report."""
    if isinstance(error, FoglineError):
        return str(error)
    return "%s %s" % (type(error).__name__, error)
