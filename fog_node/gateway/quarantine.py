"""The refused bytes behind the latest incidents, for the operator to look at."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path

from fog_node.errors import GatewayError

from .admission import Refusal

log = logging.getLogger(__name__)

MAX_FILES = 1024
MAX_TOTAL_BYTES = 16 * 1024 * 1024
# Of a larger message the beginning is kept, under `<digest>.head`.
MAX_FILE_BYTES = 64 * 1024


class Quarantine:
    """A directory of refused messages, named by their SHA-256; the oldest give way.

    The incident on the chain holds the digest. What lies here is a help, not a record: it is
    not brought to the disk at once, and a failure to write it is only logged.
    """

    def __init__(
        self, directory: Path, max_files: int = MAX_FILES, max_bytes: int = MAX_TOTAL_BYTES
    ) -> None:
        """Open or create; raises GatewayError where the directory cannot be used."""
        self._directory = directory
        self._max_files = max_files
        self._max_bytes = max_bytes
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = sorted((f.stat().st_mtime_ns, f.name, f.stat().st_size) for f in _files(self))
        except OSError as error:
            raise GatewayError(
                f"{directory}: {error.strerror}; choose a data directory that this user may write"
            ) from error
        self._sizes = OrderedDict((name, size) for _, name, size in found)
        self._total = sum(self._sizes.values())

    @property
    def directory(self) -> Path:
        """Where the files lie."""
        return self._directory

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return self._total

    def __len__(self) -> int:
        """How many files are kept."""
        return len(self._sizes)

    def keep(self, refusal: Refusal) -> None:
        """Keep the bytes of a refused message."""
        data = refusal.message.data[:MAX_FILE_BYTES]
        whole = len(data) == len(refusal.message.data)
        name = refusal.digest.hex() + ("" if whole else ".head")
        if name in self._sizes:
            self._sizes.move_to_end(name)
            return
        try:
            (self._directory / name).write_bytes(data)
            self._sizes[name] = len(data)
            self._total += len(data)
            self._make_room()
        except OSError as error:
            log.warning("quarantine: %s is not kept: %s", name, error)

    def _make_room(self) -> None:
        while len(self._sizes) > self._max_files or self._total > self._max_bytes:
            name, size = self._sizes.popitem(last=False)
            self._total -= size
            (self._directory / name).unlink(missing_ok=True)


def _files(quarantine: Quarantine) -> list[Path]:
    return [file for file in quarantine.directory.iterdir() if file.is_file()]
