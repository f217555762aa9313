"""Which model judges, and how a board comes to another one.

Two slots in flash hold a release bundle each. The board's gateway announces a release; the
bundle is fetched in chunks into the slot that is not in use, across resets, and checked: size,
SHA-256, a release key's signature, device type, version, operators, arena, self-test vectors.
Then it judges on trial. TRIAL_VERDICTS verdicts confirm it; if it fails before, or the board
starts more than MAX_TRIAL_STARTS times meanwhile, the board goes back to the model it had,
which stays in its slot until then, and does not take that bundle again.

The state file says which slot is active. It is replaced in one step, after the slot it names
is complete and before the other one is touched: whenever the power goes, the board comes up
with the old model or with the new one.

Reading and planning a model takes more memory than running it. So `preload` loads the model that
a start is going to need before the rest of the firmware is there; and where a board that is at work
has no room for that, it starts anew (RestartNeeded).
"""

import gc
import hashlib

from . import board, cbor, updates
from . import bundle as bundles
from .download import BAD, WHOLE, Download, fits, hash_of, parse_announcement
from .errors import FoglineError, RestartNeeded, UpdateError
from .flash import Flash
from .judge import Judge
from .tflite import MAX_ARENA_BYTES, Model, supported, unload

TRIAL_VERDICTS = 8
MAX_TRIAL_STARTS = 3
MAX_REFUSED = 8  # bundles that are remembered as bad

STATE_FILE = "models.state"
SLOT_FILES = ("slot_a.bin", "slot_b.bin")

_MAX_STATE_BYTES = 1024
# What a board needs beside the model: what lives at work, and room to check the release and to
# sign. Lives of `tools/hil/life.py` came to their end with it in 163,840 bytes of heap.
REST_BYTES = 88 * 1024


def preload(flash=None):
    """Load the model that the next `start` needs, while the heap is empty.

    `start` takes it only after checking the bundle as ever, and only if its bytes are those that
    were signed. What goes wrong here, it meets again and reports.
    """
    updates.prepared = None
    updates.preloaded = ""
    try:
        if flash is None:
            flash = Flash("")
        slot = _State(flash).needed_slot()
        if slot is not None:
            updates.preloaded = slot
            with flash.open(slot) as file:
                at, length = bundles.find_payload(file, flash.size(slot))
            updates.prepared = _prepare(flash, slot, at, length)
    except Exception:  # noqa: BLE001 - see above
        updates.prepared = None
    gc.collect()
    if updates.prepared is not None and gc.mem_free() < REST_BYTES:
        updates.prepared = None
        gc.collect()


def _prepare(flash, slot, at, length):
    """Return (SHA-256, Model) of the .tflite in a slot, ready to run."""
    try:
        data = bytearray(length)
        with flash.open(slot) as file:
            file.seek(at)
            if file.readinto(data) != length:
                raise UpdateError("update.payload", "cut short")
        model = Model(data)
        model.allocate()
        return hashlib.sha256(data).digest(), model
    finally:
        unload()


