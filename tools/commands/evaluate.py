"""`fogline evaluate ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools import recorded
from tools.commands.common import (
    Api,
    DatasetOrRecordings,
    DeviceTypeIfSealed,
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
    Workers,
    errors,
    new_app,
    report,
    run,
)
from tools.errors import UsageError
from tools.nodes import Nodes

TrainedModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="What `train` wrote, to be measured on --data; of recordings one is trained by the "
        "protocol, unless it is given.",
    ),
]

app = new_app("Measure a trained model, or a task by its protocol, baselines beside it.")


@app.command(
    "anomaly",
    help="Repeat boards' sealed verdicts with LiteRT, or run the protocol of recordings.\n\n"
    "With --founding and --model: boards' verdicts are held against LiteRT's, and against "
    "labels where there are such. Without --founding, --data are recordings: a model is "
    "trained and judged by the protocol in cloud/README.md, baselines beside it; or, with "
    "--model, one that was trained before is, by those that it has not learned from.\n\n"
    f"--data of recordings: {recorded.ANOMALY.data}\n\n"
    "Example: fogline evaluate anomaly --founding founding.cbor --data dataset "
    "--device-type pump --model model\n\n"
    f"Example: fogline evaluate anomaly --data {recorded.ANOMALY.example} --out evaluation\n\n"
    "Example: fogline evaluate anomaly --data later --model model --out evaluation",
)
def evaluate_anomaly(
    data: DatasetOrRecordings,
    founding: FoundingFileIfSealed = None,
    model: TrainedModel = None,
    device_type: DeviceTypeIfSealed = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help='JSON {"key id": {"s since 1970": true}} of rows, instead of sealed labels.'
        ),
    ] = None,
    no_labels: NoLabels = False,
    plots: Annotated[Path | None, typer.Option(help="Directory for plots.")] = None,
    api: Api = None,
    member: MemberDirectory = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for plots and the result; recordings only.")
    ] = None,
    quick: Quick = False,
    seed: Seed = 0,
    workers: NoWorkers = None,
    json_file: JsonFile = None,
) -> None:
    from tools import training

    recorded.ANOMALY.check_workers(workers)
    if training.is_recorded(
        founding, data, device_type=device_type, labels=labels, no_labels=no_labels, plots=plots,
        api=api,
    ):  # fmt: skip
        out = training.required("--out", out)
        recorded.check_measured_apart(out, model)
        with recorded.job(out, quick, seed, errors, model=model) as job:
            result = recorded.ANOMALY.module().evaluate(data, job)
    else:
        if out is not None or quick or seed:
            raise UsageError("--out, --quick, --seed: are for recordings; give --plots instead")
        query = training.query(
            training.required("--device-type", device_type), with_labels=not no_labels
        )
        check = training.Check(data, query, training.required("--model", model), labels, plots)
        consortium = consortiums.load_founding(training.required("--founding", founding))
        result = run(training.evaluate_anomaly(Nodes.of(api, member), consortium, check))
    report(result, json_file)


def _add(task: recorded.RecordedTask) -> None:
    def evaluate(
        data: Recordings,
        out: Annotated[Path, typer.Option(help="Directory for plots and the result.")],
        quick: Quick = False,
        seed: Seed = 0,
        workers: Workers = None,
        labels: Sheet = None,
        dataset: SheetSealedIn = None,
        model: TrainedModel = None,
        json_file: JsonFile = None,
        *,
        settings: dict[str, Any],
    ) -> None:
        task.check_workers(workers)
        task.check_model(model, quick, workers)
        recorded.check_measured_apart(out, model)
        sheet = task.sheet(labels, dataset)
        with recorded.job(out, quick, seed, errors, workers, sheet, model) as job:
            result = task.module().evaluate(data, job, **settings)
        report(result, json_file)

    app.command(
        task.name,
        help=f"Measure how well is told {task.learns}, by the protocol in cloud/README.md, or, "
        "with --model, by a model that was trained before."
        f"\n\n--data: {task.data}"
        f"\n\n--model: is judged by {task.judged_by}."
        f"\n\n--labels: {task.labels_help}."
        f"\n\nExample: fogline evaluate {task.name} --data {task.example} --out evaluation"
        f"\n\nExample: fogline evaluate {task.name} --model model --data later --out measured",
    )(task.with_options("evaluate", evaluate))


for _task in recorded.TASKS:
    _add(_task)
