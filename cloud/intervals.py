"""Confidence intervals by the bootstrap (Efron and Tibshirani 1993, percentile method)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

REPEATS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A measured figure, and where it would lie on other data of the kind.

    Attributes:
        value: as measured.
        low, high: ends of the interval of CONFIDENCE.
    """

    value: float
    low: float
    high: float

    def row(self, name: str) -> dict[str, float]:
        """Return its three numbers under the metric's name."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def bootstrap(
    metric: Callable[..., float],
    *arrays: npt.NDArray[Any],
    groups: npt.NDArray[Any] | None = None,
    seed: int = 0,
    repeats: int = REPEATS,
) -> Interval:
    """Measure, and measure again on samples with replacement.

    Args:
        metric: takes the arrays, gives a number.
        arrays: of the same length.
        groups: of each row, where rows of one group belong together (an experiment, a unit):
            whole groups are drawn then, for rows of one say little that is new.
        seed: of the draws.
        repeats: how often.

    Raises:
        ValueError: arrays of different lengths, or none.
    """
    count = len(arrays[0])
    if any(len(array) != count for array in arrays) or not count:
        raise ValueError("bootstrap: arrays must have the same length, at least 1")
    random = np.random.default_rng(seed)
    if groups is None:
        parts = None
    else:
        order = np.argsort(groups, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    values = []
    for _ in range(repeats):
        if parts is None:
            drawn = random.integers(count, size=count)
        else:
            drawn = np.concatenate([parts[i] for i in random.integers(len(parts), size=len(parts))])
        values.append(metric(*(array[drawn] for array in arrays)))
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(metric(*arrays)), float(low), float(high))