class _State:
    """What must survive a reset.

    Attributes:
        slot: number of the slot in use, or last in use; downloads go to the other one.
        bundle: SHA-256 of the bundle in it, None if no model is in use.
        previous: SHA-256 of the bundle in the other slot while `trial`, or None.
        trial: whether the active model still has to prove itself.
        starts: how often the board started during the trial.
        download: [SHA-256, size, failed attempts] of the bundle on its way, or None.
        refused: SHA-256 of bundles not to be taken again, the latest last.
    """

    _FORMAT = 1  # a file of another format is as good as none
    _KEYS = ("slot", "bundle", "previous", "trial", "starts", "download", "refused")

    def __init__(self, flash):
        self.slot = 1
        self.bundle = None
        self.previous = None
        self.trial = False
        self.starts = 0
        self.download = None
        self.refused = []
        self._flash = flash
        data = flash.load(STATE_FILE, _MAX_STATE_BYTES)
        if data is not None:
            values = cbor.decode(data, _MAX_STATE_BYTES)
            if values[0] == self._FORMAT:
                for key, value in zip(self._KEYS, values[1:]):
                    setattr(self, key, value)

    def save(self):
        """Make it durable; raises OSError."""
        values = [self._FORMAT] + [getattr(self, key) for key in self._KEYS]
        self._flash.save(STATE_FILE, cbor.encode(values))

    def refuse(self, digest):
        """Remember a bundle as bad."""
        self.refused = (self.refused + [digest])[-MAX_REFUSED:]

    def try_spare(self):
        """Switch to what was downloaded, on trial; raises OSError, then read the state anew."""
        self.previous, self.bundle = self.bundle, self.download[0]
        self.slot = self.spare
        self.trial = True
        self.starts = 0
        self.download = None
        self.save()

    def confirm(self):
        """End the trial well; raises OSError, then it goes on."""
        previous = self.previous
        self.trial, self.previous = False, None
        try:
            self.save()
        except OSError:
            self.trial, self.previous = True, previous
            raise

    def needed_slot(self):
        """Return the name of the slot whose model a start takes into use, None for none."""
        if self.download is not None:
            slot = SLOT_FILES[self.spare]
            if self._flash.size(slot) >= self.download[1]:
                return slot
        return None if self.bundle is None else SLOT_FILES[self.slot]

    @property
    def spare(self):
        """Number of the slot that is not in use."""
        return self.slot ^ 1


