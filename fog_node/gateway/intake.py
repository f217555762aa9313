"""Gathers what boards send and has it judged in groups, beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from fog_node.errors import StoreError

from .admission import Admission, Message, Outcome

log = logging.getLogger(__name__)

# What may wait here. Beyond it the newest message is dropped: its board sends it again.
MAX_WAITING = 4096
MAX_WAITING_BYTES = 16 * 1024 * 1024
# What came within so long is judged, and written to the disk, together.
GATHER_S = 0.003
MAX_GROUP = 256
# After the ledger could not write.
STORE_RETRY_S = 1.0


class Intake:
    """The queue between the lines to the boards and admission."""

    def __init__(
        self,
        admission: Admission,
        executor: Executor,
        settled: Callable[[Sequence[Outcome]], None],
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            admission: judges, in `executor`.
            executor: of one thread.
            settled: gets the outcomes of each group, in the event loop.
        """
        self._admission = admission
        self._executor = executor
        self._settled = settled
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def offer(self, message: Message) -> None:
        """Queue a message; dropped and counted where the queue is full.

        The bytes may go over their limit by one message, so that any size can be refused
        with its cause.
        """
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
            if not self.dropped:
                log.warning("gateway: more arrives than can be judged; boards will send again")
            self.dropped += 1
            return
        self._waiting.append(message)
        self._waiting_bytes += len(message.data)
        self._arrived.set()

    async def run(self) -> None:
        """Judge what arrives, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if len(self._waiting) < MAX_GROUP:
                await asyncio.sleep(GATHER_S)
            group = self._take()
            try:
                outcomes = await loop.run_in_executor(self._executor, self._judge, group)
            except StoreError as error:
                self.dropped += len(group)
                log.error("gateway: nothing is admitted: %s", error)  # noqa: TRY400 - expected
                await asyncio.sleep(STORE_RETRY_S)
            else:
                self.dropped += len(group) - len(outcomes)
                self._settled(outcomes)

    def _judge(self, group: Sequence[Message]) -> list[Outcome]:
        """Judge a group; a message that shows a defect of ours costs itself alone."""
        try:
            return self._admission.process(group)
        except StoreError:
            raise
        except Exception:
            if len(group) == 1:
                log.exception("gateway: a message of %d bytes is dropped", len(group[0].data))
                return []
            return [outcome for message in group for outcome in self._judge([message])]

    def _take(self) -> list[Message]:
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
        self._waiting_bytes -= sum(len(message.data) for message in group)
        if not self._waiting:
            self._arrived.clear()
        return group
