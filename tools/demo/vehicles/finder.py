"""Finds cars whose signs are not what they should be, by what the fleet's first week has taught.

A small neural network expects the signs from the circumstances. It learns from the sealed readings
of week 1, when all cars are as they left the plant, and never sees which car has which fault. There
are FOLDS of them: a car's own first week is judged by the one that has not seen it, which says how
far a sound car is off; later weeks are judged by the mean of all.

Beside it stand the limits of a workshop, which learn nothing: see `features.SIGNS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools.errors import ToolError

from .features import NAMES, SIGNS, Floats, Windows

FOLDS = 4
HIDDEN = (16, 8)
# Sound cars that may be taken for failing ones in all, over all weeks and signs.
FALSE_ALARMS = 0.05
# A week with fewer windows says nothing.
MIN_WINDOWS = 2
_PENALTY = 1.0
_MAX_STEPS = 200
# What a mean over a week is known by at best, in the signs' units: sensors show whole degrees.
_LEAST_DEVIATION = {"coolant": 0.5, "roughness": 2.0, "voltage": 0.03, "fuel_trim": 0.5}


@dataclass(frozen=True)
class Week:
    """A car's week as it was judged, each [len(NAMES)]; NaN where there was nothing to judge.

    Attributes:
        observed, expected: means of the signs.
        score: how far off, in what sound cars are off; above 0 is worse.
        over_limit: whether a workshop's limit was passed.
    """

    observed: Floats = field(repr=False)
    expected: Floats = field(repr=False)
    score: Floats = field(repr=False)
    over_limit: Floats = field(repr=False)


@dataclass(frozen=True)
class Judged:
    """The fleet, judged.

    Attributes:
        weeks: by car, then by week from 1.
        threshold: scores above it are findings.
        windows: how many the networks have learned from.
    """

    weeks: Mapping[str, Mapping[int, Week]]
    threshold: float
    windows: int


def judge(fleet: Mapping[str, Windows], weeks: int, seed: int) -> Judged:
    """Learn from week 1 and judge all weeks; raises ToolError where there is too little."""
    from scipy.stats import t

    names = sorted(fleet)
    fold = {name: at % FOLDS for at, name in enumerate(names)}
    first = {name: _of_week(fleet[name], 1) for name in names}
    learned = {name: part for name, part in first.items() if len(part.week)}
    if len(learned) < 2 * FOLDS:
        raise ToolError(
            f"week 1: {len(learned)} cars have sealed readings, at least {2 * FOLDS} are needed"
        )
    networks = [
        _Network([part for name, part in learned.items() if fold[name] != number], seed + number)
        for number in range(FOLDS)
    ]
    offs: dict[str, dict[int, tuple[Floats, Floats]]] = {name: {} for name in names}
    for name in names:
        for week in range(1, weeks + 1):
            part = _of_week(fleet[name], week)
            chosen = [networks[fold[name]]] if week == 1 else networks
            offs[name][week] = _observe(part, chosen)
    healthy = np.array([_off(*offs[name][1]) for name in learned])
    deviation = _deviation(healthy)
    cars = np.isfinite(healthy).sum(axis=0).min()
    decisions = len(names) * weeks * len(NAMES)
    threshold = float(t.ppf(1 - FALSE_ALARMS / decisions, max(2, cars - 1)))
    judged = {
        name: {
            week: Week(seen, told, _off(seen, told) / deviation, _over_limit(seen))
            for week, (seen, told) in offs[name].items()
        }
        for name in names
    }
    return Judged(judged, threshold, sum(len(part.week) for part in learned.values()))


class _Network:
    """Expects signs from circumstances."""

    def __init__(self, parts: list[Windows], seed: int) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor
        from threadpoolctl import threadpool_limits

        inputs = np.concatenate([_inputs(part) for part in parts])
        signs = np.concatenate([part.signs for part in parts])
        self._mean, self._scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
        self._sign_mean, self._sign_scale = signs.mean(axis=0), signs.std(axis=0) + 1e-9
        self._network: Any = MLPRegressor(
            hidden_layer_sizes=HIDDEN, activation="tanh", solver="lbfgs", alpha=_PENALTY,
            max_iter=_MAX_STEPS, random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            # The penalty bounds the weights; where it stops is good enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # So small a network is slower on several threads.
            with threadpool_limits(1):
                self._network.fit(
                    (inputs - self._mean) / self._scale,
                    (signs - self._sign_mean) / self._sign_scale,
                )

    def expect(self, part: Windows) -> Floats:
        """Signs as a sound car would show them, [windows, len(NAMES)]."""
        # Beyond what was seen the network would only guess.
        inputs = np.clip((_inputs(part) - self._mean) / self._scale, -3, 3)
        told: Floats = self._network.predict(inputs) * self._sign_scale + self._sign_mean
        return told


def _inputs(part: Windows) -> Floats:
    found: Floats = np.column_stack([part.circumstances, part.idle.astype(np.float64)])
    return found


def _of_week(part: Windows, week: int) -> Windows:
    at = part.week == week
    return Windows(part.week[at], part.circumstances[at], part.signs[at], part.idle[at])


def _observe(part: Windows, networks: list[_Network]) -> tuple[Floats, Floats]:
    """Means of the signs, as they were and as they were expected."""
    nothing = np.full(len(NAMES), np.nan)
    if len(part.week) < MIN_WINDOWS:
        return nothing, nothing
    told = np.mean([network.expect(part) for network in networks], axis=0)
    seen, expected = nothing.copy(), nothing.copy()
    for at, name in enumerate(NAMES):
        rows = part.idle if SIGNS[name].idle_only else np.ones(len(part.week), np.bool_)
        if rows.any():
            seen[at], expected[at] = part.signs[rows, at].mean(), told[rows, at].mean()
    return seen, expected


def _off(seen: Floats, told: Floats) -> Floats:
    worse = np.array([SIGNS[name].worse for name in NAMES])
    found: Floats = (seen - told) * worse
    return found


def _deviation(healthy: Floats) -> Floats:
    """How far sound cars' means lie from what is expected of them."""
    least = np.array([_LEAST_DEVIATION[name] for name in NAMES])
    found: Floats = np.maximum(np.sqrt(np.nanmean(healthy**2, axis=0)), least)
    return found


def _over_limit(seen: Floats) -> Floats:
    worse = np.array([SIGNS[name].worse for name in NAMES])
    limits = np.array([SIGNS[name].limit for name in NAMES])
    found: Floats = np.where(np.isnan(seen), 0.0, (seen - limits) * worse > 0).astype(np.float64)
    return found
