"""Recordings are trained on and judged by their protocols; what is wrong with them is named."""

import csv
import errno
import hashlib
import json
import os
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cloud.errors import RecordingError, ReleaseError, TrainingError
from cloud.evaluate import rows_judged
from cloud.model_card import MODEL_FILE
from cloud.readings import Readings
from cloud.recording import CHANNEL_COLUMNS
from cloud.train import anomaly, anomaly_baselines, anomaly_nab, anomaly_recorded
from cloud.train.anomaly_data import FIT_ROWS, read_recordings
from cloud.train.anomaly_model import AnomalyModel
from cloud.train.anomaly_recorded import INT8, LATE
from cloud.train.job import Job
from cloud.train.nab_score import probation
from tools import training
from tools.errors import UsageError

START = datetime(2020, 3, 9, 12, tzinfo=UTC)
ROWS, FAULT = 640, slice(520, 600)
PRESSURE = tuple(CHANNEL_COLUMNS).index("pressure")
NAB_ROWS, NAB_FAULT = 4000, (3000, 3200)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Two epochs instead of many."""
    monkeypatch.setattr(anomaly, "QUICK_EPOCHS", 2)
    monkeypatch.setattr(anomaly_baselines, "AE_EPOCHS", 1)


def experiment(path, seed, *, rows=ROWS, labelled=True, still=False):
    """Write a recording of noise, whose flow falls during the fault.

    Where a sensor stands still it is the pressure's, until the calibration is over.
    """
    rng = np.random.default_rng(seed)
    values = 10 + rng.normal(0, 1, (rows, len(CHANNEL_COLUMNS)))
    labels = np.zeros(rows)
    if still:
        values[:FIT_ROWS, PRESSURE] = 2.5
    if labelled:
        labels[FAULT] = 1
        values[FAULT, -1] -= 8
    lines = [";".join(["datetime", *CHANNEL_COLUMNS.values(), *["anomaly"] * labelled])]
    for at in range(rows):
        moment = (START + timedelta(seconds=at)).strftime("%Y-%m-%d %H:%M:%S")
        cells = [f"{value:.4f}" for value in values[at]] + [f"{labels[at]}"] * labelled
        lines.append(";".join([moment, *cells]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def is_development(path):
    return hashlib.sha256(path.read_bytes()).digest()[0] < 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four experiments, two of each half, and a recording without labels."""
    path = tmp_path_factory.mktemp("skab")
    for half in (True, False):
        wanted = (path / "valve" / f"{number}.csv" for number in (range(2) if half else (2, 3)))
        for file, seeds in zip(wanted, (range(10, 20), range(20, 30)), strict=True):
            for seed in seeds:
                experiment(file, seed)
                if is_development(file) == half:
                    break
    experiment(path / "free" / "all.csv", 9, labelled=False)
    return path


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A file of the Numenta Anomaly Benchmark: a wave a day, and one fault."""
    path = tmp_path_factory.mktemp("nab")
    rng = np.random.default_rng(3)
    values = 80 + 5 * np.sin(np.arange(NAB_ROWS) / 45) + rng.normal(0, 1, NAB_ROWS)
    values[slice(*NAB_FAULT)] -= 40
    times = [f"{START + timedelta(minutes=5 * at):%Y-%m-%d %H:%M:%S}" for at in range(NAB_ROWS)]
    lines = [f"{time},{value:.4f}" for time, value in zip(times, values, strict=True)]
    (path / "machine.csv").write_text("\n".join(["timestamp,value", *lines]) + "\n")
    window = [f"{times[at]}.000000" for at in NAB_FAULT]
    (path / anomaly_nab.WINDOWS_FILE).write_text(
        json.dumps({"known/machine.csv": [window], "known/other.csv": []})
    )
    return path


def job(out):
    return Job(out, quick=True, seed=1)


def measuring(directory):
    """A job that measures the model in `directory`."""
    return Job(directory / "measured", quick=True, seed=1, model=directory / "model")


def shorter(machine, path):
    """The first 3,500 rows of a machine's file, which hold the fault."""
    shutil.copytree(machine, path)
    lines = (machine / "machine.csv").read_text().splitlines()
    (path / "machine.csv").write_text("\n".join(lines[: 1 + 3500]) + "\n")
    return path


