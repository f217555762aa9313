"""Failures of machines: what is read, learned, predicted and said of it."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from support.machines import HEADER, simulated, write
from typer.testing import CliRunner

from cloud.errors import ModelError, RecordingError, TrainingError
from cloud.model_files import (
    load_sklearn,
    read_card,
    save_sklearn,
    write_card,
    written_whole,
)
from cloud.tables import write_table
from cloud.train import failure, failure_network
from cloud.train.failure_data import (
    FEATURES,
    MEASURED,
    MODES,
    RANGES,
    made_up,
    read_failures,
    rule,
)
from cloud.train.job import Job, LabelSheet
from cloud.train.thresholds import best_threshold, f1
from tools import cli

GOOD = ("1", "M1", "M", "298.1", "308.6", "1551", "42.8", "0", "0", "0", "0", "0", "0", "0")


def test_features_are_what_was_measured_and_what_physics_makes_of_it(tmp_path):
    row = ("7", "L9", "L", "300", "310.5", "1500", "40", "100", "1", "0", "0", "0", "1", "0")
    rows = read_failures(write(tmp_path / "rows.csv", row), labelled=True)
    found = dict(zip(FEATURES, rows.features[0].tolist(), strict=True))
    assert found["temperature_difference"] == 10.5
    assert found["power"] == pytest.approx(40 * 1500 * 2 * np.pi / 60)
    assert (found["strain"], found["strain_share"]) == (4000, 4000 / 11000)
    assert rows.ids == ("7",)
    assert rows.failed is not None
    assert rows.failed.tolist() == [True]
    assert rows.modes is not None
    assert rows.modes.tolist() == [[False, False, False, True]]


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("Type", "X", "line 3: column 'Type' is 'X', not L or M or H"),
        ("Torque [Nm]", "", "line 3: column 'Torque [Nm]' is empty"),
        ("Torque [Nm]", "nan", "line 3: column 'Torque [Nm]' is 'nan', not a finite number"),
        ("Torque [Nm]", "-1", "line 3: column 'Torque [Nm]' is '-1', not from 0 to 1000"),
        ("Machine failure", "2", "line 3: column 'Machine failure' is '2', not 0 or 1"),
        ("UDI", "1", "column 'UDI' is '1', as in line 2; give each row its own"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, column, cell, said):
    bad = list(GOOD)
    bad[0] = "2"
    bad[HEADER.index(column)] = cell
    with pytest.raises(RecordingError) as error:
        read_failures(write(tmp_path / "rows.csv", GOOD, tuple(bad)), labelled=True)
    assert said in str(error.value)


def test_rows_that_are_made_up_could_have_been_measured(tmp_path):
    rows = read_failures(simulated(tmp_path / "rows.csv", 300, 5), labelled=True)
    made = made_up(rows.features, rows.failed, 500, np.random.default_rng(1))
    column = dict(zip(FEATURES, made.T, strict=True))
    assert set(column["type"]) <= set(rows.features[:, 0])
    for at, name in enumerate(MEASURED, start=1):
        low, high = RANGES[name]
        assert ((low <= made[:, at]) & (made[:, at] <= high)).all()
        # Wear of a new tool cannot fall.
        assert len(set(made[:, at])) > (250 if rows.features[:, at].std() else 0)
    assert np.allclose(column["strain"], column["tool_wear"] * column["torque"])
    assert np.allclose(
        column["temperature_difference"],
        column["process_temperature"] - column["air_temperature"],
    )
    # Many more of them fail by the rule than of what was measured.
    assert rule(made).mean() > 2 * rule(rows.features).mean() > 0


def test_a_missing_column_is_named(tmp_path):
    cut = tuple(name for name in HEADER if name != "Torque [Nm]")
    with pytest.raises(RecordingError, match=r"'Torque \[Nm\]' is there 0 times"):
        read_failures(write(tmp_path / "rows.csv", GOOD[1:], header=cut), labelled=False)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"ai4i2020\.csv: cannot be read"):
        read_failures(tmp_path, labelled=True)


def test_a_sensor_that_stands_still_is_told(tmp_path):
    rows = [(str(number), *GOOD[1:4], str(300 + number), *GOOD[5:]) for number in range(3)]
    found = read_failures(write(tmp_path / "rows.csv", *rows), labelled=True)
    assert found.still() == [
        "type", "air_temperature", "rotational_speed", "torque", "tool_wear"
    ]  # fmt: skip


def test_one_class_only_is_too_little(tmp_path):
    rows = [(str(number), *GOOD[1:]) for number in range(100)]
    with pytest.raises(TrainingError, match="0 failures, at least 25"):
        failure.train(write(tmp_path / "rows.csv", *rows), Job(tmp_path / "out"))


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    """So small a set needs no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failure, "QUICK_TREES", 20)
        patch.setattr(failure_network, "QUICK_EPOCHS", 10)
        patch.setattr(failure, "QUICK_TAUGHT", 2000)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("failure")
    data = simulated(directory / "rows.csv", 400, 1)
    sheet = directory / "labels.csv"
    sheet.write_text("id,value\n0,normal\n1,normal\n")
    said = LabelSheet(sheet, ("plant",))
    failure.train(data, Job(directory / "model", quick=True, seed=1, labels=said))
    return directory / "model"


