"""Puts verdicts on the chain, each once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from http import HTTPStatus

from fog_node.client import Client, ClientError, RefusedError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.predictions import MAX_PAYLOAD_BYTES, MAX_VERDICTS, Prediction, Verdict
from fog_node.protocol.transactions import Transaction, parse_transaction, sign_transaction

from .journal import Batch, Journal, Waiting

log = logging.getLogger(__name__)

# A batch that is not full waits so long for more.
GATHER_S = 2.0
POLL_S = 0.5
# Between two attempts to reach a node.
MIN_PAUSE_S, MAX_PAUSE_S = 1.0, 30.0


class Sealer:
    """Seals what the journal holds, one transaction after the other."""

    def __init__(
        self, journal: Journal, client: Client, key: SigningKey, founding: Founding
    ) -> None:
        """Prepare.

        Args:
            journal: of the worker.
            client: of fog nodes.
            key: of a member with the role gateway or trainer.
            founding: of the ledger.
        """
        self._journal = journal
        self._client = client
        self._key = key
        self._founding = founding
        self.transactions: list[bytes] = []

    async def run(self, *, until_empty: bool = False) -> None:
        """Seal until cancelled; nodes that do not answer are asked again.

        Args:
            until_empty: end when nothing waits any more.

        Raises:
            RefusedError: a node says that we may not.
        """
        pause = MIN_PAUSE_S
        while True:
            try:
                sealed = await self.seal_one()
            except RefusedError as error:
                if _is_for_good(error):
                    raise
                log.warning("sealing: put off: %s", error)
                await asyncio.sleep(max(pause, error.retry_after_s))
            except ClientError as error:
                log.warning("sealing: put off: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)
                continue
            else:
                if not sealed:
                    if until_empty:
                        return
                    await asyncio.sleep(POLL_S)
            pause = MIN_PAUSE_S

    async def seal_one(self) -> bool:
        """Seal one batch, and wait until it is final; False where nothing waits.

        Raises:
            ClientError: no node answers, or one refuses; nothing is lost, call it again.
        """
        batch = self._journal.unsealed()
        if batch is None:
            if (waiting := self._journal.waiting(MAX_VERDICTS)) is None:
                return False
            if len(waiting.ids) < MAX_VERDICTS:
                await asyncio.sleep(GATHER_S)
                waiting = self._journal.waiting(MAX_VERDICTS) or waiting
            waiting, body = _fitting(waiting)
            batch = self._journal.keep(waiting, await self._signed(body))
        while not await self._is_final(batch):
            batch = await self._send(batch)
            await asyncio.sleep(POLL_S)
        self._journal.sealed(batch)
        self.transactions.append(parse_transaction(batch.raw).id)
        return True

    async def _signed(self, body: Prediction) -> bytes:
        signer = await self._client.signer(self._key.kid)
        return sign_transaction(self._key, body, self._founding.chain_id, signer.next).raw

    async def _is_final(self, batch: Batch) -> bool:
        try:
            view = await self._client.transaction(parse_transaction(batch.raw).id)
        except RefusedError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return view.status == "final"

    async def _send(self, batch: Batch) -> Batch:
        """Send the bytes that were signed; where somebody took their number, sign anew.

        So too where an earlier run signed them with another key, which a node does not take.
        """
        transaction = parse_transaction(batch.raw)
        assert isinstance(transaction.body, Prediction)
        try:
            await self._client.submit(batch.raw)
        except RefusedError as error:
            if error.status != HTTPStatus.CONFLICT:
                if transaction.signer == self._key.kid or not _is_for_good(error):
                    raise
                log.warning("sealing: signed anew, with another key than before: %s", error)
                return self._journal.replace(batch, await self._signed(transaction.body))
        else:
            return batch
        if not await self._is_taken(transaction):
            return batch
        # That number is final, and not with these bytes: they can never become final.
        log.warning("sealing: number %d was taken by another of its key", transaction.sequence)
        return self._journal.replace(batch, await self._signed(transaction.body))

    async def _is_taken(self, transaction: Transaction) -> bool:
        """Whether one node says that this number is final with other bytes."""
        async with contextlib.aclosing(
            self._client.all_transactions(signer=transaction.signer)
        ) as latest_first:
            async for view in latest_first:
                if view.sequence <= transaction.sequence:
                    return (
                        view.sequence == transaction.sequence
                        and view.status == "final"
                        and view.id != transaction.id.hex()
                    )
        return False


def _is_for_good(error: RefusedError) -> bool:
    """Whether asking again gives the same answer."""
    return error.status < HTTPStatus.INTERNAL_SERVER_ERROR and not error.retry_after_s


def _fitting(waiting: Waiting) -> tuple[Waiting, Prediction]:
    """The first of them that one transaction can hold; long names need more room."""
    while len((body := _body(waiting)).encode()) > MAX_PAYLOAD_BYTES:
        half = len(waiting.ids) // 2
        waiting = waiting._replace(ids=waiting.ids[:half], said=waiting.said[:half])
    return waiting, body


def _body(waiting: Waiting) -> Prediction:
    return Prediction(
        name=waiting.name,
        model=waiting.model,
        source=waiting.source,
        verdicts=tuple(Verdict(item.subject, item.said, item.score) for item in waiting.said),
        time=time.time_ns() // 1_000_000,
    )
