"""What a demo shows: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

REFRESH_PER_S = 4
PLAIN_INTERVAL_S = 5.0

BAR_CHARS = 24

Snapshot = Callable[[], Mapping[str, str]]


def bar(done: int, of: int) -> str:
    """A bar of BAR_CHARS characters."""
    filled = min(BAR_CHARS, BAR_CHARS * done // max(1, of))
    return "#" * filled + "." * (BAR_CHARS - filled)


class View:
    """Shows steps as they begin, and figures while a step goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._snapshot: Snapshot = dict
        self._live: Live | None = None
        self._plain_at = 0.0

    def __enter__(self) -> Self:
        """Take over the terminal, if there is one."""
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=REFRESH_PER_S,
                transient=True,
            )
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None

    def watch(self, snapshot: Snapshot) -> None:
        """Say where the figures come from."""
        self._snapshot = snapshot

    def step(self, text: str) -> None:
        """Begin a step."""
        line = f"[{time.monotonic() - self._began:6.1f} s] {text}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Elsewhere than on a terminal: a line of figures now and then."""
        now = time.monotonic()
        if self._live is None and now - self._plain_at > PLAIN_INTERVAL_S:
            self._plain_at = now
            figures = ", ".join(f"{name} {value}" for name, value in self._snapshot().items())
            line = f"[{now - self._began:6.1f} s]   {figures}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> Table:
        table = Table(show_header=False, title="fogline demo", title_justify="left")
        for name, value in self._snapshot().items():
            table.add_row(name, value)
        return table
