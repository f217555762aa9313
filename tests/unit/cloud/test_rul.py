"""Remaining useful life: what is read, learned, predicted and said of it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cloud.errors import LabelError, ModelError, RecordingError, TrainingError
from cloud.model_files import write_card
from cloud.train import rul, rul_network
from cloud.train.job import Job, LabelSheet
from cloud.train.rul_baselines import AGE, MEAN
from cloud.train.rul_data import COLUMNS, SENSORS, TEST, TRAIN, find, read_truth, read_units
from cloud.train.rul_features import MAX_CONDITIONS, Preparation, fit_preparation, smoothed
from tools.cli import app

SETTINGS = ((0.0, 0.0, 100.0), (25.0, 0.62, 60.0))
WEAR_SENSORS = (1, 6)


def write(path: Path, rows: list[list[float]]) -> Path:
    path.write_text("".join(" ".join(f"{value:g}" for value in row) + "  \n" for row in rows))
    return path


def row(unit: int, cycle: int, condition: int = 0) -> list[float]:
    return [unit, cycle, *SETTINGS[condition], *(float(number) for number in range(1, 22))]


def unit(random, number: int, life: int, rows: int, conditions: int) -> list[list[float]]:
    """Two sensors show wear, the second one downwards; the others stand still or are noise."""
    found = []
    for cycle in range(1, rows + 1):
        condition = int(random.integers(conditions))
        values = row(number, cycle, condition)
        wear = np.exp(-(life - cycle) / 15)
        values[5 + WEAR_SENSORS[0]] = 600 - 50 * condition + 4 * wear + random.normal(0, 0.3)
        values[5 + WEAR_SENSORS[1]] = 550 - 300 * condition - 2 * wear + random.normal(0, 0.2)
        values[5 + 8] = random.normal(9000, 10)
        found.append(values)
    return found


def subset(folder: Path, seed: int, conditions: int = 2, name: str = "FD009") -> Path:
    """Write the three files of a subset of 20 units to learn from and 30 to judge."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    learn, judge, left = [], [], []
    for number in range(1, 21):
        life = int(random.integers(50, 90))
        learn += unit(random, number, life, life, conditions)
    for number in range(1, 31):
        life = int(random.integers(50, 90))
        seen = int(random.integers(20, life))
        judge += unit(random, number, life, seen, conditions)
        left.append([float(life - seen)])
    write(folder / f"train_{name}.txt", learn)
    write(folder / f"test_{name}.txt", judge)
    write(folder / f"RUL_{name}.txt", left)
    return folder


def test_rows_are_read_and_units_end_with_their_failure(tmp_path):
    rows = [row(1, 1), row(1, 2), row(1, 3), row(7, 4), row(7, 5)]
    units = read_units(write(tmp_path / "train_FD001.txt", rows))
    assert units.unit.tolist() == [1, 1, 1, 7, 7]
    assert units.ends.tolist() == [2, 4]
    assert units.left().tolist() == [2, 1, 0, 1, 0]
    assert units.sensors[0].tolist() == list(range(1, 22))


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("sensor_4", "x", "line 2: column 'sensor_4' is 'x', not a finite number"),
        ("sensor_21", "nan", "line 2: column 'sensor_21' is 'nan', not a finite number"),
        ("setting_1", "inf", "line 2: column 'setting_1' is 'inf', not a finite number"),
        ("unit", "1.5", "line 2: column 'unit' is '1.5', not a whole number"),
        ("unit", "0", "line 2: column 'unit' is '0', not from 1 to"),
        ("cycle", "3", "line 2: column 'cycle' is '3', not 2, the one after"),
        ("cycle", "1", "line 2: column 'cycle' is '1', not 2, the one after"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, column, cell, said):
    bad = [f"{value:g}" for value in row(1, 2)]
    bad[COLUMNS.index(column)] = cell
    path = write(tmp_path / "train_FD001.txt", [row(1, 1)])
    path.write_text(path.read_text() + " ".join(bad) + "\n")
    with pytest.raises(RecordingError) as error:
        read_units(path)
    assert said in str(error.value)


