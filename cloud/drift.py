"""How far what a model sees, and what it says, has moved since it was trained.

Distances are population stability indices (PSI): the reference is cut into ten equal parts, or as
many as it has values for, and the shares of recent rows in these are compared with its own,
sum((q - p) ln(q / p)). By the rule of thumb of credit scoring, where it comes from, below 0.1 is
nothing, above 0.25 a shift. What is compared are the model's own inputs, after each board's
calibration: a board that runs at another level since it was started anew has not drifted, for the
model does not see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fog_node.protocol.manifest import Manifest
from fog_node.protocol.predictions import Measure

from .errors import TrainingError
from .export import Interpreter
from .preprocess import quantize, score, verdicts
from .readings import Readings

STATISTIC = "psi"
VERDICTS = "verdicts"
LIMIT = 0.25
BINS = 10
# Of fewer, the index says more about chance than about the boards.
MIN_ROWS = 500
MIN_WINDOWS = 50
# A part that nothing fell into counts as this many; the index has no value for 0.
_ABSENT = 0.5


@dataclass(frozen=True)
class Seen:
    """What a model sees and says.

    Attributes:
        inputs: int8 [n, channels]; each row once, as it is shown to the network.
        anomalous: bool [windows], the verdicts.
    """

    inputs: npt.NDArray[np.int8] = field(repr=False)
    anomalous: npt.NDArray[np.bool_] = field(repr=False)


def seen(readings: Mapping[bytes, Readings], manifest: Manifest, payload: bytes) -> Seen:
    """Let a model judge the readings of boards, as they would.

    Args:
        readings: by key id, with all of the manifest's channels.
        manifest: of the release.
        payload: its `.tflite`.
    """
    inputs, said = [], []
    network = Interpreter(payload)
    for rows in readings.values():
        own = rows.only(manifest.channels)
        windows = quantize(own.values, own.times_ms, manifest)
        if not len(windows.values):
            continue
        # Windows overlap: of each, the rows that the one before it had not.
        fresh = windows.values[:, -min(manifest.stride, manifest.window) :]
        inputs.append(fresh.reshape(-1, fresh.shape[2]))
        scores = score(windows.values, network.run(windows.values), manifest)
        said.append(verdicts(scores, windows.segment, manifest))
    channels = len(manifest.channels)
    return Seen(
        np.concatenate([np.zeros((0, channels), np.int8), *inputs]),
        np.concatenate([np.zeros(0, np.bool_), *said]),
    )


def measure(reference: Seen, recent: Seen, manifest: Manifest, limit: float) -> tuple[Measure, ...]:
    """Compare what was with what is.

    Args:
        reference: of the readings that the model was trained on.
        recent: of later ones.
        manifest: names the channels.
        limit: above it, something has moved.

    Returns:
        A measure for each channel, and one of the verdicts; rising by name.

    Raises:
        TrainingError: either has too few rows to say anything.
    """
    for what, one in (("trained on", reference), ("recent", recent)):
        if len(one.inputs) < MIN_ROWS or len(one.anomalous) < MIN_WINDOWS:
            raise TrainingError(
                f"drift: {len(one.inputs)} rows in {len(one.anomalous)} windows that are {what}, "
                f"{MIN_ROWS} in {MIN_WINDOWS} are needed",
                "look again when boards have sent more, or over a longer time",
            )
    distances = {
        channel: stability_index(reference.inputs[:, at], recent.inputs[:, at])
        for at, channel in enumerate(manifest.channels)
    }
    distances[VERDICTS] = _index(
        *(np.bincount(each.anomalous, minlength=2) for each in (reference, recent))
    )
    return tuple(Measure(name, value, limit) for name, value in sorted(distances.items()))


def stability_index(reference: npt.NDArray[np.int8], recent: npt.NDArray[np.int8]) -> float:
    """The population stability index of one quantity, 0 or above."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    return _index(
        *(
            np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
            for values in (reference, recent)
        )
    )


def _index(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    """Of the numbers of rows in each part; what neither has does not count."""
    counts = np.stack([one, other]).astype(np.float64)[:, one + other > 0]
    counts = np.maximum(counts, _ABSENT)
    before, now = counts / counts.sum(axis=1, keepdims=True)
    return float(np.sum((now - before) * np.log(now / before)))
