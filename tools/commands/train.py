"""`fogline train ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools import recorded
from tools.commands.common import (
    Api,
    DatasetOrRecordings,
    Devices,
    DeviceTypeIfSealed,
    FalseAlarms,
    FoundingFileIfSealed,
    JsonFile,
    MemberDirectory,
    NoLabels,
    NoWorkers,
    Quick,
    Recordings,
    Seed,
    Sheet,
    SheetSealedIn,
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


@app.command(
    "anomaly",
    help="Train a detector of anomalies that boards run, on sealed readings or on recordings.\n\n"
    "With --founding what is sealed is collected, and learned from but for rows that a "
    "sealed label calls anything but normal. --data may also be what `fogline data "
    "import` made, without --founding. Anything else without --founding are recordings. "
    "Only a model of sealed readings is for release.\n\n"
    f"--data of recordings: {recorded.ANOMALY.data}\n\n"
    "Example: fogline train anomaly --founding founding.cbor --data dataset --device-type "
    "pump --out model --quick\n\n"
    f"Example: fogline train anomaly --data {recorded.ANOMALY.example} --out model",
)
def train_anomaly(
    out: Annotated[Path, typer.Option(help="Directory for model, report and plots.")],
    data: DatasetOrRecordings,
    device_type: DeviceTypeIfSealed = None,
    founding: FoundingFileIfSealed = None,
    device: Devices = None,
    since: Since = None,
    until: Until = None,
    no_labels: NoLabels = False,
    api: Api = None,
    member: MemberDirectory = None,
    quick: Quick = False,
    seed: Seed = 0,
    false_alarms: FalseAlarms = None,
    workers: NoWorkers = None,
    json_file: JsonFile = None,
) -> None:
    from cloud.model_files import check_task
    from tools import training

    recorded.ANOMALY.check_workers(workers)
    check_task(out, recorded.ANOMALY.name)
    if training.is_recorded(
        founding, data, device_type=device_type, device=device, since=since, until=until,
        no_labels=no_labels, api=api, false_alarms=false_alarms,
    ):  # fmt: skip
        with recorded.job(out, quick, seed, errors) as job:
            result = recorded.ANOMALY.module().train(data, job)
    else:
        query = training.query(
            training.required("--device-type", device_type),
            device,
            since,
            until,
            with_labels=not no_labels,
        )
        known = None if founding is None else consortiums.load_founding(founding)
        nodes = Nodes.of(api, member)
        with recorded.job(out, quick, seed, errors) as job:
            result = run(training.train_anomaly(nodes, known, data, query, job, false_alarms))
    report(result, json_file)


def _add(task: recorded.RecordedTask) -> None:
    def train(
        data: Recordings,
        out: Annotated[Path, typer.Option(help="Directory for the model and its report.")],
        quick: Quick = False,
        seed: Seed = 0,
        workers: Workers = None,
        labels: Sheet = None,
        dataset: SheetSealedIn = None,
        json_file: JsonFile = None,
        *,
        settings: dict[str, Any],
    ) -> None:
        from cloud.model_files import check_task

        task.check_workers(workers)
        check_task(out, task.name)
        sheet = task.sheet(labels, dataset)
        with recorded.job(out, quick, seed, errors, workers, sheet) as job:
            result = task.module().train(data, job, **settings)
        report(result, json_file)

    app.command(
        task.name,
        help=f"Learn {task.learns}, from recordings.\n\n--data: {task.data}"
        f"\n\n--labels: {task.labels_help}."
        f"\n\nExample: fogline train {task.name} "
        f"--data {task.example} --out model",
    )(task.with_options("train", train))


for _task in recorded.TASKS:
    _add(_task)
