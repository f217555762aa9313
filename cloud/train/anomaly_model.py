"""A trained detector of anomalies, read from its directory and run as boards run it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloud.errors import DatasetError, RecordingError, ReleaseError
from cloud.export import Interpreter
from cloud.model_card import MODEL_FILE, ModelCard, read_model_file
from cloud.preprocess import Windows, quantize, score
from cloud.readings import Readings
from cloud.windows import Cutting, FloatWindows
from fog_node.protocol.manifest import MAX_PAYLOAD_BYTES, Manifest

from .anomaly import FLOAT_MODEL_FILE, REPORT_FILE, cut_scaled

MAX_REPORT_BYTES = 1024 * 1024
# A float32 takes four times what an int8 takes.
MAX_FLOAT_MODEL_BYTES = 4 * MAX_PAYLOAD_BYTES


@dataclass(frozen=True)
class BoardModel:
    """What boards get of a model.

    Attributes:
        manifest: as of a release.
        payload: the int8 `.tflite`.
    """

    manifest: Manifest
    payload: bytes = field(repr=False)

    @classmethod
    def load(cls, directory: Path) -> BoardModel:
        """Read a model's directory; raises ReleaseError."""
        card = ModelCard.load(directory)
        payload = _read_model(directory / MODEL_FILE, MAX_PAYLOAD_BYTES)
        return cls(card.manifest("-", card.min_version + 1, payload, 0), payload)

    def judge(self, readings: Readings, name: str) -> tuple[Windows, npt.NDArray[np.int64]]:
        """The windows of a recording, and the score of each.

        Raises:
            RecordingError: other channels than the model's, of the recording called `name`.
        """
        try:
            readings = readings.only(self.manifest.channels)
        except DatasetError as error:
            raise RecordingError(
                f"{name}: has the channels {', '.join(readings.channels)}, not the model's "
                f"{', '.join(self.manifest.channels)}",
                "train on recordings like it",
            ) from error
        windows = quantize(readings.values, readings.times_ms, self.manifest)
        outputs = Interpreter(self.payload).run(windows.values)
        return windows, score(windows.values, outputs, self.manifest)


@dataclass(frozen=True)
class AnomalyModel:
    """The same, and what it is held against: the network in floats, and its input alone.

    Attributes:
        least, wander: of each channel, float32; see `anomaly.Scaling`.
        float_threshold, plain_threshold: above which `anomaly.float_score` and
            `anomaly.plain_score` are anomalies.
        learned_from: SHA-256 of the recordings that it was trained on, in hex.
    """

    board: BoardModel
    float_payload: bytes = field(repr=False)
    float_threshold: float
    plain_threshold: float
    least: npt.NDArray[np.float32] = field(repr=False)
    wander: npt.NDArray[np.float32] = field(repr=False)
    learned_from: frozenset[str] = field(repr=False)

    @classmethod
    def load(cls, directory: Path) -> AnomalyModel:
        """Read a model's directory; raises ReleaseError."""
        board = BoardModel.load(directory)
        float_payload = _read_model(directory / FLOAT_MODEL_FILE, MAX_FLOAT_MODEL_BYTES)
        path = directory / REPORT_FILE
        try:
            report = json.loads(read_model_file(path, MAX_REPORT_BYTES))
            return cls(
                board=board,
                float_payload=float_payload,
                float_threshold=float(report["float_threshold"]),
                plain_threshold=float(report["plain_threshold"]),
                least=np.array(report["float_least"], np.float32),
                wander=np.array(report["float_wander"], np.float32),
                learned_from=frozenset(map(str, report["learned_from"])),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ReleaseError(
                f"{path}: is not a training report ({error!r})", "train again; training writes it"
            ) from error

    def cut_scaled(self, readings: Readings) -> tuple[npt.NDArray[np.float32], FloatWindows]:
        """Windows as the float network takes them, of its channels; see `anomaly.cut_scaled`."""
        cutting = Cutting.of_manifest(self.board.manifest)
        own = readings.only(self.board.manifest.channels)
        return cut_scaled(own, self.least, self.wander, cutting)


def _read_model(path: Path, max_bytes: int) -> bytes:
    data = read_model_file(path, max_bytes)
    try:
        Interpreter(data)
    except (RuntimeError, ValueError) as error:  # whatever LiteRT finds wrong with it
        raise ReleaseError(f"{path}: is no model ({error})", "train again") from error
    return data
