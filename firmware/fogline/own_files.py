"""Our own files on a board at work: which run, and what is announced of others.

`firmware.py` and what it needs are here only while they have something to do: see `models.py`.
"""

import launcher

from . import VERSION_NUMBER, board
from .errors import UpdateError
from .modules import forget

PREFIX = "firmware/"
_CODE = ("firmware", "bundle", "download")


class OwnFiles:
    """What the board asks of its own files; the arguments are those of `firmware.Firmware`."""

    def __init__(self, *arguments):
        self._arguments = arguments
        self._firmware = None

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
            self._load().start()
            self._settle()

    def tick(self, up_ms):
        """As `Firmware.tick`."""
        if self._firmware is None and not launcher.is_on_trial():
            return False
        return self._load().tick(up_ms)

    def confirm(self):
        """As `Firmware.confirm`."""
        if self._firmware is not None or launcher.is_on_trial():
            self._load().confirm()
            self._settle()

    def announce(self, payload):
        """As `Firmware.announce`; raises UpdateError `update.memory`, too."""
        try:
            self._load().announce(payload)
        except MemoryError:
            raise UpdateError("update.memory", "no room to look at a release") from None
        finally:
            self._settle()

    def next_request(self):
        """As `Firmware.next_request`."""
        return None if self._firmware is None else self._firmware.next_request()

    def chunk(self, payload):
        """Take a chunk of a release; raises EncodingError. One that nobody asked for is nothing."""
        if self._firmware is not None:
            from .download import parse_chunk

            self._firmware.chunk(parse_chunk(payload))
            self._settle()

    def _load(self):
        if self._firmware is None:
            from .firmware import Firmware

            self._firmware = Firmware(*self._arguments)
        return self._firmware

    def _settle(self):
        """Let go of the code if it has nothing more to do."""
        if self._firmware is not None and not self._firmware.busy:
            self._firmware = None
        if self._firmware is None:
            forget(*_CODE)
