"""`fogline model ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    DatasetDirectory,
    FalseAlarms,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    new_app,
    numbers,
    report,
    run,
)
from tools.errors import ToolError
from tools.nodes import Nodes
from tools.outputs import write_out
from tools.rollout_wishes import Wishes

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
    """Sign a model and release it for the boards of its device type.

    They may all install it then, at once; where the consortium stages releases (the parameter
    staged_releases is 1), a rollout brings it to them: see `fogline model rollout`.

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


TrainerOrOperatorKey = Annotated[
    Path,
    typer.Option("--key", metavar="FILE", help="Signing key of a member, trainer or operator."),
]
Which = Annotated[
    str, typer.Argument(metavar="TYPE|ID", help="Device type, or how the rollout's id begins.")
]
Groups = Annotated[
    str, typer.Option(metavar="P,P,...", help="Percent of all boards, group by group.")
]
GROUPS = ",".join(map(str, Wishes.percentages))
Reason = Annotated[str, typer.Option(help="Why; goes on the chain.")]


@app.command("rollout")
def model_rollout(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    founding: FoundingFile,
    key: TrainerOrOperatorKey,
    version: Annotated[int | None, typer.Option(min=1, help="Its version. \\[the latest]")] = None,
    device_type: Annotated[
        str | None, typer.Option(help="Whose boards, where several types have that name.")
    ] = None,
    groups: Groups = GROUPS,
    first: Annotated[
        list[str] | None,
        typer.Option(metavar="KID,...", help="A group of these boards before those; repeatable."),
    ] = None,
    success: Annotated[
        int,
        typer.Option(min=1, max=100, help="Percent of a group that must do well for the next."),
    ] = Wishes.success,
    error_threshold: Annotated[
        int,
        typer.Option(min=1, max=100, help="Percent of a group whose failure stops the rollout."),
    ] = Wishes.errors,
    verdicts: Annotated[
        int, typer.Option(min=1, help="Sealed verdicts after which a board has done well.")
    ] = Wishes.verdicts,
    soak_s: Annotated[
        int, typer.Option(min=0, help="And so many seconds since the first.")
    ] = Wishes.soak_s,
    anomalies: Annotated[
        int,
        typer.Option(min=0, max=100, help="A board with more percent of them has failed."),
    ] = Wishes.anomalies,
    silent_s: Annotated[
        int,
        typer.Option(min=1, help="Seconds of silence, after it was heard, that count as failure."),
    ] = Wishes.silent_s,
    note: Annotated[str, typer.Option(help="Why; goes on the chain.")] = "",
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Propose to bring a release to its boards, group by group. A second member approves it.

    Makes the way back, too: what boards run now, signed again under a higher version, for they
    refuse lower ones. That takes a trainer's key; an operator may propose once it is there.

    Example: fogline model rollout anomaly --groups 5,25,100 --error-threshold 20
    --founding founding.cbor --key lab/signing.key
    """
    from tools import rollouts

    wishes = Wishes(
        name,
        device_type,
        version,
        numbers("--groups", groups),
        first or (),
        success,
        error_threshold,
        verdicts,
        soak_s,
        anomalies,
        silent_s,
        note,
    )
    result = run(
        rollouts.propose(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            wishes,
        )
    )
    report(result, json_file)


@app.command("approve")
def model_approve(
    which: Which,
    founding: FoundingFile,
    key: TrainerOrOperatorKey,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Approve a rollout that another member proposed, after a look at its bundles: it begins.

    Example: fogline model approve water-circulation --founding founding.cbor
    --key plant/signing.key
    """
    from tools import rollouts

    nodes, known = Nodes.of(api, member), consortiums.load_founding(founding)
    signing = consortiums.load_key(key)
    if not yes:
        report(run(rollouts.preview(nodes, known, which)), None)
        typer.confirm("approve this rollout?", abort=True)
    report(run(rollouts.approve(nodes, known, signing, which)), json_file)


@app.command("status")
def model_status(
    which: Annotated[
        str | None, typer.Argument(metavar="[TYPE|ID]", help="Device type or rollout. \\[all]")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Say what boards run and how rollouts go, group by group, with the boards that failed.

    Example: fogline model status --api http://127.0.0.1:7480
    """
    from tools import rollouts

    found = run(rollouts.status(Nodes.of(api, member), which))
    if json_file is not None:
        report({"device_types": found}, json_file, show=False)
    report(found or {"rollouts": "none: releases are for all boards at once"}, None)


CONTROLS = {
    "pause": """Begin no further group until `resume`; failures still stop the rollout.

    Example: fogline model pause water-circulation --founding founding.cbor --key plant/signing.key
    --reason "no staff at night"
    """,
    "resume": """Let a paused rollout go on.

    Example: fogline model resume water-circulation --founding founding.cbor --key plant/signing.key
    """,
    "rollback": """Stop a rollout, or take a finished one back.

    Boards run again what they ran before. One member is enough. A rollout that is only proposed is
    withdrawn.

    Example: fogline model rollback water-circulation --founding founding.cbor
    --key plant/signing.key --reason "false alarms in hall 2"
    """,
}


def _add(action: str) -> None:
    def control(
        which: Which,
        founding: FoundingFile,
        key: TrainerOrOperatorKey,
        reason: Reason = "",
        api: Api = None,
        member: MemberDirectory = None,
        json_file: JsonFile = None,
    ) -> None:
        from tools import rollouts

        nodes, known = Nodes.of(api, member), consortiums.load_founding(founding)
        signing = consortiums.load_key(key)
        report(run(rollouts.control(nodes, known, signing, which, action, reason)), json_file)

    app.command(action, help=CONTROLS[action])(control)


for _action in CONTROLS:
    _add(_action)


@app.command("watch")
def model_watch(
    name: Annotated[str, typer.Argument(help="Name of the release.")],
    founding: FoundingFile,
    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Signing key of a member: gateway or trainer."),
    ],
    data: DatasetDirectory,
    device_type: Annotated[
        str | None, typer.Option(help="Where several types have a release of this name.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.001, help="Look at the readings of so long.")] = 24,
    limit: Annotated[
        float, typer.Option(min=0, help="Population stability index above which it has moved.")
    ] = 0.25,
    looks: Annotated[
        int, typer.Option(min=1, help="It counts when it has moved in so many looks in a row.")
    ] = 3,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 3600,
    once: Annotated[bool, typer.Option(help="One look, which counts at once.")] = False,
    retrain: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Train anew, here, when it has moved. \\[only say that one should]"
        ),
    ] = None,
    groups: Groups = GROUPS,
    quick: Annotated[bool, typer.Option(help="Train for fewer epochs.")] = False,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    false_alarms: FalseAlarms = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Watch whether what boards' models see and say drifts from what they were trained on.

    It goes on until Ctrl-C. Watched is what the boards run that NAME is for: while a rollout is
    under way both models, each by the boards that have it. Drift is sealed as a transaction. With
    --retrain a model is trained on the recent readings, and released if it beats the running one on
    sealed readings that neither has learned from; where the consortium stages releases its rollout
    is proposed by --groups. While another rollout is open, that waits.

    Example: fogline model watch anomaly --founding founding.cbor --key plant/signing.key
    --data dataset --retrain models
    """
    from tools import watching

    run(
        watching.watch(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            watching.Watched(name, device_type, data, consortiums.load_key(key)),
            watching.Rule(
                hours, limit, looks, retrain, numbers("--groups", groups), quick, seed, false_alarms
            ),
            None if once else every,
            lambda look: report(look, json_file),
        )
    )


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
