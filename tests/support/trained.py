"""Recordings to train on, and sealed verdicts of a model, without boards and without a chain."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from cloud.dataset import SealedVerdict
from cloud.export import Interpreter
from cloud.model_card import MODEL_FILE, ModelCard
from cloud.preprocess import quantize, score, verdicts
from cloud.readings import Readings
from cloud.train import anomaly

START_S = 1_767_225_600
CHANNELS = ("current", "flow")
DEVICE_TYPE = "water-circulation"
PREFIX_BYTES = 8
ROWS = 700
EPOCHS = 2
CALIBRATE = 100


def recording(seed, count, channels=CHANNELS, start_s=START_S):
    """Readings of a machine at work: slow waves and noise, a row per second."""
    rng = np.random.default_rng(seed)
    at = np.arange(count)[:, np.newaxis]
    width = len(channels)
    periods = rng.uniform(100, 300, width)
    waves = np.sin(2 * np.pi * (at / periods + rng.random(width)))
    values = np.arange(1, width + 1) * (1 + 0.02 * waves + rng.normal(0, 0.02, (count, width)))
    return Readings(
        times=start_s + np.arange(count, dtype=np.float64),
        values=values.astype(np.float32),
        channels=channels,
        sequence=np.arange(count, dtype=np.int64),
        sealed=False,
    )


def train_small(out, seed):
    """Train for EPOCHS on two short recordings; returns the result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anomaly, "QUICK_EPOCHS", EPOCHS)
        patch.setattr(anomaly, "CUTTING", replace(anomaly.CUTTING, calibrate=CALIBRATE))
        patch.setattr(anomaly, "REHEARSAL_CALIBRATE", CALIBRATE)
        return anomaly.train(
            {b"board---": recording(1, ROWS), b"another-": recording(2, ROWS)},
            DEVICE_TYPE,
            out,
            dataset=None,
            quick=True,
            seed=seed,
            progress=lambda *_: None,
        )


def load_manifest(directory):
    """The manifest and the `.tflite` of a model's directory."""
    payload = (directory / MODEL_FILE).read_bytes()
    return ModelCard.load(directory).manifest("test", 1, payload, 0), payload


def verdicts_of(kid, readings, directory):
    """What a board with this model says of these rows, as it would be on the chain."""
    manifest, payload = load_manifest(directory)
    windows = quantize(readings.values, readings.times_ms, manifest)
    outputs = Interpreter(payload).run(windows.values)
    scores = score(windows.values, outputs, manifest)
    said = verdicts(scores, windows.segment, manifest)
    return [
        SealedVerdict(
            device=kid,
            time=float(readings.times[windows.last[i]]),
            score=int(scores[i]),
            anomaly=bool(said[i]),
            output=hashlib.sha256(outputs[i].tobytes()).digest()[:PREFIX_BYTES],
            model=manifest.payload_sha256[:PREFIX_BYTES],
            height=1,
        )
        for i in range(len(scores))
    ]


class MemoryDataset:
    """Stands for a `cloud.dataset.Dataset`, with boards of one type only."""

    def __init__(self, readings, sealed):
        self._readings = readings
        self._sealed = sealed

    def readings(self, device_type):
        assert device_type == DEVICE_TYPE
        return self._readings

    def verdicts(self, device_type):
        assert device_type == DEVICE_TYPE
        return self._sealed