def check_told_later(rows, folder, model):
    """What `predict` wrote is what the evaluation judges, row for row."""
    (known,) = read_recordings(folder / "valve" / "0.csv").experiments
    judged = anomaly_recorded._by_network(known, AnomalyModel.load(model), model.parent)
    stride = anomaly.CUTTING.stride
    for column, name in (("anomaly", INT8), ("anomaly_told_later", LATE)):
        told = [(int(row["line"]) - 2, row[column] == "1") for row in rows if row[column]]
        said = rows_judged(ROWS, *zip(*told, strict=True), stride)
        end = told[-1][0] + 1
        assert said[:end].any()
        assert not said[:end].all()
        assert said[:end].tolist() == judged[name][:end].tolist()
        # Of what ends before it can be told the evaluation takes the last that is.
        assert set(judged[name][end:].tolist()) <= {judged[INT8][-1]}
    assert [row["score"] == "" for row in rows[:4]] == [True, True, True, False]
    assert [row["anomaly_told_later"] == "" for row in rows[-4:]] == [False, True, True, True]


def cut_and_turned(path):
    """An experiment with an hour between its rows 500 and 501, and one whose end comes first."""
    head, *rows = path.read_text().splitlines()
    later = [row.replace(" 12:", " 13:", 1) for row in rows[500:]]
    return {"cut.csv": [head, *rows[:500], *later], "turned.csv": [head, *rows[140:], *rows[:140]]}


def test_the_halves_go_by_content(folder):
    recordings = read_recordings(folder)
    assert list(recordings.plain) == ["free/all.csv"]
    assert [each.name for each in recordings.experiments] == [f"valve/{n}.csv" for n in range(4)]
    for each in recordings.experiments:
        assert each.development == is_development(folder / each.name)
        assert len(each.normal) == FIT_ROWS
        assert each.normal.labels is None
    # The recording without labels whole, and what may be fitted to of each experiment.
    normal = recordings.normal(recordings.experiments)
    assert sorted(map(len, normal.values())) == [FIT_ROWS] * 4 + [ROWS]


def test_the_protocol_of_skab(folder, tmp_path):
    result = anomaly_recorded.evaluate(folder, job(tmp_path))
    by_name = {row["model"]: row for row in result["results"]}
    assert (result["experiments"], result["reported_on"]) == (4, 2)
    assert result["rows"] == 2 * (ROWS - FIT_ROWS)
    assert result["anomalous_rows"] == 2 * (FAULT.stop - FAULT.start)
    assert result["trained_on"] == ["valve/0.csv", "valve/1.csv", "free/all.csv"]
    everything = 2 * 80 / (240 + 80)
    assert by_name[anomaly_baselines.ALL]["f1"] == pytest.approx(everything)
    assert by_name[anomaly_recorded.INT8]["f1"] > everything
    assert result["int8_loss"] == pytest.approx(0, abs=0.1)
    # The published one takes minutes on whole experiments.
    assert result["left_out"] == [anomaly_baselines.PUBLISHED]
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    assert len(list(tmp_path.glob("timeline-*.png"))) == 2


