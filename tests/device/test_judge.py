"""Board and hub make the same windows, scores and verdicts of the same rows, bit for bit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.judging import MANIFEST, hub_verdicts, judge_case

from cloud import preprocess

PROBE = Path(__file__).with_name("judge_probe.py")
SEED = 20_260_714
RECORDINGS = 40
LARGEST = float(np.finfo(np.float32).max)
SPECIAL = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, LARGEST, -LARGEST, 0.5, -0.5, 1.0, -1.0, 2.0**30,
     -(2.0**30), 2.0**31, 16777217.0, -0.99999994, np.inf, -np.inf, np.nan],
    np.float32,
)  # fmt: skip


@pytest.fixture(scope="session")
def board_verdicts(run_firmware):
    """What the firmware's Judge says under MicroPython: [(row, score, anomaly, window)]."""

    def judge(rows, times, manifest):
        done = run_firmware(PROBE, stdin=json.dumps(judge_case(rows, times, manifest)))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        said = map(json.loads, done.stdout.splitlines())
        return [(row, score, bad, bytes.fromhex(window)) for row, score, bad, window in said]

    return judge


@pytest.fixture(params=["board", "hub"])
def judge(request, board_verdicts):
    """Either twin."""
    return board_verdicts if request.param == "board" else hub_verdicts


def recording(rng):
    """A random manifest, and rows and times that suit it badly enough."""
    channels = int(rng.integers(1, 5))
    count = int(rng.integers(0, 200))
    of = int(rng.integers(1, 8))
    manifest = replace(
        MANIFEST,
        window=int(rng.integers(1, 12)),
        stride=int(rng.integers(1, 5)),
        channels=tuple("abcd"[:channels]),
        max_gap_s=int(rng.integers(1, 30)),
        calibrate=int(rng.choice([0, 0, 1, 7, 20])),
        input=tuple(
            (
                int(rng.choice([-30, -8, 0, 8, 16, 30])),
                int(rng.integers(-(2**31) + 1, 2**31)) >> int(rng.integers(31)),
                int(rng.integers(-(2**31) + 1, 2**31)),
            )
            for _ in range(channels)
        ),
        score=(
            int(rng.integers(-128, 128)),
            int(rng.integers(-128, 128)),
            int(rng.choice([1, 200, 256, 5000, 2**14])),
        ),
        threshold=int(rng.choice([0, 10_000, 1_000_000, 2**31 - 1])),
        of=of,
        need=int(rng.integers(1, of + 1)),
    )
    if manifest.calibrate and rng.random() < 0.5:
        least = tuple(1 << int(rng.integers(31)) for _ in range(channels))
        manifest = replace(manifest, spread=least)
    rows = rng.normal(scale=10.0 ** rng.integers(-6, 7), size=(count, channels)).astype(np.float32)
    special = rng.random(rows.shape) < rng.choice([0, 0, 0.02, 0.3])
    rows[special] = rng.choice(SPECIAL, special.sum())
    steps = rng.choice([0, 1, 1000, 1000, 1000, 1000, 9_999, 30_000, 30_001, -1], count)
    return rows, 1_700_000_000_000 + np.cumsum(steps, dtype=np.int64), manifest


def test_random_recordings(board_verdicts):
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    judged = 0
    for _ in range(RECORDINGS):
        rows, times, manifest = recording(rng)
        expected = hub_verdicts(rows, times, manifest)
        assert board_verdicts(rows, times, manifest) == expected
        judged += len(expected)
    assert judged > RECORDINGS


@pytest.mark.parametrize("exponent", [-30, -8, 0, 8, 16, 30])
def test_every_kind_of_number(board_verdicts, exponent):
    # 2 ** 30 * 4 >> 16 is far beyond int8, 2 ** 30 * 1 and small numbers are told apart.
    rng = np.random.default_rng(SEED)
    bits = rng.integers(0, 2**32, 3000, dtype=np.uint32)
    rows = np.concatenate([bits.view(np.float32), SPECIAL]).reshape(-1, 1)
    times = np.arange(len(rows), dtype=np.int64)
    for multiplier, offset in ((1, 0), (1 << 16, 0), (1 << 9, -(1 << 15)), (-(1 << 16), 1)):
        manifest = replace(
            MANIFEST, window=1, channels=("a",), input=((exponent, multiplier, offset),)
        )
        assert board_verdicts(rows, times, manifest) == hub_verdicts(rows, times, manifest)


