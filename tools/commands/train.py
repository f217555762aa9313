"""`fogline train ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    Quick,
    Recordings,
    Seed,
    errors,
    new_app,
    report,
    run,
)
from tools.nodes import Nodes

app = new_app("Train a model, on sealed readings or on recordings.")


@app.command("anomaly")
def train_anomaly(
    founding: FoundingFile,
    out: Annotated[Path, typer.Option(help="Directory for model, report and plots.")],
    data: DatasetDirectory,
    device_type: DeviceType,
    api: Api = None,
    member: MemberDirectory = None,
    quick: Quick = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Collect what is sealed, and train an anomaly detector that boards run.

    Example: fogline train anomaly --founding founding.cbor --data dataset --device-type pump
    --out model --quick
    """
    from tools import training

    result = run(
        training.train_anomaly(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            training.Job(data, device_type, out, quick, seed),
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
        json_file: JsonFile = None,
    ) -> None:
        with recorded.job(out, quick, seed, errors) as job:
            result = task.module().train(data, job)
        report(result, json_file)

    app.command(
        task.name,
        help=f"Learn {task.learns}, from recordings.\n\n--data: {task.data}"
        f"\n\nExample: fogline train {task.name} "
        f"--data {task.example} --out model",
    )(train)


for _task in recorded.TASKS:
    _add(_task)
