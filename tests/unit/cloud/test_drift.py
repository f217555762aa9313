"""Drift is seen where there is some, and not where there is none; a better model wins, no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.trained import load_manifest, recording

from cloud.challenge import MIN_GAIN, Challenge, challenge
from cloud.drift import LIMIT, VERDICTS, measure, seen, stability_index
from cloud.errors import TrainingError
from cloud.train.anomaly_model import BoardModel

ROWS = 2_000


def moved(rows, channel, by):
    """The same readings, with an offset on a channel from the middle on."""
    values = rows.values.copy()
    values[len(rows) // 2 :, channel] += by
    return replace(rows, values=values)


@pytest.fixture(scope="module")
def model(trained):
    return load_manifest(trained)


def test_the_index_is_what_it_is_defined_as():
    """By hand: halves of 0 and 1 against a quarter and three quarters."""
    reference = np.repeat(np.array([0, 1], np.int8), 200)
    recent = np.repeat(np.array([0, 1], np.int8), [100, 300])
    by_hand = (0.25 - 0.5) * np.log(0.25 / 0.5) + (0.75 - 0.5) * np.log(0.75 / 0.5)
    assert stability_index(reference, recent) == pytest.approx(by_hand)
    assert stability_index(reference, reference) == 0


def test_only_what_has_moved_counts_as_moved(model):
    manifest, payload = model
    before = seen({b"a": recording(1, ROWS)}, manifest, payload)
    same = seen({b"a": recording(1, ROWS), b"b": recording(1, ROWS)}, manifest, payload)
    assert {m.name for m in measure(before, same, manifest, LIMIT)} == {
        *manifest.channels,
        VERDICTS,
    }
    assert not any(m.has_moved for m in measure(before, same, manifest, LIMIT))
    later = seen({b"a": moved(recording(1, ROWS), 0, 1.0)}, manifest, payload)
    by_name = {m.name: m for m in measure(before, later, manifest, LIMIT)}
    assert by_name[manifest.channels[0]].has_moved
    assert by_name[VERDICTS].has_moved
    assert not by_name[manifest.channels[1]].has_moved


def test_too_little_is_told(model):
    manifest, payload = model
    much = seen({b"a": recording(1, ROWS)}, manifest, payload)
    little = seen({b"a": recording(2, 150)}, manifest, payload)
    with pytest.raises(TrainingError, match="that are recent, 500 in 50 are needed; look again"):
        measure(much, little, manifest, LIMIT)


@pytest.mark.parametrize("with_labels", [False, True])
def test_a_model_that_tells_nothing_does_not_win(model, with_labels):
    manifest, payload = model
    good = BoardModel(manifest, payload)
    blind = BoardModel(replace(manifest, threshold=2**31 - 1), payload)
    rows = recording(3, ROWS)
    basis = "made-up faults"
    if with_labels:
        rows, basis = moved(rows, 1, 3.0), "labels"
        rows = replace(rows, excluded=np.arange(len(rows)) >= len(rows) // 2)
    held_out = {b"a": rows}
    kept = challenge(good, blind, held_out, seed=1)
    assert kept.basis == basis
    assert not kept.is_won
    assert challenge(blind, good, held_out, seed=1).is_won
    # The same model is no better than itself.
    draw = challenge(good, good, held_out, seed=1)
    assert draw.running == draw.new
    assert not draw.is_won


def test_a_gain_must_be_more_than_chance():
    figures = {"f1": 0.8}
    assert not Challenge("labels", figures, {"f1": 0.8 + MIN_GAIN / 2}).is_won
    assert Challenge("labels", figures, {"f1": 0.8 + 2 * MIN_GAIN}).is_won


def test_too_little_held_out_is_told(model):
    contender = BoardModel(*model)
    with pytest.raises(TrainingError, match="held-out readings: make"):
        challenge(contender, contender, {b"a": recording(1, 150)}, seed=1)
