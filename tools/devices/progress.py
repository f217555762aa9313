"""A line of progress for each of many boards: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["Tell", "View", "view", "whisper"]

# Without a terminal: a line for each new stage, and one in so long within a stage.
LINE_EVERY_S = 5.0


class Tell(Protocol):
    """Says how far one board is: a stage, and what fraction of it is done where that is known."""

    def __call__(self, stage: str, fraction: float | None = None) -> None:
        """Take note."""


def whisper(stage: str, fraction: float | None = None) -> None:
    """Tell nobody."""


class View(Protocol):
    """Where the progress of all boards is shown."""

    def board(self, name: str) -> Tell:
        """A line for one more board."""

    def ended(self, name: str, words: str, *, is_good: bool) -> None:
        """Its line says from now on how it ended."""


@contextmanager
def view(console: Console) -> Iterator[View]:
    """Show progress on this console for as long as the block runs."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def board(self, name: str) -> Tell:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(
                f"[bold]{escape(name)}", total=None, stage="waiting"
            )
        task = self._tasks[name]

        def tell(stage: str, fraction: float | None = None) -> None:
            total = None if fraction is None else 1.0
            self._progress.update(task, total=total, completed=fraction or 0.0, stage=escape(stage))

        return tell

    def ended(self, name: str, words: str, *, is_good: bool) -> None:
        colour = "green" if is_good else "red"
        task = self._tasks[name]
        self._progress.update(task, total=1.0, completed=1.0, stage=f"[{colour}]{escape(words)}")
        self._progress.stop_task(task)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()

    def board(self, name: str) -> Tell:
        last, told = "", 0.0

        def tell(stage: str, fraction: float | None = None) -> None:
            nonlocal last, told
            now = time.monotonic()
            if stage == last and now - told < LINE_EVERY_S:
                return
            last, told = stage, now
            self._say(f"{name}: {stage}" + (f" {fraction:.0%}" if fraction else ""))

        return tell

    def ended(self, name: str, words: str, *, is_good: bool) -> None:
        self._say(f"{name}: {words}" if is_good else f"{name}: !! {words}")

    def _say(self, line: str) -> None:
        with self._lock:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
