"""What sites say of their sensors, once, so that all see the same network inputs.

A site sends counts, means, deviations and how far each sensor moves, for each operating condition:
no row, and nothing of a single machine unless it has one alone. Put together they are what
`cloud.train.rul_features.fit_preparation` would find with all rows in one place, but for the
sensors' choice, which is a median of medians.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import TrainingError
from cloud.train.rul_data import SENSORS, SETTINGS, Units
from cloud.train.rul_features import (
    MAX_CONDITIONS,
    MOVES,
    NEAR,
    Preparation,
    conditions_of,
    distance,
    moments_of,
    moved_of,
    of_all_sensors,
)

# What a site may send, as JSON.
MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Scales:
    """What a site says of its sensors.

    Attributes:
        centres: of its operating conditions, float64 [conditions, len(SETTINGS)].
        rows: of each condition, float64 [conditions].
        mean, deviation: of each sensor, float64 [conditions, len(SENSORS)].
        moved: how far each sensor moves in a machine's life, in deviations; the median of its
            machines, float64 [len(SENSORS)].
    """

    centres: npt.NDArray[np.float64]
    rows: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    moved: npt.NDArray[np.float64]

    @classmethod
    def of(cls, units: Units) -> Scales:
        """Measure a site's units; raises TrainingError for settings of too many conditions."""
        centres = conditions_of(units)
        rows, mean, deviation = moments_of(units, centres)
        moved = moved_of(units, of_all_sensors(centres, mean, deviation))
        return cls(centres, rows, mean, deviation, moved)

    def encode(self) -> str:
        """As JSON."""
        return json.dumps({name: value.tolist() for name, value in vars(self).items()})

    @classmethod
    def decode(cls, text: str) -> Scales:
        """Read what a site sent; raises ValueError where it is not that."""
        if len(text) > MAX_BYTES:
            raise ValueError(f"has {len(text)} bytes, at most {MAX_BYTES} are allowed")
        value: Any = json.loads(text)
        if not isinstance(value, dict) or set(value) != set(cls.__annotations__):
            raise ValueError("is no map of " + ", ".join(cls.__annotations__))
        try:
            found = cls(**{name: np.array(one, np.float64) for name, one in value.items()})
        except TypeError as error:
            raise ValueError(str(error)) from error
        count = len(found.rows) if found.rows.ndim else 0
        wanted = {
            "centres": (count, len(SETTINGS)),
            "rows": (count,),
            "mean": (count, len(SENSORS)),
            "deviation": (count, len(SENSORS)),
            "moved": (len(SENSORS),),
        }
        for name, shape in wanted.items():
            array = getattr(found, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name}: is not of shape {shape}, or not finite")
        if not 1 <= count <= MAX_CONDITIONS or found.rows.min() < 1 or found.deviation.min() < 0:
            raise ValueError("rows or deviations are not as they can be")
        return found


def put_together(sites: Sequence[Scales]) -> Preparation:
    """What all sites' rows would have given.

    Raises:
        TrainingError: conditions do not fit together, or no sensor is of use.
    """
    centres: list[npt.NDArray[np.float64]] = []
    parts: list[list[tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]]] = []
    for site in sites:
        for at, centre in enumerate(site.centres):
            near = distance(centre[np.newaxis], np.stack(centres))[0] if centres else np.array([])
            if len(near) and near.min() <= NEAR:
                where = int(np.argmin(near))
            else:
                if len(centres) == MAX_CONDITIONS:
                    raise TrainingError(
                        f"sites: have more than {MAX_CONDITIONS} operating conditions together",
                        "train sites together whose machines run alike",
                    )
                where = len(centres)
                centres.append(centre)
                parts.append([])
            parts[where].append((float(site.rows[at]), site.mean[at], site.deviation[at]))
    mean, deviation = [], []
    for part in parts:
        rows = np.array([one[0] for one in part])[:, np.newaxis]
        means, deviations = np.stack([one[1] for one in part]), np.stack([one[2] for one in part])
        whole = (rows * means).sum(axis=0) / rows.sum()
        square = (rows * (deviations**2 + (means - whole) ** 2)).sum(axis=0) / rows.sum()
        mean.append(whole)
        deviation.append(np.sqrt(square))
    together = of_all_sensors(np.stack(centres), np.stack(mean), np.stack(deviation))
    chosen = tuple(
        np.flatnonzero(np.median([site.moved for site in sites], axis=0) >= MOVES).tolist()
    )
    if not chosen:
        raise TrainingError(
            "sites: no sensor moves while machines wear out",
            "give machines that ran until they failed, with sensors that show it",
        )
    return together.only(chosen)
