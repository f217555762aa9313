"""Ends a process with the one that started it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

# Of a process whose parent is gone: how long it may take to end by itself.
GRACE_S = 5.0
POLL_S = 0.2


def end_with_parent() -> None:
    """Have this process end soon after the one that started it, whatever it is doing then.

    Flower asks its processes to, by a signal to themselves; one that comes while they have a lock
    that the end needs, too, stops them for ever.

    The one that started it may be gone already, and nothing tells who stands in its place. So it
    ends with the leader of its session, too: the SuperLink or SuperNode that `flower` started. As
    long as the session lasts, no other process is given that number.
    """
    parent, leader = os.getppid(), os.getsid(0)

    def watch() -> None:
        while os.getppid() == parent and _is_there(leader):
            time.sleep(POLL_S)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _is_there(leader: int) -> bool:
    """Whether it has not ended; one that nobody has waited for yet has."""
    if leader == 0:  # outside of the container that this process is in
        return True
    try:
        status = Path(f"/proc/{leader}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # Behind the name, which may hold anything (proc_pid_stat(5)).
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}
