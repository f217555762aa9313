"""`fogline predict ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import recorded
from tools.commands.common import JsonFile, Recordings, new_app, report

app = new_app("Let a trained model say what it thinks of recordings.")


def _add(task: recorded.RecordedTask) -> None:
    def predict(
        model: Annotated[Path, typer.Option(metavar="DIR", help="What `train` wrote.")],
        data: Recordings,
        out: Annotated[Path, typer.Option(metavar="FILE", help="CSV file to write.")],
        json_file: JsonFile = None,
        *,
        settings: dict[str, Any],
    ) -> None:
        report(task.module().predict(model, data, out, **settings), json_file)

    app.command(
        task.name,
        help=f"Write {task.predicts}, as CSV.\n\n--data: {task.data}"
        f"\n\nExample: fogline predict {task.name} "
        f"--model model --data {task.example} --out predictions.csv",
    )(task.with_options("predict", predict))


for _task in (recorded.ANOMALY, *recorded.TASKS):
    _add(_task)
