"""`fogline evaluate ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools import recorded
from tools.commands.common import (
    Api,
    DatasetDirectory,
    DeviceType,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    NoLabels,
    Quick,
    Recordings,
    Seed,
    Workers,
    errors,
    new_app,
    report,
    run,
)
from tools.nodes import Nodes

app = new_app("Measure a trained model, or a task by its protocol, baselines beside it.")


@app.command("anomaly")
def evaluate_anomaly(
    founding: FoundingFile,
    model: Annotated[Path, typer.Option(help="Directory that training wrote.")],
    data: DatasetDirectory,
    device_type: DeviceType,
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
    json_file: JsonFile = None,
) -> None:
    """Repeat the boards' sealed verdicts with LiteRT, and score them where there are labels.

    Example: fogline evaluate anomaly --founding founding.cbor --data dataset --device-type pump
    --model model
    """
    from tools import training

    query = training.query(device_type, with_labels=not no_labels)
    result = run(
        training.evaluate_anomaly(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            training.Check(data, query, model, labels, plots),
        )
    )
    report(result, json_file)


def _add(task: recorded.RecordedTask) -> None:
    def evaluate(
        data: Recordings,
        out: Annotated[Path, typer.Option(help="Directory for plots and the result.")],
        quick: Quick = False,
        seed: Seed = 0,
        workers: Workers = None,
        json_file: JsonFile = None,
        *,
        settings: dict[str, Any],
    ) -> None:
        task.check_workers(workers)
        with recorded.job(out, quick, seed, errors, workers) as job:
            result = task.module().evaluate(data, job, **settings)
        report(result, json_file)

    app.command(
        task.name,
        help=f"Measure how well is told {task.learns}, by the protocol in cloud/README.md."
        f"\n\n--data: {task.data}"
        f"\n\nExample: fogline evaluate {task.name} --data {task.example} --out evaluation",
    )(task.with_options("evaluate", evaluate))


for _task in recorded.TASKS:
    _add(_task)
