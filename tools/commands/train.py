"""`fogline train ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools import recorded
from tools.commands.common import (
    Api,
    DatasetDirectory,
    Devices,
    DeviceType,
    JsonFile,
    MemberDirectory,
    NoLabels,
    Quick,
    Recordings,
    Seed,
    Since,
    Until,
    Workers,
    errors,
    new_app,
    report,
    run,
)
from tools.nodes import Nodes

app = new_app("Train a model, on sealed readings or on recordings.")


@app.command("anomaly")
def train_anomaly(
    out: Annotated[Path, typer.Option(help="Directory for model, report and plots.")],
    data: DatasetDirectory,
    device_type: DeviceType,
    founding: Annotated[
        Path | None,
        typer.Option("--founding", metavar="FILE", help="The consortium's founding file."),
    ] = None,
    device: Devices = None,
    since: Since = None,
    until: Until = None,
    no_labels: NoLabels = False,
    api: Api = None,
    member: MemberDirectory = None,
    quick: Quick = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Collect what is sealed, and train an anomaly detector that boards run.

    Rows that a sealed label calls anything but normal are not learned from. --data may also be what
    `fogline data import` made, without --founding: the model is then not for release.

    Example: fogline train anomaly --founding founding.cbor --data dataset --device-type pump
    --out model --quick
    """
    from tools import training

    query = training.query(device_type, device, since, until, with_labels=not no_labels)
    result = run(
        training.train_anomaly(
            Nodes.of(api, member),
            None if founding is None else consortiums.load_founding(founding),
            training.Job(data, query, out, quick, seed),
            errors,
        )
    )
    report(result, json_file)


def _add(task: recorded.RecordedTask) -> None:
    def train(
        data: Recordings,
        out: Annotated[Path, typer.Option(help="Directory for the model and its report.")],
        quick: Quick = False,
        seed: Seed = 0,
        workers: Workers = None,
        json_file: JsonFile = None,
        *,
        settings: dict[str, Any],
    ) -> None:
        task.check_workers(workers)
        with recorded.job(out, quick, seed, errors, workers) as job:
            result = task.module().train(data, job, **settings)
        report(result, json_file)

    app.command(
        task.name,
        help=f"Learn {task.learns}, from recordings.\n\n--data: {task.data}"
        f"\n\nExample: fogline train {task.name} "
        f"--data {task.example} --out model",
    )(task.with_options("train", train))


for _task in recorded.TASKS:
    _add(_task)
