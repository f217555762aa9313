"""From a unit's rows to what a network sees of it: standardised, and smoothed over several spans.

Readings are held against the mean of their operating condition, of which some subsets have six and
others one. Each channel is a moving average with exponential weights (Brown 1956), which the row
itself and all before it go into; averages over short and long spans together say where a sensor
stands, how fast it moves, and where it began. Unlike a window they forget nothing and cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError, RecordingError, TrainingError

from .rul_data import SENSORS, SETTINGS, Units

Floats = npt.NDArray[np.float64]

# Weights of the newest row.
SMOOTHING = (0.5, 0.2, 0.1, 0.05, 0.02)
# Of the settings: thousand feet, Mach number, throttle resolver angle (PHM 2008).
SPANS = np.array([42.0, 0.84, 80.0])
# Rows of a condition lie within this of its centre, in SPANS; conditions lie further apart.
NEAR = 0.06
MAX_CONDITIONS = 12
# A sensor is of use where it moves by this, in standard deviations, between a unit's first
# quarter and its last tenth; the median over units. Noise moves it by about 0.2.
MOVES = 0.5
# Beyond this many standard deviations nothing was learned.
CLIP = 8.0
AGE_CYCLES = 100.0
# A sensor that deviates by no more than this share of its mean, or of this, stands still: that is
# its rounding. It says nothing then, as if it deviated by so much.
STILL, WIDE = 1e-6, 1e30


@dataclass(frozen=True)
class Preparation:
    """What has to be known of the training units to prepare others alike.

    Attributes:
        sensors: positions in SENSORS of those that are of use.
        centres: of the operating conditions, float64 [conditions, len(SETTINGS)].
        mean, deviation: of each sensor in each condition, float64 [conditions, sensors].
    """

    sensors: tuple[int, ...]
    centres: Floats
    mean: Floats
    deviation: Floats

    @property
    def channels(self) -> int:
        """How many numbers are known of a row."""
        return len(self.sensors) * len(SMOOTHING) + 1

    def standardised(self, units: Units) -> Floats:
        """Sensors in standard deviations of their condition, float64 [n, sensors].

        Raises:
            RecordingError: a row of an operating condition that was not learned from.
        """
        apart = distance(units.settings, self.centres)
        condition = np.argmin(apart, axis=1)
        far = np.flatnonzero(apart[np.arange(len(units)), condition] > NEAR)
        if len(far):
            at = int(far[0])
            values = ", ".join(
                f"{name} {value:g}"
                for name, value in zip(SETTINGS, units.settings[at], strict=True)
            )
            raise RecordingError(
                f"{units.path}: line {at + 1}: {values} is no operating condition of the "
                "training units",
                "train on units that ran in it as well",
            )
        chosen = units.sensors[:, self.sensors]
        values = (chosen - self.mean[condition]) / self.deviation[condition]
        clipped: Floats = np.clip(values, -CLIP, CLIP)
        return clipped

    def features(self, units: Units) -> npt.NDArray[np.float32]:
        """What is known of the unit at each row, float32 [n, channels]."""
        values = self.standardised(units)
        found = np.empty((len(units), self.channels), np.float32)
        for rows in units.slices:
            channels = [smoothed(values[rows], weight) for weight in SMOOTHING]
            age = np.minimum(units.cycle[rows, np.newaxis] / AGE_CYCLES - 1, CLIP)
            found[rows] = np.concatenate([*channels, age], axis=1)
        return found

    def only(self, chosen: tuple[int, ...]) -> Preparation:
        """The same of these of its sensors alone, by their positions in it."""
        return Preparation(
            tuple(self.sensors[at] for at in chosen), self.centres,
            self.mean[:, chosen], self.deviation[:, chosen],
        )  # fmt: skip

    def card(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "sensors": [SENSORS[at] for at in self.sensors],
            "centres": self.centres.tolist(),
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "smoothing": list(SMOOTHING),
        }

    @classmethod
    def of_card(cls, card: Any) -> Preparation:
        """Read what `card` gave; raises ModelError where it is none, or of another version."""
        try:
            same = tuple(card["smoothing"]) == SMOOTHING
            found = cls(
                tuple(SENSORS.index(name) for name in card["sensors"]),
                *(np.array(card[name], np.float64) for name in ("centres", "mean", "deviation")),
            )
            shape = (len(found.centres), len(found.sensors))
            same &= found.centres.shape == (len(found.centres), len(SETTINGS))
            same &= found.mean.shape == found.deviation.shape == shape
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"card: preparation is damaged ({error})", "train again") from error
        if not same:
            raise ModelError("card: preparation is of another version of Fogline", "train again")
        return found


def smoothed(values: Floats, weight: float) -> Floats:
    """Moving averages with exponential weights that add up to 1 from the first row on.

    Args:
        values: float64 [rows, channels].
        weight: of the newest row, over 0, at most 1.
    """
    found = np.empty_like(values)
    total, whole = np.zeros(values.shape[1]), 0.0
    for at, row in enumerate(values):
        total = (1 - weight) * total + weight * row
        whole = (1 - weight) * whole + weight
        found[at] = total / whole
    return found


def fit_preparation(units: Units) -> Preparation:
    """Learn conditions, scales and useful sensors from units that ran until they failed.

    Raises:
        TrainingError: settings that do not fall into a few conditions; no useful sensor.
    """
    centres = conditions_of(units)
    _, mean, deviation = moments_of(units, centres)
    everything = of_all_sensors(centres, mean, deviation)
    chosen = tuple(np.flatnonzero(moved_of(units, everything) >= MOVES).tolist())
    if not chosen:
        raise TrainingError(
            f"{units.path}: no sensor moves while units wear out",
            "give units that ran until they failed, with sensors that show it",
        )
    return everything.only(chosen)


def moments_of(units: Units, centres: Floats) -> tuple[Floats, Floats, Floats]:
    """Rows of each condition, [conditions]; mean and deviation there, [conditions, sensors]."""
    condition = np.argmin(distance(units.settings, centres), axis=1)
    groups = [units.sensors[condition == at] for at in range(len(centres))]
    return (
        np.array([len(group) for group in groups], np.float64),
        np.stack([group.mean(axis=0) for group in groups]),
        np.stack([group.std(axis=0) for group in groups]),
    )


def of_all_sensors(centres: Floats, mean: Floats, deviation: Floats) -> Preparation:
    """A preparation with each sensor; one that stands still in a condition says nothing there."""
    still = deviation <= STILL * np.maximum(np.abs(mean), STILL)
    scale = np.where(still, np.float64(WIDE), deviation)
    return Preparation(tuple(range(len(SENSORS))), centres, mean, scale)


def moved_of(units: Units, preparation: Preparation) -> Floats:
    """How far each sensor moves in a unit's life, in deviations; the median of units, [sensors]."""
    values = preparation.standardised(units)
    moved: Floats = np.median([_moved(values[rows]) for rows in units.slices], axis=0)
    return moved


