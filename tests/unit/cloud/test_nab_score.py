"""Scores of the Numenta Anomaly Benchmark, against values worked out by hand."""

import numpy as np
import pytest

from cloud.train.nab_score import (
    PROFILES,
    STANDARD,
    nab_score,
    normalised,
    position_value,
    probation,
    window_scores,
)

WINDOW = (10, 14)  # five rows
FIRST = 5


def scored(*rows, profile=STANDARD, windows=(WINDOW,), count=40):
    alarms = np.zeros(count, np.bool_)
    alarms[list(rows)] = True
    return nab_score(alarms, windows, FIRST, profile)


def test_an_alarm_is_worth_the_more_the_earlier_it_is():
    # 2 / (1 + e^(5 x)) - 1; e^-5 is 0.0067379, e^5 is 148.413.
    assert position_value(-1) == pytest.approx(0.986614, abs=1e-6)
    assert position_value(0) == 0
    assert position_value(1) == pytest.approx(-0.986614, abs=1e-6)
    assert position_value(3) == position_value(100) == -1


def test_the_first_alarm_of_a_window_counts_alone():
    assert scored(10) == pytest.approx(1)
    assert scored(10, 12, 14) == pytest.approx(1)
    # One row of five is left: 2 / (1 + e^-1) - 1 is 0.462117, of 0.986614.
    assert scored(14) == pytest.approx(0.468387, abs=1e-6)


def test_a_window_without_an_alarm_costs():
    assert scored() == -1
    assert scored(profile=PROFILES["reward_low_fn"]) == -2
    assert scored(windows=((10, 14), (20, 29))) == -2


def test_false_alarms_cost_the_more_the_longer_ago_the_window_ended():
    assert scored(10, 6) == pytest.approx(1 - 0.11)
    # A quarter of a window behind: 2 / (1 + e^1.25) - 1 is -0.554600; one behind: -0.986614.
    assert scored(10, 15) == pytest.approx(1 - 0.11 * 0.554600, abs=1e-6)
    assert scored(10, 18) == pytest.approx(1 - 0.11 * 0.986614, abs=1e-6)
    assert scored(10, 26, 39) == pytest.approx(1 - 2 * 0.11)
    assert scored(10, 6, profile=PROFILES["reward_low_fp"]) == pytest.approx(1 - 0.22)


def test_each_window_answers_for_the_false_alarms_until_the_next():
    alarms = np.zeros(60, np.bool_)
    alarms[[6, 10, 18, 50]] = True
    each = window_scores(alarms, (WINDOW, (30, 39)), FIRST)
    assert each.tolist() == pytest.approx([1 - 0.11 - 0.11 * 0.986614, -1 - 0.11 * 0.995574])
    assert nab_score(alarms, (WINDOW, (30, 39)), FIRST) == each.sum()


def test_the_probationary_period_is_not_scored():
    assert scored(0, 4, 10) == pytest.approx(1)
    # All of the first window lies in it.
    assert scored(10, windows=((1, 3), WINDOW)) == pytest.approx(1)
    assert (probation(1000), probation(4999), probation(22_695)) == (150, 749, 750)


def test_the_score_is_normalised_between_no_alarm_and_perfect_ones():
    assert normalised(-4, 4) == 0
    assert normalised(4, 4) == 100
    assert normalised(2.556, 4) == pytest.approx(81.95)
    assert normalised(-8, 4, PROFILES["reward_low_fn"]) == 0
