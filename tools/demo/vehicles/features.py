"""What readings of a car are boiled down to: windows with their circumstances and their signs.

A window is ten rows, ten seconds. Its circumstances say what the car was doing; its signs say how a
part was faring meanwhile, and are what a model expects from the circumstances.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cloud.readings import Readings

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

WINDOW_ROWS = 10
WEEK_S = 7 * 86_400
_RUNNING = 400.0  # /min: below, the engine stands
_MAX_STEP_S = 2.0
_JUMPS = 2
_CHANNELS = (
    "engine_speed", "speed", "load", "throttle", "manifold", "intake", "coolant", "fuel_trim",
    "voltage",
)  # fmt: skip
_CIRCUMSTANCES = ("engine_speed", "speed", "load", "throttle", "manifold", "intake")


@dataclass(frozen=True)
class Sign:
    """What a failing part shows by.

    Attributes:
        title, unit: for people.
        worse: 1 where a failing part makes it larger, else -1.
        limit: where a workshop would call it a failure, whatever the circumstances.
        idle_only: whether only idling windows show it.
    """

    title: str
    unit: str
    worse: int
    limit: float
    idle_only: bool = False


SIGNS = {
    "coolant": Sign("coolant temperature", "°C", 1, 105.0),
    # Mean step of the engine's speed from one second to the next, without the largest ones.
    "roughness": Sign("roughness at idle", "/min", 1, 75.0, idle_only=True),
    "voltage": Sign("supply voltage", "V", -1, 13.0),
    "fuel_trim": Sign("long-term fuel trim", "%", 1, 10.0),
}
NAMES = tuple(SIGNS)


@dataclass(frozen=True)
class Windows:
    """Windows of one car, in its own order; n of them.

    Attributes:
        week: from 1, int64 [n].
        circumstances: float64 [n, 9].
        signs: float64 [n, len(NAMES)].
        idle: whether the car stood with a running engine all the while, bool [n].
    """

    week: Integers = field(repr=False)
    circumstances: Floats = field(repr=False)
    signs: Floats = field(repr=False)
    idle: npt.NDArray[np.bool_] = field(repr=False)


def windows(readings: Readings, start_s: float) -> Windows:
    """Cut a car's readings into windows; week 1 begins at `start_s`.

    Windows do not reach over a gap, from idling into driving, or over a row with a channel missing.
    """
    columns = [readings.channels.index(name) for name in _CHANNELS]
    values = readings.values[:, columns].astype(np.float64)
    idle = (values[:, 1] == 0) & (values[:, 0] > _RUNNING)
    found: list[tuple[int, Floats, Floats, bool]] = []
    at = 0
    while at + WINDOW_ROWS <= len(values):
        part = slice(at, at + WINDOW_ROWS)
        breaks = np.abs(np.diff(readings.times[part])) > _MAX_STEP_S
        breaks |= np.diff(idle[part].astype(np.int8)) != 0
        whole = np.isfinite(values[part]).all()
        if breaks.any():
            at += int(np.flatnonzero(breaks)[-1]) + 1
            continue
        at += WINDOW_ROWS
        if whole and (values[part, 0] > _RUNNING).all():
            week = int((readings.times[part][0] - start_s) // WEEK_S) + 1
            found.append((week, *_boil(values[part]), bool(idle[part][0])))
    if not found:
        return Windows(
            np.zeros(0, np.int64),
            np.zeros((0, len(_CIRCUMSTANCES) + 3)),
            np.zeros((0, len(NAMES))),
            np.zeros(0, np.bool_),
        )
    weeks, circumstances, signs, idles = zip(*found, strict=True)
    return Windows(np.array(weeks), np.stack(circumstances), np.stack(signs), np.array(idles))


def _boil(rows: Floats) -> tuple[Floats, Floats]:
    engine_speed, speed, load, throttle = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3]
    means = rows[:, : len(_CIRCUMSTANCES)].mean(axis=0)
    # A jump or two, as of an air conditioner that cuts in, are no misfire.
    steps = np.sort(np.abs(np.diff(engine_speed)))[:-_JUMPS].mean()
    spread = [np.ptp(speed), throttle.std(), np.ptp(load)]
    signs = [rows[:, 6].mean(), steps, rows[:, 8].mean(), rows[:, 7].mean()]
    return np.concatenate([means, spread]), np.array(signs)
