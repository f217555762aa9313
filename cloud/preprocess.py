"""Windows, scores and verdicts exactly as the boards make them.

The twin of `firmware/fogline/preprocess.py` and `judge.py`, over whole recordings at once. The
definition is in `fog_node/protocol/SPEC.md`, "Pre-processing" and "Score": integers throughout,
so the bytes that a model was trained on are the bytes that a board will show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt

import numpy as np
import numpy.typing as npt

from fog_node.protocol.manifest import Manifest

MAX_SCORE = 2**31 - 1
_FIXED_LIMIT = 2**30
_MANTISSA_BITS = 23
_EXPONENT_BIAS = 150  # of a mantissa read as an integer


@dataclass(frozen=True)
class Windows:
    """What the model is shown, in the order of time.

    Attributes:
        values: int8 [count, window, channels].
        last: index of each window's last row among the rows given.
        segment: number of the segment that each window is of, rising.
    """

    values: npt.NDArray[np.int8]
    last: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]


def quantize(
    rows: npt.NDArray[np.float32], times: npt.NDArray[np.int64], manifest: Manifest
) -> Windows:
    """Return the windows that a board makes of these rows.

    Args:
        rows: float32 [count, channels], in the manifest's order; NaN where a value is missing.
        times: ms since 1970, one per row.
        manifest: of the release.

    A row with a missing or infinite value counts for nothing, not even for gaps.
    """
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != len(manifest.channels):
        raise ValueError(f"rows: must be float32 [count, {len(manifest.channels)}]")
    if times.shape != (len(rows),) or times.dtype != np.int64:
        raise ValueError("times: must be int64, one per row")
    whole = np.flatnonzero(np.isfinite(rows).all(axis=1))
    fixed = _fixed_point(rows[whole], np.array([e for e, _, _ in manifest.input]))
    multipliers = np.array([m for _, m, _ in manifest.input], np.int64)
    offsets = np.array([b for _, _, b in manifest.input], np.int64)
    values, last, numbers = [], [], []
    for segment, (start, end) in enumerate(segments(times[whole], manifest.max_gap_s)):
        part = fixed[start:end]
        first = manifest.calibrate
        factors = multipliers
        if first:
            if manifest.spread and len(part) > first:
                factors = multipliers // _deviations(part[:first], manifest.spread)
            part = part - part[:first].sum(axis=0) // first
        quantized = np.clip((part * factors + offsets) >> 16, -128, 127).astype(np.int8)
        for stop in range(first + manifest.window, end - start + 1, manifest.stride):
            values.append(quantized[stop - manifest.window : stop])
            last.append(whole[start + stop - 1])
            numbers.append(segment)
    shape = (-1, manifest.window, len(manifest.channels))
    return Windows(
        np.array(values, np.int8).reshape(shape),
        np.array(last, np.int64),
        np.array(numbers, np.int64),
    )


def _deviations(rows: npt.NDArray[np.int64], least: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Deviation of each channel of fixed-point rows, in Python's integers: squares add to 2**92."""
    count, found = len(rows), []
    for channel, floor in zip(rows.T.tolist(), least, strict=True):
        total = sum(channel)
        square = count * sum(value * value for value in channel) - total * total
        found.append(max(floor, isqrt(square) // count))
    return np.array(found, np.int64)


def _fixed_point(
    rows: npt.NDArray[np.float32], exponents: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """floor(x * 2**e) within +-2**30, from the bits of x: nothing is rounded on the way."""
    bits = rows.view(np.uint32).astype(np.int64)
    biased = bits >> _MANTISSA_BITS & 0xFF
    mantissa = bits & (1 << _MANTISSA_BITS) - 1 | np.where(biased, 1 << _MANTISSA_BITS, 0)
    mantissa = np.where(bits >> 31, -mantissa, mantissa)
    shift = np.maximum(biased, 1) - _EXPONENT_BIAS + exponents
    # Beyond 30 either way the result is at the limit, or 0 or -1, in any case.
    left, right = np.clip(shift, 0, 30), np.clip(-shift, 0, 30)
    scaled: npt.NDArray[np.int64] = np.clip(mantissa << left >> right, -_FIXED_LIMIT, _FIXED_LIMIT)
    return scaled


def segments(times: npt.NDArray[np.int64], max_gap_s: int) -> list[tuple[int, int]]:
    """Return start and end of each run of rows without a gap or a step back in time.

    Args:
        times: int64 [count], ms since 1970.
        max_gap_s: the longest step within a segment.
    """
    if len(times) == 0:
        return []
    steps = np.diff(times)
    breaks = np.flatnonzero((steps < 0) | (steps > max_gap_s * 1000)) + 1
    bounds = [0, *breaks.tolist(), len(times)]
    return list(pairwise(bounds))


def score(
    inputs: npt.NDArray[np.int8], outputs: npt.NDArray[np.int8], manifest: Manifest
) -> npt.NDArray[np.int64]:
    """Return each window's score from the model's int8 inputs and outputs, [count, ...] both."""
    zero_in, zero_out, factor = manifest.score
    count = len(inputs)
    size = manifest.window * len(manifest.channels)
    x = inputs.reshape(count, size).astype(np.int64) - zero_in
    y = outputs.reshape(count, size).astype(np.int64) - zero_out
    total = np.square((factor * y - 256 * x) >> 8).sum(axis=1)
    capped: npt.NDArray[np.int64] = np.minimum(total, MAX_SCORE)
    return capped


def verdicts(
    scores: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], manifest: Manifest
) -> npt.NDArray[np.bool_]:
    """Return for each window whether its segment's latest windows make an anomaly."""
    anomalies = np.zeros(len(scores), np.bool_)
    hits = scores > manifest.threshold
    for index in range(len(scores)):
        first = max(0, index + 1 - manifest.of)
        recent = hits[first : index + 1] & (numbers[first : index + 1] == numbers[index])
        anomalies[index] = recent.sum() >= manifest.need
    return anomalies
