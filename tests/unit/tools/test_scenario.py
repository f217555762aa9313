"""What the boards of a demo play: every recorded row once, and none both learned and scored."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from cloud.train import anomaly
from tools.demo import scenario
from tools.errors import ToolError

HEADER = "datetime;Accelerometer1RMS;Pressure"
LABELS = ";anomaly;changepoint"
START = datetime(2020, 3, 9, 12, 0, tzinfo=UTC)


@pytest.fixture
def record(tmp_path):
    """Write a recording; every file begins at another hour."""
    written = []

    def make(name: str, rows: int, *, labelled: bool = True, anomalous=()):
        begin = START + timedelta(hours=len(written))
        lines = [HEADER + (LABELS if labelled else "")]
        for row in range(rows):
            moment = (begin + timedelta(seconds=row)).strftime("%Y-%m-%d %H:%M:%S")
            label = f";{float(row in anomalous)};0.0" if labelled else ""
            lines.append(f"{moment};0.0{row};{len(written)}.5{label}")
        path = tmp_path / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        written.append(path)
        return path

    return make


@pytest.fixture
def folder(record, tmp_path):
    """Five labelled experiments and one of normal operation."""
    for number in range(5):
        record(f"valve{number}/1.csv", 450 + number, anomalous=range(200, 250))
    record("anomaly-free/all.csv", 1001, labelled=False)
    return tmp_path / "recordings"


def played(plan, rows_of):
    """(path, row) of what a board plays before and after it waits for its model."""
    script = plan.driver["script"]
    wait = script.index(scenario.WAIT_FOR_MODEL)
    assert script.count(scenario.WAIT_FOR_MODEL) == 1
    parts = []
    for items in (script[:wait], script[wait + 1 :]):
        rows = []
        for item in items:
            assert item.keys() == {"path", "first", "count"}, "a board gets no labels"
            end = rows_of[item["path"]] if item["count"] is None else item["first"] + item["count"]
            rows += [(item["path"], row) for row in range(item["first"], end)]
        parts.append(rows)
    return parts


@pytest.mark.parametrize("boards", [1, 2])
def test_every_row_is_played_once_and_none_both_learned_and_scored(folder, boards) -> None:
    made = scenario.replay(folder, boards)
    rows_of = {str(p): len(p.read_text().splitlines()) - 1 for p in folder.rglob("*.csv")}
    normal, rest, scored = Counter(), Counter(), set()
    for plan in made.boards:
        before, after = played(plan, rows_of)
        assert (len(before), len(after)) == (plan.normal_rows, plan.rest_rows)
        assert plan.normal_rows
        assert plan.rest_rows
        normal.update(before)
        rest.update(after)
        scored |= plan.labels.keys()
    assert set((normal + rest).values()) == {1}
    assert len(normal + rest) == sum(rows_of.values())
    assert made.labelled
    learned_files = {path for path, _ in normal}
    scored_files = {path for path in rows_of if path not in learned_files}
    assert len(scored_files) == 3
    assert len(scored) == sum(rows_of[path] for path in scored_files)
    for path in learned_files:
        if "anomaly-free" not in path:
            assert max(row for p, row in normal if p == path) == scenario.NORMAL_ROWS - 1


def test_labels_are_those_of_the_file(record, tmp_path) -> None:
    for number in range(2):
        record(f"{number}.csv", 500, anomalous=range(100, 130))
    (plan,) = scenario.replay(tmp_path / "recordings", 1).boards
    assert len(plan.labels) == 500
    assert sum(plan.labels.values()) == 30
    begin = min(plan.labels)
    assert [time - begin for time, label in plan.labels.items() if label] == [*range(100, 130)]


def test_the_split_goes_by_content_not_by_name(folder) -> None:
    def scored(made) -> set[int]:
        return set().union(*(plan.labels.keys() for plan in made.boards))

    before = scored(scenario.replay(folder, 1))
    for number, path in enumerate(sorted(folder.glob("valve*/*.csv"), reverse=True)):
        path.rename(folder / f"renamed-{number}.csv")
    assert scored(scenario.replay(folder, 1)) == before


def test_without_labels_each_board_learns_from_one_half_and_judges_the_other(
    record, tmp_path
) -> None:
    record("0.csv", 2001, labelled=False)
    made = scenario.replay(tmp_path / "recordings", 2)
    assert not made.labelled
    spans = [
        (item["first"], item["count"])
        for plan in made.boards
        for item in plan.driver["script"]
        if item != scenario.WAIT_FOR_MODEL
    ]
    assert spans == [(0, 501), (501, 500), (1001, 500), (1501, None)]
    assert [(p.normal_rows, p.rest_rows) for p in made.boards] == [(501, 500), (500, 500)]
    assert all(not plan.labels for plan in made.boards)


def test_too_short_recordings_are_refused(record, tmp_path) -> None:
    record("0.csv", 1, labelled=False)
    with pytest.raises(ToolError, match="too few experiments for a single board; add recordings"):
        scenario.replay(tmp_path / "recordings", 1)


def test_a_row_that_cannot_be_read_is_left_out(record, tmp_path) -> None:
    for number in range(2):
        path = record(f"{number}.csv", 450, anomalous=range(10))
        path.write_text(path.read_text() + "what is this?\n2020-03-09 25:00:00;1;2;1;0\n")
    (plan,) = scenario.replay(tmp_path / "recordings", 1).boards
    assert len(plan.labels) == 450


def test_what_cannot_be_played_is_named(record, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    with pytest.raises(ToolError, match="holds no CSV files; name the folder"):
        scenario.replay(folder, 1)
    path = record("0.csv", 450)
    with pytest.raises(ToolError, match="has nothing to learn normal operation from"):
        scenario.replay(folder, 1)
    record("1.csv", 450)
    with pytest.raises(ToolError, match="for 4 boards; use --devices 1 or fewer"):
        scenario.replay(folder, 4)
    for text, why in (
        ("time;value\n1;2\n", "has no column 'datetime'"),
        ("", "has no column 'datetime'"),
        (HEADER + "\n", "has no readable row"),
        (HEADER + "\nnever;1;2\n", "has no readable row"),
    ):
        path.write_text(text)
        with pytest.raises(ToolError, match=why) as refused:
            scenario.replay(folder, 1)
        assert str(path) in str(refused.value)
    monkeypatch.setattr(scenario, "MAX_FILE_BYTES", 10)
    with pytest.raises(ToolError, match="is larger than 10 bytes"):
        scenario.replay(folder, 1)
    monkeypatch.setattr(scenario, "MAX_FILES", 1)
    with pytest.raises(ToolError, match="holds 2 CSV files, at most 1 are read"):
        scenario.replay(folder, 1)


def test_every_simulated_board_meets_every_fault_after_its_model() -> None:
    made = scenario.testbed(4, seed=7, is_last_emulated=False)
    assert "simulated" in made.source
    for plan in made.boards:
        script = plan.driver["script"]
        wait = script.index(scenario.WAIT_FOR_MODEL)
        assert all(item["fault"] is None for item in script[:wait])
        faults = [item["fault"] for item in script[wait + 1 :] if item["fault"]]
        assert sorted(faults) == sorted(scenario.FAULTS)
        assert plan.normal_rows == sum(item["rows"] for item in script[:wait])
        assert plan.rest_rows == sum(item["rows"] for item in script[wait + 1 :])
        assert len(plan.labels) == plan.rest_rows
        first = script[wait + 1]
        assert first["fault"] is None
        assert first["rows"] >= anomaly.CUTTING.calibrate + anomaly.CUTTING.window
        assert sum(plan.labels.values()) == len(scenario.FAULTS) * scenario.TESTBED_FAULT_ROWS
    assert len({plan.driver["seed"] for plan in made.boards}) == 4
    again = scenario.testbed(4, seed=7, is_last_emulated=False)
    assert [plan.driver for plan in again.boards] == [plan.driver for plan in made.boards]


def test_an_emulated_board_plays_a_part() -> None:
    made = scenario.testbed(2, seed=7, is_last_emulated=True)
    whole, part = made.boards
    assert 0 < part.normal_rows * scenario.EMULATED_PART <= whole.normal_rows
    # All that a model is calibrated on, and a part of what comes then.
    later = [each.rest_rows - scenario.TESTBED_LEAD_ROWS for each in (whole, part)]
    assert 0 < later[1] * scenario.EMULATED_PART <= later[0]
    assert len(part.labels) == part.rest_rows
    assert any(part.labels.values())
