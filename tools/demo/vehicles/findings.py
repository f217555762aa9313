"""What the cloud tells headquarters: per car, per plant and lot, what to order, what to change.

Made of sealed readings and of the plants' build sheets alone. The truth is not known here; `score`
compares with it afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cloud.readings import Readings

from .features import NAMES, SIGNS, WEEK_S, Windows
from .finder import Judged
from .lots import LEVEL, Lot, Share, by_plant, compare
from .orders import SETTINGS, Line, order
from .parts import BY_KEY, COMPONENTS
from .plan import Car

# What an odometer may fall by through rounding.
ODOMETER_SLACK_KM = 0.5


@dataclass(frozen=True)
class Failing:
    """A car's part that fails now.

    Attributes:
        since: first week from which on it was found in every week.
        limit_week: the same by a workshop's limits; None: not by them.
        observed, expected: of the sign, in its unit, in the latest week.
        score: how far off, in what sound cars are off.
    """

    car: str
    plant: str
    component: str
    lot: str
    since: int
    limit_week: int | None
    observed: float
    expected: float
    score: float


@dataclass(frozen=True)
class TurnedBack:
    """An odometer that fell, under the car's own valid signature."""

    car: str
    plant: str
    week: int
    kilometres: float


@dataclass(frozen=True)
class Findings:
    """All findings.

    Attributes:
        by_limits: what a workshop's limits alone would have found: (car, component).
        judged: scores of all cars and weeks.
    """

    weeks: int
    cars: Sequence[Car] = field(repr=False)
    failing: Sequence[Failing]
    by_limits: frozenset[tuple[str, str]]
    odometers: Sequence[TurnedBack]
    plants: Mapping[str, Mapping[str, Share]]
    lots: Sequence[Lot]
    order: Sequence[Line]
    judged: Judged = field(repr=False)

    @property
    def bad_lots(self) -> list[Lot]:
        """Lots that have been shown to fail more often."""
        return [lot for lot in self.lots if lot.is_bad]

    def to_json(self) -> dict[str, Any]:
        """As it is sealed, for programs and auditors."""
        return {
            "weeks": self.weeks,
            "cars": len(self.cars),
            "failing": [_rounded(asdict(one)) for one in self.failing],
            "odometers": [_rounded(asdict(one)) for one in self.odometers],
            "plants": {
                plant: {key: _rounded(asdict(share)) for key, share in shares.items()}
                for plant, shares in self.plants.items()
            },
            "lots": [_rounded(asdict(lot)) for lot in self.lots if lot.share.failing],
            "order": [_rounded(asdict(line)) | {"pieces": line.pieces} for line in self.order],
            "change": [change(lot, self) for lot in self.bad_lots],
            "method": {
                "threshold": round(self.judged.threshold, 3),
                "windows_learned_from": self.judged.windows,
                "limits": {name: SIGNS[name].limit for name in NAMES},
                "level": LEVEL,
                "service_level": SETTINGS.service_level,
                "lead_time_weeks": SETTINGS.lead_time,
            },
        }


def find(
    cars: Sequence[Car],
    judged: Judged,
    readings: Mapping[str, Readings],
    weeks: int,
    start_s: float,
) -> Findings:
    """Put together what the judged weeks and the odometers say.

    Args:
        cars: as in the plants' build sheets.
        judged: of `finder.judge`.
        readings: sealed, by car.
        weeks: how many.
        start_s: of the first of them, s since 1970.
    """
    failing = [found for car in cars for found in _failing(car, judged, weeks)]
    pairs = {(one.car, one.component) for one in failing}
    lots = compare(cars, pairs)
    return Findings(
        weeks,
        cars,
        sorted(failing, key=lambda one: (-one.score, one.car)),
        frozenset(
            (car.name, component.key)
            for car in cars
            for component in COMPONENTS
            if _weeks_on(car, judged, weeks, NAMES.index(component.sign), by_limit=True)
        ),
        [
            found
            for car in cars
            for found in odometer_falls(car, readings[car.name], start_s)
        ],
        by_plant(cars, pairs),
        lots,
        order(cars, pairs, lots, weeks),
        judged,
    )  # fmt: skip


def change(lot: Lot, findings: Findings) -> dict[str, Any]:
    """What a plant is to do about a bad lot."""
    cars = [car.name for car in findings.cars if car.lots[lot.component] == lot.name]
    broken = {one.car for one in findings.failing if one.component == lot.component}
    return {
        "plant": lot.plant,
        "component": lot.component,
        "lot": lot.name,
        "stop_using": True,
        "repair": sorted(set(cars) & broken),
        "call_back": sorted(set(cars) - broken),
    }


def score(
    found: Collection[tuple[str, str]], truth: Collection[tuple[str, str]]
) -> dict[str, float | int]:
    """Precision and recall of findings against what was put into the cars."""
    hits = len(set(found) & set(truth))
    return {
        "found": len(set(found)),
        "true": len(set(truth)),
        "right": hits,
        "precision": round(hits / len(set(found)), 3) if found else 1.0,
        "recall": round(hits / len(set(truth)), 3) if truth else 1.0,
    }


def odometer_falls(car: Car, readings: Readings, start_s: float) -> list[TurnedBack]:
    """Where a car's sealed odometer goes back; the car has signed it itself."""
    values = readings.values[:, readings.channels.index("odometer")].astype(np.float64)
    known = np.flatnonzero(np.isfinite(values))
    falls = np.flatnonzero(np.diff(values[known]) < -ODOMETER_SLACK_KM)
    return [
        TurnedBack(
            car.name,
            car.plant,
            int((readings.times[known[at + 1]] - start_s) // WEEK_S) + 1,
            round(float(values[known[at]] - values[known[at + 1]]), 1),
        )
        for at in falls
    ]


def _failing(car: Car, judged: Judged, weeks: int) -> list[Failing]:
    found = []
    for component in COMPONENTS:
        at = NAMES.index(component.sign)
        on = _weeks_on(car, judged, weeks, at, by_limit=False)
        if not on:
            continue
        limit = _weeks_on(car, judged, weeks, at, by_limit=True)
        latest = judged.weeks[car.name][weeks]
        found.append(
            Failing(
                car.name,
                car.plant,
                component.key,
                car.lots[component.key],
                on[0],
                limit[0] if limit else None,
                float(latest.observed[at]),
                float(latest.expected[at]),
                float(latest.score[at]),
            )
        )
    return found


def _weeks_on(car: Car, judged: Judged, weeks: int, at: int, *, by_limit: bool) -> list[int]:
    """The weeks up to the latest in which it was found without a break; none: not now."""
    on: list[int] = []
    for week in range(weeks, 0, -1):
        one = judged.weeks[car.name][week]
        hit = one.over_limit[at] > 0 if by_limit else one.score[at] > judged.threshold
        if not hit:
            break
        on.insert(0, week)
    return on


def _rounded(value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(item, 4)
        if isinstance(item, float)
        else _rounded(item)
        if isinstance(item, dict)
        else item
        for key, item in value.items()
    }


def title(component: str) -> str:
    """Name of a component for people."""
    return BY_KEY[component].title


__all__ = ["Failing", "Findings", "TurnedBack", "Windows", "change", "find", "score", "title"]