def test_what_was_learned_predicts_machines_never_seen(trained, tmp_path):
    data = simulated(tmp_path / "rows.csv", 300, 2)
    said = failure.predict(trained, data, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    labels = read_failures(data, labelled=True).failed
    decided = np.array([row["failure"] == "1" for row in found])
    assert [row["id"] for row in found] == [str(number) for number in range(300)]
    assert said == {
        "rows": 300, "failures": int(decided.sum()), "out": str(tmp_path / "out.csv")
    }  # fmt: skip
    assert f1(decided, labels) > 0.9
    assert {row["mode"] for row in found if row["failure"] == "1"} == {"OSF"}
    assert {row["mode"] for row in found if row["failure"] == "0"} == {""}


def test_a_training_can_be_looked_at(trained):
    assert any((trained / "log").glob("events.out.tfevents.*"))
    for plot in ("loss.png", "precision_recall.png"):
        assert (trained / plot).stat().st_size > 1000


def test_the_boards_network_is_small_and_of_boards_operators(trained):
    card = json.loads((trained / "card.json").read_text())
    assert card["int8"]["bytes"] == (trained / "model.tflite").stat().st_size < 16 * 1024
    assert card["int8"]["ops"] == ["CONV_2D"]
    assert card["sealed"] is False
    assert (card["labels"]["labelled"], card["labels"]["sealed_by"]) == (2, ["plant"])


def test_a_model_is_replaced_whole_or_not_at_all(trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained, model)

    def held() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in model.rglob("*") if path.is_file()}

    before = held()

    def interrupted() -> None:
        with written_whole(model) as new:
            (new / failure_network.INT8_FILE).write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert held() == before
    with written_whole(model) as new:
        (new / failure_network.INT8_FILE).write_bytes(b"other")
        write_card(new, {"task": "other"})
    assert (model / failure_network.INT8_FILE).read_bytes() == b"other"
    assert read_card(model, "other") == {"task": "other"}
    (model / "card.json").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        failure.predict(model, trained / "rows.csv", tmp_path / "out.csv")


def test_predictions_that_cannot_be_written_leave_what_was_there(trained, tmp_path, monkeypatch):
    data, out = simulated(tmp_path / "rows.csv", 20, 2), tmp_path / "out.csv"
    out.write_text("of yesterday")
    with pytest.raises(RecordingError, match=r"cannot be written .Is a directory"):
        failure.predict(trained, data, tmp_path)

    def full(path, header, rows):
        def broken():
            yield from list(rows)[:5]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        write_table(path, header, broken())

    monkeypatch.setattr(failure, "write_table", full)
    with pytest.raises(RecordingError, match="No space left on device"):
        failure.predict(trained, data, out)
    assert out.read_text() == "of yesterday"


@pytest.mark.parametrize("out", ["rows.csv", "../data/rows.csv"])
def test_what_is_read_is_not_written_over(tmp_path, out):
    data = tmp_path / "data"
    data.mkdir()
    table = simulated(data / "rows.csv", 20, 2).read_text()
    typed = ["predict", "failure", "--model", "m", "--data", data / "rows.csv", "--out", data / out]
    result = CliRunner().invoke(cli.app, list(map(str, typed)))
    assert "is among what is read" in str(result.exception)
    assert (data / "rows.csv").read_text() == table


def test_another_tasks_model_is_refused(trained, tmp_path):
    (tmp_path / "card.json").write_text('{"task": "rul"}')
    with pytest.raises(ModelError, match="is of the task 'rul', not 'failure'"):
        failure.predict(tmp_path, trained / "rows.csv", tmp_path / "out.csv")


@pytest.mark.parametrize(
    "changes", [{"threshold": None}, {"weights": {"forest": "x"}}, {"weights": []}]
)
def test_a_damaged_card_is_refused(trained, tmp_path, changes):
    card = json.loads((trained / "card.json").read_text())
    write_card(tmp_path, card | changes)
    data = simulated(tmp_path / "rows.csv", 5, 2)
    with pytest.raises(ModelError, match="card is damaged"):
        failure.predict(tmp_path, data, tmp_path / "out.csv")


