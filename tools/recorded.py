"""Training, prediction and evaluation on recordings: the tasks of `cloud.train`, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from cloud.train.job import Job


@dataclass(frozen=True)
class RecordedTask:
    """A task that learns from files.

    Attributes:
        name: as the command line has it; also the module's in `cloud.train`.
        learns: what it learns, for the help.
        data: what `--data` is.
        example: of a file or folder for `--data`.
        predicts: what `predict` writes, a row each.
    """

    name: str
    learns: str
    data: str
    example: str
    predicts: str

    def module(self) -> Any:
        """Load the task; takes a second or more, so only when it is to run."""
        return import_module(f"cloud.train.{self.name}")


TASKS = (
    RecordedTask(
        "failure",
        "whether a machine fails, and how",
        "CSV file of the AI4I 2020 format, or the folder with ai4i2020.csv in it.",
        "ai4i2020.csv",
        "probability, decision and likeliest mode of each row",
    ),
    RecordedTask(
        "rul",
        "how many cycles a machine has left before it fails",
        "folder with the files of one subset of C-MAPSS, or any one of these files.",
        "CMAPSSData/train_FD001.txt",
        "cycles left of each unit at its last row, and the interval in which 90 % of true values "
        "lie",
    ),
)


@contextmanager
def job(out: Path, quick: bool, seed: int, console: Console) -> Iterator[Job]:
    """Make a job whose progress is a bar on a terminal, and lines elsewhere."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)
            if not console.is_terminal:
                console.print(f"{what} {done}/{of}", highlight=False)

        yield Job(out, quick, seed, show)
