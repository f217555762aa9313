"""What is proposed is what the model is unsure of, not labelled, and not all the same."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.trained import (
    CALIBRATE,
    DEVICE_TYPE,
    ROWS,
    START_S,
    load_manifest,
    recording,
    verdicts_of,
)

from cloud.errors import DatasetError, TrainingError
from cloud.label_files import proposals_csv, read_labels
from cloud.labels import Labels, SealedLabel
from cloud.proposals import APART_WINDOWS, propose
from cloud.selection import Query, Selection
from cloud.train import anomaly
from fog_node.protocol.labels import Labelled, TimeSpan

BOARDS = {bytes([n] * 8): recording(10 + n, ROWS) for n in (1, 2, 3)}
FIRST = min(BOARDS)
WINDOW = anomaly.CUTTING.window


def selection(readings=BOARDS, labels=()):
    return Selection(Query(DEVICE_TYPE), None, (), readings, Labels(labels))


def said(device, first_s, last_s):
    span = TimeSpan(device, first_s * 1000, last_s * 1000)
    return SealedLabel(bytes(32), 0, 1, "plant", span, "normal", "", 0.0)


def test_the_windows_nearest_to_the_threshold_come_first(trained):
    manifest, _ = load_manifest(trained)
    chosen = propose(selection({FIRST: BOARDS[FIRST]}), trained, 3)
    scores = [v.score for v in verdicts_of(FIRST, BOARDS[FIRST], trained)]
    distances = np.abs(np.log1p(scores) - np.log1p(manifest.threshold))
    assert chosen[0].score == scores[int(distances.argmin())]
    assert [p.uncertainty for p in chosen] == sorted((p.uncertainty for p in chosen), reverse=True)
    assert all(p.threshold == manifest.threshold for p in chosen)
    assert all(p.last - p.first == (WINDOW - 1) * 1000 for p in chosen)


def test_boards_take_turns_and_times_are_apart(trained):
    chosen = propose(selection(), trained, 7)
    assert len(chosen) == 7
    for turn in (chosen[:3], chosen[3:6]):
        assert {p.device for p in turn} == set(BOARDS)
    for one in chosen:
        for other in chosen:
            if one is not other and one.device == other.device:
                gap = max(one.first - other.last, other.first - one.last)
                assert gap > APART_WINDOWS * (WINDOW - 1) * 1000


def test_what_has_a_label_is_not_proposed_again(trained):
    (first,) = propose(selection({FIRST: BOARDS[FIRST]}), trained, 1)
    label = said(FIRST, first.first // 1000, first.first // 1000)
    (second,) = propose(selection({FIRST: BOARDS[FIRST]}, [label]), trained, 1)
    assert not second.first <= first.first <= second.last
    everything = said(FIRST, START_S, START_S + ROWS)
    with pytest.raises(TrainingError, match="no window without a label is left"):
        propose(selection({FIRST: BOARDS[FIRST]}, [everything]), trained, 1)


def test_boards_own_scores_are_the_same_where_they_judged(trained):
    """And only there: of the other boards nothing is sealed."""
    sealed = verdicts_of(FIRST, BOARDS[FIRST], trained)
    of_board = propose(selection(), trained, 5, sealed)
    assert of_board == propose(selection({FIRST: BOARDS[FIRST]}), trained, 5)
    other = [v._replace(model=bytes(8)) for v in sealed]
    with pytest.raises(TrainingError, match="no window"):
        propose(selection(), trained, 5, other)


def test_rows_with_a_missing_value_are_in_no_window(trained):
    values = BOARDS[FIRST].values.copy()
    values[CALIBRATE + 5 :: 7] = np.nan
    readings = replace(BOARDS[FIRST], values=values)
    for proposal in propose(selection({FIRST: readings}), trained, 3):
        at = np.flatnonzero(
            (readings.times_ms >= proposal.first) & (readings.times_ms <= proposal.last)
        )
        assert np.isfinite(values[at[[0, -1]]]).all()
        assert np.isfinite(values[at]).all(axis=1).sum() == WINDOW


def test_what_is_proposed_comes_back_as_labels(trained, tmp_path):
    chosen = propose(selection(), trained, 4)
    path = tmp_path / "proposals.csv"
    lines = proposals_csv([each.row() for each in chosen]).splitlines()
    columns = lines[0].split(",")
    answered = lines[1].split(",")
    answered[columns.index("value")] = "anomaly"
    path.write_text("\n".join([lines[0], ",".join(answered), *lines[2:]]) + "\n")
    best = chosen[0]
    assert read_labels(path) == [Labelled(TimeSpan(best.device, best.first, best.last), "anomaly")]


def test_a_model_of_other_channels_is_refused(trained):
    other = replace(BOARDS[FIRST], channels=("current", "voltage"))
    with pytest.raises(DatasetError, match="measures current, voltage, the model takes"):
        propose(selection({FIRST: other}), trained, 1)


def test_the_command_hands_on_what_was_chosen(trained, monkeypatch):
    import asyncio

    from tools import labels

    monkeypatch.setattr(labels, "select", lambda dataset, query: selection())
    dataset = SimpleNamespace(verdicts=lambda device_type: [])
    wanted = labels.Wanted(Query(DEVICE_TYPE), trained, 2, of_boards=False)
    rows = asyncio.run(labels.propose(dataset, wanted))
    assert len(rows) == 2
    assert proposals_csv(rows).splitlines()[0].startswith("device,from,until,value,score")
    assert rows[0]["value"] == ""
