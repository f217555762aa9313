"""The network that sites learn together, in NumPy alone: a fog node needs no TensorFlow for it.

Two hidden layers, and three heads as in `cloud.train.rul_network`: the mean, and a low and a high
quantile of the cycles left. Gradients are taken of one machine at a time where its privacy is to
be kept, which is what the larger frameworks make slow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cloud.train.rul_network import CAP, QUANTILES

HEADS = 1 + len(QUANTILES)
HIDDEN = (64, 32)
DROPOUT = 0.2
BATCH = 256
WEIGHT_DECAY = 1e-3
# Adam (Kingma and Ba 2015), with the weight decay beside it (Loshchilov and Hutter 2019).
MOMENTUM, SQUARES, TINY = 0.9, 0.999, 1e-7

Rows = npt.NDArray[np.float32]
# Kernel and bias of each layer in turn, float32: [before, width], [width].
Arrays = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Noise:
    """How a machine's privacy is kept in each step of a site's learning.

    Attributes:
        noise: standard deviation of what is added, in clips.
        clip: Euclidean norm that a machine's gradient is cut down to.
        steps: of a round; each sees every machine of the site.
        machines: by how many the sum is divided: a number that is no secret.
    """

    noise: float
    clip: float
    steps: int
    machines: int


def shapes(channels: int) -> list[tuple[int, ...]]:
    """Shapes of the arrays for so many inputs."""
    widths = (channels, *HIDDEN, HEADS)
    found: list[tuple[int, ...]] = []
    for before, width in pairwise(widths):
        found += [(before, width), (width,)]
    return found


def initial(channels: int, seed: int) -> Arrays:
    """A network that has learned nothing: Glorot's uniform kernels, biases of 0."""
    random = np.random.default_rng(seed)
    found = []
    for shape in shapes(channels):
        limit = (6 / sum(shape)) ** 0.5 if len(shape) == 2 else 0.0
        found.append(random.uniform(-limit, limit, shape).astype(np.float32))
    return found