def test_a_row_cut_off_and_a_unit_torn_apart_are_named(tmp_path):
    path = write(tmp_path / "train_FD001.txt", [row(1, 1), row(1, 2)[:-1]])
    with pytest.raises(RecordingError, match="line 2: has 25 cells, must have 26"):
        read_units(path)
    write(path, [row(1, 1), row(2, 1), row(1, 2)])
    with pytest.raises(RecordingError, match="line 3: column 'unit' is '1', not a new unit"):
        read_units(path)


def test_files_of_a_subset_are_found_and_several_subsets_told_apart(tmp_path):
    with pytest.raises(RecordingError, match=r"must hold one train_\*.txt file, holds none"):
        find(tmp_path, TRAIN)
    first, second = tmp_path / "train_FD001.txt", tmp_path / "train_FD002.txt"
    first.touch()
    assert find(tmp_path, TRAIN) == first
    second.touch()
    with pytest.raises(RecordingError, match=r"holds train_FD001\.txt, train_FD002\.txt"):
        find(tmp_path, TRAIN)
    assert find(second, TEST) == tmp_path / "test_FD002.txt"
    with pytest.raises(RecordingError, match=r"plant\.txt: is not there"):
        find(tmp_path / "plant.txt", TRAIN)
    (tmp_path / "plant.txt").touch()
    with pytest.raises(RecordingError, match="does not say which subset"):
        find(tmp_path / "plant.txt", TRAIN)


def test_true_values_must_be_of_the_units(tmp_path):
    units = read_units(write(tmp_path / "test_FD001.txt", [row(1, 1), row(2, 1)]))
    path = write(tmp_path / "RUL_FD001.txt", [[112.0]])
    with pytest.raises(RecordingError, match=r"has 1 rows, .*test_FD001\.txt has 2 units"):
        read_truth(path, units)
    with pytest.raises(RecordingError, match="line 1: column 'RUL' is '-3'"):
        read_truth(write(path, [[-3.0], [1.0]]), units)


def test_averages_weigh_rows_by_their_age_and_add_up():
    values = np.array([[1.0], [3.0], [3.0]])
    found = smoothed(values, 0.5)[:, 0]
    assert found.tolist() == pytest.approx([1.0, (0.25 + 1.5) / 0.75, (0.125 + 0.75 + 1.5) / 0.875])
    assert smoothed(values, 1.0).tolist() == values.tolist()


def test_sensors_are_held_against_their_operating_condition(tmp_path):
    both = fit_preparation(read_units(subset(tmp_path / "both", 5) / "train_FD009.txt"))
    assert len(both.centres) == 2
    assert both.sensors == WEAR_SENSORS
    units = read_units(tmp_path / "both" / "test_FD009.txt")
    values = both.standardised(units)
    condition = units.settings[:, 0] > 1
    assert np.abs(values[condition].mean(axis=0) - values[~condition].mean(axis=0)).max() < 0.4
    again = Preparation.of_card(json.loads(json.dumps(both.card())))
    assert (again.features(units) == both.features(units)).all()
    alone = fit_preparation(read_units(subset(tmp_path / "one", 5, 1) / "train_FD009.txt"))
    assert len(alone.centres) == 1
    with pytest.raises(RecordingError, match=r"setting_1 25, setting_2 0\.62, setting_3 60 is no"):
        alone.features(units)


def test_what_is_seen_of_a_row_does_not_depend_on_later_ones(tmp_path):
    units = read_units(subset(tmp_path, 6) / "train_FD009.txt")
    preparation = fit_preparation(units)
    whole = preparation.features(units)
    rows = [*np.stack([units.unit, units.cycle], axis=1)[:10]]
    lines = units.path.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.txt"
    cut.write_text("".join(lines[: len(rows)]))
    assert (preparation.features(read_units(cut)) == whole[: len(rows)]).all()


def test_settings_that_vary_without_end_are_refused(tmp_path):
    rows = [row(1, cycle) for cycle in range(1, 60)]
    for at, values in enumerate(rows):
        values[2] = at
    with pytest.raises(TrainingError, match=f"more than {MAX_CONDITIONS} operating conditions"):
        fit_preparation(read_units(write(tmp_path / "train_FD001.txt", rows)))


