"""`fogline evaluate ...`."""

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
    new_app,
    report,
    run,
)
from tools.nodes import Nodes

app = new_app("Measure a trained model.")


@app.command("anomaly")
def evaluate_anomaly(
    founding: FoundingFile,
    model: Annotated[Path, typer.Option(help="Directory that training wrote.")],
    data: DatasetDirectory,
    device_type: DeviceType,
    labels: Annotated[
        Path | None, typer.Option(help='JSON {"key id": {"s since 1970": true}} of rows.')
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Directory for plots.")] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Repeat the boards' sealed verdicts with LiteRT, and score them where there are labels.

    Example: fogline evaluate anomaly --founding founding.cbor --data dataset --device-type pump
    --model model --labels labels.json
    """
    from tools import training

    result = run(
        training.evaluate_anomaly(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            training.Check(data, device_type, model, labels, plots),
        )
    )
    report(result, json_file)
