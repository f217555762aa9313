"""What networks are held against: no look at the image at all, and simple ones at a small copy.

Features are histograms of gradient directions (Dalal and Triggs 2005) and of local binary patterns
(Ojala et al. 2002), over cells of a grid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cloud.images import Grey

MAJORITY = "most frequent class"
THUMBNAILS = "logistic regression on small copies"
FEATURES = "random forest on gradients and textures"
TREES = 300
# Pixels a side of a small copy; cells a side, and directions, of the features.
SMALL = 24
CELLS = 8
DIRECTIONS = 9
# Local binary patterns by how many of the eight neighbours are brighter, and in how many runs.
PATTERNS = 10

Floats = npt.NDArray[np.float64]
# Gives the probability of a defect for images.
Method = Callable[[Grey], Floats]


def fit_baselines(
    images: Grey,
    defective: npt.NDArray[np.bool_],
    seed: int,
    told: Callable[[], None],
) -> dict[str, Method]:
    """Fit them, by name.

    Args:
        images: uint8 [n, side, side].
        defective: bool [n], of both kinds.
        seed: of the forest.
        told: is called after each.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    share = float(defective.mean())
    linear = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced")
    ).fit(small_copies(images), defective)
    told()
    forest = RandomForestClassifier(
        TREES, min_samples_leaf=2, class_weight="balanced", n_jobs=2, random_state=seed
    ).fit(features(images), defective)
    told()
    return {
        MAJORITY: lambda given: np.full(len(given), float(share >= 0.5)),
        THUMBNAILS: lambda given: np.asarray(linear.predict_proba(small_copies(given))[:, 1]),
        FEATURES: lambda given: np.asarray(forest.predict_proba(features(given))[:, 1]),
    }


def small_copies(images: Grey) -> npt.NDArray[np.float32]:
    """Grey levels of small copies, float32 [n, SMALL * SMALL]."""
    cuts = np.linspace(0, images.shape[1], SMALL + 1).round().astype(int)[:-1]
    sizes = np.diff(np.append(cuts, images.shape[1])).astype(np.float32)
    sums = np.add.reduceat(images.astype(np.float32), cuts, axis=1)
    sums = np.add.reduceat(sums, cuts, axis=2)
    copies: npt.NDArray[np.float32] = sums / (sizes[:, np.newaxis] * sizes)
    return copies.reshape(len(images), -1)


def features(images: Grey) -> npt.NDArray[np.float32]:
    """Both kinds of histograms of each cell, float32 [n, features]."""
    cut = images.shape[1] % CELLS
    end = images.shape[1] - cut
    return np.concatenate(
        [_features(image[:end, :end].astype(np.float32))[np.newaxis] for image in images]
    )


def _features(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    down, across = np.gradient(image)
    strength = np.hypot(down, across)
    direction = np.mod(np.arctan2(down, across), np.pi) * (DIRECTIONS / np.pi)
    gradients = _histograms(np.minimum(direction.astype(int), DIRECTIONS - 1), strength, DIRECTIONS)
    textures = _histograms(_patterns(image), np.ones_like(image), PATTERNS)
    found = np.concatenate([gradients.ravel(), textures.ravel()])
    return found.astype(np.float32)


def _patterns(image: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Rotation-invariant uniform patterns of each pixel, 0 to PATTERNS - 1."""
    around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    padded = np.pad(image, 1, mode="edge")
    rows, columns = image.shape
    brighter = np.stack(
        [padded[1 + r : 1 + r + rows, 1 + c : 1 + c + columns] >= image for r, c in around]
    )
    changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    found: npt.NDArray[np.int64] = np.where(changes <= 2, brighter.sum(axis=0), PATTERNS - 1)
    return found


def _histograms(
    bins: npt.NDArray[np.int64], weights: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.float64]:
    """Share of each bin in each cell, float64 [CELLS * CELLS, count]."""
    rows, columns = bins.shape
    down, across = (np.arange(size) * CELLS // size for size in (rows, columns))
    cell = down[:, np.newaxis] * CELLS + across
    sums = np.bincount(
        (cell * count + bins).ravel(), weights.ravel(), minlength=CELLS * CELLS * count
    ).reshape(-1, count)
    shares: npt.NDArray[np.float64] = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-6)
    return shares
