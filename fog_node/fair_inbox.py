"""A queue of messages in which no sender can keep another's from being read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Share(Generic[T]):
    items: deque[tuple[T, int]] = field(default_factory=deque)
    size: int = 0
    room: asyncio.Event = field(default_factory=asyncio.Event)


class FairInbox(Generic[T]):
    """One short queue per sender, taken from in turn; own events come first.

    Args:
        count: messages of one sender that may wait.
        size: bytes of them, and one message more.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._bytes = size
        self._own: deque[T] = deque()
        # Only senders of whom something waits; the next in turn comes first.
        self._shares: OrderedDict[bytes, _Share[T]] = OrderedDict()
        self._arrived = asyncio.Event()

    def post(self, item: T) -> None:
        """Queue an event of this node itself; it is not bounded here, and taken first."""
        self._own.append(item)
        self._arrived.set()

    async def put(self, sender: bytes, item: T, size: int) -> None:
        """Queue a message of `size` bytes; waits while the sender's share is full."""
        while (share := self._shares.get(sender)) is not None and (
            len(share.items) >= self._count or share.size >= self._bytes
        ):
            share.room.clear()
            await share.room.wait()
        if share is None:
            share = self._shares[sender] = _Share()
        share.items.append((item, size))
        share.size += size
        self._arrived.set()

    async def get(self) -> T:
        """Take the next one out; waits until there is one."""
        while not self._own and not self._shares:
            self._arrived.clear()
            await self._arrived.wait()
        if self._own:
            return self._own.popleft()
        sender, share = self._shares.popitem(last=False)
        item, size = share.items.popleft()
        share.size -= size
        share.room.set()
        if share.items:
            self._shares[sender] = share
        return item

    def waiting(self, sender: bytes) -> int:
        """How many messages of a sender wait."""
        share = self._shares.get(sender)
        return len(share.items) if share else 0
