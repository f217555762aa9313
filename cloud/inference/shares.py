"""Which columns of a task's predictions others are told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """Columns of the CSV file that `predict` writes.

    Attributes:
        subject: names the thing.
        score: the model's number.
        said: a class; an empty one is normal. None: the model gives a number alone.
        adds: whether a thing has several rows, whose numbers are added up.
    """

    subject: str
    score: str
    said: str | None = None
    adds: bool = False
