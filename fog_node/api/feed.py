"""Wakes those who follow the chain when a block is final.

Nothing is queued per follower: each reads from the ledger at its own pace, and one that is
slow costs no more memory than one that is fast.
"""

from __future__ import annotations

import asyncio


class BlockFeed:
    """The height of the latest final block, to wait for. Used from the event loop only."""

    def __init__(self, height: int) -> None:
        """Begin at the ledger's height."""
        self._height = height
        self._changed = asyncio.Event()
        self._is_closed = False

    @property
    def height(self) -> int:
        """Height of the latest final block that was announced."""
        return self._height

    @property
    def is_closed(self) -> bool:
        """Whether followers are to end."""
        return self._is_closed

    def announce(self, height: int) -> None:
        """A block is final: call once the ledger has taken it."""
        self._height = max(self._height, height)
        self._wake()

    def close(self) -> None:
        """The node stops: whoever waits is woken and finds the feed closed."""
        self._is_closed = True
        self._wake()

    async def wait(self, height: int, timeout_s: float) -> bool:
        """Wait until the block at `height` is final.

        Returns:
            Whether it is; False at the time-out and where the feed is closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._height < height and not self._is_closed:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return self._height >= height and not self._is_closed

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
