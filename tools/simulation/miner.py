"""Mining in simulated time: the search takes no work, only a wait that is drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from fog_node.pow import double_sha256
from fog_node.protocol.block import Block, target_from_bits


class SimulatedMiner:
    """What Agreement knows as a Miner."""

    def __init__(self, wait_ms: Callable[[], float]) -> None:
        """Find each block after `wait_ms()`."""
        self._wait_ms = wait_ms
        self._task: asyncio.Task[None] | None = None

    def start(
        self, delay_s: float, template: Callable[[], Block], found: Callable[[Block], None]
    ) -> None:
        """Begin after `delay_s`; replaces what was being mined."""
        self.stop()
        self._task = asyncio.create_task(self._run(delay_s, template, found))

    def stop(self) -> None:
        """Give up the present block."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(
        self, delay_s: float, template: Callable[[], Block], found: Callable[[Block], None]
    ) -> None:
        await asyncio.sleep(delay_s)
        block = template()
        await asyncio.sleep(self._wait_ms() / 1000)
        found(mined(block))


def mined(block: Block) -> Block:
    """Find a nonce for an easy target."""
    prefix = block.header.encode()[:-4]
    target = target_from_bits(block.header.bits)
    nonce = 0
    while int.from_bytes(double_sha256(prefix + nonce.to_bytes(4, "little")), "little") > target:
        nonce += 1
    return Block(replace(block.header, nonce=nonce), block.coinbase, block.transactions)
