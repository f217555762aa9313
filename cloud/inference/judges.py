"""Models that judge images, from the directories that `fogline train` wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cloud.images import Grey
from fog_node.protocol.labels import NORMAL
from fog_node.protocol.predictions import MAX_NAME_CHARS

DEFECT = "defect"


class Judgement(NamedTuple):
    """What a model says of an image.

    Attributes:
        said: a class, or None; score: the model's number.
        grid: from which the model draws where.
    """

    said: str | None
    score: float
    grid: Any


class ImageJudge(Protocol):
    """A model that judges images.

    Attributes:
        name: for readers of the chain.
        sha256: of its file.
        side: pixels of the squares that it wants.
    """

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> bytes: ...
    @property
    def side(self) -> int: ...

    def judge(self, images: Grey) -> Sequence[Judgement]:
        """Say something of each image, uint8 [n, side, side]; raises ModelError."""

    def picture(self, image: Path, judgement: Judgement) -> Any:
        """The image with where drawn over it, as Pillow has it; raises RecordingError."""


class QualityJudge:
    """One variant of a model that `fogline train quality` wrote."""

    def __init__(self, directory: Path, variant: str) -> None:
        """Load it; raises ModelError."""
        from cloud.train.quality_model import QualityModel

        self._model = QualityModel.load(directory, variant)
        self.name = directory.resolve().name[:MAX_NAME_CHARS]
        self.sha256 = hashlib.sha256(self._model.data).digest()
        self.side = self._model.side

    def judge(self, images: Grey) -> Sequence[Judgement]:
        """`normal` or `defect`, and the probability of a defect."""
        threshold, judged = self._model.threshold, self._model.judge(images)
        return [
            Judgement(DEFECT if probability >= threshold else NORMAL, float(probability), grid)
            for probability, grid in zip(judged.probability, judged.grids, strict=True)
        ]

    def picture(self, image: Path, judgement: Judgement) -> Any:
        """What speaks for a defect, in red."""
        from cloud.train.quality_heatmap import heatmap

        return heatmap(image, judgement.grid, self._model)
