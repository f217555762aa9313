"""Anyone can see from the chain what a release was trained on, and whether it says the truth."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from cloud.dataset import Dataset
from cloud.errors import DatasetError
from cloud.lineage import trace
from cloud.selection import Query, select
from fog_node.protocol import senml
from fog_node.protocol import transactions as tx
from fog_node.protocol.dataset_reference import DatasetReference, LabelsReference
from fog_node.protocol.labels import Label, Labelled, PackSpan, TimeSpan
from fog_node.protocol.merkle import root
from tools.vectors.hub import TIME_MS, TIME_S

from .test_dataset import checked

PUMP = "water-circulation"
FIELDS = ("current", "flow")


def collected(chain, directory, sizes=()):
    """A data set of all blocks, written in parts of these sizes, the rest at once."""
    dataset = Dataset.open(directory)
    first = 1
    for size in (*sizes, len(chain.sealed) - sum(sizes)):
        dataset.append(*checked(chain, first, first + size - 1, dataset.view))
        first += size
    return dataset


def release(chain, reference, name="anomaly", version=1, device_type=PUMP):
    body = tx.Release(
        name, version, device_type, bytes(32), bytes(32), 9, (("f1", 0.5),), reference, TIME_MS
    )
    return chain.seal(chain.sign(chain.trainer, body))


@pytest.fixture
def labelled(pumps):
    first, second = (board.kid for board in pumps.boards)
    labels = (
        Labelled(TimeSpan(first, TIME_MS, TIME_MS), "anomaly"),
        Labelled(PackSpan(second, 1, 1), "normal"),
    )
    pumps.seal(pumps.sign(pumps.operator, Label(labels, "", TIME_MS)))
    return pumps


@pytest.mark.parametrize(
    "query",
    [
        Query(PUMP),
        Query(PUMP, with_labels=False),
        Query(PUMP, since=TIME_MS + 1000),
        Query(PUMP, until=TIME_MS - 1),
        Query(PUMP, since=TIME_MS, until=TIME_MS),
        Query(PUMP, height=2),
    ],
    ids=["all", "no labels", "since", "until", "moment", "height"],
)
def test_a_release_of_what_was_selected_fits(labelled, tmp_path, query):
    before = collected(labelled, tmp_path / "before")
    reference = select(before, query).reference
    release(labelled, reference)
    # More comes, and changes nothing of what was said of the blocks before.
    labelled.seal(labelled.readings(labelled.board, [(5, {"current": 1.0})]))
    after = collected(labelled, tmp_path / "after", sizes=(2, 2))
    found = trace(after, "anomaly")
    assert found.differences == ()
    assert found.is_sealed
    report = found.report()
    assert report["sealed"] is True
    assert report["root"] == reference.root.hex()
    assert report["transactions"] == reference.count
    listed = list(csv.DictReader(io.StringIO(found.transactions())))
    assert root([bytes.fromhex(row["id"]) for row in listed]) == reference.root


def test_one_board_and_what_labels_leave_out(labelled, tmp_path):
    first, second = (board.kid for board in labelled.boards)
    reference = select(collected(labelled, tmp_path / "a"), Query(PUMP, (first,))).reference
    release(labelled, reference)
    found = trace(collected(labelled, tmp_path / "b"), "anomaly")
    assert found.is_sealed
    (board,) = found.report()["boards"]
    assert (board["board"], board["packs"], board["rows"]) == (first.hex(), 2, 4)
    assert board["left_out_by_labels"] == 2
    assert found.report()["labels"] == [{"member": "operator", "labels": 1}]
    rows = list(csv.DictReader(io.StringIO(found.transactions())))
    assert [(row["used"], row["left_out"]) for row in rows] == [("1", "1"), ("1", "1")]
    assert second.hex() not in found.transactions()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: replace(r, root=bytes(32)), "root"),
        (lambda r: replace(r, count=r.count + 1), "count"),
        (lambda r: replace(r, first=r.first - 1), "first"),
        (lambda r: replace(r, query=replace(r.query, devices=r.query.devices[:1])), "count"),
        (lambda r: replace(r, query=replace(r.query, since=TIME_MS + 1000)), "count"),
        (lambda r: replace(r, query=replace(r.query, devices=(bytes(8),))), "query"),
        (lambda r: replace(r, query=replace(r.query, labels=LabelsReference(bytes(32), 1))),
         "labels.root"),
        (lambda r: replace(r, query=replace(r.query, labels=LabelsReference(bytes(32), 2))),
         "labels.count"),
        (lambda r: replace(r, query=None), "root"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(labelled, tmp_path, change, field):
    boards = tuple(sorted(board.kid for board in labelled.boards))
    true = select(collected(labelled, tmp_path / "a"), Query(PUMP, boards)).reference
    labelled.seal(labelled.readings(labelled.board, [(5, {"current": 1.0})]))
    wrong = change(true)
    if wrong.query is None:
        wrong = replace(wrong, last=5)
    release(labelled, wrong)
    found = trace(collected(labelled, tmp_path / "b"), "anomaly")
    assert not found.is_sealed
    assert field in {each["field"] for each in found.differences}
    assert f"{field}: the release says" in found.why()
    assert found.report()["sealed"] is False


def test_a_release_without_a_query_is_of_all_packs_of_its_blocks(labelled, tmp_path):
    reference = select(collected(labelled, tmp_path / "a"), Query(PUMP)).reference
    release(labelled, replace(reference, query=None))
    assert trace(collected(labelled, tmp_path / "b"), "anomaly").is_sealed


def test_a_release_of_nothing_sealed_says_so(labelled, tmp_path):
    release(labelled, DatasetReference(root([]), 0, 0, 0))
    found = trace(collected(labelled, tmp_path / "data"), "anomaly")
    assert not found.is_sealed
    assert found.differences == ()
    assert "names no sealed transaction" in found.why()
    assert found.report()["query"] == "nothing sealed"


def test_which_release_is_meant(labelled, tmp_path):
    reference = select(collected(labelled, tmp_path / "a"), Query(PUMP)).reference
    for version in (1, 3):
        release(labelled, reference, version=version)
    release(labelled, reference, name="other", device_type="fan")
    dataset = collected(labelled, tmp_path / "b")
    assert trace(dataset, "anomaly").released.release.version == 3
    assert trace(dataset, "anomaly", version=1).released.release.version == 1
    assert trace(dataset, "other", device_type="fan").differences[0]["field"] == "query"
    for name, options, named in (
        ("anomaly", {"version": 2}, r"'anomaly 2'.*anomaly 1, anomaly 3"),
        ("anomaly", {"device_type": "fan"}, "'anomaly'"),
        ("none", {}, "'none'"),
    ):
        with pytest.raises(DatasetError, match=named):
            trace(dataset, name, **options)
    release(labelled, reference, device_type="fan")
    with pytest.raises(DatasetError, match="for each of fan, water-circulation"):
        trace(collected(labelled, tmp_path / "c"), "anomaly")


@pytest.mark.parametrize("sizes", [(), (1,) * 13, (7,), (12,)])
def test_what_is_selected_does_not_depend_on_how_blocks_came(chain, tmp_path, sizes):
    """A board starts more often than the ledger remembers; each start has a pack without time."""
    board = chain.boards[0]
    chain.seal(chain.enrolment(board))
    units = [("current", "A", 1.0)]
    for boot in range(1, 13):
        early = senml.encode_pack(
            32473, board.kid, -9, [(0, units)], clock=senml.Clock(-9, boot, 20_000, None)
        )
        start = TIME_S + 1000 * boot
        late = senml.encode_pack(
            32473, board.kid, start, [(0, units)], clock=senml.Clock(start, boot, 60_000, bytes(8))
        )
        chain.seal(*(chain.sign(board, tx.PackBody.decode(payload)) for payload in (early, late)))
    chain.seal()
    dataset = collected(chain, tmp_path / "data", sizes)
    readings = dataset.readings(PUMP)[board.kid]
    assert len(readings) == 24
    assert readings.corrected.sum() == 12
    assert readings.times[:2].tolist() == [TIME_S + 1000 - 60 + 20 - 9, TIME_S + 1000]
    # As of block 2 just the first start was known; of a time before, only its pack is found.
    one = select(dataset, Query(PUMP, until=(TIME_S + 1000) * 1000 - 1)).reference
    assert (one.count, one.first, one.last) == (1, 2, 2)
    earlier = dataset.readings(PUMP, height=2)[board.kid]
    assert len(earlier) == 2
