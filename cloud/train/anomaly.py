"""Anomalies in multi-sensor readings: an auto-encoder for the boards themselves.

A window is compared with what the network gives back (see `architecture`). The threshold is
set without labels, from rehearsals of normal operation that are kept out of the training (other
rehearsals share some of their rows, less another calibration mean).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import TrainingError
from cloud.export import (
    REPRESENTATIVE_WINDOWS,
    Interpreter,
    TfliteModel,
    self_tests,
    to_float_tflite,
    to_int8_tflite,
)
from cloud.model_card import MODEL_FILE, ModelCard
from cloud.plots import plot_training
from cloud.preprocess import quantize, score
from cloud.readings import Readings
from cloud.windows import Cutting, FloatWindows, cut, rehearse
from fog_node.protocol.manifest import Manifest
from fog_node.protocol.transactions import DatasetReference

from . import architecture

CUTTING = Cutting(window=32, stride=8, calibrate=300, max_gap_s=60)
FLOAT_MODEL_FILE = "model_float.tflite"
REPORT_FILE = "report.json"
# Inputs are noise widths of their channel, cut off where it cannot be called noise any more.
CLIP = 12.0
MIN_NOISE = 1e-6
# Boards may be switched on at any row; one in so many is rehearsed, for so many rows each.
REHEARSAL_STEP = 10
REHEARSAL_SPAN = 400
MIN_WINDOWS = 100
MAX_WINDOWS = 20_000
QUICK_WINDOWS = 6_000
EPOCHS = 40
QUICK_EPOCHS = 14
BATCH = 64
LEARNING_RATE = 2e-3
# One rehearsal in so many is kept out of training, to set the threshold by.
HOLD_OUT = 5
MAX_HELD_OUT = 6_000
QUANTILE = 0.95
SELF_TESTS = 4
# What is put onto normal windows: offsets of so many noise widths, in some of the channels.
OFFSETS = (0.3, 20.0)
UNTOUCHED = 0.4
UNTOUCHED_HELD_OUT = 0.0
SUDDEN = 0.6

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainingResult:
    """What training made and measured.

    Attributes:
        directory: holds the model, its card, the report and the plots.
        report: see `train`.
    """

    directory: Path
    card: ModelCard = field(repr=False)
    report: dict[str, Any]


def train(
    readings: Mapping[bytes, Readings],
    device_type: str,
    out: Path,
    *,
    dataset: DatasetReference | None,
    quick: bool,
    seed: int,
    progress: Progress,
) -> TrainingResult:
    """Train on normal operation and write the model's directory.

    Args:
        readings: of each board, by key id; normal operation.
        device_type: whose boards the model is for.
        out: directory to write; is made.
        dataset: the sealed transactions that `readings` come from; None for recordings.
        quick: fewer epochs and windows, for a first look.
        seed: of everything random.
        progress: told what is being done, and how far it is.

    Raises:
        TrainingError: too little data, or boards that measure different channels.
        ExportError: the network is not one that boards can run.
    """
    channels = _channels(readings)
    progress("windows", 0, 1)
    random = np.random.default_rng(seed)
    most = QUICK_WINDOWS if quick else MAX_WINDOWS
    noise, normal, held = _material(readings, most, random)
    model, losses = _fit(normal, QUICK_EPOCHS if quick else EPOCHS, seed, progress)
    progress("quantize", 0, 1)
    float_data = to_float_tflite(model)
    int8 = to_int8_tflite(model, _representative(normal, random))
    progress("calibrate", 0, 1)
    manifest = _manifest(int8, channels, device_type, noise)
    # As they are, and with offsets: what is normal sets the threshold; how well either is told
    # from the other, before and after quantization, is what the release is judged by.
    mixed = np.concatenate([held, _spoil(held, random, UNTOUCHED_HELD_OUT)])
    float_scores = float_score(mixed, float_data)
    quantized = _quantized(mixed, int8)
    int8_scores = score(quantized, Interpreter(int8.data).run(quantized), manifest)
    float_normal, int8_normal = float_scores[: len(held)], int8_scores[: len(held)]
    threshold = int(np.quantile(int8_normal, QUANTILE))
    float_threshold = float(np.quantile(float_normal, QUANTILE))
    float_hits, int8_hits = float_scores > float_threshold, int8_scores > threshold
    metrics = {
        "f1_float": _f1(float_hits[: len(held)], float_hits[len(held) :]),
        "f1_int8": _f1(int8_hits[: len(held)], int8_hits[len(held) :]),
    }
    windows = np.concatenate(
        [quantize(r.values, r.times_ms, manifest).values for r in readings.values()]
    )
    manifest = replace(
        manifest, threshold=threshold, selftest=self_tests(int8.data, windows, SELF_TESTS)
    )
    card = ModelCard.of_manifest(manifest, metrics, dataset)
    report = {
        "device_type": device_type,
        "rows": sum(len(r) for r in readings.values()),
        "windows": len(normal),
        "held_out": len(held),
        "epochs": len(losses),
        "loss": losses[-1],
        "seed": seed,
        "sha256": hashlib.sha256(int8.data).hexdigest(),
        "bytes": len(int8.data),
        "ops": list(int8.ops),
        "arena": int8.arena,
        "threshold": threshold,
        "float_threshold": float_threshold,
        "float_noise": noise.tolist(),
        "held_out_metrics": metrics,
        "float_int8_agreement": float(np.mean(float_hits == int8_hits)),
        "sealed": dataset is not None,
    }
    progress("plots", 0, 1)
    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL_FILE).write_bytes(int8.data)
    (out / FLOAT_MODEL_FILE).write_bytes(float_data)
    card.save(out)
    (out / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n")
    plot_training(out, losses, int8_normal, threshold, float_normal, float_threshold)
    return TrainingResult(out, card, report)


def float_score(scaled: npt.NDArray[np.float32], data: bytes) -> npt.NDArray[np.float64]:
    """Score windows by the model before quantization.

    Args:
        scaled: float32 [count, window, channels], in noise widths, cut off at CLIP.
        data: the float `.tflite`.
    """
    outputs = Interpreter(data).run(scaled)
    difference = outputs.astype(np.float64) - scaled.reshape(len(scaled), -1)
    total: npt.NDArray[np.float64] = np.square(difference).sum(axis=1)
    return total


def cut_scaled(
    readings: Readings, noise: npt.NDArray[np.float32], cutting: Cutting
) -> tuple[npt.NDArray[np.float32], FloatWindows]:
    """Cut a board's readings as it does; the first array is what `float_score` takes."""
    windows = cut(readings, cutting)
    return _scale(windows.values, noise), windows