def test_too_little_to_learn_from_is_said(tmp_path):
    subset(tmp_path, 7)
    lines = (tmp_path / "train_FD009.txt").read_text().splitlines(keepends=True)
    path = tmp_path / "train_FD010.txt"
    path.write_text("".join(line for line in lines if int(line.split()[0]) <= 3))
    with pytest.raises(TrainingError, match=r"train_FD010\.txt: 3 units, at least 15"):
        rul.train(path, Job(tmp_path / "out"))
    path.write_text(
        "".join(line for line in lines if int(line.split()[0]) != 4 or int(line.split()[1]) < 9)
    )
    with pytest.raises(TrainingError, match="unit 4 has 8 cycles, at least 40"):
        rul.train(path, Job(tmp_path / "out"))
    with pytest.raises(TrainingError, match="no sensor moves"):
        fit_preparation(
            read_units(write(path, [row(1, cycle) for cycle in range(1, 50)])),
        )


def test_errors_are_counted_as_published():
    true = np.array([50.0, 50.0])
    assert rul.rmse(np.array([47.0, 54.0]), true) == pytest.approx(12.5**0.5)
    expected = np.exp(13 / 13) - 1 + np.exp(20 / 10) - 1
    assert rul.nasa_score(np.array([37.0, 70.0]), true) == pytest.approx(expected)


# So small a set needs no more.
SMALL = rul_network.Shape(parts=2, repeats=1, hidden=(24, 12), epochs=12, batch=64)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rul, "QUICK", SMALL)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("rul")
    seen: list[tuple[str, int, int]] = []
    sheet = directory / "labels.csv"
    sheet.write_text("unit,value\n7,running\n")
    job = Job(directory / "model", True, 1, progress(seen), labels=LabelSheet(sheet))
    assert rul.train(subset(directory / "data", 1), job)["units"] == 19
    assert seen[-1][1:] == (2, 2)
    return directory / "model"


def progress(seen):
    return lambda what, done, of: seen.append((what, done, of))


