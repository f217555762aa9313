"""What is not sealed comes in by the same interface, and never looks as if it were."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from cloud.dataset import Dataset
from cloud.errors import DatasetError, LabelError, RecordingError
from cloud.image_labels import propose_images, sort_images
from cloud.imported import Columns, Imported, device_id
from cloud.label_files import proposals_csv, read_labels
from cloud.labels import Labels, SealedLabel
from cloud.selection import Query, select
from cloud.sources import open_source
from fog_node.protocol.labels import Image, Labelled
from tools import data as data_sets
from tools.errors import UsageError

from .test_dataset import checked

PUMP = "water-circulation"
LINES = (
    "when,flow,current,time,bad",
    "2026-01-01T23:59:59Z,30.5,1.25,7,0",
    "2026-01-02T00:00:00Z,31.5,,8,1",
    "1767312001.5,32.5,1.5,9,0",
)


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def columns(**changes):
    return Columns(**{"time": "when", "channels": ("flow", "current", "time"), **changes})


@pytest.fixture
def imported(tmp_path):
    source = Imported.open(tmp_path / "data")
    source.add(write(tmp_path / "a.csv", *LINES), "pump", "pump 1", columns(label="bad"))
    return source


def test_imported_readings_are_selected_as_sealed_ones_are(imported, tmp_path):
    source = open_source(tmp_path / "data")
    assert source.sealed is False
    selection = source.select(Query("pump"))
    assert selection.reference is None
    (kid,) = selection.readings
    assert kid == device_id("pump 1")
    rows = selection.readings[kid]
    assert not rows.sealed
    assert rows.channels == ("flow", "current", "time")
    assert rows.times.tolist() == [1767311999.0, 1767312000.0, 1767312001.5]
    np.testing.assert_array_equal(
        rows.values, np.array([[30.5, 1.25, 7], [31.5, np.nan, 8], [32.5, 1.5, 9]], np.float32)
    )
    assert rows.sequence.tolist() == [2, 3, 4]
    assert rows.labels.tolist() == rows.excluded.tolist() == [False, True, False]
    part = source.select(Query("pump", (kid,), since=1767312000_000, until=1767312000_000))
    assert part.readings[kid].values[0, 0] == 31.5
    described = source.describe()
    assert (described["sealed"], described["files"][0]["rows"]) == (False, 3)
    assert open_source(tmp_path / "data").describe() == imported.describe()


def test_the_layout_is_that_of_a_data_set(imported, tmp_path):
    rows = duckdb.sql(
        f"SELECT device_type, day, flow, anomalous FROM "
        f"read_parquet('{tmp_path}/data/readings/**/*.parquet', hive_partitioning = true) "
        "ORDER BY flow"
    ).fetchall()
    assert [(kind, str(day), *rest) for kind, day, *rest in rows] == [
        ("pump", "2026-01-01", 30.5, False),
        ("pump", "2026-01-02", 31.5, True),
        ("pump", "2026-01-02", 32.5, False),
    ]


def test_files_of_a_device_follow_each_other_and_none_comes_twice(imported, tmp_path):
    again = write(tmp_path / "b.csv", *LINES)
    with pytest.raises(DatasetError, match=r"b\.csv: was imported before, as a\.csv"):
        imported.add(again, "pump", "pump 2", columns())
    later = write(tmp_path / "c.csv", LINES[0], "2026-01-03T00:00:00+01:00,33,1,10,0")
    imported.add(later, "pump", "pump 1", columns(label="bad"))
    rows = imported.select(Query("pump")).readings[device_id("pump 1")]
    assert rows.values[:, 2].tolist() == [7, 8, 9, 10]
    other = write(tmp_path / "d.csv", LINES[0], "2026-01-03T00:00:00Z,33,1,10,0")
    with pytest.raises(DatasetError, match="other channels than"):
        imported.add(other, "pump", "pump 1", columns(channels=("flow",)))
    assert len(Imported.open(tmp_path / "data").files) == 2
    assert not list((tmp_path / "data").rglob("*.part"))


def test_what_a_crash_left_is_not_read(imported, tmp_path, monkeypatch):
    """Its rows were written, `source.json` was not; then it is imported again."""
    later = write(tmp_path / "c.csv", LINES[0], "2026-01-03T00:00:00Z,33,1,10,0")
    with monkeypatch.context() as patch:
        patch.setattr("cloud.imported.json.dumps", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            imported.add(later, "pump", "pump 1", columns())
    reopened = Imported.open(tmp_path / "data")
    assert len(reopened.select(Query("pump")).readings[device_id("pump 1")]) == 3
    reopened.add(later, "pump", "pump 1", columns())
    assert len(reopened.select(Query("pump")).readings[device_id("pump 1")]) == 4


@pytest.mark.parametrize(
    ("line", "changes", "named"),
    [
        ("2026-01-01 12:00:00,1,1,1,0", {}, "line 2: column 'when' .* zone"),
        ("yesterday,1,1,1,0", {"utc": True}, "line 2: column 'when'"),
        ("1,much,1,1,0", {}, "line 2: column 'flow' is 'much'"),
        ("1,nan,1,1,0", {}, "line 2: column 'flow' is 'nan'"),
        ("1,1,1,1,2", {"label": "bad"}, "line 2: column 'bad' is '2'"),
        ("1,1,1,1", {}, "line 2: has 4 cells"),
        ("1,1,1,1,0", {"time": "then"}, "line 1: column 'then'"),
        ("1,1,1,1,0", {"channels": ("power",)}, "line 1: column 'power'"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path, line, changes, named):
    source = Imported.open(tmp_path / "data")
    path = write(tmp_path / "bad.csv", LINES[0], line)
    with pytest.raises((RecordingError, DatasetError), match=rf"bad\.csv: {named}"):
        source.add(path, "pump", "pump 1", columns(**changes))
    assert not (tmp_path / "data" / "source.json").exists()


def test_times_without_a_zone_may_be_said_to_be_utc(tmp_path):
    source = Imported.open(tmp_path / "data")
    path = write(tmp_path / "a.csv", "when,flow", "2026-01-01 12:00:00,1")
    source.add(path, "pump", "p", Columns("when", utc=True))
    assert source.select(Query("pump")).readings[device_id("p")].times.tolist() == [1767268800.0]


def test_answers_of_a_known_format_are_no_channels_unless_named(tmp_path):
    source = Imported.open(tmp_path / "data")
    head = "when,flow,anomaly,changepoint"
    first, second = (f"2026-01-0{day}T12:00:00Z,1,0,1" for day in (1, 2))
    source.add(write(tmp_path / "a.csv", head, first), "pump", "p", Columns("when"))
    named = columns(channels=("anomaly",))
    source.add(write(tmp_path / "b.csv", head, second), "named", "p", named)
    described = open_source(tmp_path / "data").describe()["files"]
    assert [(file["channels"], file["left_out"]) for file in described] == [
        (["flow"], ["anomaly", "changepoint"]),
        (["anomaly"], ["flow", "changepoint"]),
    ]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2, "sealed": false}'])
def test_a_damaged_source_is_refused(imported, tmp_path, content):
    (tmp_path / "data" / "source.json").write_text(content)
    with pytest.raises(DatasetError, match=r"source\.json"):
        open_source(tmp_path / "data")


def test_lost_rows_are_noticed(imported, tmp_path):
    next((tmp_path / "data" / "readings").rglob("*.parquet")).unlink()
    with pytest.raises(DatasetError, match="has lost rows"):
        imported.select(Query("pump"))


def test_what_is_not_there_is_named(imported, tmp_path):
    with pytest.raises(DatasetError, match=r"'fan'.*\(pump\)"):
        imported.select(Query("fan"))
    with pytest.raises(DatasetError, match="nothing of that device or time"):
        imported.select(Query("pump", (bytes(8),)))
    with pytest.raises(DatasetError, match="is not there"):
        open_source(tmp_path / "gone")


def test_a_sealed_data_set_says_what_it_holds(pumps, tmp_path):
    dataset = Dataset.open(tmp_path / "data")
    dataset.append(*checked(pumps))
    source = open_source(tmp_path / "data")
    assert source.sealed is True
    described = source.describe()
    assert (described["sealed"], described["block"]) == (True, 3)
    assert [(b["packs"], b["rows"]) for b in described["boards"]] == [(2, 4), (1, 1)]
    assert source.select(Query(PUMP)).reference == select(dataset, Query(PUMP)).reference


def test_a_query_is_shown_and_its_rows_are_written(pumps, tmp_path):
    dataset = Dataset.open(tmp_path / "data")
    dataset.append(*checked(pumps))
    reference = select(dataset, Query(PUMP)).reference
    for suffix in (".csv", ".parquet"):
        out = tmp_path / f"rows{suffix}"
        report = asyncio.run(data_sets.ask(tmp_path / "data", Query(PUMP), out))
        assert report["root"] == reference.root.hex()
        assert sum(board["rows"] for board in report["boards"]) == 5
        if suffix == ".csv":
            with out.open() as file:
                rows = list(csv.DictReader(file))
        else:
            rows = pq.read_table(out).to_pylist()
        assert len(rows) == 5
        assert {"device", "time", "labels", "current", "flow"} <= rows[0].keys()
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        asyncio.run(data_sets.ask(tmp_path / "data", Query(PUMP), tmp_path / "rows.xlsx"))


def test_files_as_they_were_published(tmp_path):
    folder = tmp_path / "castings"
    for kind, count in (("ok", 3), ("defect", 2)):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            (folder / kind / f"{i}.png").write_bytes(f"{kind}{i // 2}".encode())
    source = open_source(folder)
    assert source.sealed is False
    described = source.describe()
    assert described["images"] == [
        {"folder": "defect", "images": 2}, {"folder": "ok", "images": 3},
    ]  # fmt: skip
    assert (described["files"], described["doubles"]) == (5, 2)
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert open_source(moved).describe()["fingerprint"] == described["fingerprint"]
    (moved / "ok" / "0.png").write_bytes(b"other")
    assert open_source(moved).describe()["fingerprint"] != described["fingerprint"]
    with pytest.raises(DatasetError, match="import the CSV files"):
        source.select(Query("casting"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="is empty"):
        open_source(tmp_path / "empty").describe()


def said(content, value, member="plant"):
    target = Image(hashlib.sha256(content).digest())
    return SealedLabel(bytes(32), 0, 1, member, target, value, "", 0.0)


def test_images_are_put_into_folders_by_their_labels(tmp_path):
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for name in ("a", "b", "c", "d"):
        (images / f"{name}.png").write_bytes(name.encode())
    (images / "more" / "a.PNG").write_bytes(b"a again")
    (images / "a2.png").write_bytes(b"a")
    (images / "notes.txt").write_text("no image")
    labels = Labels(
        [
            said(b"a", "scratch"),
            said(b"a again", "scratch"),
            said(b"b", "ok"),
            said(b"b", "../dent"),
            said(b"d", ".."),
            said(b"c", "ok"),
            said(b"c", "scratch", "lab"),
        ]
    )
    report = sort_images(images, labels, tmp_path / "out")
    assert report["images"] == {"..": 1, "../dent": 1, "scratch": 2}
    assert (report["unlabelled"], report["doubles"]) == (0, 1)
    assert report["disputed"] == [{"image": "c.png", "said": {"plant": "ok", "lab": "scratch"}}]
    found = {p.parent.name: p.read_bytes() for p in (tmp_path / "out").rglob("*.png")}
    assert set(found) == {"scratch", "%2E.", "%2E.%2Fdent"}
    assert json.dumps(report)
    with pytest.raises(DatasetError, match="is not empty"):
        sort_images(images, labels, tmp_path / "out")
    with pytest.raises(DatasetError, match="none of its images"):
        sort_images(images, Labels([]), tmp_path / "other")


def test_the_images_that_a_model_is_least_sure_of_are_proposed(tmp_path):
    names = ("sure", "torn", "half", "labelled", "double")
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(b"half" if name == "double" else name.encode())
    predictions = write(
        tmp_path / "predictions.csv", "file,p", "sure.png,0.99", "torn.png,0.6", "half.png,0.49",
        "labelled.png,0.5", "double.png,0.52",
    )  # fmt: skip
    labels = Labels([said(b"labelled", "ok")])
    chosen = propose_images(predictions, tmp_path, labels, 3, ("file", "p"))
    assert [one.image for one in chosen] == ["half.png", "torn.png", "sure.png"]
    answered = tmp_path / "answered.csv"
    header, first, *rest = proposals_csv([each.row() for each in chosen]).splitlines()
    write(answered, header, first.replace(",,", ",scratch,", 1), *rest)
    assert read_labels(answered) == [Labelled(Image(hashlib.sha256(b"half").digest()), "scratch")]
    # Where the model decides by another threshold, that is where it is unsure.
    write(predictions, "file,p,threshold", "torn.png,0.6,0.98", "sure.png,0.99,0.98")
    (best, _) = propose_images(predictions, tmp_path, labels, 3, ("file", "p"))
    assert (best.image, best.threshold) == ("sure.png", 0.98)
    assert 0.4 < best.uncertainty < 1
    for line, error, named in (
        ("sure.png,1.5", RecordingError, r"line 2: column 'p' is '1\.5'"),
        ("gone.png,0.5", LabelError, r"gone\.png: cannot be read"),
        ("labelled.png,0.5", DatasetError, "each image has a label"),
    ):
        write(predictions, "file,p", line)
        with pytest.raises(error, match=named):
            propose_images(predictions, tmp_path, labels, 3, ("file", "p"))
