"""What comes in over the API, admitted in groups: one write to the disk serves all that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from fog_node.api.errors import RequestError
from fog_node.ledger import Admission
from fog_node.protocol.transactions import Transaction

# In one group; the API's connections bound how many can wait.
MAX_GROUP = 256

_Waiting = tuple[Transaction, asyncio.Future[Admission]]


class Submissions:
    """Takes transactions one by one; `run` admits them, in a task of its own."""

    def __init__(
        self,
        admit: Callable[[Sequence[Transaction]], list[Admission]],
        admitted: Callable[[Sequence[Transaction]], None],
    ) -> None:
        """Prepare.

        Args:
            admit: the ledger's, which blocks.
            admitted: is told of those that are new, before their senders are.
        """
        self._admit = admit
        self._admitted = admitted
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._ended = False

    async def submit(self, transaction: Transaction) -> Admission:
        """Have a transaction admitted; raises StoreError or RequestError."""
        if self._ended:
            raise _ending()
        outcome: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        await self._waiting.put((transaction, outcome))
        return await outcome

    async def run(self) -> None:
        """Admit what waits, until cancelled; then whoever still waits is told."""
        group: list[_Waiting] = []
        try:
            while True:
                group = [await self._waiting.get()]
                while len(group) < MAX_GROUP and not self._waiting.empty():
                    group.append(self._waiting.get_nowait())
                await self._take(group)
        finally:
            self._ended = True
            while not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            _fail(group, _ending())

    async def _take(self, group: list[_Waiting]) -> None:
        try:
            results = await asyncio.to_thread(self._admit, [item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - each sender is told, as if it were alone
            _fail(group, error)
            return
        self._admitted([r.transaction for r in results if r.status == "admitted"])
        for (_, outcome), result in zip(group, results, strict=True):
            if not outcome.done():  # a sender may have left
                outcome.set_result(result)


def _fail(group: list[_Waiting], error: Exception) -> None:
    for _, outcome in group:
        if not outcome.done():
            outcome.set_exception(error)


def _ending() -> RequestError:
    return RequestError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "node",
        "is shutting down",
        "send the transaction to another node, or here again",
    )
