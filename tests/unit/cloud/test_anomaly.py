"""Training gives a model that boards take, the same one each time, with an honest threshold."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import trained as support
from support.trained import (
    CHANNELS,
    DEVICE_TYPE,
    MemoryDataset,
    load_manifest,
    recording,
    train_small,
    verdicts_of,
)

from cloud.errors import TrainingError
from cloud.evaluate import evaluate
from cloud.export import Interpreter
from cloud.model_card import CARD_FILE, MODEL_FILE, ModelCard
from cloud.preprocess import quantize, score
from cloud.readings import Readings
from cloud.recording import read_csv
from cloud.train import anomaly
from fog_node.protocol.manifest import Manifest
from tools.demo import scenario

PNG = b"\x89PNG\r\n\x1a\n"
KID = bytes(range(8))
LEVELS = 2001
SEED = 1


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The same training once more: its result, and the scores that its plots show."""
    shown = {}

    def show(out, losses, int8_scores, threshold, float_scores, float_threshold):
        shown.update(int8=int8_scores, float=float_scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anomaly, "plot_training", show)
        return train_small(tmp_path_factory.mktemp("again"), seed=1), shown


def report_of(directory):
    return json.loads((directory / anomaly.REPORT_FILE).read_text())


def test_the_directory_holds_all_that_a_release_needs(trained):
    assert {path.name for path in trained.iterdir()} == {
        "model.tflite", "model_float.tflite", "manifest.json", "report.json",
        "loss.png", "scores.png", "float_int8.png", "log",
    }  # fmt: skip
    assert list((trained / "log").glob("events.out.tfevents.*"))
    for plot in trained.glob("*.png"):
        assert plot.read_bytes().startswith(PNG)
    card = ModelCard.load(trained)
    assert (card.device_type, card.channels) == (DEVICE_TYPE, CHANNELS)
    assert card.dataset is None
    # What a release is judged by; two epochs are enough to tell large offsets from none.
    assert set(card.metrics) == {"f1_float", "f1_int8"}
    assert card.metrics["f1_int8"] == pytest.approx(card.metrics["f1_float"], abs=0.05)
    assert 0.5 < card.metrics["f1_int8"] <= 1
    # As a board would check it.
    manifest, payload = load_manifest(trained)
    assert Manifest.decode(manifest.encode()) == manifest
    report = report_of(trained)
    assert report["sha256"] == hashlib.sha256(payload).hexdigest()
    assert report["bytes"] == len(payload)
    assert report["rows"] == 2 * support.ROWS
    assert report["epochs"] == support.EPOCHS
    assert report["threshold"] == manifest.threshold
    assert report["sealed"] is False
    assert 0.9 <= report["float_int8_agreement"] <= 1


def test_the_seed_makes_the_model(trained, again):
    result, _ = again
    assert result.report == report_of(trained)
    for name in (MODEL_FILE, CARD_FILE, anomaly.FLOAT_MODEL_FILE):
        assert (result.directory / name).read_bytes() == (trained / name).read_bytes()


def test_the_threshold_is_a_quantile_of_held_out_normal_windows(again):
    result, shown = again
    assert len(shown["int8"]) == len(shown["float"]) == result.report["held_out"] > 100
    assert result.card.threshold in shown["int8"]
    assert result.report["float_threshold"] in shown["float"]
    # Both recordings are as long, so each window weighs the same, but for what was left out.
    assert np.mean(shown["int8"] > result.card.threshold) == pytest.approx(
        anomaly.FALSE_ALARMS, abs=0.02
    )


def test_every_run_of_rows_weighs_the_same():
    scores = np.array([5, 1, 2, 3, 4, 100])
    # One run of five windows, and one of a single window.
    weights = np.array([0.2] * 5 + [1.0])
    assert anomaly._quantile(scores, weights, 0.8) == 100
    assert anomaly._quantile(scores, np.array([0.2] * 5 + [0.05]), 0.8) == 5


