"""`fogline model ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    DEFAULT_API,
    Api,
    FoundingFile,
    JsonFile,
    new_app,
    report,
    run,
)

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
    json_file: JsonFile = None,
) -> None:
    """Sign a model and release it to the boards of its device type.

    Example: fogline model release model --name anomaly --founding founding.cbor
    --key lab/signing.key
    """
    from tools import training

    result = run(
        training.release(
            api or [DEFAULT_API],
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            model,
            name,
            overruled_by,
        )
    )
    report(result, json_file)


@app.command("list")
def model_list(api: Api = None, json_file: JsonFile = None) -> None:
    """List the latest releases on the chain.

    Example: fogline model list --api http://127.0.0.1:7480
    """
    from fog_node.client import Client

    async def ask() -> Any:
        async with Client(api or [DEFAULT_API]) as client:
            return [release.model_dump() for release in await client.releases()]

    report({"releases": run(ask())}, json_file)