def test_a_missing_value_neither_counts_nor_ends_the_segment(judge):
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    rows[4, 1] = np.nan
    times = np.arange(10, dtype=np.int64) * 1000
    assert [verdict[0] for verdict in judge(rows, times, MANIFEST)] == [3, 5, 6, 7, 8, 9]


def test_a_gap_and_a_step_back_begin_a_segment(judge):
    rows = np.zeros((12, 2), np.float32)
    times = np.array([0, 1, 2, 3, 13.001, 14, 15, 16, 15, 16, 17, 18]) * 1000
    verdicts = judge(rows, times.astype(np.int64), MANIFEST)
    assert [verdict[0] for verdict in verdicts] == [3, 7, 11]


def test_the_mean_of_the_first_rows_is_taken_off(judge):
    manifest = replace(MANIFEST, channels=("a",), window=1, calibrate=3, input=((0, 1 << 16, 0),))
    rows = np.array([-1, -1, 0, 5, -6], np.float32).reshape(-1, 1)
    times = np.arange(5, dtype=np.int64)
    # The mean of -1, -1 and 0 rounds down to -1.
    windows = [verdict[3] for verdict in judge(rows, times, manifest)]
    assert windows == [b"\x06", b"\xfb"]


def test_rows_are_scaled_by_the_deviation_of_the_first_ones(judge):
    manifest = replace(
        MANIFEST, channels=("a", "b"), window=1, calibrate=4, input=((4, 1 << 17, 0),) * 2,
        spread=(1, 48),
    )  # fmt: skip
    # Means 10 and 0, deviations 2 and 1: in fixed point 160 and 0, 32 and 16, the latter below 48.
    rows = np.array([[8, 1], [12, -1], [8, 1], [12, -1], [14, 9], [7, -9]], np.float32)
    windows = [verdict[3] for verdict in judge(rows, np.arange(6, dtype=np.int64), manifest)]
    # 64 * (131072 // 32) >> 16 is 4; 144 * (131072 // 48) >> 16 is 5; rounded down below zero.
    assert windows == [b"\x04\x05", b"\xfd\xfa"]


@pytest.mark.parametrize("value", [0.0, 1.0, -(2.0**31), LARGEST])
def test_a_channel_that_stands_still_has_the_least_deviation(judge, value):
    manifest = replace(
        MANIFEST, channels=("a",), window=1, calibrate=3, input=((0, 1 << 20, 0),), spread=(8,)
    )
    rows = np.array([value] * 4, np.float32).reshape(-1, 1)
    assert judge(rows, np.arange(4, dtype=np.int64), manifest)[0][3] == b"\0"


def test_debouncing_forgets_at_a_new_segment(judge):
    manifest = replace(
        MANIFEST, channels=("a",), window=2, of=3, need=2, threshold=0, input=((0, 1 << 16, 0),)
    )
    # A window of two different values is a hit: the probe's model turns it around.
    rows = np.array([1, 1, 2, 2, 3, 3, 3, 3, 4, 5], np.float32).reshape(-1, 1)
    times = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], np.int64) * 1000
    times[8:] += 60_000
    verdicts = judge(rows, times, manifest)
    assert [verdict[2] for verdict in verdicts] == [
        False, False, False, True, False, False, False, False,
    ]  # fmt: skip


def test_a_huge_score_is_capped(judge):
    manifest = replace(
        MANIFEST, channels=("a",), window=64, input=((0, 1 << 16, 0),), score=(127, -128, 2**14)
    )
    rows = np.full((64, 1), 127, np.float32)
    times = np.arange(64, dtype=np.int64)
    assert judge(rows, times, manifest)[0][1] == preprocess.MAX_SCORE


def test_quantize_names_what_is_wrong():
    with pytest.raises(ValueError, match="rows: must be float32"):
        preprocess.quantize(np.zeros((1, 2)), np.zeros(1, np.int64), MANIFEST)
    with pytest.raises(ValueError, match="times: must be int64"):
        preprocess.quantize(np.zeros((1, 2), np.float32), np.zeros(2, np.int64), MANIFEST)
