"""What waits for the disk waits for room on it, too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .errors import DiskFullError

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S = 1.0


async def when_there_is_room(work: Callable[[], Awaitable[T]]) -> T:
    """Do what writes to the ledger, again and again while the disk is full.

    Nothing was written by an attempt that failed, and nothing is told to anybody before one has
    succeeded, so that this node only stands still meanwhile.
    """
    is_reported = False
    while True:
        try:
            done = await work()
        except DiskFullError as error:
            if not is_reported:
                log.error("the disk is full: %s", error)  # noqa: TRY400 - expected
                is_reported = True
            await asyncio.sleep(RETRY_S)
        else:
            if is_reported:
                log.warning("there is room on the disk again")
            return done
