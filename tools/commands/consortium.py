"""`fogline consortium ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    ConsortiumDirectory,
    JsonFile,
    new_app,
    report,
)
from tools.errors import UsageError

app = new_app("Found a consortium and issue its certificates.")


@app.command("create")
def consortium_create(
    directory: Annotated[Path, typer.Argument(help="New directory for keys and founding file.")],
    validator: Annotated[
        list[str], typer.Option(help="A validator's name; repeatable. Also gets the role gateway.")
    ],
    member: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ROLE[,ROLE] of another member; repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the consortium.")] = "fogline",
    quorum: Annotated[
        str, typer.Option(help="majority (more than 51 %) or two-thirds.")
    ] = "majority",
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address under which nodes serve; repeatable."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Make the founding file and every member's key and certificate.

    Example: fogline consortium create ./ours --validator seoul --validator busan
    --validator daegu --member plant=operator --member lab=trainer
    """
    members = dict.fromkeys(validator, consortiums.VALIDATOR_ROLES)
    for entry in member or []:
        who, equals, roles = entry.partition("=")
        if not equals or not roles:
            raise UsageError(f"--member {entry}: is not NAME=ROLE[,ROLE]")
        members[who] = members.get(who, frozenset()) | frozenset(roles.split(","))
    founded = consortiums.create(directory, name, members, quorum_rule=quorum, hosts=host or ())
    report(consortiums.describe(founded.founding) | {"directory": str(directory)}, json_file)


@app.command("show")
def consortium_show(
    founding: Annotated[Path, typer.Argument(help="The founding file.")],
    json_file: JsonFile = None,
) -> None:
    """Say what a founding file holds.

    Example: fogline consortium show ./ours/founding.cbor
    """
    report(consortiums.describe(consortiums.load_founding(founding)), json_file)


@app.command("issue-certificate")
def consortium_issue_certificate(
    directory: ConsortiumDirectory,
    name: Annotated[str, typer.Option(help="The member, or a server such as `broker`.")],
    out: Annotated[Path, typer.Option(help="Directory for tls.key and tls.crt.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address it serves under; repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 825,
) -> None:
    """Issue a TLS certificate, say to renew one or for the broker.

    Example: fogline consortium issue-certificate --consortium ./ours --name broker
    --host broker.plant.example --out ./broker
    """
    opened = consortiums.Consortium.open(directory)
    path = consortiums.issue_certificate(opened, name, out, hosts=host or (), days=days)
    report({"certificate": str(path), "key": str(out / "tls.key")}, None)
