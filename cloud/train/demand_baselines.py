"""Forecasts of demand that a network has to beat: none of them looks at more than one part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .demand_data import MONTHS_A_YEAR

Floats = npt.NDArray[np.float64]
ZERO, NAIVE, SEASONAL, MEAN = "zero", "naive", "seasonal naive", "mean"
CROSTON, SBA, TSB, ETS = "Croston", "SBA", "TSB", "ETS"
# Teunter, Syntetos and Babai (2011): both within 0.1 to 0.3 in practice.
TSB_SMOOTHING = 0.1
_PARTS_A_STEP = 200


def point_forecasts(
    past: Floats, horizon: int, step: Callable[[], None] = lambda: None
) -> dict[str, Floats]:
    """Forecasts by name, each float64 [parts, horizon].

    Args:
        past: [parts, months], more than a year.
        horizon: months ahead.
        step: is called after each of `steps(past)` pieces of work.
    """
    from statsforecast import models

    flat = np.ones(horizon)
    found = {
        ZERO: np.zeros((len(past), horizon)),
        NAIVE: past[:, -1:] * flat,
        SEASONAL: past[:, -MONTHS_A_YEAR + np.arange(horizon) % MONTHS_A_YEAR],
        MEAN: past.mean(axis=1, keepdims=True) * flat,
    }
    engines: dict[str, Any] = {
        CROSTON: models.CrostonClassic(),
        SBA: models.CrostonSBA(),
        TSB: models.TSB(TSB_SMOOTHING, TSB_SMOOTHING),
        ETS: models.AutoETS(season_length=MONTHS_A_YEAR),
    }
    for name, engine in engines.items():
        rows = []
        for at, series in enumerate(past, start=1):
            rows.append(engine.forecast(series, horizon)["mean"])
            if at % _PARTS_A_STEP == 0 or at == len(past):
                step()
        # Demand is not negative, whatever a trend says.
        found[name] = np.maximum(np.array(rows, np.float64), 0)
    return found


def steps(past: Floats) -> int:
    """How often `point_forecasts` reports."""
    return 4 * -(-len(past) // _PARTS_A_STEP)
