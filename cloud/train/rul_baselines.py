"""Simple methods that tell cycles left, to hold the networks against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .rul_network import CAP, Floats, judged

BOOSTING, RIDGE = "gradient boosting", "ridge regression"
AGE, MEAN = "mean life less age", "always the mean"
TREES = 200
LEARNING_RATE = 0.04
LEAVES = 15
MIN_ROWS_OF_A_LEAF = 40
RIDGE_PENALTY = 10.0

# Cycles left, of features and of the cycle that rows are at.
Method = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], Floats]


def fit_baselines(
    features: npt.NDArray[np.float32],
    left: Floats,
    cycle: npt.NDArray[np.int64],
    seed: int,
) -> dict[str, Method]:
    """Fit each to the same rows and features as the networks; by name.

    Args:
        features: float32 [n, channels].
        left: cycles left at each row, float64 [n].
        cycle: of each row, int64 [n].
        seed: of what is random.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

    target = np.minimum(left, CAP)
    boosting = HistGradientBoostingRegressor(
        max_iter=TREES, learning_rate=LEARNING_RATE, max_leaf_nodes=LEAVES,
        min_samples_leaf=MIN_ROWS_OF_A_LEAF, random_state=seed,
    ).fit(features, target)  # fmt: skip
    ridge = Ridge(RIDGE_PENALTY).fit(features, target)
    life = float((left + cycle)[cycle == 1].mean()) if (cycle == 1).any() else 0.0
    chosen = judged(left, cycle)
    mean = float(target[chosen if chosen.any() else slice(None)].mean())
    return {
        BOOSTING: _learned(boosting),
        RIDGE: _learned(ridge),
        AGE: lambda _, now: np.clip(life - now, 0, CAP),
        MEAN: lambda _, now: np.full(len(now), mean),
    }


def _learned(model: Any) -> Method:
    return lambda given, _: np.clip(model.predict(given), 0, CAP)
