"""What every training task is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloud.scale_out import HERE, Pool

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
