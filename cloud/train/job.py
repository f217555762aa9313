"""What every training task is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.errors import TrainingError
from cloud.scale_out import HERE, Pool

EVALUATION_FILE = "evaluation.json"

# Told what is being done, how many steps are done, and of how many.
Progress = Callable[[str, int, int], None]


def say_nothing(what: str, done: int, of: int) -> None:
    """Take no note of the progress."""


@dataclass(frozen=True)
class LabelSheet:
    """A CSV file of what engineers say of a table's things, and the members who stand by it."""

    path: Path
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A training or an evaluation.

    Attributes:
        out: directory for what it writes; made if it is not there.
        quick: a first look within two minutes, instead of the best within thirty.
        seed: of everything random.
        progress: is told how far it is.
        pool: does the parts of a task that has such.
        labels: of engineers; None: the recordings' own alone.
        model: of an evaluation: directory of the trained model to measure; None: one is trained by
            the protocol.
    """

    out: Path
    quick: bool = False
    seed: int = 0
    progress: Progress = say_nothing
    pool: Pool = HERE
    labels: LabelSheet | None = None
    model: Path | None = None

    @property
    def within_parts(self) -> Progress:
        """Is told how far a part is, which only parts that are done here can tell."""
        return self.progress if self.pool is HERE else say_nothing

    def keep(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write what an evaluation has found, and give it back.

        Raises:
            TrainingError: a figure is no number, for which JSON has no word.
        """
        try:
            text = json.dumps(result, indent=1, allow_nan=False)
        except ValueError as error:
            raise TrainingError(
                "evaluation: one of its figures is no number",
                f"see by the plots in {self.out} whether the training went astray",
            ) from error
        (self.out / EVALUATION_FILE).write_text(text + "\n")
        return result


class Steps:
    """Counts the steps of a job, for whoever watches; it is called after each."""

    def __init__(self, job: Job, what: str, of: int) -> None:
        self._what, self._done, self._of, self._say = what, 0, of, job.progress
        self._say(what, 0, of)

    def __call__(self) -> None:
        self._done += 1
        self._say(self._what, self._done, self._of)
