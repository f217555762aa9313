"""How often Python looks for cycles of objects that nothing else refers to."""

from __future__ import annotations

import gc

# New objects before the youngest are looked through, and such looks before the older ones are.
THRESHOLDS = (20_000, 20, 50)


def relax() -> None:
    """Leave what is there alone for good, and look through what comes later less often.

    Call once, when a program has started. What a busy node makes is mostly bytes and small
    records, which go by themselves; looking through them as often as Python does by default
    takes some 4 % of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
