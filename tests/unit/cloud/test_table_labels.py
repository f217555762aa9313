"""What engineers say of a table's things reaches the training."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from support.machines import HEADER, simulated, write
from typer.testing import CliRunner

from cloud.errors import LabelError, RecordingError
from cloud.labels import Labels, SealedLabel
from cloud.train import failure_data, rul_data
from cloud.train.failure_data import MODES, read_failures
from cloud.train.job import LabelSheet
from cloud.train.rul_data import Units
from cloud.train.table_labels import SHEET, TableLabels, sealed_sheet
from fog_node.protocol.labels import Image
from tools import cli


@pytest.fixture
def sheet(tmp_path):
    """Write a sheet; gives what it says."""

    def write_it(text: str, column: str = "id") -> TableLabels:
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return TableLabels.read(LabelSheet(path), column)

    return write_it


@pytest.fixture
def table(tmp_path):
    return simulated(tmp_path / "rows.csv", 40, 3)


def test_labels_overrule_what_the_table_says(table, sheet):
    plain = read_failures(table, labelled=True)
    good, bad = int(np.argmin(plain.failed)), int(np.argmax(plain.failed))
    other = int(np.flatnonzero(~plain.failed)[1])
    said = sheet(
        f"id,probability,value,note\n{bad},0.9,normal,looked at it\n{good},0.2,HDF,\n"
        f"{other},0.5,failure,\n39,0.1,,\n"
    )
    rows = failure_data.labelled(table, said)
    assert rows.ids == plain.ids
    changed = np.flatnonzero(rows.failed != plain.failed)
    assert changed.tolist() == sorted((good, bad, other))
    assert rows.modes[good].tolist() == [mode == "HDF" for mode in MODES]
    assert not rows.modes[[bad, other]].any()
    assert said.card(0)["labelled"] == 3


def test_of_a_table_without_outcomes_the_labelled_rows_are_learned_from(table, tmp_path, sheet):
    lines = [line.split(",")[:8] for line in table.read_text().splitlines()[1:]]
    bare = write(tmp_path / "bare.csv", *map(tuple, lines), header=HEADER[:8])
    rows = failure_data.labelled(bare, sheet("id,value\n5,OSF\n9,normal\n"))
    assert rows.ids == ("5", "9")
    assert rows.failed.tolist() == [True, False]
    assert rows.features.tolist() == read_failures(bare, labelled=False).features[[5, 9]].tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,value\n1,normal\n99,OSF\n", "line 3: column 'id' is '99', not one of the table"),
        ("id,value\n1,RNF\n", "line 2: column 'value' is 'RNF', not normal or failure or TWF"),
        ("id,value\n1,OSF\n1,HDF\n", "line 3: column 'value' is 'HDF', not 'OSF' as in a line"),
        ("id\n1\n", "column 'value' is there 0 times"),
    ],
)
def test_a_label_that_fits_nothing_is_named(table, sheet, text, said):
    with pytest.raises(RecordingError) as error:
        failure_data.labelled(table, sheet(text))
    assert said in str(error.value)


def test_a_sheet_that_nobody_has_filled_in_is_refused(sheet):
    with pytest.raises(LabelError, match="no row has a value"):
        sheet("id,value\n1,\n")


@pytest.fixture
def units(tmp_path):
    count = (4, 3, 5)
    unit = np.repeat([1, 2, 3], count)
    cycle = np.concatenate([np.arange(1, each + 1) for each in count])
    nothing = np.zeros((len(unit), 1))
    return Units(tmp_path / "train_X.txt", unit, cycle, nothing, nothing)


def test_a_unit_ends_where_engineers_say(units, sheet):
    found = rul_data.labelled(units, sheet("unit,value\n1,7\n3,3\n", "unit"))
    assert found.unit.tolist() == [1] * 4 + [2] * 3 + [3] * 3
    assert found.left().tolist() == [6, 5, 4, 3, 2, 1, 0, 2, 1, 0]


def test_a_unit_that_still_runs_is_not_learned_from(units, sheet):
    found = rul_data.labelled(units, sheet("unit,value\n2,running\n", "unit"))
    assert found.unit.tolist() == [1] * 4 + [3] * 5
    assert found.left().tolist() == replace(found, end=None).left().tolist()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,0", "column 'value' is '0', not the cycle of its failure, or running"),
        ("1,never", "column 'value' is 'never'"),
        ("4,9", "column 'unit' is '4', not one of the table"),
    ],
)
def test_an_end_that_is_none_is_named(units, sheet, row, said):
    with pytest.raises(RecordingError) as error:
        rul_data.labelled(units, sheet(f"unit,value\n{row}\n", "unit"))
    assert said in str(error.value)


def test_who_stands_by_a_sheet_has_sealed_its_hash(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,value\n1,normal\n")
    digest = hashlib.sha256(path.read_bytes()).digest()

    def said(member, value, of=digest):
        return SealedLabel(bytes(32), 0, 1, member, Image(of), value, "", 0.0)

    sealed = Labels([said("plant", SHEET), said("lab", SHEET), said("lab", None)])
    assert sealed_sheet(path, sealed).members == ("plant",)
    for nobody in ([], [said("plant", "scratch")], [said("plant", SHEET, bytes(32))]):
        with pytest.raises(LabelError, match="no member stands by it"):
            sealed_sheet(path, Labels(nobody))


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("demand", ["--labels", "l.csv"], "demand is counted, not judged"),
        ("quality", ["--labels", "l.csv"], "an image's label is the folder it lies in"),
        ("rul", ["--dataset", "d"], "is for --labels"),
    ],
)
def test_a_task_that_has_no_use_for_labels_says_so(tmp_path, task, more, said):
    typed = ["train", task, "--data", str(tmp_path), "--out", str(tmp_path / "m"), *more]
    result = CliRunner().invoke(cli.app, typed)
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output
