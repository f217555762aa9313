"""Simple methods that tell cycles left, to hold the networks against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Means:
    """Means of the training units, in cycles: all that the simplest methods know.

    Attributes:
        life: from the first cycle on.
        left: at the rows that networks are judged by, capped.
    """

    life: float
    left: float

    @classmethod
    def of(cls, left: Floats, cycle: npt.NDArray[np.int64]) -> Means:
        """Take them of cycles left and of the cycle at each row, [n]."""
        first, chosen = cycle == 1, judged(left, cycle)
        capped = np.minimum(left, CAP)[chosen if chosen.any() else slice(None)]
        return cls(
            float((left + cycle)[first].mean()) if first.any() else 0.0, float(capped.mean())
        )

    def methods(self) -> dict[str, Method]:
        """What tells cycles left by them, by name."""
        return {
            AGE: lambda _, now: np.clip(self.life - now, 0, CAP),
            MEAN: lambda _, now: np.full(len(now), self.left),
        }

    def card(self) -> dict[str, float]:
        """Return them as JSON holds them."""
        return asdict(self)

    @classmethod
    def of_card(cls, card: Any) -> Means:
        """Read what `card` gave; raises KeyError, TypeError or ValueError where it is none."""
        return cls(float(card["life"]), float(card["left"]))


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
    return {BOOSTING: _learned(boosting), RIDGE: _learned(ridge), **Means.of(left, cycle).methods()}


def _learned(model: Any) -> Method:
    return lambda given, _: np.clip(model.predict(given), 0, CAP)
