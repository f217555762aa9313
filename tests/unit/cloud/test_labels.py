"""Labels are sealed, found again row by row, and say who disagrees."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

import cloud
from cloud.dataset import Dataset
from cloud.errors import LabelError, RecordingError
from cloud.label_files import bodies, read_labels, read_time
from cloud.labels import Labels, SealedLabel
from cloud.readings import Readings
from cloud.selection import Query, select
from cloud.windows import Cutting, cut, rehearse
from fog_node.protocol import senml
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Image, Label, Labelled, PackSpan, TimeSpan
from fog_node.protocol.transactions import MAX_PLAIN_BYTES, PackBody, sign_transaction
from tools.vectors.hub import TIME_MS, TIME_S

from .test_dataset import checked

PUMP = "water-circulation"
BOARD = bytes(range(8))
IMAGE = Image(hashlib.sha256(b"photograph").digest())


def label(chain, key, *labels, note=""):
    return chain.sign(key, Label(tuple(Labelled(*item) for item in labels), note, TIME_MS))


def said(member, target, value):
    return SealedLabel(bytes(32), 0, 1, member, target, value, "", 0.0)


def rows(count=10, start=TIME_S):
    return Readings(
        times=start + np.arange(count, dtype=np.float64),
        values=np.ones((count, 2), np.float32),
        channels=("current", "flow"),
        sequence=1 + np.arange(count, dtype=np.int64) // 2,
        sealed=True,
    )


def span(first, last, device=BOARD):
    return TimeSpan(device, TIME_MS + 1000 * first, TIME_MS + 1000 * last)


def collected(chain, directory):
    dataset = Dataset.open(directory)
    dataset.append(*checked(chain))
    return dataset


def test_labels_are_in_the_data_set_and_readings_are_as_they_were(pumps, tmp_path):
    first, second = (board.kid for board in pumps.boards)
    before = collected(pumps, tmp_path / "before").readings(PUMP)
    pumps.seal(label(pumps, pumps.operator, (TimeSpan(first, TIME_MS, TIME_MS), "anomaly")))
    pumps.seal(
        label(
            pumps,
            pumps.trainer,
            (PackSpan(second, 1, 1), "valve closed"),
            (IMAGE, None),
            note="why",
        )
    )
    dataset = collected(pumps, tmp_path / "after")
    found = dataset.labels().all
    assert [(one.member, one.target, one.value, one.note) for one in found] == [
        ("operator", TimeSpan(first, TIME_MS, TIME_MS), "anomaly", ""),
        ("trainer", PackSpan(second, 1, 1), "valve closed", "why"),
        ("trainer", IMAGE, None, "why"),
    ]
    assert [(one.height, one.position) for one in found] == [(4, 0), (5, 0), (5, 1)]
    assert len(dataset.labels(height=4).all) == 1
    selection = select(dataset, Query(PUMP))
    for kid, readings in selection.readings.items():
        np.testing.assert_array_equal(readings.values, before[kid].values)
    # Of the first board both rows of this time, of the second all that it has.
    assert selection.readings[first].excluded.tolist() == [True, False, False, True]
    assert selection.readings[second].excluded.tolist() == [True]
    blind = select(dataset, Query(PUMP, with_labels=False))
    assert all(readings.excluded is None for readings in blind.readings.values())
    assert blind.reference.root == selection.reference.root


def test_the_readmes_queries_find_what_the_library_finds(pumps, tmp_path):
    """As a data scientist puts them: labels of rows whose time came later are among them."""
    board = pumps.board
    clock = senml.Clock(-9, 3, 20_000, None)
    rows_ = [(0, [("current", "A", 1.0)]), (1, [("current", "A", 2.0)])]
    early = senml.encode_pack(32473, board.kid, -9, rows_, clock=clock)
    pumps.seal(pumps.sign(board, PackBody.decode(early)))
    now = senml.Clock(TIME_S + 100, 3, 50_000, bytes(8))
    late = senml.encode_pack(32473, board.kid, TIME_S + 100, rows_, clock=now)
    pumps.seal(pumps.sign(board, PackBody.decode(late)))
    pumps.seal(
        label(
            pumps,
            pumps.operator,
            (TimeSpan(board.kid, (TIME_S + 61) * 1000, (TIME_S + 61) * 1000), "leak"),
            (PackSpan(board.kid, 1, 1), "normal"),
        )
    )
    directory = tmp_path / "dataset"
    dataset = Dataset.open(directory)
    for height in range(1, len(pumps.sealed) + 1):
        dataset.append(*checked(pumps, height, height, dataset.view))
    readme = (Path(cloud.__file__).parent / "README.md").read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", readme, re.DOTALL)
    totals, labelled = block.replace("'dataset/", f"'{directory}/").split(";\n")[:2]
    assert {kid: count for kid, _, count in duckdb.sql(totals).fetchall()} == {
        board.kid.hex(): 7, pumps.boards[1].kid.hex(): 1,
    }  # fmt: skip
    found = sorted(duckdb.sql(labelled).fetchall())
    assert found == [
        (board.kid.hex(), 1, float(TIME_S), "operator", "normal"),
        (board.kid.hex(), 1, float(TIME_S + 1), "operator", "normal"),
        (board.kid.hex(), 3, float(TIME_S + 61), "operator", "leak"),
    ]
    excluded = select(dataset, Query(PUMP)).readings[board.kid]
    assert excluded.times[excluded.excluded].tolist() == [TIME_S + 61]


def test_the_latest_label_of_a_member_counts_for_each_row():
    labels = Labels(
        [
            said("plant", span(0, 5), "anomaly"),
            said("lab", span(4, 7), "normal"),
            said("plant", PackSpan(BOARD, 2, 2), "normal"),
            said("plant", span(0, 0), None),
            said("plant", span(9, 9, bytes(8)), "anomaly"),
        ]
    )
    found = labels.of_rows(BOARD, rows())
    assert found.members == ("lab", "plant")
    assert found.known.tolist() == [False] + [True] * 7 + [False] * 2
    assert np.flatnonzero(found.anomalous).tolist() == [1, 4, 5]
    assert np.flatnonzero(found.normal).tolist() == [2, 3, 4, 5, 6, 7]
    assert np.flatnonzero(found.disputed).tolist() == [4, 5]
    truth = labels.truth(BOARD, rows())
    assert {time - TIME_S: value for time, value in truth.items()} == {
        1: True, 2: False, 3: False, 6: False, 7: False,
    }  # fmt: skip


def test_two_names_for_what_is_wrong_are_disputed_and_yet_anomalous():
    labels = Labels([said("a", span(0, 0), "leak"), said("b", span(0, 0), "cavitation")])
    found = labels.of_rows(BOARD, rows(1))
    assert found.disputed.tolist() == found.anomalous.tolist() == [True]
    assert list(labels.truth(BOARD, rows(1)).values()) == [True]


def test_how_labels_stand():
    labels = Labels(
        [
            said("a", span(0, 5), "anomaly"),
            said("a", span(0, 5), "normal"),
            said("b", span(5, 6), "anomaly"),
            said("b", span(7, 8), "anomaly"),
            said("b", IMAGE, "scratch"),
            said("b", PackSpan(BOARD, 1, 2), "normal"),
            said("a", IMAGE, "scratch"),
            said("a", span(9, 9), "leak"),
            said("a", span(9, 9), None),
        ]
    )
    assert labels.standing() == [
        "superseded", "disputed", "disputed", "stands", "stands", "stands", "stands",
        "superseded", "taken back",
    ]  # fmt: skip
    assert labels.of_images() == {IMAGE.sha256: {"a": "scratch", "b": "scratch"}}


def test_no_labels_say_nothing():
    found = Labels([]).of_rows(BOARD, rows())
    for each in (found.known, found.normal, found.anomalous, found.disputed):
        assert each.tolist() == [False] * 10


def test_training_windows_hold_no_excluded_row():
    cutting = Cutting(window=3, stride=1, calibrate=4, max_gap_s=5)
    readings = rows(40)
    whole = rehearse(readings, cutting, 5, 10)
    excluded = np.zeros(40, np.bool_)
    excluded[[12, 30]] = True
    part = rehearse(replace(readings, excluded=excluded), cutting, 5, 10)
    assert 0 < len(part.last) < len(whole.last)
    for last in part.last:
        assert not excluded[last - 2 : last + 1].any()
    # No rehearsal calibrates on an excluded row: 10 to 13 are the first of the third.
    assert 16 in whole.last
    assert set(part.last[part.last >= 13]).isdisjoint(range(30, 33))
    untouched = rehearse(replace(readings, excluded=np.zeros(40, np.bool_)), cutting, 5, 10)
    np.testing.assert_array_equal(untouched.last, whole.last)
    # Boards judge every row: what is cut to compare with them stays whole.
    np.testing.assert_array_equal(
        cut(replace(readings, excluded=excluded), cutting).last, cut(readings, cutting).last
    )


def write(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


def test_a_file_of_labels(tmp_path):
    (tmp_path / "part.png").write_bytes(b"photograph")
    kid = BOARD.hex()
    path = write(
        tmp_path,
        "device,from,until,first,last,image,value,why\n"
        f"{kid},2026-01-01T00:00:00Z,2026-01-01T01:00:01.250+01:00,,,,anomaly,\n"
        f"{kid},{TIME_S}.5,{TIME_S + 1},,,,valve closed,the log\n"
        f"{kid},,,3,4,,normal,\n"
        f"{kid},1,2,,,,,not answered\n"
        ",,,,,part.png,scratch,\n"
        f",,,,,{IMAGE.sha256.hex()},-,\n",
    )
    assert read_labels(path) == [
        Labelled(TimeSpan(BOARD, TIME_MS, TIME_MS + 1250), "anomaly"),
        Labelled(TimeSpan(BOARD, TIME_MS + 500, TIME_MS + 1000), "valve closed"),
        Labelled(PackSpan(BOARD, 3, 4), "normal"),
        Labelled(IMAGE, "scratch"),
        Labelled(IMAGE, None),
    ]


@pytest.mark.parametrize(
    ("header", "line", "named"),
    [
        ("device,from,until", "K,1,2", "line 1: column 'value'"),
        ("device,from,until,valu,value", "K,1,2,a,b", "line 1: column 'valu'"),
        ("image,image,value", "a,b,c", "line 1: has a column twice"),
        ("device,from,until,value", "K,1,2,", "no row has a value"),
        ("device,from,until,value", "00,1,2,normal", "line 2: "),
        ("device,from,until,value", "K,soon,2,normal", "line 2: column 'from'"),
        ("device,from,until,value", "K,2026-01-01T00:00:00,2,normal", "line 2: column 'from'"),
        ("device,from,until,value", "K,2,1,normal", "line 2: column 'until' is before"),
        ("device,from,until,value", "K,1,1e400,normal", "line 2: column 'until'"),
        ("device,first,last,value", "K,0,2,normal", "line 2: column 'first'"),
        ("device,first,last,value", f"K,1,{2**63},normal", "line 2: column 'last'"),
        ("device,from,last,value", "K,1,2,normal", "line 2: columns device, from, last"),
        ("image,value", "gone.png,normal", r"gone\.png: cannot be read"),
        ("image,value", f"{'0' * 64},{'v' * 65}", "line 2: value"),
        ("device,value", ",normal", "line 2: columns none"),
    ],
)  # fmt: skip
def test_a_bad_file_of_labels_is_refused_with_its_place(tmp_path, header, line, named):
    with pytest.raises((LabelError, RecordingError), match=named):
        read_labels(write(tmp_path, f"{header}\n{line.replace('K', BOARD.hex())}\n"))


def test_many_labels_fit_into_transactions_in_their_order():
    key = SigningKey.from_secret(1)
    wide = Labelled(span(0, 1), "\N{WATER WAVE}" * 64)
    for listed in ([Labelled(span(i, i), "normal") for i in range(300)], [wide] * 200):
        made = bodies(listed, "why", TIME_MS)
        assert [item for body in made for item in body.labels] == listed
        for number, body in enumerate(made, start=1):
            assert Label.decode(body.encode()) == body
            raw = sign_transaction(key, body, bytes(32), number).raw
            assert len(raw) <= MAX_PLAIN_BYTES
    assert len(bodies(listed[:1], "", TIME_MS)) == 1


def test_a_time_is_in_whole_ms():
    assert read_time("2026-01-01T00:00:00.0005Z", "from") in (TIME_MS, TIME_MS + 1)
    assert read_time(f"{TIME_S}.123", "from") == TIME_MS + 123