def test_what_was_learned_tells_the_life_of_units_never_seen(trained, tmp_path):
    data = subset(tmp_path / "data", 2)
    said = rul.predict(trained, data, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    units = read_units(data / "test_FD009.txt")
    true = read_truth(data / "RUL_FD009.txt", units)
    left, low, high = (
        np.array([float(row[name]) for row in found]) for name in ("left", "low", "high")
    )
    assert said == {"data": str(units.path), "units": 30, "out": str(tmp_path / "out.csv")}
    assert [int(row["unit"]) for row in found] == list(range(1, 31))
    assert [int(row["cycle"]) for row in found] == units.cycle[units.ends].tolist()
    assert ((low <= left) & (left <= high)).all()
    assert rul.rmse(left, true) < 0.7 * true.std()
    assert ((low <= true) & (true <= high)).mean() > 0.7
    again = tmp_path / "plant.txt"
    shutil.copy(data / "test_FD009.txt", again)
    assert rul.predict(trained, again, tmp_path / "again.csv")["data"] == str(again)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_the_model_runs_in_int8_and_its_training_is_logged(trained):
    import tensorflow as tf

    card = json.loads((trained / "card.json").read_text())
    assert card["int8_bytes"] == (trained / "model.tflite").stat().st_size
    assert "QUANTIZE" not in card["int8_ops"]
    assert card["sealed"] is False
    assert (card["labels"]["left_out"], card["labels"]["sealed_by"]) == (1, [])
    losses = [
        (value.tag, float(tf.make_ndarray(value.tensor)))
        for path in (trained / "log").glob("events.out.tfevents.*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag.startswith("loss")
    ]
    assert [tag for tag, _ in losses] == [f"loss, network {n}" for n in range(2) for _ in range(12)]
    assert losses[11][1] < losses[0][1]
    assert (trained / "course.png").stat().st_size > 1000


def test_damaged_models_are_refused(trained, tmp_path):
    data = subset(tmp_path / "data", 2)
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    (model / "model.tflite").write_bytes(b"no model")
    with pytest.raises(ModelError, match="is no model"):
        rul.predict(model, data, tmp_path / "out.csv")
    (model / "model.tflite").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        rul.predict(model, data, tmp_path / "out.csv")
    shutil.copy(trained / "model.tflite", model)
    card = json.loads((model / "card.json").read_text())
    preparation = card["preparation"]
    for name in ("mean", "deviation"):
        preparation[name] = [values[:1] for values in preparation[name]]
    preparation["sensors"] = preparation["sensors"][:1]
    (model / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"from \[1, 11\] to \[1, 6\] numbers, not from \[1, 6\]"):
        rul.predict(model, data, tmp_path / "out.csv")
    preparation["sensors"] = ["sensor_99"]
    (model / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="preparation is damaged"):
        rul.predict(model, data, tmp_path / "out.csv")


def test_a_unit_is_validated_by_networks_that_do_not_know_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(rul_network, "to_float_tflite", lambda network: b"")
    monkeypatch.setattr(rul_network, "to_int8_tflite", lambda network, *others: None)
    units = read_units(subset(tmp_path, 4) / "train_FD009.txt")
    features, left = fit_preparation(units).features(units), units.left()
    changed = left.copy()
    chosen = units.unit == 5
    changed[chosen] = 0.0

    def fit(left):
        return rul_network.fit_ensemble(
            features, left, units.unit, chosen, SMALL, seed=3
        ).left_out.left

    before, after = fit(left), fit(changed)
    assert before[chosen].tolist() == after[chosen].tolist()
    assert before[~chosen].tolist() != after[~chosen].tolist()


def test_units_of_which_none_came_near_its_failure_teach_nothing(tmp_path):
    sheet = tmp_path / "labels.csv"
    rows = "".join(f"{unit},5000\n" for unit in range(1, 21))
    sheet.write_text(f"unit,value\n{rows}")
    job = Job(tmp_path / "out", quick=True, labels=LabelSheet(sheet))
    with pytest.raises(TrainingError, match=r"less than 125 left.*correct what --labels says"):
        rul.train(subset(tmp_path / "data", 3), job)


def test_evaluation_holds_networks_against_simple_methods(tmp_path):
    sheet = tmp_path / "labels.csv"
    sheet.write_text("unit,value\n7,running\n")
    job = Job(tmp_path / "out", quick=True, labels=LabelSheet(sheet))
    result = rul.evaluate(subset(tmp_path / "data", 3), job)
    assert (result["subset"], result["units_learned"], result["units_judged"]) == ("FD009", 19, 30)
    assert (result["labels"]["labelled"], result["labels"]["left_out"]) == (1, 1)
    for row in result["results"]:
        assert row["rmse_low"] <= row["rmse"] <= row["rmse_high"]
        assert row["score_low"] <= row["score"] <= row["score_high"]
    by_name = {row["model"]: row["rmse"] for row in result["results"]}
    assert by_name[rul.INT8] < 0.8 * by_name[rul.MEAN]
    assert abs(result["int8_loss"]) < 1
    assert result["int8_loss"] == by_name[rul.INT8] - by_name[rul.FLOAT]
    assert 0.6 < result["interval"]["held"] <= 1
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result
    for plot in ("left.png", "course.png"):
        assert (tmp_path / "out" / plot).stat().st_size > 1000


def test_a_trained_model_is_measured_and_says_what_it_was_trained_on(trained, tmp_path):
    data = subset(tmp_path / "data", 2)
    own, out = shutil.copytree(data, tmp_path / "own"), tmp_path / "out"
    (own / "train_FD009.txt").unlink()
    typed = ["evaluate", "rul", "--model", trained, "--data", own / "test_FD009.txt", "--out", out]
    done = CliRunner().invoke(app, list(map(str, typed)))
    assert done.exit_code == 0, done.output
    result = json.loads((out / "evaluation.json").read_text())
    assert (result["trained_on"], result["subset"]) == ("train_FD009.txt", "FD009")
    assert (result["units_judged"], result["conditions"], result["cut_off"]) == (30, 2, 0)
    assert "learned from" not in result["verdict"]
    rul.predict(trained, own, tmp_path / "said.csv")
    with (tmp_path / "said.csv").open(newline="") as file:
        said = np.array([float(row["left"]) for row in csv.DictReader(file)])
    units = read_units(own / "test_FD009.txt")
    true = read_truth(own / "RUL_FD009.txt", units)
    by_name = {row["model"]: row for row in result["results"]}
    assert set(by_name) == {rul.INT8, rul.FLOAT, AGE, MEAN}
    assert by_name[rul.INT8]["rmse"] == pytest.approx(rul.rmse(said, true), abs=0.05)
    assert result["int8_loss"] == by_name[rul.INT8]["rmse"] - by_name[rul.FLOAT]["rmse"]
    learned = read_units(trained.parent / "data" / "train_FD009.txt")
    lives = learned.cycle[learned.ends][np.unique(learned.unit) != 7]
    aged = np.maximum(lives.mean() - units.cycle[units.ends], 0)
    assert by_name[AGE]["rmse"] == pytest.approx(rul.rmse(aged, true))
    assert 0.6 < result["interval"]["held"] <= 1
    assert (out / "left.png").stat().st_size > 1000


def test_another_subset_than_was_learned_from_is_named(trained, tmp_path):
    data = subset(tmp_path / "data", 2, 1, "FD003")
    job = Job(tmp_path / "out", model=trained)
    result = rul.evaluate(data, job)
    assert result["verdict"].endswith("; learned from train_FD009.txt, which is not of FD003")
    assert result["published"] == {}
    lines = (data / "test_FD003.txt").read_text().splitlines()
    lines[-1] = lines[-1].replace(" 100 ", " 40 ", 1)
    (data / "test_FD003.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordingError, match="setting_3 40 is no operating condition of the train"):
        rul.evaluate(data, job)


def test_what_cannot_be_judged_is_said_before_the_training(tmp_path):
    data = subset(tmp_path / "data", 2)
    lines = (data / "test_FD009.txt").read_text().splitlines()
    lines[-1] = lines[-1].replace(" 100 ", " 40 ", 1)
    (data / "test_FD009.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordingError, match="setting_3 40 is no operating condition of the train"):
        rul.evaluate(data, Job(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_labels_of_units_to_learn_from_are_of_no_use_to_a_trained_model(trained, tmp_path):
    sheet = tmp_path / "labels.csv"
    sheet.write_text("unit,value\n7,running\n")
    job = Job(tmp_path / "out", labels=LabelSheet(sheet), model=trained)
    with pytest.raises(LabelError, match="a trained model learns nothing; leave it out"):
        rul.evaluate(subset(tmp_path / "data", 2), job)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("model_float.tflite", {}, "cannot be read"),
        ("", {"means": {"life": None, "left": 1}}, "card is damaged"),
        ("", {"task": "demand"}, "is of the task 'demand', not 'rul'"),
    ],
)
def test_a_model_that_lacks_what_it_is_measured_by_is_refused(
    trained, tmp_path, name, changes, said
):
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    if name:
        (model / name).unlink()
    write_card(model, json.loads((model / "card.json").read_text()) | changes)
    with pytest.raises(ModelError, match=said):
        rul.evaluate(subset(tmp_path / "data", 2), Job(tmp_path / "out", model=model))


def test_the_margin_makes_intervals_hold():
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    random = np.random.default_rng(seed)
    target = np.minimum(random.uniform(10, 250, 500), rul_network.CAP)
    said = np.stack([target, target - 1, target + 1], axis=1)
    said += random.normal(0, 5, (500, 1))
    said[:, 1:] += [-20, 20]
    margin = rul_network.margin_of(said, target)
    told = rul_network._combine(said, margin)
    held = (told.low <= target) & (target <= told.high)
    # Targets at the cap are held by whatever would reach beyond it.
    assert rul_network.COVERAGE - 0.01 < held.mean() < rul_network.COVERAGE + 0.07


def test_the_verdict_says_where_a_simple_method_wins():
    def row(name: str, value: float) -> dict[str, object]:
        return {"model": name, "rmse": value, "rmse_low": value - 1, "rmse_high": value + 1}

    rows = [row("ridge", 9.0), row(rul.INT8, 10.0), row(rul.FLOAT, 10.0), row(rul.MEAN, 40.0)]
    assert rul._verdict(rows).endswith("ridge 9.00: the simple method wins")
    rows[0] = row("ridge", 10.5)
    rows.sort(key=lambda item: item["rmse"])
    assert "within the networks' interval" in rul._verdict(rows)


def test_the_real_set_has_one_condition_and_fourteen_sensors():
    folder = Path(os.environ.get("FOGLINE_DATA", "")) / "cmapss"
    if not folder.is_dir():
        pytest.skip("FOGLINE_DATA is not set: name the folder that holds cmapss/")
    preparation = fit_preparation(read_units(find(folder, TRAIN)))
    assert len(preparation.centres) == 1
    assert [SENSORS[at].removeprefix("sensor_") for at in preparation.sensors] == [
        "2", "3", "4", "7", "8", "9", "11", "12", "13", "14", "15", "17", "20", "21",
    ]  # fmt: skip
