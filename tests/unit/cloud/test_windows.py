"""Windows to train on are those that the boards make, but for rounding."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from support.judging import MANIFEST

from cloud.preprocess import quantize
from cloud.readings import Readings
from cloud.windows import Cutting, cut, rehearse

SEED = 20_260_721
RECORDINGS = 40
# Levels per unit, and the fixed point that gives them: 2**10 * m / 2**16.
LEVELS = 4
FIXED_POINT = (10, LEVELS * 64, 32768)


def recording(rng):
    """A random cutting, and rows with gaps, missing values and steps back."""
    channels = int(rng.integers(1, 5))
    count = int(rng.integers(0, 300))
    cutting = Cutting(
        window=int(rng.integers(1, 12)),
        stride=int(rng.integers(1, 5)),
        calibrate=int(rng.choice([0, 1, 7, 20])),
        max_gap_s=int(rng.integers(1, 30)),
    )
    values = rng.uniform(-10, 10, (count, channels)).astype(np.float32)
    values[rng.random(values.shape) < rng.choice([0, 0.02, 0.3])] = np.nan
    values[rng.random(values.shape) < 0.005] = np.inf
    steps = rng.choice([0, 1, 1, 1, 1, 1, 1, 1, 10, 31, -2], count)
    return cutting, readings_of(values, np.cumsum(steps, dtype=np.float64))


def readings_of(values, times):
    return Readings(
        times=times,
        values=values,
        channels=tuple("abcd"[: values.shape[1]]),
        sequence=np.arange(len(values), dtype=np.int64),
        sealed=False,
    )


def board_windows(readings, cutting):
    """What a board makes of the same rows."""
    channels = readings.channels
    manifest = replace(
        MANIFEST, **asdict(cutting), channels=channels, input=(FIXED_POINT,) * len(channels)
    )
    return quantize(readings.values, readings.times_ms, manifest)


def test_cut_is_what_boards_do():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    compared = 0
    for _ in range(RECORDINGS):
        cutting, readings = recording(rng)
        mine, theirs = cut(readings, cutting), board_windows(readings, cutting)
        np.testing.assert_array_equal(mine.last, theirs.last)
        np.testing.assert_array_equal(mine.segment, theirs.segment)
        assert mine.values.shape == theirs.values.shape
        # Half a level from rounding, and what the fixed point's own floors take.
        np.testing.assert_allclose(mine.values * LEVELS, theirs.values, atol=0.52)
        compared += len(mine.last)
    assert compared > RECORDINGS


def test_a_rehearsal_is_what_a_board_says_that_is_switched_on_there():
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    step, span = 13, 40
    compared = 0
    for _ in range(RECORDINGS):
        cutting, readings = recording(rng)
        rehearsed = rehearse(readings, cutting, step, span)
        for number in np.unique(rehearsed.segment):
            mine = rehearsed.segment == number
            # The row that the rehearsal begins with: calibration and one window before.
            whole = np.flatnonzero(np.isfinite(readings.values).all(axis=1))
            first = int(np.flatnonzero(whole == rehearsed.last[mine][0])[0])
            chosen = whole[first - cutting.calibrate - cutting.window + 1 :]
            alone = readings_of(readings.values[chosen], readings.times[chosen])
            expected = cut(alone, cutting)
            of_first = np.flatnonzero(expected.segment == 0)[: mine.sum()]
            np.testing.assert_array_equal(rehearsed.values[mine], expected.values[of_first])
            np.testing.assert_array_equal(rehearsed.last[mine], chosen[expected.last[of_first]])
            assert (mine.sum() - 1) * cutting.stride + cutting.window <= span
            compared += 1
    assert compared > RECORDINGS


def test_rehearsals_begin_every_so_many_rows_and_end_with_the_segment():
    cutting = Cutting(window=4, stride=2, calibrate=3, max_gap_s=5)
    values = np.arange(20, dtype=np.float32).reshape(-1, 1)
    found = rehearse(readings_of(values, np.arange(20.0)), cutting, step=6, span=6)
    assert found.segment.tolist() == [0, 0, 1, 1, 2]
    assert found.last.tolist() == [6, 8, 12, 14, 18]
    # A ramp looks the same after each calibration.
    np.testing.assert_array_equal(found.values[0], found.values[2])


@pytest.mark.parametrize("count", [0, 1, 22])
def test_too_few_rows_make_no_window(count):
    cutting = Cutting(window=3, stride=1, calibrate=20, max_gap_s=5)
    readings = readings_of(np.zeros((count, 2), np.float32), np.arange(count, dtype=np.float64))
    for found in (cut(readings, cutting), rehearse(readings, cutting, 1, 10)):
        assert found.values.shape == (0, 3, 2)
        assert len(found.last) == len(found.segment) == 0
