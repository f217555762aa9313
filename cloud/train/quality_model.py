"""A trained judge of pieces as it runs: LiteRT and a few sums, no TensorFlow.

The network gives evidence for a defect at each position of a grid over the image, once for each
way that it is shown the image, mirrored and turned. The verdict is made of the mean of its
exponentials, so that one small spot of strong evidence is enough; the grid is the heat map, and
shows just what the verdict was made of. Format: README.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError
from cloud.images import Grey
from cloud.model_files import check_size, read_card

TASK = "quality"
# Threads of LiteRT; what it says does not depend on them.
THREADS = 2
# Ways to lay a square down: as it is, mirrored, upside down, ..., the last four about its diagonal.
MAX_VIEWS = 8
# Of what a network is shown in floats, 0 to 1.
PIXEL_MAX = 255.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What was said of images.

    Attributes:
        probability: of a defect, float64 [n].
        grids: evidence at each position, as log odds, float64 [n, rows, columns]; of several views
            what they come to.
    """

    probability: Floats
    grids: Floats


def combined(grids: Floats, sharpness: float) -> Floats:
    """What the evidence of grids comes to, float64 [n], as log odds.

    Between the mean (sharpness near 0) and the largest (sharpness large) of a grid.
    """
    flat = grids.reshape(len(grids), -1) * sharpness
    peak = flat.max(axis=1)
    found: Floats = (peak + np.log(np.exp(flat - peak[:, np.newaxis]).mean(axis=1))) / sharpness
    return found


def log_odds(probability: Floats) -> Floats:
    """Log odds of probabilities, float64 of the same shape."""
    kept = np.clip(probability, 1e-12, 1 - 1e-12)
    found: Floats = np.log(kept / (1 - kept))
    return found


def heat(grids: Floats, sharpness: float, threshold: float) -> Floats:
    """How much each position speaks for a defect, 0 to 1, float64 of the same shape.

    Half, where it alone would bring the probability to the threshold.

    Args:
        grids: of evidence, float64 [..., rows, columns].
        sharpness: of `combined`.
        threshold: probability from which a piece is defective.
    """
    positions = grids.shape[-1] * grids.shape[-2]
    alone = float(log_odds(np.array(threshold))) + np.log(positions) / sharpness
    found: Floats = 1 / (1 + np.exp(np.clip(alone - grids, -50, 50)))
    return found


def seen_from(images: npt.NDArray[Any], view: int) -> npt.NDArray[Any]:
    """Images, or grids, laid down in another way, [n, side, side]; view 0 is as they are."""
    if view & 4:
        images = images.transpose(0, 2, 1)
    return images[:, :: -1 if view & 2 else 1, :: -1 if view & 1 else 1]


def _laid_back(grids: Floats, view: int) -> Floats:
    grids = grids[:, :: -1 if view & 2 else 1, :: -1 if view & 1 else 1]
    return grids.transpose(0, 2, 1) if view & 4 else grids


def judge(
    data: bytes, images: Grey, sharpness: float, *, views: int = 1, reference: bool = False
) -> Judged:
    """Run a network over images.

    Args:
        data: a `.tflite`, in floats or int8.
        images: uint8 [n, side, side].
        sharpness: of `combined`, also of several views.
        views: how many ways it is shown each image in, 1 to MAX_VIEWS.
        reference: by LiteRT's reference kernels, whose bytes boards give; they are slow.

    Raises:
        ModelError: it is none, or not of such images.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    try:
        network = Interpreter(
            model_content=data, num_threads=THREADS, experimental_op_resolver_type=kernels
        )
        network.allocate_tensors()
    except (RuntimeError, ValueError) as error:  # whatever LiteRT finds wrong with it
        raise ModelError(f"model: is none ({error})", "train again") from error
    given, made = network.get_input_details()[0], network.get_output_details()[0]
    side = images.shape[1]
    shape = [int(size) for size in made["shape"]]
    if given["shape"].tolist() != [1, side, side, 1] or len(shape) != 4 or shape[3] != 1:
        raise ModelError(
            f"model: goes from {given['shape'].tolist()} to {shape}, not from {[1, side, side, 1]} "
            "to a grid",
            "use model and card of one training",
        )
    whole = given["dtype"] == np.int8
    scale, zero = made["quantization"] if whole else (1.0, 0)
    sums = np.full((len(images), shape[1], shape[2]), -np.inf)
    said = np.empty_like(sums)
    for view in range(views):
        for at, image in enumerate(seen_from(images, view)):
            network.set_tensor(given["index"], _as_input(image, whole))
            network.invoke()
            said[at] = network.get_tensor(made["index"])[0, :, :, 0]
        sums = np.logaddexp(sums, _laid_back((said - zero) * scale, view) * sharpness)
    grids = (sums - np.log(views)) / sharpness
    return Judged(1 / (1 + np.exp(-combined(grids, sharpness))), grids)


def _as_input(image: Grey, whole: bool) -> npt.NDArray[Any]:
    shaped = image[np.newaxis, :, :, np.newaxis]
    if whole:
        return (shaped.astype(np.int16) - 128).astype(np.int8)
    return shaped.astype(np.float32) / np.float32(PIXEL_MAX)


@dataclass(frozen=True)
class QualityModel:
    """A variant of a trained model, as its directory says.

    Attributes:
        data: the `.tflite`.
        side: pixels of its input, which is square.
        sharpness: of `combined`.
        views: how many ways it is shown each image in.
        threshold: probability from which a piece is defective.
        reference: whether LiteRT's reference kernels run it, for they give a board's bytes.
    """

    data: bytes = field(repr=False)
    side: int
    sharpness: float
    views: int
    threshold: float
    reference: bool

    @classmethod
    def load(cls, directory: Path, variant: str) -> QualityModel:
        """Read a directory that training wrote; raises ModelError."""
        card = read_card(directory, TASK)
        try:
            if variant not in card["variants"]:
                raise ModelError(
                    f"{directory}: has no network {variant!r}",
                    f"--variant must be one of {', '.join(sorted(card['variants']))}",
                )
            about = card["variants"][variant]
            model = cls(
                _read(directory / Path(about["file"]).name),
                int(about["side"]),
                float(about["sharpness"]),
                int(about["views"]),
                float(about["threshold"]),
                bool(about["reference_kernels"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{directory}: card is damaged ({error!r})", "train again") from error
        sizes = 1 <= model.side <= 4096 and 1 <= model.views <= MAX_VIEWS
        if not (sizes and model.sharpness > 0 and 0 <= model.threshold <= 1):
            raise ModelError(f"{directory}: card is damaged", "train again")
        return model

    def judge(self, images: Grey) -> Judged:
        """What it says of images, uint8 [n, side, side]; raises ModelError."""
        return judge(self.data, images, self.sharpness, views=self.views, reference=self.reference)


def _read(path: Path) -> bytes:
    check_size(path)
    return path.read_bytes()
