"""What is sealed is in the data set, once, in order, and still is after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloud.chain_view import ChainView
from cloud.dataset import Dataset
from cloud.errors import DatasetError, RecordingError
from cloud.recording import read_csv
from cloud.selection import Query, select
from fog_node.protocol import senml
from fog_node.protocol.block import parse_block
from fog_node.protocol.merkle import root
from fog_node.protocol.transactions import Channel
from tools.vectors.hub import TIME_S

PUMP = "water-circulation"
HEADER = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;"
    "Voltage;Volume Flow RateRMS;anomaly;changepoint"
)
LINE = "2020-03-09 10:14:33;0.02;0.04;1.5;0.05;79.5;26.0;233.0;32.0;0.0;0.0"


def checked(chain, first=1, last=None, view=None):
    """Blocks of the chain with the view after them."""
    blocks = []
    view = view or ChainView.at_founding(chain.founding)
    for piece in chain.sealed[first - 1 : last]:
        block, view = view.after(piece.block, piece.certificate, chain.founding)
        blocks.append(block)
    return blocks, view


@pytest.fixture
def dataset(pumps, tmp_path) -> Dataset:
    dataset = Dataset.open(tmp_path / "data")
    dataset.append(*checked(pumps))
    return dataset


def test_readings_are_those_that_were_sealed(pumps, dataset, tmp_path):
    first, second = (board.kid for board in pumps.boards)
    readings = Dataset.open(tmp_path / "data").readings(PUMP)
    assert set(readings) == {first, second}
    mine = readings[first]
    assert mine.sealed
    assert mine.labels is None
    assert mine.channels == ("current", "flow")
    assert mine.sequence.tolist() == [1, 1, 2, 2]
    # In the order in which the board sent them, which is not that of time here.
    assert mine.times.tolist() == [TIME_S, TIME_S + 1, TIME_S - 1, TIME_S]
    assert mine.times_ms[0] == TIME_S * 1000
    assert mine.values.dtype == np.float32
    np.testing.assert_array_equal(
        mine.values, np.array([[1.25, 32.0], [1.5, np.nan]] * 2, np.float32)
    )
    assert list(dataset.readings(PUMP, second)) == [second]
    np.testing.assert_array_equal(readings[second].values, [[0.875, 30.0]])


def test_any_reader_of_parquet_finds_the_partitions(dataset, tmp_path):
    rows = duckdb.sql(
        f"SELECT device_type, day, count(*), sum(current) FROM "
        f"read_parquet('{tmp_path}/data/readings/**/*.parquet', hive_partitioning = true) "
        "GROUP BY ALL ORDER BY day"
    ).fetchall()
    days = [(kind, str(day), count, total) for kind, day, count, total in rows]
    assert days == [(PUMP, "2025-12-31", 1, 1.25), (PUMP, "2026-01-01", 4, 5.125)]


def test_verdicts_and_reference(pumps, dataset):
    (verdict,) = dataset.verdicts(PUMP)
    assert verdict.device == pumps.board.kid
    assert (verdict.time, verdict.score, verdict.anomaly) == (TIME_S + 1, 4711, True)
    assert (verdict.output, verdict.model, verdict.height) == (bytes(range(8)), b"\xaa" * 8, 2)
    packs = [
        transaction.id
        for piece in pumps.sealed
        for transaction in parse_block(piece.block).transactions
        if transaction.kind == "pack"
    ]
    reference = select(dataset, Query(PUMP)).reference
    assert reference.root == root(packs)
    assert (reference.count, reference.first, reference.last) == (3, 2, 3)


def test_failed_sensors_are_kept_and_change_no_reading(pumps, tmp_path):
    """One board says that a sensor failed, another that all of its did."""
    first, second = pumps.boards
    pumps.seal(
        pumps.readings(
            first, [(20, {"flow": 31.0})], faults=[senml.Fault(TIME_S + 20, "clamp", "timeout")]
        ),
        pumps.readings(second, [], faults=[senml.Fault(TIME_S, "pump", "absent")]),
    )
    dataset = Dataset.open(tmp_path / "failed")
    dataset.append(*checked(pumps))
    assert [tuple(fault) for fault in dataset.faults(PUMP)] == [
        (first.kid, TIME_S + 20, "clamp", "timeout", 4),
        (second.kid, TIME_S, "pump", "absent", 4),
    ]
    readings = dataset.readings(PUMP)
    assert len(readings[first.kid]) == 5
    assert len(readings[second.kid]) == 1
    assert np.isnan(readings[first.kid].values[-1, 0])
    assert select(dataset, Query(PUMP)).reference.count == 5


@pytest.mark.parametrize("last", [2, 3])
def test_a_crash_before_the_state_is_written_leaves_nothing_double(
    pumps, tmp_path, monkeypatch, last
):
    """The files of blocks 2 to `last` were written, the state file was not; then others are."""
    directory = tmp_path / "data"
    Dataset.open(directory).append(*checked(pumps, last=1))
    with monkeypatch.context() as patch:
        patch.setattr("cloud.dataset._encode_state", lambda *_: 1 / 0)
        dataset = Dataset.open(directory)
        with pytest.raises(ZeroDivisionError):
            dataset.append(*checked(pumps, 2, last, dataset.view))
    assert list(directory.rglob(f"*-{last:010d}.parquet"))
    reopened = Dataset.open(directory)
    assert reopened.height == 1
    assert reopened.readings(PUMP) == {}
    for height in (2, 3):
        reopened.append(*checked(pumps, height, height, reopened.view))
    assert len(reopened.readings(PUMP)[pumps.board.kid]) == 4
    assert select(reopened, Query(PUMP)).reference.count == 3
    assert len(reopened.verdicts(PUMP)) == 1


def test_a_second_writer_is_kept_out(pumps, tmp_path):
    one, other = Dataset.open(tmp_path), Dataset.open(tmp_path)
    one.append(*checked(pumps, last=1))
    with pytest.raises(DatasetError, match="another process writes"):
        other.append(*checked(pumps, last=2))


def test_blocks_must_follow(pumps, dataset):
    with pytest.raises(DatasetError, match="do not follow 3"):
        dataset.append(*checked(pumps))


def test_names_that_paths_and_columns_have_already(chain, tmp_path):
    """A type with a slash stays within the directory; a channel may be called `time`."""
    kind = "../pump [*]"
    channels = (Channel("time", "s", 0, 9), Channel("channel:time", "s", 0, 9))
    chain.seal(chain.enrolment(chain.board, kind, channels))
    row = {"time": 1.0, "channel:time": 2.0}
    chain.seal(chain.readings(chain.board, [(0, row)], units=dict.fromkeys(row, "s")))
    dataset = Dataset.open(tmp_path / "a" / "data")
    dataset.append(*checked(chain))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    readings = dataset.readings(kind)[chain.board.kid]
    assert readings.times.tolist() == [TIME_S]
    assert readings.values.tolist() == [[1.0, 2.0]]


def test_what_is_not_there_is_named(pumps, dataset, tmp_path):
    with pytest.raises(DatasetError, match=f"'fan'.*{PUMP}"):
        dataset.readings("fan")
    with pytest.raises(DatasetError, match="0102030405060708"):
        dataset.readings(PUMP, bytes(range(1, 9)))
    enrolled_only = Dataset.open(tmp_path / "other")
    enrolled_only.append(*checked(pumps, last=1))
    assert enrolled_only.readings(PUMP) == {}
    assert [device.type for device in enrolled_only.devices()] == [PUMP, PUMP]
    with pytest.raises(DatasetError, match="no readings"):
        select(enrolled_only, Query(PUMP))


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_damaged_state_file_is_refused(dataset, tmp_path, content):
    state = tmp_path / "data" / "state.json"
    assert json.loads(state.read_text())["height"] == 3
    state.write_text(content)
    with pytest.raises(DatasetError, match=r"state\.json.*collect anew"):
        Dataset.open(tmp_path / "data")


def test_a_damaged_file_is_named(pumps, dataset, tmp_path):
    damaged = next((tmp_path / "data" / "transactions").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=damaged.name):
        select(dataset, Query(PUMP))


def changed(path: Path) -> None:
    """As somebody would who thinks a reading wrong, and mends it."""
    table = pq.read_table(path, partitioning=None)
    flow = table.schema.get_field_index("flow")
    pq.write_table(table.set_column(flow, "flow", pa.nulls(len(table), pa.float32())), path)


@pytest.mark.parametrize(
    ("folder", "do", "named"),
    [
        ("readings", changed, "is not what was written"),
        ("readings", Path.unlink, "cannot be read"),
        ("transactions", Path.unlink, "cannot be read"),
        ("files", Path.unlink, "files: is not what state.json says"),
        ("files", lambda path: path.write_text("{}"), "files: is not what state.json says"),
        ("files", lambda path: path.write_text("{"), "is damaged"),
    ],
)
def test_what_is_read_is_what_was_written(pumps, tmp_path, folder, do, named):
    dataset = Dataset.open(tmp_path / "data")
    dataset.append(*checked(pumps, last=2))
    dataset.append(*checked(pumps, 3, 3, dataset.view))
    first = min(path for path in (tmp_path / "data" / folder).rglob("*") if path.is_file())
    do(first)
    with pytest.raises(DatasetError, match=rf"{named}.*collect anew"):
        select(Dataset.open(tmp_path / "data"), Query(PUMP))


def test_a_file_that_others_put_there_is_not_read(pumps, dataset, tmp_path):
    path = next((tmp_path / "data" / "readings").rglob("*.parquet"))
    path.with_name("0000000001-0000000002.parquet").write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match="none of this data set's files; move it elsewhere"):
        select(dataset, Query(PUMP))


def write_csv(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "recording.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_recording(tmp_path):
    labelled = LINE.replace("0.0;0.0", "1.0;0.0")
    readings = read_csv(write_csv(tmp_path, HEADER, LINE, labelled))
    assert not readings.sealed
    assert readings.channels == (
        "accelerometer1", "accelerometer2", "current", "pressure", "temperature", "thermocouple",
        "voltage", "flow",
    )  # fmt: skip
    np.testing.assert_array_equal(
        readings.values, np.array([[0.02, 0.04, 1.5, 0.05, 79.5, 26, 233, 32]] * 2, np.float32)
    )
    assert readings.times.tolist() == [1583748873.0] * 2
    assert readings.sequence.tolist() == [2, 3]
    assert readings.labels is not None
    assert readings.labels.tolist() == [False, True]


def test_a_recording_without_labels(tmp_path):
    cut = [line.rsplit(";", 2)[0] for line in (HEADER, LINE)]
    assert read_csv(write_csv(tmp_path, *cut)).labels is None


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([], r"is empty; give a recording with rows in it"),
        ([HEADER], "has no rows"),
        ([HEADER.replace("Pressure", "pressure"), LINE], "line 1: column 'Pressure'"),
        ([HEADER.replace("Pressure", "Current"), LINE], "line 1: column 'Current'.* 2 times"),
        ([HEADER, LINE, LINE.replace("1.5", "NaN")], "line 3: column 'Current' is 'NaN'"),
        ([HEADER, LINE.replace("1.5", "inf")], "line 2: column 'Current' is 'inf'"),
        ([HEADER, LINE.replace("1.5", "1e39")], "line 2: column 'Current' is '1e39'"),
        ([HEADER, LINE.replace("1.5", "1_5")], "line 2: column 'Current' is '1_5'"),
        ([HEADER, LINE.replace("1.5", "")], "line 2: column 'Current' is empty"),
        ([HEADER, LINE.replace("1.5", "1,5")], "line 2: column 'Current' is '1,5'"),
        ([HEADER, LINE.replace("2020-03-09", "9.3.2020")], "line 2: column 'datetime'"),
        ([HEADER, LINE.replace("0.0;0.0", "2;0.0")], "line 2: column 'anomaly' is '2'"),
        ([HEADER, LINE + ";1"], "line 2: has 12 cells, the header has 11"),
        ([HEADER, LINE, ""], "line 3: has 0 cells"),
    ],
)
def test_a_bad_recording_is_refused_with_its_place(tmp_path, lines, named):
    with pytest.raises(RecordingError, match=rf"recording\.csv: {named}"):
        read_csv(write_csv(tmp_path, *lines))


def test_a_recording_of_another_kind(tmp_path, monkeypatch):
    path = tmp_path / "recording.csv"
    with pytest.raises(RecordingError, match="cannot be read"):
        read_csv(path)
    path.write_bytes(HEADER.encode() + b"\n\xff\n")
    with pytest.raises(RecordingError, match="line 2: is not UTF-8"):
        read_csv(path)
    monkeypatch.setattr("cloud.tables.MAX_CSV_BYTES", 10)
    with pytest.raises(RecordingError, match="over 10 bytes"):
        read_csv(path)
