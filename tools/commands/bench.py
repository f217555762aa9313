"""`fogline bench ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools.commands.common import (
    JsonFile,
    new_app,
)

app = new_app("Measure, as ratios within one run.")


@app.command("pow")
def bench_pow(
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Per kernel.")] = 2.0,
    kernel: Annotated[
        list[str] | None, typer.Option(help="A kernel to measure; repeatable. All by default.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the proof-of-work kernels against a hashlib loop.

    Example: fogline bench pow --seconds 5
    """
    from tools.bench import pow as bench

    bench.run(seconds, kernel, json_file)


@app.command("inference")
def bench_inference(
    model: Annotated[Path, typer.Argument(help="A full-int8 .tflite file with one input.")],
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="Inferences.")] = 200,
    json_file: JsonFile = None,
) -> None:
    """Measure the boards' interpreter against LiteRT's reference kernels in C.

    Example: fogline bench inference model/model.tflite
    """
    from tools.bench import inference as bench

    bench.run(model, runs, json_file)
