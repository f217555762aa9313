"""An asyncio event loop whose time is simulated and whose worker threads are calls.

Nothing waits: when no task is ready, time jumps to the next timer. A function that a node
hands to a worker thread, which is how it touches its disk, runs on the spot, or after as
long as the node's disk takes; so a run depends on nothing but its seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol


class Disk(Protocol):
    """Says how long a node's disk takes, and whether the node is still there afterwards."""

    def disk_delay_ms(self) -> float:
        """How long the next access takes; drawn anew each time."""

    @property
    def life(self) -> int:
        """A number that changes when the node loses power."""


# Whose code runs; set in the context of each node's tasks.
DISK: ContextVar[Disk | None] = ContextVar("disk", default=None)


class _Selector:
    """Stands in for the selector: waiting for sockets is time passing."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next timer."""
        if timeout is None:
            raise RuntimeError("simulation: nothing will ever happen again")
        self._loop.pass_time(timeout)
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module's docstring."""

    def __init__(self) -> None:
        """Begin at time 0."""
        super().__init__()
        self._now_s = 0.0
        self._selector = _Selector(self)

    def time(self) -> float:
        """Return the simulated seconds since the beginning."""
        return self._now_s

    def pass_time(self, seconds: float) -> None:
        """Move the clock on."""
        self._now_s += seconds

    def run_in_executor(  # type: ignore[override]
        self,
        executor: object,  # noqa: ARG002 - there are no threads to choose from
        func: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Call `func` now, or when the disk of the node that asks has got that far."""
        future: asyncio.Future[Any] = self.create_future()
        disk = DISK.get()
        delay_s = 0.0 if disk is None else disk.disk_delay_ms() / 1000
        if delay_s == 0.0:
            _finish(future, func, args)
            return future
        life = disk.life if disk is not None else 0

        def access() -> None:
            # A cut of power before it came to the write; after it, the write stands.
            if disk is not None and disk.life == life and not future.done():
                result = _finish_later(func, args)
                self.call_later(delay_s / 2, _resolve, future, *result)

        self.call_later(delay_s / 2, access)
        return future

    def _process_events(self, event_list: object) -> None: ...

    def _write_to_self(self) -> None: ...


def _finish(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    _resolve(future, *_finish_later(func, args))


def _finish_later(
    func: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Any, BaseException | None]:
    try:
        return func(*args), None
    except Exception as error:  # noqa: BLE001 - handed on to whoever awaits it
        return None, error


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