def model_hash(arrays: Sequence[npt.NDArray[np.float32]]) -> bytes:
    """SHA-256 that stands for a model on the chain; protocol/SPEC.md, Training rounds."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(",".join(map(str, array.shape)).encode() + b"\n")
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.digest()


def told(arrays: Arrays, features: Rows) -> npt.NDArray[np.float64]:
    """What it says of rows, in cycles: mean, low and high quantile; float64 [n, HEADS]."""
    hidden = features
    for at in range(0, len(arrays), 2):
        hidden = hidden @ arrays[at] + arrays[at + 1]
        if at + 2 < len(arrays):
            hidden = np.maximum(hidden, 0)
    return hidden.astype(np.float64) * CAP


def cycles(arrays: Arrays, features: Rows) -> npt.NDArray[np.float64]:
    """Cycles left of each row, float64 [n]."""
    found: npt.NDArray[np.float64] = np.clip(told(arrays, features)[:, 0], 0, CAP)
    return found


def gradient(
    arrays: Arrays, features: Rows, target: Rows, random: np.random.Generator | None
) -> Arrays:
    """Gradient of the mean loss: squared error of the mean, pinball losses of the quantiles.

    Args:
        arrays: of the network.
        features: [n, channels].
        target: cycles left in CAPs, [n].
        random: of dropout; None for none.
    """
    outputs, kept = [features], []
    for at in range(0, len(arrays) - 2, 2):
        hidden = np.maximum(outputs[-1] @ arrays[at] + arrays[at + 1], 0)
        keep = np.float32(1.0)
        if random is not None:
            drawn = random.random(hidden.shape, np.float32) >= DROPOUT
            keep = drawn.astype(np.float32) / np.float32(1 - DROPOUT)
        kept.append(keep)
        outputs.append(hidden * keep)
    said = outputs[-1] @ arrays[-2] + arrays[-1]
    slope = np.empty_like(said)
    slope[:, 0] = 2 * (said[:, 0] - target)
    for at, quantile in enumerate(QUANTILES, start=1):
        slope[:, at] = np.where(target > said[:, at], -quantile, 1 - quantile)
    slope /= len(features)
    found: Arrays = []
    for at in range(len(arrays) - 2, -1, -2):
        found = [outputs[at // 2].T @ slope, slope.sum(axis=0), *found]
        if at:
            # Dropout scales what is kept, and what is 0 behind the ReLU passes nothing back.
            slope = (slope @ arrays[at].T) * kept[at // 2 - 1] * (outputs[at // 2] > 0)
    return found


def learn(
    arrays: Arrays,
    features: Rows,
    target: Rows,
    *,
    epochs: int,
    rate: float,
    random: np.random.Generator,
) -> Arrays:
    """Train on a site's rows, from what all sites have together.

    Args:
        arrays: to begin with; left as they are.
        features: [n, channels].
        target: cycles left, at most CAP, in CAPs, [n].
        epochs: how often each row is seen.
        rate: of learning.
        random: of order and dropout.
    """
    step = _Adam(arrays, rate)
    for _ in range(epochs):
        order = random.permutation(len(features))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            step(gradient(step.arrays, features[rows], target[rows], random))
    return step.arrays


def learn_privately(
    arrays: Arrays,
    machines: Sequence[tuple[Rows, Rows]],
    how: Noise,
    *,
    rate: float,
    random: np.random.Generator,
) -> Arrays:
    """Train so that it hardly shows whether a machine was among them (Abadi et al. 2016).

    Each machine's whole record is one example: its gradient is cut to the clip, and the sum gets
    noise before anything is made of it. Whether steps are Adam's or not is of no matter then.

    Args:
        arrays: to begin with; left as they are.
        machines: features and targets of each machine, as `learn` takes them.
        how: see there.
        rate: of learning.
        random: of the noise; where privacy is meant, of nobody's knowledge.
    """
    step = _Adam(arrays, rate)
    for _ in range(how.steps):
        step(_noisy_mean(step.arrays, machines, how, random))
    return step.arrays


def _noisy_mean(
    arrays: Arrays,
    machines: Sequence[tuple[Rows, Rows]],
    how: Noise,
    random: np.random.Generator,
) -> Arrays:
    """Gradients of the machines, each cut to the clip, and noise over their sum."""
    total = [np.zeros(array.shape) for array in arrays]
    for features, target in machines:
        found = gradient(arrays, features, target, None)
        norm = sum(float(np.square(part, dtype=np.float64).sum()) for part in found) ** 0.5
        scale = min(1.0, how.clip / norm) if norm > 0 else 1.0
        total = [part + scale * more for part, more in zip(total, found, strict=True)]
    width = how.noise * how.clip
    return [
        ((part + random.normal(0, width, part.shape)) / how.machines).astype(np.float32)
        for part in total
    ]


class _Adam:
    """Takes steps from a copy of the arrays."""

    def __init__(self, arrays: Arrays, rate: float) -> None:
        self.arrays = [array.copy() for array in arrays]
        self._rate = rate
        self._means = [np.zeros_like(array) for array in arrays]
        self._squares = [np.zeros_like(array) for array in arrays]
        self._taken = 0

    def __call__(self, found: Arrays) -> None:
        self._taken += 1
        unbias = 1 - MOMENTUM**self._taken
        unbias_squares = 1 - SQUARES**self._taken
        for at, part in enumerate(found):
            mean, square = self._means[at], self._squares[at]
            mean += (1 - MOMENTUM) * (part - mean)
            square += (1 - SQUARES) * (part * part - square)
            step = (mean / unbias) / (np.sqrt(square / unbias_squares) + TINY)
            array = self.arrays[at]
            array *= 1 - self._rate * WEIGHT_DECAY
            array -= self._rate * step
