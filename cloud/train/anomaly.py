"""Anomalies in multi-sensor readings: an auto-encoder for the boards themselves.

A window is compared with what the network gives back (see `architecture`). Boards take off their
own mean during calibration, and divide by their own deviation; how far a channel wanders from there
in normal operation, in such deviations, is learned: temperatures drift by many, vibrations hardly.
The threshold is set without labels, from rehearsals of normal operation that are kept out of the
training (other rehearsals share some of their rows, with another calibration).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
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
from cloud.model_card import CARD_FILE, MODEL_FILE, ModelCard
from cloud.model_files import written_whole
from cloud.plots import plot_training
from cloud.preprocess import score
from cloud.readings import Readings
from cloud.windows import Cutting, FloatWindows, cut, deviations, rehearse
from fog_node.protocol.manifest import Manifest
from fog_node.protocol.transactions import DatasetReference

from . import architecture
from .experiment_log import Scalar, experiment_log
from .job import Progress

# Window, drift, offsets, quantiles and what the network is to learn were chosen on the development
# half of SKAB (cloud/README.md).
CUTTING = Cutting(window=48, stride=8, calibrate=400, max_gap_s=300)
FLOAT_MODEL_FILE = "model_float.tflite"
REPORT_FILE = "report.json"
# Inputs are what their channel wanders, cut off where it cannot be called normal any more.
CLIP = 8.0
MIN_DEVIATION = 1e-6
# A deviation this much below the median one is taken for a sensor that stood still.
LEAST_DEVIATION = 1 / 8
MIN_WANDER = 0.05
# Of the runs of rows, the middle one decides what a channel wanders.
WANDER_QUANTILE = 0.5
# Boards may be switched on at any row; one in so many is rehearsed, for so many rows each. A
# rehearsal calibrates for fewer rows than boards do, so that short recordings give some.
REHEARSAL_STEP = 10
REHEARSAL_SPAN = 700
REHEARSAL_CALIBRATE = 200
# Most of normal operation is not in a recording: levels and slopes within a window vary by so much
# more in training, in what a channel wanders.
DRIFT = 4.0
DRIFT_SLOPE = 0.5
MIN_WINDOWS = 100
MAX_WINDOWS = 12_000
QUICK_WINDOWS = 6_000
EPOCHS = 16
QUICK_EPOCHS = 14
BATCH = 64
LEARNING_RATE = 2e-3
# One rehearsal in so many is kept out of training, to set the threshold by.
HOLD_OUT = 5
MAX_HELD_OUT = 6_000
# Share of normal windows that may raise an alarm, unless another is asked for.
FALSE_ALARMS = 0.05
SELF_TESTS = 4
# What is put onto normal windows: offsets of so much wandering, in some of the channels.
OFFSETS = (1.0, 20.0)
UNTOUCHED = 0.4
UNTOUCHED_HELD_OUT = 0.0
SUDDEN = 0.6


@dataclass(frozen=True)
class Scaling:
    """What is learned of each channel before the network is; float32 [channels] each.

    Attributes:
        least: the least deviation that is believed, in the channel's unit.
        typical: the median deviation, in the channel's unit.
        wander: how far means of windows are from the calibration's, in deviations.
        largest: the largest reading, without its sign.
    """

    least: npt.NDArray[np.float32]
    typical: npt.NDArray[np.float32]
    wander: npt.NDArray[np.float32]
    largest: npt.NDArray[np.float32]


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
    false_alarms: float | None = None,
    cutting: Cutting | None = None,
    learned_from: Sequence[str] = (),
    where: str = "training",
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
        false_alarms: share of normal windows that may be above the threshold; None: FALSE_ALARMS.
        cutting: how boards are to cut their readings; None: CUTTING.
        learned_from: SHA-256 of recordings, in hex, so that it is not measured on them.
        where: what errors name.

    Raises:
        TrainingError: too little data, or boards that measure different channels.
        ExportError: the network is not one that boards can run.
    """
    channels, still = _channels(readings, where)
    readings = {board: rows.only(channels) for board, rows in readings.items()}
    progress("windows", 0, 1)
    random = np.random.default_rng(seed)
    most = QUICK_WINDOWS if quick else MAX_WINDOWS
    cutting = cutting or CUTTING
    alarms = FALSE_ALARMS if false_alarms is None else false_alarms
    share = 1 - alarms
    scaling, normal, held, weights = _material(readings, cutting, most, random, where)
    with experiment_log(out) as note:
        model, losses = _fit(normal, QUICK_EPOCHS if quick else EPOCHS, seed, progress, note)
    progress("quantize", 0, 1)
    float_data = to_float_tflite(model)
    int8 = to_int8_tflite(model, _representative(normal, random))
    progress("calibrate", 0, 1)
    manifest = _manifest(int8, channels, device_type, scaling, cutting)
    # As they are, and with offsets: what is normal sets the threshold; how well either is told
    # from the other, before and after quantization, is what the release is judged by.
    mixed = np.concatenate([held, _spoil(held, random, UNTOUCHED_HELD_OUT)])
    float_scores = float_score(mixed, float_data)
    quantized = _quantized(mixed, int8)
    int8_scores = score(quantized, Interpreter(int8.data).run(quantized), manifest)
    float_normal, int8_normal = float_scores[: len(held)], int8_scores[: len(held)]
    threshold = int(_quantile(int8_normal, weights, share))
    float_threshold = float(_quantile(float_normal, weights, share))
    float_hits, int8_hits = float_scores > float_threshold, int8_scores > threshold
    metrics = {
        "f1_float": _f1(float_hits[: len(held)], float_hits[len(held) :]),
        "f1_int8": _f1(int8_hits[: len(held)], int8_hits[len(held) :]),
    }
    manifest = replace(
        manifest,
        threshold=threshold,
        selftest=self_tests(int8.data, quantized[: len(held)], SELF_TESTS),
    )
    card = ModelCard.of_manifest(manifest, metrics, dataset)
    report = {
        "device_type": device_type,
        "channels": list(channels),
        "left_out": still,
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
        "false_alarms": alarms,
        "threshold": threshold,
        "float_threshold": float_threshold,
        "plain_threshold": float(_quantile(plain_score(held), weights, share)),
        "float_least": scaling.least.tolist(),
        "float_wander": scaling.wander.tolist(),
        "held_out_metrics": metrics,
        "float_int8_agreement": float(np.mean(float_hits == int8_hits)),
        "sealed": dataset is not None,
        "learned_from": list(learned_from),
    }
    progress("plots", 0, 1)
    with written_whole(out, CARD_FILE) as new:
        (new / MODEL_FILE).write_bytes(int8.data)
        (new / FLOAT_MODEL_FILE).write_bytes(float_data)
        (new / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n")
        card.save(new)
    plot_training(out, losses, int8_normal, threshold, float_normal, float_threshold)
    return TrainingResult(out, card, report)


def float_score(scaled: npt.NDArray[np.float32], data: bytes) -> npt.NDArray[np.float64]:
    """Score windows by the model before quantization.

    Args:
        scaled: float32 [count, window, channels], in what is normal, cut off at CLIP.
        data: the float `.tflite`.
    """
    outputs = Interpreter(data).run(scaled)
    difference = outputs.astype(np.float64) - scaled.reshape(len(scaled), -1)
    total: npt.NDArray[np.float64] = np.square(difference).sum(axis=1)
    return total


def plain_score(scaled: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Score windows without a network: squares of the channels' means, added."""
    total: npt.NDArray[np.float64] = np.square(scaled.astype(np.float64).mean(axis=1)).sum(axis=1)
    return total


def cut_scaled(
    readings: Readings,
    least: npt.NDArray[np.float32],
    wander: npt.NDArray[np.float32],
    cutting: Cutting,
) -> tuple[npt.NDArray[np.float32], FloatWindows]:
    """Cut a board's readings as it does; the first array is what `float_score` takes."""
    windows = cut(readings, cutting, least)
    return _scale(windows.values, wander), windows


def _scale(
    values: npt.NDArray[np.float32], wander: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Windows of deviations as the float model takes them."""
    scaled: npt.NDArray[np.float32] = np.clip(values / wander, -CLIP, CLIP).astype(np.float32)
    return scaled


def _material(
    readings: Mapping[bytes, Readings],
    cutting: Cutting,
    most: int,
    random: np.random.Generator,
    where: str,
) -> tuple[Scaling, npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Scaling, at most `most` windows to train on, and windows to set the threshold by.

    The last array is what each of the latter weighs: all runs of rows as much as each other, so
    that one long recording does not decide alone.
    """
    cutting = replace(cutting, calibrate=REHEARSAL_CALIBRATE)
    found = np.concatenate([deviations(r, cutting, REHEARSAL_STEP) for r in readings.values()])
    if len(found):
        typical = np.maximum(np.median(found, axis=0), MIN_DEVIATION)
    else:
        typical = np.ones(found.shape[1])
    least = (typical * LEAST_DEVIATION).astype(np.float32)
    parts = [rehearse(r, cutting, REHEARSAL_STEP, REHEARSAL_SPAN, least) for r in readings.values()]
    values, rehearsal = _join([part.values for part in parts], [part.segment for part in parts])
    if len(values) < MIN_WINDOWS:
        raise TrainingError(
            f"{where}: {len(values)} windows of normal operation, at least {MIN_WINDOWS} are "
            "needed",
            f"collect more: each run of {cutting.calibrate + cutting.window} rows without a "
            "gap or a step back in time gives the first one",
        )
    _, source = _join([part.values for part in parts], [part.source for part in parts])
    largest = [np.abs(r.values[np.isfinite(r.values).all(axis=1)]) for r in readings.values()]
    scaling = Scaling(
        least=least,
        typical=typical.astype(np.float32),
        wander=_wander(values, source),
        largest=np.concatenate(largest).max(axis=0),
    )
    held = np.flatnonzero(rehearsal % HOLD_OUT == 0)
    if len(held) > MAX_HELD_OUT:
        held = np.sort(random.choice(held, MAX_HELD_OUT, replace=False))
    weights = 1 / np.bincount(source[held])[source[held]]
    scaled = _scale(values, scaling.wander)
    normal = _thin(scaled[rehearsal % HOLD_OUT != 0], most, random)
    return scaling, normal, scaled[held], weights


def _quantile(scores: npt.NDArray[Any], weights: npt.NDArray[np.float64], share: float) -> Any:
    """The score that this share of the weight lies at or below."""
    order = np.argsort(scores, kind="stable")
    total = np.cumsum(weights[order])
    return scores[order][np.searchsorted(total, share * total[-1])]


def _channels(
    readings: Mapping[bytes, Readings], where: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The channels that can be learned from, and why each other one cannot.

    What stands still has no deviation to measure by how far it may wander.
    """
    found = {r.channels for r in readings.values()}
    if len(found) != 1:
        raise TrainingError(
            f"{where}: {len(found)} different sets of channels",
            "train on boards that measure the same channels in the same order",
        )
    (channels,) = found
    still = {}
    for at, name in enumerate(channels):
        most = max(_different(r, at) for r in readings.values())
        if most < 2:
            still[name] = "never changes" if most else "is never there"
    if len(still) == len(channels):
        told = ", ".join(f"{name} {why}" for name, why in still.items())
        raise TrainingError(
            f"{where}: no channel can be learned from: {told}",
            "give readings of sensors that work",
        )
    return tuple(name for name in channels if name not in still), still


def _different(readings: Readings, at: int) -> int:
    """How many different values a channel has in normal operation, counted up to two."""
    values = readings.values[:, at]
    if readings.excluded is not None:
        values = values[~readings.excluded]
    values = values[np.isfinite(values)]
    return min(len(values), 1 + bool((values != values[:1]).any()))


def _join(
    values: list[npt.NDArray[np.float32]], parts: list[npt.NDArray[np.int64]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """All windows, and the number of each, counted on from board to board."""
    numbers, first = [], 0
    for part in parts:
        numbers.append(part + first)
        first += int(part.max(initial=-1)) + 1
    return np.concatenate(values), np.concatenate(numbers)


def _wander(
    values: npt.NDArray[np.float32], source: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """How far means of windows are from the calibration's, by the median of runs of rows."""
    squares = np.square(values.astype(np.float64).mean(axis=1))
    found = [squares[source == number].mean(axis=0) for number in np.unique(source)]
    widest: npt.NDArray[np.float32] = np.sqrt(np.quantile(found, WANDER_QUANTILE, axis=0)).astype(
        np.float32
    )
    return np.maximum(widest, np.float32(MIN_WANDER))


def _thin(
    windows: npt.NDArray[np.float32], most: int, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    if len(windows) <= most:
        return windows
    return windows[np.sort(random.choice(len(windows), most, replace=False))]


def _fit(
    normal: npt.NDArray[np.float32], epochs: int, seed: int, progress: Progress, note: Scalar
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
        drifted = _drift(normal, random)
        spoilt = _spoil(drifted, random)[:, :, np.newaxis, :]
        wanted = (drifted - _level(drifted))[:, :, np.newaxis, :]
        history = model.fit(spoilt, wanted, batch_size=BATCH, verbose=0)
        losses.append(float(history.history["loss"][-1]))
        note("loss", losses[-1], epoch)
        progress("train", epoch + 1, epochs)
    return model, losses


def _f1(normal_hits: npt.NDArray[np.bool_], spoilt_hits: npt.NDArray[np.bool_]) -> float:
    """F1 of telling spoilt windows from normal ones."""
    found, false = int(spoilt_hits.sum()), int(normal_hits.sum())
    return 2 * found / max(1, found + false + len(spoilt_hits))


def _level(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The straight line through each channel of each window."""
    time = np.linspace(-1, 1, windows.shape[1], dtype=np.float32)[:, np.newaxis]
    slope = (windows * time).sum(axis=1, keepdims=True) / np.square(time).sum()
    line: npt.NDArray[np.float32] = windows.mean(axis=1, keepdims=True) + slope * time
    return line


def _drift(
    windows: npt.NDArray[np.float32], random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Let channels wander somewhat further, each by itself, as they may in normal operation."""
    count, length, width = windows.shape
    share = random.uniform(0, DRIFT, (count, 1, width))
    level = random.normal(size=(count, 1, width)) * share
    slope = random.normal(0, DRIFT_SLOPE, (count, 1, width))
    drifted = windows + level + slope * np.linspace(-0.5, 0.5, length)[:, np.newaxis]
    clipped: npt.NDArray[np.float32] = np.clip(drifted, -CLIP, CLIP).astype(np.float32)
    return clipped


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
    scaling: Scaling,
    cutting: Cutting,
) -> Manifest:
    """The manifest but for threshold and self-tests, which need it to be found."""
    exponents = [
        _exponent(float(typical), float(largest))
        for typical, largest in zip(scaling.typical, scaling.largest, strict=True)
    ]
    return Manifest(
        name="-",
        version=1,
        min_version=0,
        device_type=device_type,
        payload_sha256=hashlib.sha256(model.data).digest(),
        payload_size=len(model.data),
        ops=model.ops,
        arena=model.arena,
        window=cutting.window,
        stride=cutting.stride,
        channels=channels,
        max_gap_s=cutting.max_gap_s,
        calibrate=cutting.calibrate,
        input=tuple(
            (e, _multiplier(float(wander) * model.input_scale), model.input_zero * 65536 + 32768)
            for e, wander in zip(exponents, scaling.wander, strict=True)
        ),
        score=(model.input_zero, model.output_zero, _output_factor(model)),
        threshold=0,
        of=1,
        need=1,
        selftest=(),
        time=0,
        spread=tuple(
            max(1, int(float(least) * 2.0**e))
            for e, least in zip(exponents, scaling.least, strict=True)
        ),
    )


def _exponent(deviation: float, largest: float) -> int:
    """The e of a channel (SPEC.md, "Pre-processing"), with which 2**e is one in fixed point.

    A usual deviation has eight bits then, so that rounding it down shifts the ends of the range by
    less than a level; readings twice as large as any in the training are not cut off.
    """
    fine = math.floor(8 - math.log2(deviation))
    room = math.floor(29 - math.log2(largest)) if largest else fine
    return max(-30, min(30, fine, room))


def _multiplier(step: float) -> int:
    """The m of a channel, before it is divided by the deviation; `step`: deviations per level."""
    return max(1, min(2**31 - 1, round(65536 / step)))


def _output_factor(model: TfliteModel) -> int:
    return max(1, min(2**14, round(256 * model.output_scale / model.input_scale)))
