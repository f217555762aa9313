"""The same work on many boards at once: bounded workers, other tries, and a report of each.

A board that fails does not hold up the others. What may pass (a line that broke, a board that did
not answer) is tried again after a pause, each time more slowly; what only a person can mend is
not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tools.devices.errors import DeviceError
from tools.devices.progress import Tell, View
from tools.errors import ToolError

__all__ = ["TRIES", "WORKERS", "Outcome", "failures", "run_all"]

WORKERS = 8
MAX_WORKERS = 64
TRIES = 3
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0

# work(name of the board, number of this try from 0, tell) gives what the report says of it
Work = Callable[[str, int, Tell], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """How it went with one board.

    Attributes:
        result: what the work gave; empty where it failed.
        error, remedy: what happened and what to press, plug or run; None where it went well.
        tries: how often it was begun.
    """

    name: str
    tries: int
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    remedy: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the work was done."""
        return self.error is None

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return {
            "port": self.name,
            "ok": self.is_good,
            "tries": self.tries,
            "seconds": round(self.seconds, 1),
            **self.result,
            "error": self.error,
            "remedy": self.remedy,
        }


def run_all(
    names: Sequence[str],
    work: Work,
    view: View,
    *,
    workers: int = WORKERS,
    tries: int = TRIES,
    first_pause_s: float = FIRST_PAUSE_S,
) -> list[Outcome]:
    """Do the work on each board; returns the outcomes in the order of the names.

    Ctrl-C lets no other try and no other board begin, and is raised once those at work have ended.
    """
    stopping = threading.Event()

    def one(name: str) -> Outcome:
        return _one(name, work, view, tries, first_pause_s, stopping)

    with ThreadPoolExecutor(max_workers=max(1, min(workers, MAX_WORKERS, len(names)))) as pool:
        futures = [pool.submit(one, name) for name in names]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            stopping.set()
            pool.shutdown(cancel_futures=True)
            raise


def _one(
    name: str, work: Work, view: View, tries: int, pause_s: float, stopping: threading.Event
) -> Outcome:
    tell = view.board(name)
    begun = time.monotonic()
    for attempt in range(tries):
        try:
            result = work(name, attempt, tell)
        except ToolError as error:
            is_last = attempt == tries - 1 or not getattr(error, "is_passing", False)
            if is_last or stopping.is_set():
                what, remedy = _words(error)
                view.ended(name, f"failed: {what}", is_good=False)
                return Outcome(
                    name, attempt + 1, time.monotonic() - begun, error=what, remedy=remedy
                )
            tell(f"{error}; once more in {pause_s:g} s")
            stopping.wait(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        else:
            view.ended(name, str(result.get("summary", "done")), is_good=True)
            return Outcome(name, attempt + 1, time.monotonic() - begun, result=result)
    raise AssertionError("the last try returns")


def _words(error: ToolError) -> tuple[str, str | None]:
    if isinstance(error, DeviceError):
        return error.what, error.remedy
    return str(error), None


def failures(outcomes: Sequence[Outcome]) -> str | None:
    """One line that says how many failed, None if none did."""
    bad = [outcome.name for outcome in outcomes if not outcome.is_good]
    if not bad:
        return None
    return (
        f"{len(bad)} of {len(outcomes)} boards failed ({', '.join(bad)}); "
        "do what is said beside each and run the same command again"
    )
