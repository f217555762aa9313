"""Windows in floating point, cut as the boards cut theirs, to train on and to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fog_node.protocol.manifest import Manifest

from .preprocess import segments
from .readings import Readings


@dataclass(frozen=True)
class Cutting:
    """How rows become windows; the fields are those of the manifest."""

    window: int
    stride: int
    calibrate: int
    max_gap_s: int

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Cutting:
        """As the boards that run this release do it."""
        return cls(manifest.window, manifest.stride, manifest.calibrate, manifest.max_gap_s)


@dataclass(frozen=True)
class FloatWindows:
    """Windows less their segment's calibration mean, in the channels' own units or in deviations.

    Attributes:
        values: float32 [count, window, channels].
        last: index of each window's last row among the rows given.
        segment: number of the segment that each window is of, or of the rehearsal; from 0, rising.
        source: number of the run of rows without a gap that each window is of; from 0, rising.
    """

    values: npt.NDArray[np.float32]
    last: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]


def cut(
    readings: Readings, cutting: Cutting, least: npt.NDArray[np.float32] | None = None
) -> FloatWindows:
    """Cut windows as `preprocess.quantize` does, without quantizing.

    Args:
        readings: of one device.
        cutting: as on the board.
        least: of each channel, the least deviation; windows are in deviations during their
            calibration then, which must be of one row at least. None: in the channels' own units.
    """
    whole = _whole_rows(readings)
    runs = segments(readings.times_ms[whole], cutting.max_gap_s)
    return _windows(readings, whole, [(*run, at) for at, run in enumerate(runs)], cutting, least)


def rehearse(
    readings: Readings,
    cutting: Cutting,
    step: int,
    span: int,
    least: npt.NDArray[np.float32] | None = None,
) -> FloatWindows:
    """Cut windows as if the board had been switched on at many moments.

    Args:
        readings: of normal operation.
        cutting: as on the board.
        step: rows between two such moments.
        span: rows that are judged after each calibration.
        least: as of `cut`.

    Returns:
        The windows; `segment` numbers the rehearsals.

    Windows with an excluded row are left out, and rehearsals that would calibrate on one.

    What a board calibrated on long ago has drifted by the time it judges; a model must see
    fresh and old calibrations of the same data.
    """
    whole = _whole_rows(readings)
    excluded = None if readings.excluded is None else readings.excluded[whole]
    shortest = cutting.calibrate + cutting.window
    longest = cutting.calibrate + span
    runs = [
        (begin, min(end, begin + longest), at)
        for at, (start, end) in enumerate(segments(readings.times_ms[whole], cutting.max_gap_s))
        for begin in range(start, end - shortest + 1, step)
        if excluded is None or not excluded[begin : begin + cutting.calibrate].any()
    ]
    windows = _windows(readings, whole, runs, cutting, least)
    if excluded is None or not len(windows.last):
        return windows
    counted = np.concatenate([[0], np.cumsum(excluded)])
    stop = np.searchsorted(whole, windows.last) + 1
    kept = counted[stop] == counted[stop - cutting.window]
    return FloatWindows(
        windows.values[kept], windows.last[kept], windows.segment[kept], windows.source[kept]
    )


def deviations(readings: Readings, cutting: Cutting, step: int) -> npt.NDArray[np.float64]:
    """Deviation of each channel during the calibration of each rehearsal, [count, channels]."""
    whole = _whole_rows(readings)
    excluded = None if readings.excluded is None else readings.excluded[whole]
    rows = readings.values[whole].astype(np.float64)
    shortest = cutting.calibrate + cutting.window
    found = [
        rows[begin : begin + cutting.calibrate].std(axis=0)
        for start, end in segments(readings.times_ms[whole], cutting.max_gap_s)
        for begin in range(start, end - shortest + 1, step)
        if excluded is None or not excluded[begin : begin + cutting.calibrate].any()
    ]
    return np.array(found, np.float64).reshape(-1, rows.shape[1])


def _whole_rows(readings: Readings) -> npt.NDArray[np.int64]:
    """Indices of the rows without a missing or infinite value."""
    return np.flatnonzero(np.isfinite(readings.values).all(axis=1))


def _windows(
    readings: Readings,
    whole: npt.NDArray[np.int64],
    runs: Sequence[tuple[int, int, int]],
    cutting: Cutting,
    least: npt.NDArray[np.float32] | None,
) -> FloatWindows:
    """Calibrate on the start of each run of whole rows, and cut the rest of it."""
    rows = readings.values[whole].astype(np.float64)
    values, last, numbers, sources = [], [], [], []
    for number, (start, end, source) in enumerate(runs):
        part = rows[start:end]
        if cutting.calibrate:
            first = part[: cutting.calibrate]
            part = part - first.mean(axis=0)
            if least is not None:
                part /= np.maximum(first.std(axis=0), least)
        for stop in range(cutting.calibrate + cutting.window, len(part) + 1, cutting.stride):
            values.append(part[stop - cutting.window : stop])
            last.append(whole[start + stop - 1])
            numbers.append(number)
            sources.append(source)
    shape = (-1, cutting.window, rows.shape[1])
    return FloatWindows(
        np.array(values, np.float32).reshape(shape),
        np.array(last, np.int64),
        np.array(numbers, np.int64),
        np.array(sources, np.int64),
    )
