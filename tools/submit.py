"""Signs a member's transaction, sends it to a fog node and waits until it is final."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

from fog_node.client import Client, RefusedError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Body, Transaction, sign_transaction
from tools.errors import ToolError

FINAL_TIMEOUT_S = 60.0
POLL_S = 0.1
# Somebody else may sign with the same key meanwhile and take the number.
MAX_TRIES = 5


async def submit(
    client: Client, key: SigningKey, body: Body, founding: Founding, *, wait: bool = True
) -> Transaction:
    """Submit `body` as the next transaction of `key`'s owner.

    Args:
        client: of a fog node.
        key: the member's signing key.
        body: of the transaction.
        founding: the ledger that it is for.
        wait: until it is final, FINAL_TIMEOUT_S at most; else it has been admitted.

    Raises:
        ToolError: it is not final in time, or the node keeps another ledger.
        ClientError: no node answers, or it refuses.
    """
    for attempt in range(MAX_TRIES):
        signer = await client.signer(key.kid)
        transaction = sign_transaction(key, body, founding.chain_id, signer.next)
        try:
            await client.submit(transaction.raw)
            break
        except RefusedError as error:
            if error.status != HTTPStatus.CONFLICT or attempt == MAX_TRIES - 1:
                await _check_ledger(client, founding)
                raise
    if wait:
        await wait_final(client, transaction)
    return transaction


async def _check_ledger(client: Client, founding: Founding) -> None:
    """Raise ToolError where the node keeps another ledger than this founding file's."""
    status = await client.status()
    if status.chain_id != founding.chain_id.hex():
        raise ToolError(
            f"the founding file is that of chain {founding.chain_id.hex()}, the node keeps "
            f"{status.chain_id} ({status.consortium}): give --founding of that, or --api of another"
        )


async def wait_final(client: Client, transaction: Transaction) -> None:
    """Wait until a transaction is final; raises ToolError after FINAL_TIMEOUT_S."""
    deadline = time.monotonic() + FINAL_TIMEOUT_S
    while (await client.transaction(transaction.id)).status != "final":
        if time.monotonic() > deadline:
            raise ToolError(
                f"{transaction.kind} {transaction.id.hex()}: is not final after "
                f"{FINAL_TIMEOUT_S:.0f} s; see `fogline fog status` whether enough validators "
                "are connected"
            )
        await asyncio.sleep(POLL_S)