def _moved(values: Floats) -> Floats:
    """Between a unit's first quarter and its last tenth."""
    first, last = values[: max(1, len(values) // 4)], values[-max(1, len(values) // 10) :]
    moved: Floats = np.abs(last.mean(axis=0) - first.mean(axis=0))
    return moved


def conditions_of(units: Units) -> Floats:
    """Centres of the operating conditions, float64 [conditions, len(SETTINGS)]."""
    centres: list[Floats] = []
    left = np.arange(len(units))
    while len(left):
        if len(centres) == MAX_CONDITIONS:
            raise TrainingError(
                f"{units.path}: line {int(left[0]) + 1}: settings are of more than "
                f"{MAX_CONDITIONS} operating conditions",
                "give units that run in a few conditions which their settings tell apart",
            )
        first = units.settings[left[:1]]
        near = distance(units.settings[left], first)[:, 0] <= NEAR
        centres.append(units.settings[left[near]].mean(axis=0))
        left = left[~near]
    return np.stack(centres)


def distance(settings: Floats, centres: Floats) -> Floats:
    """Largest difference in any setting, in SPANS; float64 [n, centres]."""
    apart = np.abs(settings[:, np.newaxis] - centres[np.newaxis]) / SPANS
    largest: Floats = apart.max(axis=2)
    return largest
