"""How the Numenta Anomaly Benchmark scores alarms (Lavin and Ahmad 2015; numenta/NAB on GitHub).

In a labelled window the first alarm counts, the more the earlier it is; a window without one costs.
Each alarm outside costs, the more the longer ago the last window ended. Alarms of the probationary
period count for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PROBATION = 0.15
# In longer files the probationary period is as long as in one of so many rows.
PROBATION_ROWS = 5000
# So many window lengths after a window, an alarm costs as much as it can.
_FAR = 3.0


@dataclass(frozen=True)
class Profile:
    """What alarms are worth: one in time; a false one; none where there should be one."""

    hit: float
    false: float
    missed: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_fp": Profile(1.0, 0.22, 1.0),
    "reward_low_fn": Profile(1.0, 0.11, 2.0),
}
STANDARD = PROFILES["standard"]
# First and last row of a labelled window.
Window = tuple[int, int]


def probation(rows: int) -> int:
    """Rows at the beginning of a file that are not scored, and may be learned from."""
    return math.floor(PROBATION * min(rows, PROBATION_ROWS))


def position_value(position: float) -> float:
    """What an alarm is worth by its place: -1 begins a window, 0 ends it; from 1 down to -1."""
    return -1.0 if position >= _FAR else 2 / (1 + math.exp(5 * position)) - 1


def nab_score(
    alarms: npt.NDArray[np.bool_],
    windows: Sequence[Window],
    first: int,
    profile: Profile = STANDARD,
) -> float:
    """Score the alarms of one file; see `window_scores`, of which it is the sum."""
    return float(window_scores(alarms, windows, first, profile).sum())


def window_scores(
    alarms: npt.NDArray[np.bool_],
    windows: Sequence[Window],
    first: int,
    profile: Profile = STANDARD,
) -> npt.NDArray[np.float64]:
    """Score the alarms of one file, window by window, float64 [windows].

    A false alarm is counted with the window before it, or with the first one.

    Args:
        alarms: bool [n], whether there is an alarm at a row.
        windows: in the order of time, each of two rows or more, without overlap.
        first: the first row that is scored.
        profile: what alarms are worth.
    """
    found = np.zeros(len(windows))
    inside = np.zeros(len(alarms), np.bool_)
    for at, (begin, end) in enumerate(windows):
        inside[begin : end + 1] = True
        if end < first:
            continue
        hits = np.flatnonzero(alarms[max(begin, first) : end + 1]) + max(begin, first)
        if len(hits):
            place = (int(hits[0]) - end - 1) / (end - begin + 1)
            found[at] += profile.hit * position_value(place) / position_value(-1.0)
        else:
            found[at] -= profile.missed
    for row in np.flatnonzero(alarms & ~inside):
        if row < first:
            continue
        ended = [window for window in windows if window[1] < row]
        place = (int(row) - ended[-1][1]) / (ended[-1][1] - ended[-1][0]) if ended else _FAR
        found[max(0, len(ended) - 1)] += profile.false * position_value(place)
    return found


def normalised(score: float, windows: int, profile: Profile = STANDARD) -> float:
    """The score between that of no alarm at all, 0, and that of perfect ones, 100."""
    none, perfect = -profile.missed * windows, profile.hit * windows
    return 100 * (score - none) / (perfect - none)