def test_the_same_fit_gives_the_same_file(tmp_path):
    features = np.random.default_rng(0).random((60, 3))
    labels = features[:, 0] > 0.5
    forests = [RandomForestClassifier(3, random_state=0).fit(features, labels) for _ in range(2)]
    files = [tmp_path / "one.skops", tmp_path / "other.skops"]
    for path, forest in zip(files, forests, strict=True):
        save_sklearn(path, forest)
    assert files[0].read_bytes() == files[1].read_bytes()
    told = load_sklearn(files[0]).predict_proba(features)
    assert told.tolist() == forests[0].predict_proba(features).tolist()


class Strange:
    """Nothing that a model is made of."""


def test_a_model_file_that_would_make_other_objects_is_refused(tmp_path):
    save_sklearn(tmp_path / "model.skops", Strange())
    with pytest.raises(ModelError, match=r"would make .*Strange"):
        load_sklearn(tmp_path / "model.skops")
    os.mkfifo(tmp_path / "pipe.skops")
    with pytest.raises(ModelError, match=r"pipe\.skops: cannot be read \(is no file\); give the"):
        load_sklearn(tmp_path / "pipe.skops")
    (tmp_path / "model.skops").write_bytes(b"no archive")
    with pytest.raises(ModelError, match="is no model"):
        load_sklearn(tmp_path / "model.skops")


def test_the_threshold_is_the_one_with_the_best_f1():
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    random = np.random.default_rng(seed)
    scores = random.integers(0, 20, 200)
    labels = scores + random.normal(0, 5, 200) > 12
    if not labels.any():
        labels[0] = True
    best = max(f1(scores >= cut, labels) for cut in range(21))
    assert f1(scores >= best_threshold(scores, labels), labels) == best


def test_evaluation_learns_nothing_of_the_rows_it_judges(tmp_path, monkeypatch):
    """Rows are numbered by a feature: those that are judged were in no fit before."""
    data = simulated(tmp_path / "rows.csv", 200, 3)
    whole = read_failures(data, labelled=True)
    fits: list[set[float]] = []
    real = failure._fit

    def fit(features, *others):
        fits.append({tuple(row) for row in features})
        return real(features, *others)

    monkeypatch.setattr(failure, "_fit", fit)
    sheet = tmp_path / "labels.csv"
    sheet.write_text(f"id,value\n{int(np.argmax(whole.failed))},HDF\n")
    job = Job(tmp_path / "out", quick=True, labels=LabelSheet(sheet, ("plant",)))
    result = failure.evaluate(data, job)
    told = {row["mode"]: row["rows"] for row in result["modes"]}
    assert (told["HDF"], told["OSF"]) == (1, whole.failed.sum() - 1)
    assert (result["labels"]["labelled"], result["labels"]["sealed_by"]) == (1, ["plant"])
    rows = {tuple(row) for row in whole.features}
    assert len(fits) == failure.QUICK_FOLDS
    left_out = [rows - fit for fit in fits]
    assert set.union(*left_out) == rows
    assert sum(map(len, left_out)) == len(rows)
    by_name = {row["model"]: row for row in result["results"]}
    assert set(by_name) > {failure.SUPER, failure.BOARD, failure.RULE, failure.ALL}
    for row in result["results"]:
        assert row["f1_low"] <= row["f1"] <= row["f1_high"]
    assert {row["mode"] for row in result["modes"]} == set(MODES)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result
    assert (tmp_path / "out" / "precision_recall.png").stat().st_size > 1000


def later(tmp_path: Path, trained: Path, again: int) -> Path:
    """A table of 300 machines that came later, and some that were learned from."""
    new = simulated(tmp_path / "new.csv", 300, 2).read_text().splitlines()
    old = (trained.parent / "rows.csv").read_text().splitlines()[1 : again + 1]
    path = tmp_path / "later.csv"
    path.write_text("\n".join([new[0], *(f"n{line}" for line in new[1:]), *old]) + "\n")
    return path


