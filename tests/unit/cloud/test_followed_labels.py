"""What engineers have sealed is followed where models are trained and where they are judged."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.trained import DEVICE_TYPE, ROWS, START_S, recording

from cloud.selection import Query, select
from cloud.train import anomaly
from cloud.train.job import Job
from fog_node.protocol.labels import Label, Labelled, TimeSpan
from fog_node.protocol.merkle import root
from tools import training
from tools.errors import UsageError
from tools.nodes import Nodes

from .test_evaluate import collected, faulty, seal

FAULT = 200


@pytest.fixture
def labelled(chain, trained):
    """A board whose model judged it; its last rows are faulty, and said to be."""
    board = chain.board
    chain.seal(chain.enrolment(board))
    seal(chain, board, faulty(recording(6, ROWS), FAULT), trained, 0)
    label(chain, chain.operator, "normal", 0, FAULT - 1)
    label(chain, chain.operator, "anomaly", FAULT, ROWS)
    label(chain, chain.trainer, "normal", FAULT, FAULT + 9)
    return chain


def label(chain, key, value, first, last):
    span = TimeSpan(chain.board.kid, (START_S + first) * 1000, (START_S + last) * 1000)
    chain.seal(chain.sign(key, Label((Labelled(span, value),), "", START_S * 1000)))


@pytest.fixture
def up_to_date(labelled, tmp_path, monkeypatch):
    """Stands for the nodes: the data set has all that there is."""
    dataset = collected(labelled, tmp_path / "data")

    async def update(nodes, founding, directory):
        return dataset

    monkeypatch.setattr(training, "update", update)
    return dataset


async def train(chain, monkeypatch, tmp_path, query):
    """What the training is given, without doing it."""
    given = {}

    def record(readings, device_type, out, **options):
        given.update(options, readings=readings, device_type=device_type)
        return SimpleNamespace(report={})

    monkeypatch.setattr(anomaly, "train", record)
    # No model is written, so no board's cost of it can be told.
    monkeypatch.setattr(
        "cloud.board_cost.add_to_card", lambda *_: SimpleNamespace(macs=0, boards=())
    )
    job = Job(tmp_path / "model", quick=True, seed=3)
    report = await training.train_anomaly(Nodes(), chain.founding, tmp_path / "data", query, job)
    return given, report


async def test_training_is_told_what_to_leave_out(labelled, up_to_date, monkeypatch, tmp_path):
    given, report = await train(labelled, monkeypatch, tmp_path, Query(DEVICE_TYPE))
    (readings,) = given["readings"].values()
    # Of what is disputed nothing is learned, either.
    assert np.flatnonzero(readings.excluded).tolist() == list(range(FAULT, ROWS))
    assert report["left_out_by_labels"] == ROWS - FAULT
    reference = given["dataset"]
    assert report["dataset_root"] == reference.root.hex()
    assert reference == select(up_to_date, Query(DEVICE_TYPE)).reference
    said = [one.transaction for one in up_to_date.labels().all]
    assert reference.query.labels.root == root(said)


async def test_a_part_and_no_labels(labelled, up_to_date, monkeypatch, tmp_path):
    kid = labelled.board.kid.hex()
    query = training.query(DEVICE_TYPE, [kid], str(START_S + 10), None, with_labels=False)
    given, report = await train(labelled, monkeypatch, tmp_path, query)
    (readings,) = given["readings"].values()
    assert readings.excluded is None
    assert len(readings) == ROWS - 10
    assert report["left_out_by_labels"] == 0
    assert given["dataset"].query.labels is None
    assert given["dataset"].query.devices == (labelled.board.kid,)
    assert given["dataset"].query.since == (START_S + 10) * 1000


async def test_verdicts_are_scored_by_sealed_labels(labelled, up_to_date, trained, tmp_path):
    def check(query, labels=None):
        return training.Check(tmp_path / "data", query, trained, labels, None)

    async def judge(wanted):
        return await training.evaluate_anomaly(Nodes(), labelled.founding, wanted)

    result = await judge(check(Query(DEVICE_TYPE)))
    # The ten rows of which two say different things are not scored.
    assert result["int8"]["rows"] == ROWS - 10
    assert result["int8"]["anomalous_rows"] == ROWS - FAULT - 10
    assert result["labels"].startswith("3 sealed transactions, root ")
    assert result["labels"].endswith("; 10 rows are disputed and not scored")
    assert result["equals_litert"] is True
    blind = await judge(check(Query(DEVICE_TYPE, with_labels=False)))
    assert (blind["int8"], blind["labels"]) == (None, "none")
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({labelled.board.kid.hex(): {str(START_S + 300): True}}))
    instead = await judge(check(Query(DEVICE_TYPE), file))
    assert (instead["int8"]["rows"], instead["labels"]) == (1, str(file))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((["00"],), "kid"),
        ((None, "yesterday"), "column 'since'"),
        ((None, "2", "1"), "--until"),
    ],
)
def test_a_query_that_is_none(arguments, named):
    with pytest.raises(UsageError, match=named):
        training.query(DEVICE_TYPE, *arguments)
