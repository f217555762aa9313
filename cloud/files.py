"""Files that are read up to a bound, and put in place whole: the one before stands until then.

Without any package beside Python's own, so that every command can use it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# What a file is called until it is whole.
PART = ".part"


def read_bounded(path: Path, most: int) -> bytes:
    """All of a file; raises OSError, also where it is over `most` bytes, or no file."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"is over {most} bytes", str(path))
    return data


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it; raises OSError, also where it is no file."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never end, or never begin
        raise OSError(errno.EINVAL, "is no file", str(path))
    return path.open("rb")


def real_path(path: Path) -> Path:
    """Where a path leads; of links in a loop nobody can say, and whoever opens them is told so."""
    return Path(os.path.realpath(path))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file that somebody has named.

    A pipe, or a link as /dev/stdout is, is written to as it is.

    Yields:
        The path to write to.

    Raises:
        OSError: it cannot be written; of this, as of whatever else goes wrong, nothing is left.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path
        return
    with _in_place_of(path) as part:
        yield part


def save_file(path: Path, data: bytes, *, parents: bool = False) -> None:
    """Put a file in place, which is on the disk when this returns; raises OSError.

    Args:
        path: of the file.
        data: its content.
        parents: whether folders that it wants are made.
    """
    missing = [parent for parent in path.parents if not parent.exists()]
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    with _in_place_of(path) as part, part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    for folder in {path.parent, *(parent.parent for parent in missing)}:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _in_place_of(path: Path) -> Iterator[Path]:
    part = path.with_name(path.name + PART)
    try:
        yield part
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
