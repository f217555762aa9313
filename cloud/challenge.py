"""Whether a new model beats the running one, on sealed readings that neither was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fog_node.protocol.manifest import Manifest

from .errors import TrainingError
from .evaluate import Confusion
from .export import Interpreter
from .preprocess import quantize, score, verdicts
from .readings import Readings
from .train.anomaly_model import BoardModel

# F1 by which a new model must be better; less than that comes and goes with the seed.
MIN_GAIN = 0.01
MIN_WINDOWS = 50
# Copies of the held-out rows with made-up faults, where engineers have labelled none.
COPIES = 8
# Noise widths; those of `train.anomaly`, where models are told good from bad the same way.
OFFSETS = (0.3, 20.0)
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True)
class Challenge:
    """How two models do on the same readings.

    Attributes:
        basis: "labels" of engineers, or "made-up faults" where they have labelled none.
        running, new: figures of `evaluate.Confusion.report`, of windows.
    """

    basis: str
    running: dict[str, float]
    new: dict[str, float]

    @property
    def is_won(self) -> bool:
        """Whether the new model is better by MIN_GAIN at least."""
        return self.new["f1"] >= self.running["f1"] + MIN_GAIN

    def report(self) -> dict[str, Any]:
        """As a command shows it."""
        return {
            "basis": self.basis,
            "running": self.running,
            "new": self.new,
            "won": self.is_won,
        }


def challenge(
    running: BoardModel, new: BoardModel, held_out: Mapping[bytes, Readings], seed: int
) -> Challenge:
    """Let both judge readings that neither was trained on.

    Args:
        running: the model that boards have; `new`: that which may follow it.
        held_out: by key id, `excluded` where engineers say that a row is not normal.
        seed: of the made-up faults.

    Raises:
        TrainingError: the readings do not make enough windows for both.
    """
    has_labels = any(r.excluded is not None and r.excluded.any() for r in held_out.values())
    results = []
    for contender in (running, new):
        # The same faults for both.
        counted = _judge(contender, held_out, None if has_labels else np.random.default_rng(seed))
        found = counted.report()
        if min(found["rows"] - found["anomalous_rows"], found["anomalous_rows"]) < MIN_WINDOWS:
            raise TrainingError(
                f"held-out readings: make {found['rows']:.0f} windows, of them "
                f"{found['anomalous_rows']:.0f} anomalous; {MIN_WINDOWS} of either are needed",
                "hold out more, or label more of them",
            )
        results.append(found)
    return Challenge("labels" if has_labels else "made-up faults", *results)


def _judge(
    contender: BoardModel,
    held_out: Mapping[bytes, Readings],
    random: np.random.Generator | None,
) -> Confusion:
    found = Confusion()
    network = Interpreter(contender.payload)
    for kid in sorted(held_out):
        rows = held_out[kid]
        truth = np.zeros(len(rows), np.bool_) if rows.excluded is None else rows.excluded
        _add(found, contender.manifest, network, rows, truth)
        if random is None:
            continue
        for _ in range(COPIES):
            spoilt, faulty = _spoil(rows, contender.manifest.calibrate, random)
            _add(found, contender.manifest, network, replace(rows, values=spoilt), faulty)
    return found


def _add(
    found: Confusion,
    manifest: Manifest,
    network: Interpreter,
    rows: Readings,
    truth: npt.NDArray[np.bool_],
) -> None:
    """Count windows; one is anomalous when its last row is."""
    windows = quantize(rows.only(manifest.channels).values, rows.times_ms, manifest)
    if not len(windows.values):
        return
    scores = score(windows.values, network.run(windows.values), manifest)
    found.add(verdicts(scores, windows.segment, manifest), truth[windows.last])


def _spoil(
    rows: Readings, spared: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Put a lasting offset on some channels from some row on, after the calibration."""
    values = rows.values.copy()
    faulty = np.zeros(len(rows), np.bool_)
    if len(rows) <= spared + 1:
        return values, faulty
    start = int(random.integers(spared, len(rows)))
    steps = np.abs(np.diff(values, axis=0))
    noise = _MAD_TO_DEVIATION * np.nanmedian(steps, axis=0) / np.sqrt(2)
    touched = np.asarray(random.random(values.shape[1]) < random.uniform(0.2, 1.0))
    touched[random.integers(values.shape[1])] = True
    low, high = np.log(OFFSETS)
    sizes = np.exp(random.uniform(low, high, values.shape[1]))
    signs = random.choice([-1.0, 1.0], values.shape[1])
    values[start:] += (noise * sizes * signs * touched).astype(np.float32)
    faulty[start:] = True
    return values, faulty
