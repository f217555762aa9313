"""New images in a folder that a camera, or anybody, writes to."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cloud.errors import RecordingError
from cloud.images import FORMATS, entries

# A file that changed within this time may still be written to.
SETTLE_S = 1.0


class Stamp(NamedTuple):
    """By what a file is known to be the same as before, without reading it."""

    mtime_ns: int
    size: int


@dataclass
class Folder:
    """One folder; sub-folders and what is no image by its suffix are not looked at.

    Attributes:
        path: of the folder.
    """

    path: Path
    _changed: dict[Path, tuple[Stamp, float]] = field(default_factory=dict, repr=False)

    @property
    def present(self) -> tuple[Path, ...]:
        """Images that were there when it was last looked at."""
        return tuple(self._changed)

    def settled(self, now_s: float) -> Iterator[tuple[Path, Stamp]]:
        """Images that have not changed for SETTLE_S, oldest first.

        Args:
            now_s: of a clock that never goes back.

        Raises:
            RecordingError: the folder cannot be read, or holds too many files.
        """
        present: dict[Path, tuple[Stamp, float]] = {}
        for path in entries(self.path):
            if path.suffix.lower() not in FORMATS:
                continue
            try:
                found = path.stat()
            except OSError:  # gone, or not ours to see: then it is not settled
                continue
            if not stat.S_ISREG(found.st_mode):
                continue
            stamp = Stamp(found.st_mtime_ns, found.st_size)
            known = self._changed.get(path)
            same = known is not None and known[0] == stamp
            present[path] = known if known is not None and same else (stamp, now_s)
        self._changed = present
        ready = [(p, s) for p, (s, since) in present.items() if now_s - since >= SETTLE_S]
        yield from sorted(ready, key=lambda item: (item[1].mtime_ns, item[0]))


def check_folder(path: Path) -> None:
    """Raise RecordingError where `path` is no folder that can be read."""
    if not path.is_dir():
        raise RecordingError(f"{path}: is no folder", "give the folder that the camera writes to")
    entries(path)
