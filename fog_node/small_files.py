"""Reading files that somebody names: never more of one than it may hold."""

from __future__ import annotations

import errno
from pathlib import Path

# Keys, certificates, passwords.
MAX_PEM_BYTES = 64 * 1024


def read_small(path: Path, most: int = MAX_PEM_BYTES) -> bytes:
    """Return a file's content.

    Raises:
        OSError: it cannot be read, or holds more than `most` bytes (as /dev/zero does, of size 0).
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"is larger than {most} bytes", str(path))
    return data
