"""Detectors beside the network say what their sources say, on rows made by hand."""

import numpy as np
import pytest

from cloud.train import anomaly_baselines as baselines

SEED = 20_261_126
FIT, ROWS, CHANNELS = 400, 800, 8
FROM = 550


@pytest.fixture(scope="module")
def rows():
    """Noise in channels that jump by ten deviations."""
    print("seed", SEED)
    made = np.random.default_rng(SEED).normal(0, 1, (ROWS, CHANNELS))
    made[FROM:] += 10
    return made


@pytest.mark.parametrize("name", baselines.DETECTORS)
def test_a_jump_is_told_from_what_was_fitted_to(name, rows, monkeypatch):
    monkeypatch.setattr(baselines, "AE_EPOCHS", 2)
    flags = baselines.DETECTORS[name](rows[:FIT], rows, SEED)
    assert (flags.dtype, flags.shape) == (np.bool_, (ROWS,))
    found = flags[FROM + baselines.MEAN_ROWS : ROWS - 2 * baselines.AE_WINDOW].mean()
    assert found > 0.9
    if name != baselines.ALL:
        assert flags[FIT : FROM - baselines.AE_WINDOW].mean() < 0.2


def test_cusum_adds_what_is_over_the_slack():
    fit = np.array([[-1.0], [1.0]] * 5)
    after = np.array([[3.0], [3.0], [3.0], [-2.0], [0.0]])
    # 2.5, 5, 7.5; then 5 up and 1.5 down; then 4.5.
    flags = baselines.cusum(fit, np.concatenate([fit, after]), 0)[len(fit) :]
    assert flags.tolist() == [False, False, True, False, False]


def test_means_and_medians_look_back_only():
    column = np.array([[1.0], [2.0], [6.0], [0.0]])
    assert baselines.trailing_mean(column, 3)[:, 0].tolist() == [1, 1.5, 3, 8 / 3]
    assert baselines.trailing_median(column[:, 0], 3).tolist() == [1, 2, 2, 2]
    assert baselines.trailing_median(column[:, 0], 9).tolist() == [1, 2, 6, 0]


def test_channels_that_leave_no_residual_are_judged_without_it(rows):
    fit = np.random.default_rng(SEED).normal(0, 1, (FIT, 1))
    flags = baselines.t_squared_and_q(fit, rows[:, :1], 0)
    assert flags[FROM + baselines.CHART_MEDIAN :].all()