def test_a_recording_that_is_there_twice_is_refused(folder, tmp_path):
    shutil.copytree(folder / "valve", tmp_path / "valve")
    shutil.copy(tmp_path / "valve" / "0.csv", tmp_path / "again.csv")
    for work in (anomaly_recorded.train, anomaly_recorded.evaluate):
        with pytest.raises(RecordingError, match=r"valve/0\.csv is the same as again\.csv"):
            work(tmp_path, job(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_was_trained_predicts(folder, tmp_path):
    report = anomaly_recorded.train(folder, job(tmp_path / "model"))
    assert report["rows"] == ROWS + 4 * FIT_ROWS
    assert report["sealed"] is False
    out = tmp_path / "said.csv"
    found = anomaly_recorded.predict(tmp_path / "model", folder / "valve" / "0.csv", out)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    at_once = [row for row in rows if row["score"]]
    assert found == {
        "files": 1,
        "windows": len(at_once),
        "anomalies": sum(int(row["anomaly"]) for row in at_once),
        "began_anew": 0,
        "at": [],
        "out": str(out),
    }
    cutting = anomaly.CUTTING
    # Line 1 is the header; the line is that of the window's last row.
    assert int(at_once[0]["line"]) == 1 + cutting.calibrate + cutting.window
    assert int(at_once[1]["line"]) == int(at_once[0]["line"]) + cutting.stride
    check_told_later(rows, folder, tmp_path / "model")
    later = tmp_path / "later"
    for number in range(2):
        experiment(later / f"{number}.csv", 40 + number)
    shutil.copy(folder / "valve" / "0.csv", later / "known.csv")
    result = anomaly_recorded.evaluate(later, measuring(tmp_path))
    assert (result["reported_on"], result["left_out_as_learned"]) == (2, ["known.csv"])
    assert result["rows"] == 2 * (ROWS - FIT_ROWS)
    by_name = {row["model"]: row for row in result["results"]}
    ours = by_name[anomaly_recorded.INT8]
    assert ours["f1"] > by_name[anomaly_baselines.ALL]["f1"] == pytest.approx(2 * 80 / (240 + 80))
    assert not {name for name in ours if name.endswith(("_development", "_all"))}
    with pytest.raises(TrainingError, match="4 recordings with labels, and the model has learned"):
        anomaly_recorded.evaluate(folder, measuring(tmp_path))
    for file, lines in cut_and_turned(folder / "valve" / "0.csv").items():
        (tmp_path / "broken" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "broken" / file).write_text("\n".join(lines) + "\n")
    found = anomaly_recorded.predict(tmp_path / "model", tmp_path / "broken", out)
    assert found["began_anew"] == 2
    assert found["at"] == [
        {"file": "cut.csv", "line": 502, "why": "3601 s after the row above"},
        {"file": "turned.csv", "line": 502, "why": "before the row above in time"},
    ]
    experiment(tmp_path / "brief" / "short.csv", 1, rows=FIT_ROWS + 40)
    with pytest.raises(RecordingError, match=r"short\.csv: holds no 448 rows without a gap or a"):
        anomaly_recorded._by_network(
            read_recordings(tmp_path / "brief").experiments[0],
            AnomalyModel.load(tmp_path / "model"), tmp_path,
        )  # fmt: skip
    experiment(tmp_path / "short.csv", 1, rows=cutting.calibrate + cutting.window - 1)
    with pytest.raises(RecordingError, match=r"short\.csv: holds no 448 rows without a gap or a"):
        anomaly_recorded.predict(tmp_path / "model", tmp_path / "short.csv", tmp_path / "no.csv")
    assert not (tmp_path / "no.csv").exists()
    (tmp_path / "model" / MODEL_FILE).write_bytes(b"no model")
    with pytest.raises(ReleaseError, match=r"model\.tflite: is no model"):
        anomaly_recorded.predict(tmp_path / "model", folder, out)


def test_a_sensor_that_stands_still_is_left_out_and_told(tmp_path):
    data = tmp_path / "data"
    for number in range(2):
        experiment(data / f"{number}.csv", 60 + number, still=True)
    report = anomaly_recorded.train(data, job(tmp_path / "model"))
    assert report["left_out"] == {"pressure": "never changes"}
    assert report["channels"] == [name for name in CHANNEL_COLUMNS if name != "pressure"]
    found = anomaly_recorded.predict(tmp_path / "model", data, tmp_path / "said.csv")
    assert found["windows"] > 0
    experiment(tmp_path / "later" / "2.csv", 70)
    result = anomaly_recorded.evaluate(tmp_path / "later", measuring(tmp_path))
    assert {row["model"] for row in result["results"]} >= {INT8, LATE, anomaly_recorded.FLOAT}


def readings_of(*columns, excluded=None):
    """Rows of channels a, b and so on."""
    values = np.array(columns, np.float32).T
    count, width = values.shape
    return Readings(
        np.arange(count, dtype=float), values, tuple("abcd"[:width]), np.arange(count), False,
        excluded=None if excluded is None else np.array(excluded),
    )  # fmt: skip


def test_what_moves_on_one_board_alone_is_kept():
    nan, still = np.nan, [1, 1, 1]
    boards = {
        b"1": readings_of(still, still, [nan] * 3, [1, 2, 3]),
        b"2": readings_of([2, 2, nan], [1, 1, 2], [nan] * 3, still),
    }
    left_out = {"a": "never changes", "c": "is never there"}
    assert anomaly._channels(boards, "here") == (("b", "d"), left_out)
    # What an engineer calls anomalous is no normal operation.
    normal = {b"1": readings_of([1, 1, 5], [1, 2, 3], excluded=[False, False, True])}
    assert anomaly._channels(normal, "here") == (("b",), {"a": "never changes"})
    said = "here: no channel can be learned from: a never changes, b is never there; give"
    with pytest.raises(TrainingError, match=said):
        anomaly._channels({b"1": readings_of(still, [nan] * 3)}, "here")


def test_the_protocol_of_nab(machine, folder, tmp_path):
    file = anomaly_nab.read_nab(machine)
    assert (file.key, file.windows) == ("known/machine.csv", (NAB_FAULT,))
    result = anomaly_recorded.evaluate(machine, job(tmp_path / "out"))
    by_name = {row["model"]: row for row in result["results"]}
    ours = by_name[anomaly_nab.NETWORK]
    assert ours["windows_found"] == 1
    assert by_name["no alarm"]["standard"] == by_name["no alarm"]["standard_low"] == -1
    assert ours["standard_low"] <= ours["standard"] <= ours["standard_high"]
    assert ours["standard"] <= ours["in_hindsight"] <= 1
    assert (tmp_path / "out" / "timeline.png").exists()
    report = anomaly_recorded.train(machine / "machine.csv", job(tmp_path / "model"))
    assert report["rows"] == probation(NAB_ROWS)
    found = anomaly_recorded.predict(tmp_path / "model", machine, tmp_path / "said.csv")
    assert found["anomalies"] > 0
    measured = anomaly_recorded.evaluate(machine, measuring(tmp_path))
    assert measured["results"] == result["results"]
    with pytest.raises(RecordingError, match=r"machine\.csv: has a probationary period of 525"):
        anomaly_recorded.evaluate(shorter(machine, tmp_path / "nab"), measuring(tmp_path))
    with pytest.raises(
        RecordingError, match=r"0\.csv: has the channels acc.*, not the model's val"
    ):
        anomaly_recorded.evaluate(folder / "valve" / "0.csv", measuring(tmp_path))


def test_alarms_are_held_off():
    over = np.zeros(12, np.bool_)
    over[[1, 2, 3, 6, 11]] = True
    assert np.flatnonzero(anomaly_nab.held_off(over, 4)).tolist() == [1, 6, 11]


def test_all_of_a_folder_is_read_or_what_cannot_be_is_named(tmp_path, monkeypatch):
    for name in ("a.csv", "inner/b.CSV", "locked/c.csv"):
        experiment(tmp_path / name, 1, rows=2, labelled=False)
    assert set(read_recordings(tmp_path).plain) == {"a.csv", "inner/b.CSV", "locked/c.csv"}
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RecordingError, match=r"locked: cannot be read \(Permission denied\)"):
        read_recordings(tmp_path)


def test_bad_recordings_are_named(folder, tmp_path):
    with pytest.raises(RecordingError, match="holds no CSV files; name the folder"):
        read_recordings(tmp_path)
    experiment(tmp_path / "a" / "short.csv", 1, rows=FIT_ROWS)
    with pytest.raises(TrainingError, match=r"short\.csv has 400 rows, more than 400 are needed"):
        anomaly_recorded.evaluate(tmp_path / "a", job(tmp_path / "out"))
    with pytest.raises(TrainingError, match=r"no experiment is of the (development|report) half"):
        anomaly_recorded.evaluate(folder / "valve" / "0.csv", job(tmp_path / "out"))
    for seed in range(4):
        text = (folder / "valve" / f"{seed}.csv").read_text().replace(";1.0\n", ";0.0\n")
        (tmp_path / "b").mkdir(exist_ok=True)
        for copy in range(3):
            path = tmp_path / "b" / f"{seed}{copy}.csv"
            path.write_text(text + f"2020-03-10 00:00:0{copy};" + ";".join("1" * 8) + ";0\n")
    with pytest.raises(TrainingError, match="all rows of the development half are normal"):
        anomaly_recorded.evaluate(tmp_path / "b", job(tmp_path / "out"))
    path = tmp_path / "a" / "short.csv"
    path.write_text(path.read_text().replace("12:00:07;", "12:00:07;x"))
    with pytest.raises(RecordingError, match=r"short\.csv: line 9: column 'Accelerometer1RMS'"):
        read_recordings(path)
    assert not (tmp_path / "out").exists()


def test_bad_windows_are_named(machine, tmp_path):
    def read(windows):
        path = tmp_path / "machine.csv"
        path.write_text((machine / "machine.csv").read_text())
        (tmp_path / anomaly_nab.WINDOWS_FILE).write_text(windows)
        return anomaly_nab.read_nab(path)

    with pytest.raises(RecordingError, match=r"is no list of windows"):
        read("{")
    with pytest.raises(RecordingError, match=r"is no list of windows"):
        read(json.dumps({"machine.csv": [["soon", "later"]]}))
    with pytest.raises(RecordingError, match=r"lists 0 files named machine\.csv, must list one"):
        read("{}")
    with pytest.raises(RecordingError, match=r"has 0 rows in a window"):
        read(json.dumps({"machine.csv": [["2030-01-01 00:00:00", "2030-01-02 00:00:00"]]}))
    for window in (["2020-03-10 00:00:00", "2030-01-02"], ["2000-01-01", "2020-03-10 00:00:00"]):
        with pytest.raises(RecordingError, match="begins before its first row, or ends after its"):
            read(json.dumps({"machine.csv": [window]}))
    first, second = ["2020-03-10", "2020-03-12"], ["2020-03-11", "2020-03-13"]
    for windows in ([first, second], [second, first], [first, first]):
        with pytest.raises(
            RecordingError, match=r"windows of machine\.csv overlap, at line \d+ of"
        ):
            read(json.dumps({"machine.csv": windows}))
    (tmp_path / "other.csv").write_text("timestamp,value\n")
    with pytest.raises(RecordingError, match="must hold one CSV file, holds 2"):
        anomaly_nab.read_nab(tmp_path)


def test_recordings_are_what_no_chain_and_no_import_made(folder, tmp_path):
    assert training.is_recorded(None, folder, device=None, no_labels=False)
    assert not training.is_recorded(tmp_path / "founding.cbor", folder, device=["00"])
    with pytest.raises(UsageError, match="--device-type: is for sealed readings, whose --founding"):
        training.is_recorded(None, folder, device_type="pump")
    (tmp_path / "state.json").write_text("{}")
    assert not training.is_recorded(None, tmp_path, device_type="pump")
    with pytest.raises(UsageError, match="--model: is needed"):
        training.required("--model", None)


def test_rows_of_a_benchmark_file_are_in_the_order_of_time(machine, tmp_path):
    shutil.copytree(machine, tmp_path / "nab")
    path = tmp_path / "nab" / "machine.csv"
    head, *rows = path.read_text().splitlines()
    # Where summer time ends an hour comes twice.
    path.write_text("\n".join([head, *rows[:2012], *rows[2000:]]) + "\n")
    assert len(anomaly_nab.read_nab(path).readings) == NAB_ROWS + 12
    for lines in (rows[::-1], [*rows, *rows], [*rows[:50], *rows[70:], *rows[50:70]]):
        path.write_text("\n".join([head, *lines]) + "\n")
        with pytest.raises(RecordingError, match=r"line \d+: column 'timestamp' is before that of"):
            anomaly_nab.read_nab(path)


@pytest.mark.parametrize("name", ["Anomaly", "is_anomaly", "changepoint"])
def test_labels_that_are_not_named_so_are_not_taken_for_normal_operation(tmp_path, name):
    experiment(tmp_path / "a.csv", 1, rows=2)
    path = tmp_path / "a.csv"
    path.write_text(path.read_text().replace(";anomaly", f";{name}", 1))
    said = f"line 1: has a column '{name}', and none named 'anomaly'; name the labels so, or leave"
    with pytest.raises(RecordingError, match=said):
        read_recordings(path)


def test_what_no_sensor_reads_is_refused(tmp_path):
    experiment(tmp_path / "a.csv", 1, rows=2)
    path = tmp_path / "a.csv"
    path.write_text(path.read_text().replace("12:00:01;", "12:00:01;99999999"))
    said = r"line 3: column 'Accelerometer1RMS' is '99999999.*', not from -1e\+06 to 1e\+06"
    with pytest.raises(RecordingError, match=said):
        read_recordings(path)


def test_the_windows_of_a_benchmark_file_are_needed_to_evaluate_alone(machine, tmp_path):
    shutil.copy(machine / "machine.csv", tmp_path)
    for data in (tmp_path, tmp_path / "machine.csv"):
        assert anomaly_nab.is_nab(data)
        assert list(anomaly_recorded._by_name(data)) == ["machine.csv"]
        with pytest.raises(RecordingError, match=r"combined_windows\.json: cannot be read"):
            anomaly_recorded.evaluate(data, job(tmp_path / "out"))
    experiment(tmp_path / "skab" / "a.csv", 1, rows=2)
    assert not anomaly_nab.is_nab(tmp_path / "skab")
    assert not anomaly_nab.is_nab(tmp_path / "nowhere")
