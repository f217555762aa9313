"""How good a forecast of demand is, part by part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .demand_data import MONTHS_A_YEAR
from .demand_distribution import CountDistribution

Floats = npt.NDArray[np.float64]


def scales(past: Floats) -> Floats:
    """Mean absolute error of the seasonal naive forecast in the past, float64 [n].

    Past has more than a year of months, [n, months]; a part without a change has 0.
    """
    found: Floats = np.abs(past[:, MONTHS_A_YEAR:] - past[:, :-MONTHS_A_YEAR]).mean(axis=1)
    return found


def scaled_errors(forecast: Floats, actual: Floats, scale: Floats) -> Floats:
    """MASE of each part (Hyndman and Koehler 2006), float64 [n]; scales must be over 0."""
    found: Floats = np.abs(forecast - actual).mean(axis=1) / scale
    return found


def pinball(
    quantiles: Floats, levels: tuple[float, ...], actual: Floats, known: npt.NDArray[np.bool_]
) -> Floats:
    """Twice the mean pinball loss of each part over months and levels, in pieces; [n].

    Quantiles are [levels, n, months]. Of the level 0.5 alone, it would be the absolute error.
    """
    level = np.array(levels)[:, np.newaxis, np.newaxis]
    off = actual - quantiles
    loss = 2 * np.maximum(level * off, (level - 1) * off).mean(axis=0)
    found: Floats = (loss * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return found


def calibration(
    forecast: CountDistribution,
    levels: tuple[float, ...],
    actual: Floats,
    known: npt.NDArray[np.bool_],
) -> list[dict[str, float]]:
    """For each level the share of months that fell below it: equal to it where calibrated.

    A count has a whole step of its distribution, not a place in it; the share takes it to be
    anywhere in the step (non-randomised probability integral transform; Czado, Gneiting and Held
    2009). Plain coverage is at or above the level for counts, so it is given beside it.
    """
    high = forecast.below(actual)[known]
    low = forecast.below(actual - 1)[known]
    rows = []
    for level in levels:
        within = np.clip((level - low) / np.maximum(high - low, 1e-12), 0, 1)
        quantile = forecast.quantile(level)[known]
        covered = float((actual[known] <= quantile).mean())
        rows.append({"level": level, "share": float(within.mean()), "covered": covered})
    return rows
