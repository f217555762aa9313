"""`fogline device ...`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    OperatorKey,
    new_app,
    report,
    run,
)
from tools.nodes import Nodes

app = new_app("Enrol, revoke, reinstate and list boards.")


@app.command("enroll")
def device_enroll(
    founding: FoundingFile,
    key: OperatorKey,
    public_key: Annotated[
        str, typer.Option(help="The board's public key: x and y, 128 hex digits.")
    ],
    owner: Annotated[str, typer.Option(help="Member that owns the board.")],
    device_type: Annotated[str, typer.Option("--type", help="What it measures, by a short name.")],
    channel: Annotated[
        list[str],
        typer.Option(help="NAME,UNIT,MIN,MAX of a quantity, unit in UCUM; repeatable, in order."),
    ],
    board: Annotated[str, typer.Option(help="Kind of board.")] = "unix",
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Put a board's public key, owner, type and channels on the chain.

    Example: fogline device enroll --founding founding.cbor --key plant/signing.key --owner plant
    --type pump --channel flow,L/min,0,200 --public-key 6b17d1...
    """
    from tools import devices

    result = run(
        devices.enroll(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            devices.enrolment(public_key, owner, device_type, board, channel),
        )
    )
    report(result, json_file)


@app.command("revoke")
def device_revoke(
    kid: Annotated[str, typer.Argument(help="Key id of the board: 16 hex digits.")],
    founding: FoundingFile,
    key: OperatorKey,
    reason: Annotated[str, typer.Option(help="Why; goes on the chain.")],
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """End the trust in a board's key: at once, and for good. Members are removed by vote.

    Example: fogline device revoke 0123456789abcdef --founding founding.cbor
    --key plant/signing.key --reason "stolen"
    """
    from tools import devices

    result = run(
        devices.revoke(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            kid,
            reason,
        )
    )
    report(result, json_file)


@app.command("reinstate")
def device_reinstate(
    kid: Annotated[str, typer.Argument(help="Key id of the board: 16 hex digits.")],
    founding: FoundingFile,
    key: OperatorKey,
    reason: Annotated[str, typer.Option(help="Why it is to be trusted again; on the chain.")],
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """End the quarantine of a board whose key was in two hands, once one of them is gone.

    Where you cannot be sure of that, revoke it and enrol the board with a new key instead.

    Example: fogline device reinstate 0123456789abcdef --founding founding.cbor
    --key plant/signing.key --reason "the copied flash was destroyed"
    """
    from tools import devices

    result = run(
        devices.reinstate(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            kid,
            reason,
        )
    )
    report(result, json_file)


@app.command("list")
def device_list(
    api: Api = None, member: MemberDirectory = None, json_file: JsonFile = None
) -> None:
    """List the boards on the chain.

    Example: fogline device list --api http://127.0.0.1:7480
    """
    nodes = Nodes.of(api, member)

    async def ask() -> Any:
        async with nodes.client() as client:
            return [device.model_dump() for device in await client.devices()]

    report({"devices": run(ask())}, json_file)