def _scale(
    values: npt.NDArray[np.float32], noise: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Windows in noise widths, as the float model takes them."""
    scaled: npt.NDArray[np.float32] = np.clip(values / noise, -CLIP, CLIP).astype(np.float32)
    return scaled


def _material(
    readings: Mapping[bytes, Readings], most: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Noise widths, at most `most` windows to train on, and windows to set the threshold by."""
    parts = [rehearse(r, CUTTING, REHEARSAL_STEP, REHEARSAL_SPAN) for r in readings.values()]
    values, rehearsal = _join(parts)
    if len(values) < MIN_WINDOWS:
        raise TrainingError(
            f"training: {len(values)} windows of normal operation, at least {MIN_WINDOWS} are "
            "needed",
            f"collect more: each run of {CUTTING.calibrate + CUTTING.window} rows without a "
            "gap gives the first one",
        )
    noise = _noise(values)
    held = rehearsal % HOLD_OUT == 0
    scaled = _scale(values, noise)
    return noise, _thin(scaled[~held], most, random), _thin(scaled[held], MAX_HELD_OUT, random)


def _channels(readings: Mapping[bytes, Readings]) -> tuple[str, ...]:
    found = {r.channels for r in readings.values()}
    if len(found) != 1:
        raise TrainingError(
            f"training: {len(found)} different sets of channels",
            "train on boards that measure the same channels in the same order",
        )
    return next(iter(found))


def _join(parts: list[FloatWindows]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """All windows, and for each the number of the rehearsal that it is of."""
    numbers, first = [], 0
    for part in parts:
        numbers.append(part.segment + first)
        first += int(part.segment.max(initial=-1)) + 1
    return np.concatenate([part.values for part in parts]), np.concatenate(numbers)


def _noise(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Width of each channel's noise, from the steps between neighbouring rows."""
    steps = np.diff(values.astype(np.float64), axis=1)
    width = np.sqrt(np.mean(np.square(steps), axis=(0, 1)) / 2)
    bounded: npt.NDArray[np.float32] = np.maximum(width, MIN_NOISE).astype(np.float32)
    return bounded


def _thin(
    windows: npt.NDArray[np.float32], most: int, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    if len(windows) <= most:
        return windows
    return windows[np.sort(random.choice(len(windows), most, replace=False))]


def _fit(
    normal: npt.NDArray[np.float32], epochs: int, seed: int, progress: Progress
) -> tuple[Any, list[float]]:
    progress("train", 0, epochs)
    import keras

    # Layers are named by a count of the process, and the names are in the `.tflite`: without
    # this, the second training of a process would give other bytes than the first.
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    model = architecture.build(*normal.shape[1:])
    steps = epochs * math.ceil(len(normal) / BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(keras.optimizers.Adam(schedule), "mse")
    losses = []
    for epoch in range(epochs):
        spoilt = _spoil(normal, random)[:, :, np.newaxis, :]
        history = model.fit(spoilt, normal[:, :, np.newaxis, :], batch_size=BATCH, verbose=0)
        losses.append(float(history.history["loss"][-1]))
        progress("train", epoch + 1, epochs)
    return model, losses


def _f1(normal_hits: npt.NDArray[np.bool_], spoilt_hits: npt.NDArray[np.bool_]) -> float:
    """F1 of telling spoilt windows from normal ones."""
    found, false = int(spoilt_hits.sum()), int(normal_hits.sum())
    return 2 * found / max(1, found + false + len(spoilt_hits))


def _spoil(
    windows: npt.NDArray[np.float32],
    random: np.random.Generator,
    untouched: float = UNTOUCHED,
) -> npt.NDArray[np.float32]:
    """Put offsets onto some channels of most windows, at once or as a ramp."""
    count, length, width = windows.shape
    share = random.choice([1 / 8, 2 / 8, 4 / 8], size=(count, 1))
    touched = random.random((count, width)) < share
    touched |= np.eye(width, dtype=bool)[random.integers(width, size=count)]
    low, high = np.log(OFFSETS)
    sizes = np.exp(random.uniform(low, high, (count, width)))
    sizes *= random.choice([-1, 1], (count, width)) * touched
    begin = random.integers(-length, length, size=(count, 1))
    rise = random.integers(1, length, size=(count, 1))
    shape = np.clip((np.arange(length)[np.newaxis] - begin) / rise, 0, 1)
    shape = np.where(random.random((count, 1)) < SUDDEN, 1.0, shape)
    offsets = sizes[:, np.newaxis, :] * shape[:, :, np.newaxis]
    offsets[random.random(count) < untouched] = 0
    spoilt: npt.NDArray[np.float32] = np.clip(windows + offsets, -CLIP, CLIP).astype(np.float32)
    return spoilt


def _representative(
    normal: npt.NDArray[np.float32], random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Normal and spoilt windows, and the ends of the range, so that nothing saturates early."""
    ends = np.full_like(normal[:2], CLIP)
    ends[1] = -CLIP
    mixed = np.concatenate([normal[::2], _spoil(normal, random)[1::2]])
    random.shuffle(mixed)
    chosen = np.concatenate([ends, mixed[: REPRESENTATIVE_WINDOWS - len(ends)]])
    return chosen[:, :, np.newaxis, :]


def _quantized(scaled: npt.NDArray[np.float32], model: TfliteModel) -> npt.NDArray[np.int8]:
    levels = np.rint(scaled / model.input_scale) + model.input_zero
    quantized: npt.NDArray[np.int8] = np.clip(levels, -128, 127).astype(np.int8)
    return quantized


def _manifest(
    model: TfliteModel,
    channels: tuple[str, ...],
    device_type: str,
    noise: npt.NDArray[np.float32],
) -> Manifest:
    """The manifest but for threshold and self-tests, which need it to be found."""
    return Manifest(
        name="-",
        version=1,
        min_version=0,
        device_type=device_type,
        payload_sha256=hashlib.sha256(model.data).digest(),
        payload_size=len(model.data),
        ops=model.ops,
        arena=model.arena,
        window=CUTTING.window,
        stride=CUTTING.stride,
        channels=channels,
        max_gap_s=CUTTING.max_gap_s,
        calibrate=CUTTING.calibrate,
        input=tuple(_fixed_point(float(n) * model.input_scale, model.input_zero) for n in noise),
        score=(model.input_zero, model.output_zero, _output_factor(model)),
        threshold=0,
        of=1,
        need=1,
        selftest=(),
        time=0,
    )


def _fixed_point(step: float, zero: int) -> tuple[int, int, int]:
    """(e, m, b) with which a board turns a reading into int8 (SPEC.md, "Pre-processing").

    `step` is the reading's change per level. e is chosen so that m has about 11 bits: the
    rounding of m then shifts the ends of the range by less than a sixteenth of a level.
    """
    exponent = math.floor(6 - math.log2(step))
    exponent = max(-30, min(30, exponent))
    return exponent, round(65536 / (step * 2.0**exponent)), zero * 65536 + 32768


def _output_factor(model: TfliteModel) -> int:
    return max(1, min(2**14, round(256 * model.output_scale / model.input_scale)))
