"""Mines one block at a time, beside everything else the node does."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from . import pow as proof_of_work
from .pow import CancelToken
from .protocol.block import Block, target_from_bits

log = logging.getLogger(__name__)

# The gateway and the votes come first. Not lower: at 19, a block of a busy machine would wait
# for seconds until its miner gets to run.
NICENESS = 5


class Miner:
    """A thread that searches a nonce, and can be stopped at any moment."""

    def __init__(self, kernel: str, threads: int) -> None:
        """Use `kernel` (one of `pow.kernels()`) on `threads` threads."""
        self._kernel = kernel
        self._threads = threads
        self._pool = ThreadPoolExecutor(1, "miner", initializer=_be_nice)
        self._cancel = CancelToken()
        self._task: asyncio.Task[None] | None = None
        self.hashes = 0

    def start(
        self, delay_s: float, template: Callable[[], Block], found: Callable[[Block], None]
    ) -> None:
        """Begin after `delay_s`; replaces what was being mined.

        Args:
            delay_s: seconds to wait first.
            template: makes the block to mine, nonce 0; is called again, for a later
                time stamp, when all nonces were tried in vain. Runs in the miner's thread.
            found: gets the mined block, in the event loop.
        """
        self.stop()
        self._cancel = CancelToken()
        self._task = asyncio.create_task(self._run(delay_s, template, found, self._cancel))

    def stop(self) -> None:
        """Give up the present block."""
        self._cancel.cancel()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._pool.shutdown(wait=True)

    async def _run(
        self,
        delay_s: float,
        template: Callable[[], Block],
        found: Callable[[Block], None],
        cancel: CancelToken,
    ) -> None:
        await asyncio.sleep(delay_s)
        loop = asyncio.get_running_loop()
        while not cancel.cancelled:
            search = partial(self._search, template, cancel)
            block = await loop.run_in_executor(self._pool, search)
            if block is not None and not cancel.cancelled:
                found(block)
                return

    def _search(self, template: Callable[[], Block], cancel: CancelToken) -> Block | None:
        if cancel.cancelled:
            return None
        block = template()
        header = block.header
        result = proof_of_work.mine(
            header.encode(),
            target_from_bits(header.bits),
            kernel=self._kernel,
            threads=self._threads,
            cancel=cancel,
        )
        self.hashes += result.hashes
        if result.nonce is None:
            return None
        return Block(replace(header, nonce=result.nonce), block.coinbase, block.transactions)


def _be_nice() -> None:
    # On Linux a thread has a priority of its own; the search's threads inherit it.
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except OSError as error:
        log.warning("miner: cannot lower its priority: %s", error)
