"""Flower's strategies under our coordinator: poisoned and missing sites, resumption, privacy."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from math import log, sqrt

import numpy as np
import pytest
from support.federated_python import PYTHON, SUPPORT
from support.fleets import write_fleet


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    write_fleet(folder / "train_X.txt", 20, seed=1)
    done = subprocess.run(
        [PYTHON, SUPPORT / "federated_trials.py", folder],
        capture_output=True,
        timeout=240,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["fedavg", "trimmed-mean", "krum", "away", "resumed"])
def test_sites_learn_together(found, name):
    rounds = found[name]["rounds"]
    assert [one["round"] for one in rounds] == [1, 2, 3, 4]
    assert all(one["after"] == two["before"] for one, two in pairwise(rounds))
    assert rounds[-1]["rmse"] < 0.7 * rounds[0]["rmse"]


def test_a_poisoned_site_spoils_the_mean_and_not_the_robust_ones(found):
    def last(name):
        return found[name]["rounds"][-1]["rmse"]

    assert last("fedavg poisoned") > 2 * last("fedavg")
    for strategy in ("trimmed-mean", "krum"):
        assert last(f"{strategy} poisoned") < 1.5 * last(strategy)


def test_numbers_that_are_none_count_as_absent(found):
    for one in found["nan"]["rounds"]:
        assert one["absent"] == {
            "site-1": "sent a network of another shape, or numbers that are not finite"
        }
        assert len(one["sites"]) == 4


def test_a_site_that_is_away_is_named_and_comes_back(found):
    absent = [list(one["absent"]) for one in found["away"]["rounds"]]
    assert absent == [[], ["site-1"], ["site-1"], []]


def test_too_few_answers_end_a_run_and_what_was_reached_stays(found):
    assert "4 of 5 sites answered in round 3, fedavg needs 5" in found["too few"]["error"]
    assert "--resume" in found["too few"]["error"]
    assert len(found["too few"]["rounds"]) == 2


def test_a_resumed_run_goes_on_where_it_was(found):
    """Its first rounds had another length of the whole in view, so the models differ."""
    first, second = found["resumed"]["rounds"][1:3]
    assert second["before"] == first["after"]


def test_every_update_has_its_hash(found):
    for one in found["fedavg"]["rounds"]:
        assert len({site["update"] for site in one["sites"]}) == 5


# Weights are rounded to one of 2^22 levels from -8 to 8, by each site, and their shares of the rows
# are near to one another: the mean is off by less than two levels.
ROUNDED = 2 * 16 / 2**22


def test_masks_leave_the_mean_as_it_is(found):
    weights, bare = (np.array(found[name]["weights"]) for name in ("masked", "bare"))
    assert 0 < np.abs(weights - bare).max() < ROUNDED
    (one,) = found["masked"]["rounds"]
    assert [site["update"] for site in one["sites"]] == [None] * 5
    assert one["rmse"] == found["bare"]["rounds"][0]["rmse"]


@pytest.mark.parametrize("answers", range(4))
def test_a_site_may_go_at_any_exchange_of_a_round_with_masks(found, answers):
    """The fourth comes after its update: that is in the sum."""
    of = found[f"masked away {answers}"]
    (one,) = of["rounds"]
    assert len(one["sites"]) == (5 if answers == 3 else 4)
    assert list(one["absent"]) == ([] if answers == 3 else ["site-1"])
    same = found["bare" if answers == 3 else "bare away 0"]
    assert np.abs(np.array(of["weights"]) - np.array(same["weights"])).max() < ROUNDED


def test_fewer_sites_than_the_threshold_end_a_round_with_masks(found):
    assert "answered in round 1" in found["too few stay"]["error"]
    assert found["too few stay"]["rounds"] == []


def test_a_weight_that_would_be_cut_off_is_refused(found):
    assert "0 of 5 sites answered" in found["narrow"]["error"]


def test_masks_and_noise_go_together(found):
    (one,) = found["noise masked"]["rounds"]
    assert one["epsilon"] > 0
    assert [(site["update"], site["examples"]) for site in one["sites"]] == [(None, None)] * 5


def test_a_site_takes_no_part_in_a_sum_that_would_tell_its_update(found):
    assert "more than half are needed" in found["least"]["half"]
    assert "3 sites" in found["least"]["two"]


def test_noise_is_accounted_for(found):
    rounds = found["noise"]["rounds"]
    spent = [one["epsilon"] for one in rounds]
    assert spent == sorted(spent)
    assert len(set(spent)) == 4
    assert {one["delta"] for one in rounds} == {1e-3}
    assert all(one["rmse"] is None for one in rounds)
    assert all(site["examples"] is None for one in rounds for site in one["sites"])


def test_the_budget_is_the_gaussian_mechanisms(found):
    """Mironov 2017: steps of noise z have Renyi divergence a steps / (2 z^2) at order a."""
    one, hundred, none = found["epsilon"]
    assert none == 0
    for value, steps, noise in ((one, 1, 1.0), (hundred, 100, 2.0)):
        rho = steps / (2 * noise**2)
        # The plain conversion is an upper bound; the accountant's is better, by less than a fifth.
        bound = rho + 2 * sqrt(rho * log(1 / 1e-5))
        assert 0.8 * bound < value <= bound
