"""Ends a process with the one that started it."""

from __future__ import annotations

import os
import threading
import time

# Of a process whose parent is gone: how long it may take to end by itself.
GRACE_S = 5.0
POLL_S = 0.2


def end_with_parent() -> None:
    """Have this process end soon after the one that started it, whatever it is doing then.

    Flower asks its processes to, by a signal to themselves; one that comes while they have a lock
    that the end needs, too, stops them for ever.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
