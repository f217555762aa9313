"""What a board asks of the models that judge and of its own files, as long as it runs.

`update.py`, `firmware.py` and what they need take some 20 KB of heap. So they are here only while
they have something to do: at the start, from an announcement to the end of the download, and
during a trial. All that they must remember is in flash.
"""

import launcher

from . import VERSION_NUMBER, board
from .errors import UpdateError
from .modules import forget

PREFIX = "firmware/"

# What this start began with, before the rest of the firmware took its memory: see `update.preload`.
preloaded = None  # the slot that it looked at, "" for none; None: it has not run
prepared = None  # (SHA-256 of the .tflite, Model) that it made


class _Updates:
    """What both have in common; the arguments are those of the updater that `_made` makes."""

    _module = ""  # where that is

    def __init__(self, *arguments):
        self._arguments = arguments
        self._updater = None

    def start(self):
        """As `Updater.start` and `Firmware.start`."""
        self._load().start()
        self._settle()

    def announce(self, payload):
        """As of the two; raises UpdateError `update.memory`, too."""
        try:
            self._load().announce(payload)
        except MemoryError:
            raise UpdateError("update.memory", "no room to look at a release") from None
        finally:
            self._settle()

    def next_request(self):
        """As of the two."""
        return None if self._updater is None else self._updater.next_request()

    def chunk(self, payload):
        """Take a chunk of a release; raises EncodingError. One that nobody asked for is nothing."""
        if self._updater is not None:
            from .download import parse_chunk

            self._updater.chunk(parse_chunk(payload))
            self._settle()

    def _load(self):
        if self._updater is None:
            self._updater = self._made()
        return self._updater

    def _settle(self):
        """Let go of the updater if it has nothing more to do."""
        if self._updater is not None and not self._updater.busy:
            self._keep()
            self._updater = None
        if self._updater is None:
            forget(self._module, "bundle", "download")

    def _made(self):
        raise NotImplementedError

    def _keep(self):
        """Take over what is needed of an updater that goes."""


class Models(_Updates):
    """The models: the one that judges, and what is announced of others; see `update.Updater`."""

    _module = "update"
    _judge = None

    @property
    def judge(self):
        """The active Judge, or None."""
        return self._judge if self._updater is None else self._updater.judge

    @property
    def digest(self):
        """SHA-256 of the .tflite that judges, or None."""
        judge = self.judge
        return judge.manifest["payload"]["sha256"] if judge else None

    def push(self, row, time_ms):
        """As `Updater.push`."""
        if self._updater is None and self._judge is not None:
            try:
                return self._judge.push(row, time_ms)
            except Exception as error:  # noqa: BLE001 - whatever a model does, the board goes on
                self._load().failed(error)
                self._settle()
                return None
        if self._updater is None:
            return None
        verdict = self._updater.push(row, time_ms)
        self._settle()
        return verdict

    def _made(self):
        from .update import Updater

        updater = Updater(*self._arguments)
        updater.judge = self._judge
        return updater

    def _keep(self):
        self._judge = self._updater.judge


class OwnFiles(_Updates):
    """Our own files: which run, and what is announced of others; see `firmware.Firmware`."""

    _module = "firmware"

    @property
    def version(self):
        """Version of the files that run."""
        return launcher.state["version"] or VERSION_NUMBER

    @property
    def device_type(self):
        """Under which our releases are announced."""
        return PREFIX + board.board_class  # type: ignore[operator]  # text

    def start(self):
        """As `Firmware.start`."""
        if launcher.state["gone_back"] is not None or launcher.state["download"] is not None:
            super().start()

    def tick(self, up_ms):
        """As `Firmware.tick`."""
        if self._updater is None and not launcher.is_on_trial():
            return False
        return self._load().tick(up_ms)

    def confirm(self):
        """As `Firmware.confirm`."""
        if self._updater is not None or launcher.is_on_trial():
            self._load().confirm()
            self._settle()

    def _made(self):
        from .firmware import Firmware

        return Firmware(*self._arguments)