def test_a_trained_model_is_judged_by_rows_that_it_has_not_learned_from(trained, tmp_path):
    data, out = later(tmp_path, trained, 100), tmp_path / "out"
    typed = ["evaluate", "failure", "--model", trained, "--data", data, "--out", out]
    done = CliRunner().invoke(cli.app, list(map(str, typed)))
    assert done.exit_code == 0, done.output
    result = json.loads((out / "evaluation.json").read_text())
    assert (result["learned"], result["left_out_as_learned"], result["rows"]) == (400, 100, 300)
    by_name = {row["model"]: row for row in result["results"]}
    assert set(by_name) == {
        *failure.candidates(Job(out)), failure.SUPER, failure.BOARD, failure.FLOAT_BOARD,
        failure.RULE, failure.ALL,
    }  # fmt: skip
    failure.predict(trained, tmp_path / "new.csv", tmp_path / "said.csv")
    with (tmp_path / "said.csv").open(newline="") as file:
        decided = np.array([row["failure"] == "1" for row in csv.DictReader(file)])
    failed = read_failures(tmp_path / "new.csv", labelled=True).failed
    row = by_name[failure.SUPER]
    assert row["f1"] == f1(decided, failed) > 0.9
    assert row["f1_low"] <= row["f1"] <= row["f1_high"]
    assert by_name[failure.ALL]["precision"] == pytest.approx(failed.mean())
    assert by_name[failure.BOARD]["f1"] > 0.75 > by_name[failure.ALL]["f1"]
    modes = {row["mode"]: row for row in result["modes"]}
    assert modes["OSF"]["rows"] == result["failures"] == failed.sum()
    assert modes["OSF"]["f1"] > 0.9
    assert (out / "precision_recall.png").stat().st_size > 1000


def test_engineers_labels_say_what_is_true_of_later_rows(trained, tmp_path):
    data, sheet = later(tmp_path, trained, 0), tmp_path / "labels.csv"
    sheet.write_text("id,value\n" + "".join(f"n{at},normal\n" for at in range(200)))
    job = Job(tmp_path / "out", labels=LabelSheet(sheet), model=trained)
    result = failure.evaluate(data, job)
    failed = read_failures(tmp_path / "new.csv", labelled=True).failed
    assert result["failures"] == failed[200:].sum()
    assert result["labels"]["labelled"] == 200


def test_a_model_is_not_judged_by_what_it_knows_or_where_nothing_failed(trained, tmp_path):
    job = Job(tmp_path / "out", model=trained)
    with pytest.raises(TrainingError, match="has learned from each of the 400 rows"):
        failure.evaluate(trained.parent / "rows.csv", job)
    fine = write(tmp_path / "fine.csv", GOOD)
    with pytest.raises(TrainingError, match="no machine failed in the 1 rows"):
        failure.evaluate(fine, job)


def unreadable(path: Path) -> None:
    """A header that claims a terabyte."""
    np.save(path, np.zeros(4, np.uint64))
    path.write_bytes(path.read_bytes().replace(b"(4,), ", b"(137438953472,), "))


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: np.save(path, np.zeros(3)),
        lambda path: np.save(path, np.uint64(3)),
        lambda path: np.save(path, np.array([{}]), allow_pickle=True),
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b"PK\x03\x04 no archive"),
        unreadable,
    ],
)
def test_a_damaged_list_of_what_was_learned_from_is_refused(trained, tmp_path, damage):
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    damage(model / "seen.npy")
    with pytest.raises(ModelError, match=r"seen\.npy: (cannot be read|is not what training)"):
        failure.evaluate(trained.parent / "rows.csv", Job(tmp_path / "out", model=model))


@pytest.mark.parametrize(
    "changes",
    [
        {"other_thresholds": {}}, {"int8_threshold": None}, {"int8": None},
        {"int8": {"mean": [0], "deviation": [1]}},
        {"int8": {"mean": [0] * 10, "deviation": [0] * 10}},
    ],
)  # fmt: skip
def test_a_card_that_is_damaged_where_predict_does_not_look_is_refused(trained, tmp_path, changes):
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    write_card(model, json.loads((model / "card.json").read_text()) | changes)
    with pytest.raises(ModelError, match="damaged"):
        failure.evaluate(trained.parent / "rows.csv", Job(tmp_path / "out", model=model))


def test_a_network_of_another_training_is_refused(trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    shutil.copy(model / failure_network.FLOAT_FILE, model / failure_network.INT8_FILE)
    with pytest.raises(ModelError, match="does not take 10 numbers of int8"):
        failure.evaluate(trained.parent / "rows.csv", Job(tmp_path / "out", model=model))


def test_the_real_set_is_told_by_its_own_rule():
    folder = Path(os.environ.get("FOGLINE_DATA", "")) / "ai4i"
    if not folder.is_dir():
        pytest.skip("FOGLINE_DATA is not set: name the folder that holds ai4i/")
    rows = read_failures(folder, labelled=True)
    assert rows.failed is not None
    assert f1(rule(rows.features), rows.failed) == pytest.approx(0.926, abs=0.001)
