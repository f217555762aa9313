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
)
from tools.nodes import Nodes

app = new_app("Release models to boards.")


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
