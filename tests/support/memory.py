"""Where tests keep their files: in memory, where a ledger's syncs cost nothing.

Hundreds of tests have a ledger each, and a disk takes some milliseconds for each of its syncs. That
they are made, and when, is tested with a disk of our own (`power_cut`).
"""

import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")
# What all tests together hold at a time, several times over.
ROOM_BYTES = 4 << 30


def root() -> Path | None:
    """The folder; None where there is no such memory, too little, or no program may lie in it."""
    try:
        may_hold_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
        has_room = shutil.disk_usage(MEMORY).free >= ROOM_BYTES
    except OSError:
        return None
    is_ours = os.access(MEMORY, os.W_OK | os.X_OK)
    return MEMORY if may_hold_programs and has_room and is_ours else None
