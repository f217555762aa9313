"""The models of a board at work: the one that judges, and what is announced of others.

`update.py` and what it needs take some 20 KB of heap. So it is here only while it has something to
do: at the start, from an announcement to the end of the download, and during a trial. All that it
must remember is in flash.
"""

from .errors import UpdateError
from .modules import forget

_CODE = ("update", "bundle", "download")

# What this start began with, before the rest of the firmware took its memory: see `update.preload`.
preloaded = None  # the slot that it looked at, "" for none; None: it has not run
prepared = None  # (SHA-256 of the .tflite, Model) that it made


class Models:
    """What the board asks of its models; the arguments are those of `update.Updater`."""

    def __init__(self, *arguments):
        self._arguments = arguments
        self._updater = None
        self._judge = None

    @property
    def judge(self):
        """The active Judge, or None."""
        return self._judge if self._updater is None else self._updater.judge

    @property
    def digest(self):
        """SHA-256 of the .tflite that judges, or None."""
        judge = self.judge
        return judge.manifest["payload"]["sha256"] if judge else None

    def start(self):
        """As `Updater.start`."""
        self._load().start()
        self._settle()

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

    def announce(self, payload):
        """As `Updater.announce`; raises UpdateError `update.memory`, too."""
        try:
            self._load().announce(payload)
        except MemoryError:
            raise UpdateError("update.memory", "no room to look at a release") from None
        finally:
            self._settle()

    def next_request(self):
        """As `Updater.next_request`."""
        return None if self._updater is None else self._updater.next_request()

    def chunk(self, payload):
        """Take a chunk of a release; raises EncodingError. One that nobody asked for is nothing."""
        if self._updater is not None:
            from .download import parse_chunk

            self._updater.chunk(parse_chunk(payload))
            self._settle()

    def _load(self):
        if self._updater is None:
            from .update import Updater

            self._updater = Updater(*self._arguments)
            self._updater.judge = self._judge
        return self._updater

    def _settle(self):
        """Let go of the updater if it has nothing more to do."""
        if self._updater is not None and not self._updater.busy:
            self._judge = self._updater.judge
            self._updater = None
        if self._updater is None:
            forget(*_CODE)
