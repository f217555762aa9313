"""One process per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fog_node.errors import StoreError

LOCK_FILE = "lock"


def lock_directory(directory: Path) -> int:
    """Hold the directory for this process until the returned descriptor is closed."""
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}; choose a data directory that this user may write"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreError(
            f"{directory}: is in use by the process {holder}; stop it, or choose another data "
            "directory: two nodes with one key would vote twice"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
