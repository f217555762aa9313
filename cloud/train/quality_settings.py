"""What `fogline train|predict|evaluate quality` can be told beyond what every task is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# Correlation from which images are near-duplicates. Chosen by looking at pairs of the casting set:
# below it, the first were of two pieces.
ALIKE = 0.95


@dataclass(frozen=True)
class FolderSettings:
    """How a folder of images is to be read.

    Attributes:
        good: name of the folder of good pieces; empty for the one whose name says so.
        alike: correlation from which two images are near-duplicates.
    """

    good: str = field(
        default="",
        metadata={
            "help": "Folder of good pieces; else the one named good..., ok..., normal... or pass..."
        },
    )
    alike: float = field(
        default=ALIKE,
        metadata={
            "help": "Correlation from which images are near-duplicates.",
            "min": 0.85,
            "max": 1,
        },
    )


@dataclass(frozen=True)
class EvaluateSettings(FolderSettings):
    """The same for an evaluation.

    Attributes:
        by_image: deal images one by one, near-duplicates to both sides, as is published.
    """

    by_image: bool = field(
        default=False,
        metadata={
            "help": "Deal images one by one, near-duplicates to both sides, as is published."
        },
    )


@dataclass(frozen=True)
class PredictSettings:
    """How images are to be judged.

    Attributes:
        heatmaps: directory for a PNG file for each image, showing where; None for none.
        variant: which of the model's networks judges.
    """

    heatmaps: Path | None = field(
        default=None, metadata={"help": "Directory for a PNG file of each image that shows where."}
    )
    variant: str = field(
        default="fog",
        metadata={"help": "Which network judges: that for fog nodes or for boards (fog, board)."},
    )