class Updater:
    """The board's models.

    Args:
        flash: the Flash that holds slots and state.
        release_keys: x || y of at most three keys whose releases are trusted.
        chain_id: SHA-256 of the founding file.
        device_type: what the board is enrolled as.
        channels: names of the values in a row.
        report: function(state, version, digest, reason, bundle=None). `state` is "downloading",
            "active", "rejected" or "rolled_back". For the first and third, version and digest are
            the bundle's as announced (version 0: not announced since the start); else they are
            the version and the SHA-256 of the .tflite that judges now, 0 and None if none does;
            `bundle` is the SHA-256 of the bundle that was given up.
        judge: the Judge of the active model, where it was loaded before.

    Attributes:
        judge: the active Judge, or None.
    """

    def __init__(self, flash, release_keys, chain_id, device_type, channels, report):
        self._flash = flash
        self._release_keys = release_keys
        self._chain_id = chain_id
        self._device_type = device_type
        self._channels = channels
        self._report = report
        self._state = _State(flash)
        self._waiting = None  # an announcement that came during a trial
        self._verdicts = 0  # of a model on trial, since the start
        self._version = 0  # of the download, as announced
        self._download = Download(flash, self._keep_download)
        self.judge = None

    @property
    def busy(self):
        """Whether there is something to do: a trial, a download."""
        return self._state.trial or self._download.wanted is not None

    @property
    def digest(self):
        """SHA-256 of the .tflite that judges, or None."""
        return self.judge.manifest["payload"]["sha256"] if self.judge else None

    @property
    def version(self):
        """Version of the model that judges, 0 without one."""
        return self.judge.manifest["version"] if self.judge else 0

    # Judging ------------------------------------------------------------------------------

    def start(self):
        """Take the active model into use, or go back if its trial failed; resume a download."""
        state = self._state
        if state.trial:
            state.starts += 1
            try:
                state.save()
            except OSError:
                pass  # a trial that cannot be counted goes on
        if state.trial and state.starts > MAX_TRIAL_STARTS:
            self._roll_back("the board started %d times during the trial" % state.starts)
        elif state.needed_slot() == SLOT_FILES[state.slot]:
            self._activate()  # else the other one comes first
        if state.download is not None:
            self._report("downloading", 0, state.download[0], "")
            try:
                self._go_on(self._download.resume(state.download, SLOT_FILES[state.spare]))
            except OSError as error:
                self._abandon(_reason(error))
        if self.judge is None and self._state.bundle is not None:
            self._activate()  # the download came first and is not it

    def push(self, row, time_ms):
        """Let the active model judge a row: see `Judge.push`. A model that fails is given up."""
        if self.judge is None:
            return None
        try:
            verdict = self.judge.push(row, time_ms)
        except Exception as error:  # noqa: BLE001 - whatever a model does, the board goes on
            self.failed(error)
            return None
        if verdict and self._state.trial:
            self._verdicts += 1
            if self._verdicts >= TRIAL_VERDICTS:
                self._confirm()
        return verdict

    def failed(self, error):
        """Give the active model up, which did not judge a row."""
        self._roll_back("%s %s" % (type(error).__name__, error))

    def _activate(self):
        """Load what is in the active slot; if that fails, go back."""
        slot = SLOT_FILES[self._state.slot]
        try:
            self.judge = self._load(slot, *self._check(slot))
        except (FoglineError, MemoryError, OSError) as error:
            _restart_for_memory(slot, error)
            self._roll_back(_reason(error))
        else:
            self._report("active", self.version, self.digest, "")

    def _confirm(self):
        try:
            self._state.confirm()
        except OSError:
            return  # tried again at the next verdict
        self._offer_waiting()

    def _roll_back(self, reason):
        """Give up the active model: for the one before it, if it is on trial."""
        state = self._state
        self.judge = None
        gc.collect()
        bundle = state.bundle
        previous = state.previous if state.trial else None
        if state.trial:
            state.refuse(state.bundle)
        if previous:
            state.slot = state.spare
        state.bundle = previous
        state.previous = None
        state.trial = False
        try:
            state.save()
        except OSError as error:
            reason = "%s; %s" % (reason, _reason(error))
        try:
            if previous:
                self._activate()
        finally:
            self._report("rolled_back", self.version, self.digest, reason, bundle)
        self._offer_waiting()

    # The download -------------------------------------------------------------------------

    def announce(self, payload):
        """Take a gateway's announcement (CBOR bytes); raises EncodingError."""
        announced = parse_announcement(payload)
        if self._state.trial:
            self._waiting = announced
        else:
            self._offer(*announced)

    def next_request(self):
        """Return [SHA-256, offset, length] of the chunk to ask for now, or None."""
        return self._download.next_request()

    def chunk(self, fields):
        """Take what `parse_chunk` returned; raises EncodingError. See `Download.chunk`."""
        try:
            self._go_on(self._download.chunk(fields))
        except OSError as error:
            self._abandon(_reason(error))

    def _offer_waiting(self):
        """Take the announcement, if any, that came during the trial that is over now."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._offer(*waiting)

    def _offer(self, digest, size, version):
        """Begin to download a release, unless it is known or cannot be taken."""
        state = self._state
        if digest == state.bundle:
            return
        if digest in state.refused:
            self._report("rejected", version, digest, "refused before")
            return
        if self._download.is_of(digest):
            self._version = version
            return
        if version <= self.version:
            self._report("rejected", version, digest, "version is not above %d" % self.version)
            return
        if not fits(size):
            self._report(
                "rejected", version, digest, "size is not up to %d bytes" % bundles.MAX_BUNDLE_BYTES
            )
            return
        self._version = version
        try:
            self._download.begin(digest, size, SLOT_FILES[state.spare])
        except OSError as error:
            self._abandon(_reason(error))
        else:
            self._report("downloading", version, digest, "")

    def _keep_download(self, wanted):
        self._state.download = wanted
        self._state.save()

    def _abandon(self, reason):
        """Give up a download that the flash does not take; an announcement begins it anew."""
        self._state.download = None
        self._report("rejected", self._version, self._download.stop(), reason)

    def _go_on(self, outcome):
        """Do what the download has come to; raises OSError."""
        if outcome == WHOLE:
            self._install(self._download.file)
        elif outcome == BAD:
            self._reject("SHA-256 is not the announced one")

    def _install(self, slot):
        """Check a whole bundle and let it judge, on trial; raises OSError."""
        state = self._state
        try:
            manifest, at, length = self._check(slot)
            running = self._running_version()
            if not manifest["min_version"] <= running < manifest["version"]:
                raise UpdateError(
                    "update.version",
                    "%d to %d is running, here it is %d"
                    % (manifest["min_version"], manifest["version"] - 1, running),
                )
        except (FoglineError, MemoryError) as error:
            self._reject(_reason(error))
            return
        # Two models at once may be more than the board holds.
        self.judge = None
        gc.collect()
        try:
            judge = self._load(slot, manifest, at, length)
            state.try_spare()
            self._download.stop()
        except (FoglineError, MemoryError) as error:
            _restart_for_memory(slot, error)
            self._reject(_reason(error))
        except OSError as error:
            self._state = _State(self._flash)  # the old or the new, whichever is in flash
            if self._state.download is None:
                self._download.stop()
            else:
                self._abandon(_reason(error))
        else:
            self.judge = judge
            self._verdicts = 0
            self._report("active", self.version, self.digest, "")
            return
        if self._state.bundle is not None:
            self._activate()

    def _running_version(self):
        """Version of the model in use, which may not be loaded yet; 0 for none."""
        if self.judge is not None or self._state.bundle is None:
            return self.version
        try:
            return self._check(SLOT_FILES[self._state.slot])[0]["version"]
        except (FoglineError, MemoryError):
            return 0

    def _reject(self, reason):
        """Never take the downloaded bundle again; raises OSError."""
        digest = self._download.stop()
        self._state.refuse(digest)
        self._state.download = None
        self._state.save()
        self._flash.remove(SLOT_FILES[self._state.spare])
        self._report("rejected", self._version, digest, reason)

    # A bundle -----------------------------------------------------------------------------

    def _check(self, slot):
        """Check everything that needs no model in memory.

        Returns (manifest, offset and length of the payload). Raises FoglineError, OSError.
        """
        with self._flash.open(slot) as file:
            manifest, at, length = bundles.open_bundle(
                file, self._flash.size(slot), self._release_keys, self._chain_id
            )
            if manifest["device_type"] != self._device_type:
                raise UpdateError("update.device", "made for " + manifest["device_type"])
            known = supported()
            unload()
            for name in manifest["ops"]:
                if name not in known:
                    raise UpdateError("update.ops", name)
            limit = board.arena_bytes or MAX_ARENA_BYTES
            if manifest["arena"] > limit:
                raise UpdateError(
                    "update.arena", "%d bytes, this board has %d" % (manifest["arena"], limit)
                )
            payload = manifest["payload"]
            file.seek(at)
            if length != payload["size"] or hash_of(file) != payload["sha256"]:
                raise UpdateError("update.payload", "is not what was signed")
        return manifest, at, length

    def _load(self, slot, manifest, at, length):
        """Return the Judge of a checked bundle once its self-test vectors pass."""
        prepared, updates.prepared = updates.prepared, None
        if prepared is None or prepared[0] != manifest["payload"]["sha256"]:
            prepared = None  # two at once may be more than the board holds
            prepared = _prepare(self._flash, slot, at, length)
        model = prepared[1]
        if any(name not in manifest["ops"] for name in model.ops):
            raise UpdateError("update.ops", "the model has more than the manifest says")
        judge = Judge(model, manifest, self._channels)
        for number, test in enumerate(manifest.pop("selftest")):
            if model.invoke([test["in"]])[0] != test["out"]:
                raise UpdateError("update.selftest", "vector %d" % number)
        return judge


def _restart_for_memory(slot, error):
    """Raise RestartNeeded where `slot` could be loaded by a start that begins with it."""
    if updates.preloaded in (None, slot):
        return  # nothing would be better
    if isinstance(error, MemoryError) or getattr(error, "code", "") == "model.memory":
        raise RestartNeeded("memory for the model in " + slot)


def _reason(error):
    """Return a few words on an error, for the report."""
    if isinstance(error, FoglineError):
        return str(error)
    return "%s %s" % (type(error).__name__, error)
