"""`fogline train ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    DatasetDirectory,
    DeviceType,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    errors,
    new_app,
    report,
    run,
)
from tools.nodes import Nodes

app = new_app("Train a model on sealed readings.")


@app.command("anomaly")
def train_anomaly(
    founding: FoundingFile,
    out: Annotated[Path, typer.Option(help="Directory for model, report and plots.")],
    data: DatasetDirectory,
    device_type: DeviceType,
    api: Api = None,
    member: MemberDirectory = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look, in seconds.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
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