def test_the_fixed_point_input_is_the_models_quantization(trained):
    manifest, payload = load_manifest(trained)
    scale, zero = Interpreter(payload).input["quantization"]
    report = report_of(trained)
    least, wander = np.array(report["float_least"]), np.array(report["float_wander"])
    # Calibrated on rows that deviate as usual, then from end to end.
    share = np.linspace(-anomaly.CLIP, anomaly.CLIP, LEVELS)[:, np.newaxis]
    first = np.resize([-1.0, -1.0, 1.0, 1.0], (support.CALIBRATE, 2))
    rows = (np.concatenate([first, share * wander]) * least / anomaly.LEAST_DEVIATION).astype(
        np.float32
    )
    single = replace(manifest, window=1, stride=1)
    given = quantize(rows, np.arange(len(rows), dtype=np.int64), single).values[:, 0]
    wanted = np.clip(np.rint(share / scale) + zero, -128, 127)
    assert np.abs(given - wanted).max() <= 1
    # The ends of the range are the ends of int8.
    assert given.min() <= -126
    assert given.max() >= 126


def test_a_spoilt_window_scores_higher(trained):
    manifest, payload = load_manifest(trained)
    windows = quantize(*rows_of(recording(3, 600)), manifest).values
    spoilt = windows.astype(np.int16)
    spoilt[:, :, 1] += 60
    spoilt = np.clip(spoilt, -128, 127).astype(np.int8)
    interpreter = Interpreter(payload)
    before = score(windows, interpreter.run(windows), manifest)
    after = score(spoilt, interpreter.run(spoilt), manifest)
    assert np.median(after / np.maximum(before, 1)) > 3


def rows_of(readings):
    return readings.values, readings.times_ms


def train(readings, out):
    return anomaly.train(
        readings,
        DEVICE_TYPE,
        out,
        dataset=None,
        quick=True,
        seed=SEED,
        progress=lambda *_: None,
    )


@pytest.mark.parametrize(("rows", "windows"), [(2, 0), (247, 0), (300, 24)])
def test_too_little_data_is_counted(tmp_path, rows, windows):
    message = f"training: {windows} windows .* at least {anomaly.MIN_WINDOWS} .*; collect more"
    with pytest.raises(TrainingError, match=message):
        train({KID: recording(1, rows)}, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_boards_must_measure_the_same(tmp_path):
    boards = {b"a": recording(1, 700), b"b": recording(1, 700, channels=CHANNELS[::-1])}
    with pytest.raises(TrainingError, match="2 different sets of channels; train on boards"):
        train(boards, tmp_path)
    with pytest.raises(TrainingError, match="0 different sets of channels"):
        train({}, tmp_path)


@pytest.fixture
def skab():
    folder = os.environ.get("FOGLINE_DATA")
    if folder is None:
        pytest.skip("FOGLINE_DATA is not set: name the folder that holds skab/")
    path = Path(folder) / "skab"
    assert path.is_dir(), f"FOGLINE_DATA={folder}: holds no skab/; put a copy of SKAB there"
    return path


def joined(items):
    """The rows that a replay script plays, in its order."""
    parts = []
    for item in items:
        whole = read_csv(Path(item["path"]))
        stop = None if item["count"] is None else item["first"] + item["count"]
        rows = slice(item["first"], stop)
        parts.append((whole.times[rows], whole.values[rows]))
    times, values = map(np.concatenate, zip(*parts, strict=True))
    return Readings(times, values, whole.channels, np.arange(len(times)), sealed=False)


def test_on_recordings_of_a_real_test_bed(skab, tmp_path):
    """Experiments are learned from or scored, never both, as `fogline demo --replay` has it."""
    plan = scenario.replay(skab, boards=1).boards[0]
    script = plan.driver["script"]
    wait = script.index(scenario.WAIT_FOR_MODEL)
    train({KID: joined(script[:wait])}, tmp_path)
    judged = joined(script[wait + 1 :])
    labels = {float(time): label for time, label in plan.labels.items()}
    dataset = MemoryDataset({KID: judged}, verdicts_of(KID, judged, tmp_path))
    result = evaluate(dataset, DEVICE_TYPE, tmp_path, {KID: labels}, None)
    print(
        f"SKAB, quick, seed {SEED}, {result['int8']['rows']} rows: "
        f"F1 float {result['f1_float']:.3f}, int8 {result['f1_int8']:.3f}, "
        f"false alarms {result['int8']['false_alarm_rate']:.3f}, "
        f"missed {result['int8']['missed_alarm_rate']:.3f}"
    )
    assert result["equals_litert"]
    assert abs(result["f1_float"] - result["f1_int8"]) <= 0.01
    assert result["f1_int8"] > 0.55
