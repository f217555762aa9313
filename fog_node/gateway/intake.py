"""Gathers what boards send and has it judged in groups, beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from fog_node.errors import StoreError

from .admission import Admission, Judged, Message, Outcome

log = logging.getLogger(__name__)

# What may wait here. Beyond it the newest message is dropped: its board sends it again.
MAX_WAITING = 4096
MAX_WAITING_BYTES = 16 * 1024 * 1024
# What came within so long is judged, and written to the disk, together.
GATHER_S = 0.003
MAX_GROUP = 256
# Groups that were judged and wait for the disk.
MAX_UNWRITTEN = 4
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
        self._writer = ThreadPoolExecutor(1, "intake")
        self._judged: asyncio.Queue[list[Judged]] = asyncio.Queue(MAX_UNWRITTEN)
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
        """Judge what arrives, until cancelled; on return nothing is being written any more.

        While one group is written to the disk, the next one is judged.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._judge_groups())
                tasks.create_task(self._keep_groups())
        finally:
            self._writer.shutdown(wait=True)

    async def _judge_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if len(self._waiting) < MAX_GROUP:
                await asyncio.sleep(GATHER_S)
            group = self._take()
            try:
                judged = await loop.run_in_executor(self._executor, self._judge, group)
            except StoreError as error:
                await self._pause(len(group), error)
                continue
            outcomes = sum(len(part.outcomes) for part in judged)
            self.dropped += len(group) - outcomes
            await self._judged.put(judged)

    async def _keep_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            groups = await self._judged.get()
            while not self._judged.empty():
                groups = [*groups, *self._judged.get_nowait()]
            try:
                await loop.run_in_executor(self._writer, self._admission.keep, groups)
            except StoreError as error:
                await self._pause(sum(len(group.outcomes) for group in groups), error)
                continue
            for group in groups:
                self._settled(group.outcomes)

    async def _pause(self, lost: int, error: StoreError) -> None:
        self.dropped += lost
        log.error("gateway: nothing is admitted: %s", error)
        await asyncio.sleep(STORE_RETRY_S)

    def _judge(self, group: Sequence[Message]) -> list[Judged]:
        """Judge a group; a message that shows a defect of ours costs itself alone."""
        try:
            return [self._admission.judge(group)]
        except StoreError:
            raise
        except Exception:
            if len(group) == 1:
                log.exception("gateway: a message of %d bytes is dropped", len(group[0].data))
                return []
            return [part for message in group for part in self._judge([message])]

    def _take(self) -> list[Message]:
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
        self._waiting_bytes -= sum(len(message.data) for message in group)
        if not self._waiting:
            self._arrived.clear()
        return group
