"""What comes in over the API, admitted in groups: one write to the disk serves all that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from fog_node.ledger import Admission
from fog_node.protocol.transactions import Transaction

# In one group; the API's connections bound how many can wait.
MAX_GROUP = 256


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
        self._waiting: asyncio.Queue[tuple[Transaction, asyncio.Future[Admission]]] = (
            asyncio.Queue()
        )

    async def submit(self, transaction: Transaction) -> Admission:
        """Have a transaction admitted; raises StoreError where nothing could be."""
        outcome: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        await self._waiting.put((transaction, outcome))
        return await outcome

    async def run(self) -> None:
        """Admit what waits, until cancelled."""
        while True:
            group = [await self._waiting.get()]
            while len(group) < MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            try:
                results = await asyncio.to_thread(self._admit, [item for item, _ in group])
            except Exception as error:  # noqa: BLE001 - each sender is told, as if it were alone
                for _, outcome in group:
                    if not outcome.done():
                        outcome.set_exception(error)
                continue
            self._admitted([r.transaction for r in results if r.status == "admitted"])
            for (_, outcome), result in zip(group, results, strict=True):
                if not outcome.done():  # a sender may have left
                    outcome.set_result(result)
