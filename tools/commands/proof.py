"""`fogline proof ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools.commands.common import (
    DEFAULT_API,
    Api,
    FoundingFile,
    JsonFile,
    new_app,
    report,
    run,
    write_out,
)
from tools.errors import UsageError

TRANSACTION_ID_BYTES = 32

app = new_app("Get and check proofs that a transaction is final.")


@app.command("get")
def proof_get(
    transaction: Annotated[str, typer.Argument(help="Id of the transaction: 64 hex digits.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    api: Api = None,
) -> None:
    """Write the proof that a transaction is final.

    Example: fogline proof get 6e340b9c... --out reading.proof
    """
    from fog_node.client import Client

    try:
        identity = bytes.fromhex(transaction)
    except ValueError:
        identity = b""
    if len(identity) != TRANSACTION_ID_BYTES:
        raise UsageError(f"{transaction}: is not a transaction id; give its 64 hex digits")

    async def ask() -> bytes:
        async with Client(api or [DEFAULT_API]) as client:
            return await client.proof(identity)

    data = run(ask())
    write_out(out, data)
    report({"proof": str(out), "bytes": len(data)}, None)


@app.command("verify")
def proof_verify(
    proof: Annotated[Path, typer.Argument(help="The proof file.")],
    founding: FoundingFile,
    json_file: JsonFile = None,
) -> None:
    """Check a proof with the founding file alone, offline, and show what it proves.

    Example: fogline proof verify reading.proof --founding founding.cbor
    """
    from tools import proofs

    report(proofs.verify(proof, founding), json_file)
