"""Repeats what boards said of their sealed readings, and scores it against labels.

Two questions: did every board run the released model exactly as LiteRT does, and how good is
the model, before and after quantization. A label is of a row; what is said of a row is the
verdict of the first window that ends at or after it, within a stride.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fog_node.protocol.keys import kid_hex
from fog_node.protocol.manifest import Manifest

from .dataset import Dataset, SealedVerdict
from .errors import DatasetError, TrainingError
from .export import Interpreter
from .files import read_bounded
from .plots import plot_timeline
from .preprocess import quantize, score, verdicts
from .readings import Readings
from .train.anomaly import float_score
from .train.anomaly_model import AnomalyModel

MAX_LABEL_BYTES = 64 * 1024 * 1024
OUTPUT_PREFIX_BYTES = 8

Labels = Mapping[bytes, Mapping[float, bool]]


@dataclass
class Confusion:
    """Rows by what was said and what is true."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    def add(self, said: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> None:
        """Count rows."""
        self.true_positive += int((said & true).sum())
        self.false_positive += int((said & ~true).sum())
        self.false_negative += int((~said & true).sum())
        self.true_negative += int((~said & ~true).sum())

    def report(self) -> dict[str, float]:
        """F1, false-alarm rate and missed-alarm rate, of rows."""
        hits = 2 * self.true_positive
        wrong = self.false_positive + self.false_negative
        positive = self.true_positive + self.false_negative
        negative = self.false_positive + self.true_negative
        return {
            "f1": hits / (hits + wrong) if hits + wrong else 0.0,
            "false_alarm_rate": self.false_positive / negative if negative else 0.0,
            "missed_alarm_rate": self.false_negative / positive if positive else 0.0,
            "rows": positive + negative,
            "anomalous_rows": positive,
        }


def load_labels(path: Path) -> dict[bytes, dict[float, bool]]:
    """Read labels: JSON {key id: {s since 1970: true or false}}; raises DatasetError."""
    try:
        value = json.loads(read_bounded(path, MAX_LABEL_BYTES))
        return {
            bytes.fromhex(kid): {float(time): _label(label) for time, label in of_kid.items()}
            for kid, of_kid in value.items()
        }
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"{path}: is no file of labels ({error})", 'write {"key id": {"seconds": true}}'
        ) from error


def _label(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004 - as json's errors
    return value


def evaluate(
    dataset: Dataset, device_type: str, model_directory: Path, labels: Labels, out: Path | None
) -> dict[str, Any]:
    """Compare sealed verdicts with LiteRT, and score them where there are labels.

    Args:
        dataset: with readings and verdicts of the boards.
        device_type: whose boards to look at.
        model_directory: as training wrote it.
        labels: by key id and time; rows without one are not scored.
        out: where plots go, if anywhere.

    Returns:
        compared: sealed verdicts repeated; equals_litert: all of them bit by bit;
        f1_float, f1_int8 and the rest of `Confusion.report` for `int8` and `float`, None
        without labels.

    Raises:
        DatasetError: no such device type, or a damaged file.
        ReleaseError: the directory is not as training wrote it.
        TrainingError: no sealed verdict is of this model.
    """
    model = AnomalyModel.load(model_directory)
    manifest = model.board.manifest
    interpreter = Interpreter(model.board.payload)
    identity = manifest.payload_sha256[:OUTPUT_PREFIX_BYTES]
    sealed = [v for v in dataset.verdicts(device_type) if v.model == identity]
    compared, unequal = 0, 0
    int8, floats = Confusion(), Confusion()
    for kid, readings in dataset.readings(device_type).items():
        own = [v for v in sealed if v.device == kid]
        if not own:
            continue
        judged = _since_activation(readings.only(manifest.channels), own[0], manifest)
        windows = quantize(judged.values, judged.times_ms, manifest)
        outputs = interpreter.run(windows.values)
        scores = score(windows.values, outputs, manifest)
        said = verdicts(scores, windows.segment, manifest)
        compared += len(own)
        unequal += _differences(own, judged, windows.last, scores, said, outputs)
        of_board = labels.get(kid, {})
        if not of_board:
            continue
        true, known = _labels_of(judged, of_board)
        stride = manifest.stride
        int8.add(rows_judged(len(judged), windows.last, said, stride)[known], true[known])
        scaled, cut = model.cut_scaled(judged)
        hits = float_score(scaled, model.float_payload) > model.float_threshold
        floats.add(rows_judged(len(judged), cut.last, hits, stride)[known], true[known])
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            path = out / f"timeline-{kid_hex(kid)}.png"
            shaded = true[windows.last]
            plot_timeline(path, scores, manifest.threshold, shaded, f"board {kid_hex(kid)}")
    if not compared:
        raise TrainingError(
            f"evaluation: {device_type} has no sealed verdict of this model",
            "release it, let boards judge, and collect again",
        )
    by_int8, by_float = (c.report() if c.report()["rows"] else None for c in (int8, floats))
    return {
        "compared": compared,
        "equals_litert": unequal == 0,
        "unequal": unequal,
        "f1_int8": by_int8 and by_int8["f1"],
        "f1_float": by_float and by_float["f1"],
        "int8": by_int8,
        "float": by_float,
    }


def _since_activation(readings: Readings, first: SealedVerdict, manifest: Manifest) -> Readings:
    """The rows from the one on with which the board began to judge.

    A judge starts with a new segment when its model is activated; its first verdict comes
    with the row that completes calibration and a window.
    """
    whole = np.flatnonzero(np.isfinite(readings.values).all(axis=1))
    at = np.flatnonzero(readings.times[whole] == first.time)
    lead = manifest.calibrate + manifest.window - 1
    position = next((int(p) for p in at if p >= lead), None)
    start = 0 if position is None else int(whole[position - lead])
    return Readings(
        readings.times[start:],
        readings.values[start:],
        readings.channels,
        readings.sequence[start:],
        readings.sealed,
    )


def _differences(
    own: Sequence[SealedVerdict],
    readings: Readings,
    last: npt.NDArray[np.int64],
    scores: npt.NDArray[np.int64],
    said: npt.NDArray[np.bool_],
    outputs: npt.NDArray[np.int8],
) -> int:
    """How many sealed verdicts are not exactly those of LiteRT, in order; a missing one counts."""
    expected = [
        (
            float(readings.times[last[i]]),
            int(scores[i]),
            bool(said[i]),
            hashlib.sha256(outputs[i].tobytes()).digest()[:OUTPUT_PREFIX_BYTES],
        )
        for i in range(len(last))
    ]
    found = [(v.time, v.score, v.anomaly, v.output) for v in own]
    wrong = sum(a != b for a, b in zip(expected, found, strict=False))
    return wrong + abs(len(expected) - len(found))


def _labels_of(
    readings: Readings, labels: Mapping[float, bool]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Label of each row, and whether there is one."""
    known = np.array([time in labels for time in readings.times], np.bool_)
    true = np.array([labels.get(time, False) for time in readings.times], np.bool_)
    return true, known


def rows_judged(
    count: int, last: npt.NDArray[np.int64], said: npt.NDArray[np.bool_], stride: int
) -> npt.NDArray[np.bool_]:
    """What is said of each row: the verdict of the window that ends with it, or next."""
    rows = np.zeros(count, np.bool_)
    for end, anomalous in zip(last, said, strict=True):
        rows[max(0, end - stride + 1) : end + 1] = anomalous
    return rows
