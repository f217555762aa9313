"""Files that a command is asked to write: whole, and never over what cannot be had again."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloud.files import whole_file
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import MAX_FOUNDING_BYTES, parse_founding
from fog_node.small_files import read_small

from .errors import ToolError

__all__ = ["check_directory", "check_output", "write_json", "write_out", "written_whole"]

# What keys, certificates and ledgers begin with.
_HEADS = (b"-----BEGIN ", b"SQLite format 3\0")


def check_output(path: Path) -> None:
    """Raise ToolError where nothing can be written, or nothing may be."""
    if path.is_dir():
        raise _cannot(path, errno.EISDIR)
    if not path.parent.is_dir():
        raise _cannot(path, errno.ENOENT)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _cannot(path, errno.EACCES)
    if path.is_file() and _is_irreplaceable(path):
        raise ToolError(f"{path}: is a key, a founding file or a ledger; name another file")


def check_directory(option: str, path: Path) -> None:
    """Raise ToolError where nothing can be written to a directory, which may not be there yet."""
    absolute = path.absolute()
    there = next(folder for folder in (absolute, *absolute.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ToolError(f"{option} {path}: is no directory that can be written to; name another")


def write_out(path: Path, data: bytes) -> None:
    """Write what a command was asked to write; raises ToolError."""
    check_output(path)
    with written_whole(path) as part:
        part.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write a report; raises ToolError, also for a figure that is no number."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise ToolError(
            f"{path}: a figure is no number, for which JSON has no word; it stands above"
        ) from error
    write_out(path, f"{text}\n".encode())


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file as `cloud.files.whole_file` does; raises ToolError for an OSError within."""
    try:
        with whole_file(path) as part:
            yield part
    except OSError as error:
        raise ToolError(
            f"{path}: cannot be written: {error.strerror or error}; name a file that can be"
        ) from error


def _cannot(path: Path, number: int) -> ToolError:
    return ToolError(f"{path}: cannot be written: {os.strerror(number)}; name a file that can be")


def _is_irreplaceable(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.read(max(map(len, _HEADS))).startswith(_HEADS):
                return True
        parse_founding(read_small(path, MAX_FOUNDING_BYTES))
    except (OSError, ProtocolError):
        return False
    return True
