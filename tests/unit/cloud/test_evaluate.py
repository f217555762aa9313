"""An evaluation finds every verdict that LiteRT would not give, and counts rows rightly."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.trained import (
    CHANNELS,
    DEVICE_TYPE,
    START_S,
    MemoryDataset,
    load_manifest,
    recording,
    verdicts_of,
)

from cloud.chain_view import ChainView
from cloud.dataset import Dataset
from cloud.errors import DatasetError, ReleaseError, TrainingError
from cloud.evaluate import Confusion, evaluate, load_labels
from cloud.export import Interpreter
from cloud.model_card import MODEL_FILE
from cloud.preprocess import quantize, score, verdicts
from cloud.train.anomaly import REPORT_FILE
from fog_node.protocol import senml
from fog_node.protocol.transactions import PackBody

KID = bytes(range(8))
ROWS = 300
PACK_ROWS = 50
BEFORE = 37
PNG = b"\x89PNG\r\n\x1a\n"


def faulty(readings, start):
    """The same readings with a channel that jumps at `start` and stays."""
    values = readings.values.copy()
    values[start:, 1] += 3
    return replace(readings, values=values)


@pytest.fixture(scope="module")
def judged():
    return faulty(recording(5, ROWS), 200)


@pytest.fixture
def sealed(trained, judged):
    return verdicts_of(KID, judged, trained)


@pytest.fixture
def assess(trained, judged):
    """Evaluate the model over sealed verdicts of one board."""

    def run(sealed, labels=None, out=None, directory=trained):
        dataset = MemoryDataset({KID: judged}, sealed)
        return evaluate(dataset, DEVICE_TYPE, directory, labels or {}, out)

    return run


def seal(chain, board, readings, directory, activated):
    """Put readings on the chain, with verdicts from the row `activated` on, in packs."""
    manifest, payload = load_manifest(directory)
    later = readings.values[activated:], readings.times_ms[activated:]
    windows = quantize(*later, manifest)
    outputs = Interpreter(payload).run(windows.values)
    scores = score(windows.values, outputs, manifest)
    said = verdicts(scores, windows.segment, manifest)
    by_row = {
        activated + int(windows.last[i]): senml.Verdict(
            float(readings.times[activated + windows.last[i]]),
            int(scores[i]),
            bool(said[i]),
            hashlib.sha256(outputs[i].tobytes()).digest()[:8],
        )
        for i in range(len(scores))
    }
    units = ("A", "L/min")
    for first in range(0, len(readings), PACK_ROWS):
        part = range(first, min(first + PACK_ROWS, len(readings)))
        listed = [
            (at - first, [
                (name, unit, float(value))
                for name, unit, value in zip(CHANNELS, units, readings.values[at], strict=True)
            ])
            for at in part
        ]  # fmt: skip
        own = [by_row[at] for at in part if at in by_row]
        model = hashlib.sha256(payload).digest()[:8] if own else None
        start_s = int(readings.times[first])
        encoded = senml.encode_pack(32473, board.kid, start_s, listed, own, model)
        chain.seal(chain.sign(board, PackBody.decode(encoded)))
    return len(by_row)


def collected(chain, directory):
    dataset = Dataset.open(directory)
    view, blocks = ChainView.at_founding(chain.founding), []
    for piece in chain.sealed:
        block, view = view.after(piece.block, piece.certificate, chain.founding)
        blocks.append(block)
    dataset.append(blocks, view)
    return dataset


def test_verdicts_on_a_chain_equal_litert(chain, trained, tmp_path):
    first, second = chain.boards
    chain.seal(chain.enrolment(first), chain.enrolment(second))
    # The model came when the first board had sent some rows already.
    count = seal(chain, first, recording(6, ROWS), trained, BEFORE)
    count += seal(chain, second, recording(7, ROWS), trained, 0)
    dataset = collected(chain, tmp_path / "data")
    result = evaluate(dataset, DEVICE_TYPE, trained, {}, None)
    assert result["compared"] == count > 0
    assert result["equals_litert"] is True
    assert result["unequal"] == 0
    assert result["f1_int8"] is result["f1_float"] is result["int8"] is result["float"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"score": 1},
        {"anomaly": True},
        {"output": bytes(8)},
        {"time": START_S + 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_changed_verdict_is_counted(assess, sealed, change):
    at = next(i for i, verdict in enumerate(sealed) if i and not verdict.anomaly)
    assert all(getattr(sealed[at], name) != value for name, value in change.items())
    sealed[at] = sealed[at]._replace(**change)
    result = assess(sealed)
    assert result["equals_litert"] is False
    assert (result["compared"], result["unequal"]) == (len(sealed), 1)


def test_a_missing_verdict_is_counted(assess, sealed):
    result = assess(sealed[:-1])
    assert (result["equals_litert"], result["unequal"]) == (False, 1)
    result = assess(sealed[:3] + sealed[4:])
    assert result["equals_litert"] is False
    assert result["unequal"] > 0


def test_an_extra_verdict_is_counted(assess, sealed):
    result = assess([*sealed, sealed[-1]._replace(time=START_S + 10_000.0)])
    assert (result["equals_litert"], result["unequal"]) == (False, 1)


def test_verdicts_of_another_model_are_not_compared(assess, sealed):
    other = [verdict._replace(model=bytes(8), score=0) for verdict in sealed]
    assert assess(other + sealed)["compared"] == len(sealed)
    with pytest.raises(TrainingError, match="has no sealed verdict of this model"):
        assess(other)


def test_labels_score_both_models(assess, sealed, judged, tmp_path):
    labels = {KID: {float(t): bool(i >= 200) for i, t in enumerate(judged.times)}}
    result = assess(sealed, labels, tmp_path / "plots")
    for kind in ("int8", "float"):
        of_kind = result[kind]
        assert (of_kind["rows"], of_kind["anomalous_rows"]) == (ROWS, 100)
        assert of_kind["f1"] == result[f"f1_{kind}"] > 0.7
        # Rows that no window ends with or after, at most a stride, are said to be normal.
        assert of_kind["missed_alarm_rate"] < 0.2
    plot = tmp_path / "plots" / f"timeline-{KID.hex()}.png"
    assert plot.read_bytes().startswith(PNG)


def test_only_labelled_rows_are_scored(assess, sealed, judged):
    labels = {KID: {float(t): True for t in judged.times[250:260]}}
    assert assess(sealed, labels)["int8"]["rows"] == 10
    assert assess(sealed, {bytes(8): labels[KID]})["int8"] is None


def test_a_verdict_is_of_the_rows_of_its_stride(assess, sealed, judged, trained):
    manifest, _ = load_manifest(trained)
    hit = next(verdict for verdict in sealed if verdict.anomaly)
    end = int(np.flatnonzero(judged.times == hit.time)[0])
    rows = range(end - manifest.stride + 1, end + 1)
    labels = {KID: {float(judged.times[at]): True for at in rows}}
    assert assess(sealed, labels)["int8"]["missed_alarm_rate"] == 0


def test_f1_of_hand_made_labels():
    confusion = Confusion()
    said = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    true = np.array([1, 1, 0, 1, 1, 0, 0, 0, 0, 0], bool)
    confusion.add(said, true)
    confusion.add(~said[:0], true[:0])
    assert confusion.report() == {
        "f1": pytest.approx(4 / 7),
        "false_alarm_rate": pytest.approx(1 / 6),
        "missed_alarm_rate": pytest.approx(2 / 4),
        "rows": 10,
        "anomalous_rows": 4,
    }


def test_f1_of_nothing_is_zero():
    assert Confusion().report() == {
        "f1": 0.0,
        "false_alarm_rate": 0.0,
        "missed_alarm_rate": 0.0,
        "rows": 0,
        "anomalous_rows": 0,
    }


def test_labels_are_read(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({KID.hex(): {"1": True, "2.5": False}}))
    assert load_labels(path) == {KID: {1.0: True, 2.5: False}}


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"xyz": {}}', '{"00": []}', '{"00": {"now": true}}', '{"00": {"1": "false"}}',
     "[" * 100_000],
    ids=["empty", "list", "no key id", "no map", "no time", "text", "deep"],
)  # fmt: skip
def test_what_is_no_file_of_labels_is_refused(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"labels\.json: is no file of labels .*; write {"):
        load_labels(path)


def test_labels_that_are_not_there_or_too_many(tmp_path, monkeypatch):
    path = tmp_path / "labels.json"
    with pytest.raises(DatasetError, match=r"labels\.json: is no file of labels"):
        load_labels(path)
    path.write_text("{}")
    monkeypatch.setattr("cloud.evaluate.MAX_LABEL_BYTES", 1)
    with pytest.raises(DatasetError, match=r"labels\.json: .*is over 1 bytes"):
        load_labels(path)


def test_a_directory_that_training_did_not_write(assess, sealed, trained, tmp_path):
    with pytest.raises(ReleaseError, match=r"manifest\.json: cannot be read"):
        assess(sealed, directory=tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / REPORT_FILE).write_text("{}")
    with pytest.raises(ReleaseError, match=r"report\.json: is not a training report"):
        assess(sealed, directory=tmp_path)
    (tmp_path / MODEL_FILE).unlink()
    with pytest.raises(ReleaseError, match=r"model\.tflite: cannot be read"):
        assess(sealed, directory=tmp_path)
