"""`fogline consortium ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fog_node.protocol.founding import Parameters
from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    ConsortiumDirectory,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    ValidatorKey,
    new_app,
    report,
    run,
)
from tools.errors import UsageError
from tools.nodes import Nodes

app = new_app("Found a consortium, issue its certificates, and change it by vote.")


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
    all_at_once: Annotated[
        bool,
        typer.Option(
            "--all-at-once",
            help="Models that a trainer releases are for all boards at once. Without it, a rollout "
            "that a second member approves brings them (the parameter staged_releases is 1).",
        ),
    ] = False,
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
    parameters = Parameters(staged_releases=0 if all_at_once else 1)
    founded = consortiums.create(
        directory, name, members, quorum_rule=quorum, parameters=parameters, hosts=host or ()
    )
    report(consortiums.describe(founded.founding) | {"directory": str(directory)}, json_file)


@app.command("show")
def consortium_show(
    founding: Annotated[
        Path | None, typer.Argument(help="The founding file; without --api.")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Say what a founding file holds, or with --api how the consortium stands now.

    The latter shows members with their roles and status, parameters, and proposals: who has
    approved them, what is missing, and what became of the latest ones.

    Example: fogline consortium show ./ours/founding.cbor

    Example: fogline consortium show --api http://127.0.0.1:7480
    """
    if founding is not None and api:
        raise UsageError("FOUNDING and --api: give one of them")
    if founding is not None:
        report(consortiums.describe(consortiums.load_founding(founding)), json_file)
        return
    if not api:
        raise UsageError("give a founding file, or --api URL of a node")
    from tools import governance

    report(run(governance.show(Nodes.of(api, member))), json_file)


@app.command("issue-certificate")
def consortium_issue_certificate(
    directory: ConsortiumDirectory,
    out: Annotated[Path, typer.Option(help="Directory for tls.crt, and tls.key if made here.")],
    name: Annotated[
        str | None, typer.Option(help="The founding member, or a server such as `broker`.")
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="request.json of who asks; its TLS key stays there."),
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address it serves under; repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 825,
) -> None:
    """Issue a TLS certificate: to a member, to the broker, or as a request asks for.

    Example: fogline consortium issue-certificate --consortium ./ours --name broker
    --host broker.plant.example --out ./broker

    Example: fogline consortium issue-certificate --consortium ./ours
    --request ./ulsan/request.json --out ./for-ulsan
    """
    opened = consortiums.Consortium.open(directory)
    if (name is None) == (request is None):
        raise UsageError("--name and --request: give one of them")
    if request is not None:
        from tools.membership_request import load_request

        asked = load_request(request, opened.founding)
        path = consortiums.issue_requested(opened, asked, out, hosts=host or (), days=days)
        report({"certificate": str(path), "member": asked.name}, None)
        return
    assert name is not None
    path = consortiums.issue_certificate(opened, name, out, hosts=host or (), days=days)
    whose = consortiums.certificate_for(opened, name)
    report({"certificate": str(path), "key": str(out / "tls.key"), "for": whose}, None)


@app.command("request-membership")
def consortium_request_membership(
    out: Annotated[Path, typer.Argument(help="Directory for the keys and the request.")],
    founding: FoundingFile,
    name: Annotated[str, typer.Option(help="Your member name: a-z, 0-9, '-'.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address under which your node serves; repeatable."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Make the keys of a new member, or new keys of an old one, and the request to use them.

    Give request.json to the consortium: a validator proposes it with --add-member or
    --rotate-key, and the authority's holder issues the certificate with issue-certificate
    --request. All else in the directory stays with you.

    Example: fogline consortium request-membership ./ulsan --founding founding.cbor --name ulsan
    """
    from tools.membership_request import make_request

    path = make_request(consortiums.load_founding(founding), name, out, host or ())
    report({"request": str(path), "key": str(out / "signing.key")}, json_file)


@app.command("propose")
def consortium_propose(
    founding: FoundingFile,
    key: ValidatorKey,
    add_member: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ROLE[,ROLE]:REQUEST", help="Add who made this request.json."),
    ] = None,
    remove_member: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="End a membership, for good.")
    ] = None,
    set_roles: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ROLE[,ROLE]", help="All its roles from now on; or `none`."),
    ] = None,
    rotate_key: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=REQUEST", help="Replace a member's key by the request's."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the chain, or quorum=RULE."),
    ] = None,
    revoke_certificate: Annotated[
        list[str] | None,
        typer.Option(metavar="SERIAL", help="A TLS certificate: serial number, hex, or its file."),
    ] = None,
    reinstate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Let a suspended or accused validator vote again."),
    ] = None,
    note: Annotated[str, typer.Option(help="Why; goes on the chain.")] = "",
    days: Annotated[
        float, typer.Option(min=0.01, max=90, help="How long it may be approved.")
    ] = 14.0,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Propose changes to the consortium, which take effect together once the quorum approves.

    All changes are one proposal; proposing approves it. Options are repeatable.

    Example: fogline consortium propose --founding founding.cbor --key seoul/signing.key
    --add-member ulsan=validator,gateway:ulsan/request.json --note "the fourth plant"

    Example: fogline consortium propose --founding founding.cbor --key seoul/signing.key
    --parameter heartbeat_ms=60000 --parameter quorum=two-thirds
    """
    from tools import governance

    wishes = governance.Wishes(
        add_member or (),
        remove_member or (),
        set_roles or (),
        rotate_key or (),
        parameter or (),
        revoke_certificate or (),
        reinstate or (),
    )
    result = run(
        governance.propose(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            wishes,
            note,
            days,
        )
    )
    report(result, json_file)


@app.command("approve")
def consortium_approve(
    proposal: Annotated[str, typer.Argument(help="The proposal's id, or how it begins.")],
    founding: FoundingFile,
    key: ValidatorKey,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Approve a proposal, after showing what it changes.

    Example: fogline consortium approve 3f9c01ab --founding founding.cbor --key busan/signing.key
    """
    from tools import governance

    nodes, known = Nodes.of(api, member), consortiums.load_founding(founding)
    signing = consortiums.load_key(key)
    if not yes:
        report({"changes": run(governance.preview(nodes, known, proposal))}, None)
        typer.confirm("approve these changes?", abort=True)
    report(run(governance.approve(nodes, known, signing, proposal)), json_file)


@app.command("withdraw")
def consortium_withdraw(
    proposal: Annotated[str, typer.Argument(help="The proposal's id, or how it begins.")],
    founding: FoundingFile,
    key: ValidatorKey,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Take back your approval; where the proposal is yours, all of it.

    Example: fogline consortium withdraw 3f9c01ab --founding founding.cbor --key busan/signing.key
    """
    from tools import governance

    result = run(
        governance.withdraw(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            proposal,
        )
    )
    report(result, json_file)
