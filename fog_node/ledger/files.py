"""The few file operations beside SQLite's, each on the disk before it returns.

Everything goes through here, so that a test can see every write and every sync.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fog_node.errors import StoreError


def open_file(path: Path, size: int) -> int:
    """Open for `write_at`, put back to its size where it was cut; raises StoreError."""
    with _guarded(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(descriptor).st_size != size:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
    return descriptor


def write_at(path: Path, descriptor: int, data: bytes, offset: int) -> None:
    """Overwrite a piece of an open file; raises StoreError."""
    with _guarded(path):
        os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)


def put_file(path: Path, content: bytes) -> None:
    """Make or replace a small file, at once or not at all; raises StoreError."""
    fresh = path.with_suffix(".new")
    with _guarded(path):
        with suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
    sync_directory(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file, which may be gone already; raises StoreError."""
    with _guarded(path):
        path.unlink(missing_ok=True)
    sync_directory(path.parent)


def read_file(path: Path) -> bytes | None:
    """Return a file's content; None where there is none. Raises StoreError."""
    with _guarded(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def sync_file(path: Path) -> None:
    """Put on the disk what a file holds; one that does not exist is let be. Raises StoreError."""
    with _guarded(path), suppress(FileNotFoundError):
        _sync(path, os.O_RDONLY)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on the disk; raises StoreError."""
    with _guarded(directory):
        _sync(directory, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}; look at the disk and the system's log, then start again"
        ) from error
