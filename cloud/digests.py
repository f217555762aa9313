"""SHA-256 of files of any size."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from .errors import DatasetError

_CHUNK_BYTES = 1024 * 1024


def file_sha256(path: Path, most: int | None = None) -> bytes:
    """SHA-256 of a file; raises DatasetError where it cannot be read, or is over `most` bytes."""
    digest, size = hashlib.sha256(), 0
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never end, or never begin
            raise DatasetError(f"{path}: is no file", "write what it gives into one, and name it")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if most is not None and size > most:
                    raise DatasetError(f"{path}: is over {most} bytes", "give a smaller file")
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror})", "check its path and permissions"
        ) from error
    return digest.digest()
