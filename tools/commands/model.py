"""`fogline model ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    new_app,
    report,
    run,
    write_out,
)
from tools.errors import ToolError
from tools.nodes import Nodes

app = new_app("Release models to boards, and see what they were trained on.")


@app.command("release")
def model_release(
    model: Annotated[Path, typer.Argument(help="Directory that training wrote.")],
    founding: FoundingFile,
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="Signing key of a member who is trainer.")
    ],
    name: Annotated[str, typer.Option(help="Name of the release.")],
    overruled_by: Annotated[
        str | None, typer.Option(help="Member who accepts that int8 loses more than a point.")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Sign a model and release it to the boards of its device type.

    Example: fogline model release model --name anomaly --founding founding.cbor
    --key lab/signing.key
    """
    from tools import training

    result = run(
        training.release(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            model,
            name,
            overruled_by,
        )
    )
    report(result, json_file)


@app.command("lineage")
def model_lineage(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    founding: FoundingFile,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Data set that was collected, as it is, or brought up to date where --api is "
            "given, too. Without it, the whole chain is followed, and nothing is kept.",
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Which; else the latest.")] = None,
    device_type: Annotated[
        str | None, typer.Option(help="Whose boards it is for, where several have that name.")
    ] = None,
    transactions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each transaction here, as CSV.")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Show what a model was trained on, from the chain, and whether its release says the same.

    The release's query is put again, and the Merkle root of what it finds is compared. Exit 1, with
    what differs, unless all of it fits and is sealed.

    Example: fogline model lineage anomaly --founding founding.cbor --data dataset
    """
    from tools import training

    found = run(
        training.lineage(
            None if data is not None and not api else Nodes.of(api, member),
            consortiums.load_founding(founding),
            data,
            training.Release(name, device_type, version),
        )
    )
    report(found.report(), json_file)
    if transactions is not None:
        write_out(transactions, found.transactions().encode())
    if not found.is_sealed:
        raise ToolError(found.why())


@app.command("list")
def model_list(api: Api = None, member: MemberDirectory = None, json_file: JsonFile = None) -> None:
    """List the latest releases on the chain.

    Example: fogline model list --api http://127.0.0.1:7480
    """
    nodes = Nodes.of(api, member)

    async def ask() -> Any:
        async with nodes.client() as client:
            return [release.model_dump() for release in await client.releases()]

    report({"releases": run(ask())}, json_file)
