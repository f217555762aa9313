"""`fogline proof ...`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fog_node.client import Client
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    new_app,
    report,
    run,
)
from tools.errors import UsageError
from tools.nodes import Nodes
from tools.outputs import write_out

if TYPE_CHECKING:
    from fog_node.archive import ArchiveReader
    from fog_node.protocol.proof import Proof

TRANSACTION_ID_BYTES = 32
KID_BYTES = 8

app = new_app("Get and check proofs of what is final, with the founding file alone.")

ArchiveDirectory = Annotated[
    Path | None,
    typer.Option(
        "--archive", metavar="DIR", help="Make it offline from an archive of pruned blocks."
    ),
]
FoundingOption = Annotated[
    Path | None,
    typer.Option("--founding", metavar="FILE", help="The founding file, with --archive."),
]
ProofOut = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")]


@app.command("get")
def proof_get(
    transaction: Annotated[str, typer.Argument(help="Id of the transaction: 64 hex digits.")],
    out: ProofOut,
    api: Api = None,
    member: MemberDirectory = None,
    archive: ArchiveDirectory = None,
    founding: FoundingOption = None,
) -> None:
    """Write the proof that a transaction is final.

    Example: fogline proof get 6e340b9c... --out reading.proof
    """
    identity = _hex(transaction, TRANSACTION_ID_BYTES, "transaction id")
    if archive is not None:
        _write_archived(out, archive, founding, lambda reader: reader.prove(identity))
        return
    _write(out, Nodes.of(api, member), lambda client: client.proof(identity))


@app.command("range")
def proof_range(
    signer: Annotated[str, typer.Argument(help="Key id of the board or member: 16 hex digits.")],
    first: Annotated[int, typer.Argument(min=1, help="Its first number.")],
    last: Annotated[int, typer.Argument(min=1, help="Its last number.")],
    out: ProofOut,
    api: Api = None,
    member: MemberDirectory = None,
    archive: ArchiveDirectory = None,
    founding: FoundingOption = None,
) -> None:
    """Write the proof of all that a signer has sealed between two of its numbers, complete.

    Example: fogline proof range 0123456789abcdef 1 500 --out shift.proof
    """
    kid = _hex(signer, KID_BYTES, "key id")
    if archive is not None:
        _write_archived(out, archive, founding, lambda reader: reader.prove_range(kid, first, last))
        return
    _write(out, Nodes.of(api, member), lambda client: client.range_proof(kid, first, last))


@app.command("enrolment")
def proof_enrolment(
    device: Annotated[str, typer.Argument(help="Key id of the board: 16 hex digits.")],
    out: ProofOut,
    api: Api = None,
    member: MemberDirectory = None,
) -> None:
    """Write the proof of a board's enrolment, and of how it stands as of the latest block.

    Example: fogline proof enrolment 0123456789abcdef --out board.proof
    """
    kid = _hex(device, KID_BYTES, "key id")
    _write(out, Nodes.of(api, member), lambda client: client.enrolment_proof(kid))


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


@app.command("follow")
def proof_follow(
    founding: FoundingFile,
    kept: Annotated[
        Path, typer.Option("--kept", metavar="FILE", help="Where the head is kept between runs.")
    ],
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Follow the chain by its certificates, without bodies, and compare the nodes' heads.

    Example: fogline proof follow --founding founding.cbor --kept head.cbor
    --api http://fog1:7480 --api http://fog2:7480
    """
    from tools import proofs

    report(run(proofs.follow(Nodes.of(api, member), founding, kept)), json_file)


def _hex(text: str, length: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != length:
        raise UsageError(f"{text}: is not a {what}; give its {2 * length} hex digits")
    return value


def _write(out: Path, nodes: Nodes, ask: Callable[[Client], Awaitable[bytes]]) -> None:
    async def get() -> bytes:
        async with nodes.client() as client:
            return await ask(client)

    data = run(get())
    write_out(out, data)
    report({"proof": str(out), "bytes": len(data)}, None)


def _write_archived(
    out: Path, archive: Path, founding: Path | None, make: Callable[[ArchiveReader], Proof]
) -> None:
    from tools import proofs

    if founding is None:
        raise UsageError("--archive: give --founding FILE too")
    data = proofs.from_archive(archive, founding, make)
    write_out(out, data)
    report({"proof": str(out), "bytes": len(data)}, None)
