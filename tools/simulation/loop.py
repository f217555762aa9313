"""An asyncio event loop whose time is simulated and whose worker threads are calls.

Nothing waits: when no task is ready, time jumps to the next timer. A function that a node
hands to a worker thread, which is how it touches its disk, runs on the spot, or after as
long as the node's disk takes; so a run depends on nothing but its seed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from heapq import heappop, heappush
from itertools import count
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


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module's docstring."""

    def __init__(self) -> None:
        """Begin at time 0."""
        super().__init__()
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._ready: deque[asyncio.Handle]

    def time(self) -> float:
        """Return the simulated seconds since the beginning."""
        return self._now_s

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See AbstractEventLoop; what falls due at one time comes in the order of the calls."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _run_once(self) -> None:
        """Run what is ready; where nothing is, let time pass until the next timer."""
        ready, timers = self._ready, self._timers
        while timers and (timers[0][0] <= self._now_s or not ready):
            when, _, timer = heappop(timers)
            if not timer.cancelled():
                self._now_s = max(self._now_s, when)
                ready.append(timer)
        if not ready:
            raise RuntimeError("simulation: nothing will ever happen again")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - as BaseEventLoop does

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
