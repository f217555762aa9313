"""A run's model as fog nodes run it: the directory that `cloud.train.rul` reads, in int8.

Made where TensorFlow is (the extra `cloud`), which sites and trainer do not need for the run. The
ranges of int8, the interval's margin and the means of the simplest methods are measured on machines
that were given for that: sites' readings stay at the sites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ExportError, ModelError, TrainingError
from cloud.export import FOG_NODE, TfliteModel, to_float_tflite, to_int8_tflite
from cloud.intervals import bootstrap
from cloud.model_files import check_task, write_card, written_whole
from cloud.train.rul import FLOAT_FILE, INT8_FILE, TASK, rmse
from cloud.train.rul_baselines import Means
from cloud.train.rul_features import Preparation
from cloud.train.rul_network import CAP, estimate, judged, margin_of

from .network import Arrays, told
from .run_files import RoundRecord, RunFiles
from .site import read_site

# Root mean squared error that int8 may cost; a point of the task's metric.
MAX_LOSS_CYCLES = 1.0
# Between NumPy and LiteRT, both in floats.
MAX_DIFFERENCE_CYCLES = 0.01


def make(run: Path, data: Path, out: Path, overruled_by: str | None = None) -> dict[str, Any]:
    """Write the model's directory.

    Args:
        run: directory of the run; its last whole round counts.
        data: machines that ran until they failed and that no site learns from.
        out: directory to write.
        overruled_by: who accepts that int8 loses more than a cycle.

    Returns:
        The report: the card without what only programs read.

    Raises:
        ModelError: there is no round, a file of the run is damaged, or another task's model lies
            where this one is to go.
        RecordingError, TrainingError: machines are not as they must be.
        ExportError: int8 loses more, or LiteRT says something else than what was trained.
    """
    check_task(out, TASK)
    files = RunFiles(run)
    settings, records, scales = files.settings(), files.rounds(), files.preparation()
    if not records or scales is None:
        raise ModelError(f"{run}: has no round yet", "go on with the run first")
    arrays, preparation = files.model(records[-1]), Preparation.of_card(scales)
    units = read_site(data)
    features, left = preparation.features(units), units.left()
    rows = judged(left, units.cycle)
    if not rows.any():
        raise TrainingError(
            f"{units.path}: no machine was seen for long enough to judge by",
            "give machines with more cycles",
        )
    true = np.minimum(left, CAP)[rows]
    order = np.random.default_rng(settings.seed).permutation(len(features))
    float_data, int8 = _converted(arrays, features[order])
    said = told(arrays, features)[rows]
    margin = margin_of(said, true)
    plain = estimate(float_data, features[rows], margin)
    quantized = estimate(int8.data, features[rows], margin)
    differs = float(np.abs(plain.left - np.clip(said[:, 0], 0, CAP)).max())
    if differs > MAX_DIFFERENCE_CYCLES:
        raise ExportError(
            f"{run}: LiteRT says {differs:.3f} cycles else than what was trained",
            "see that TensorFlow and LiteRT are of the versions of requirements.txt",
        )
    loss = rmse(quantized.left, true) - rmse(plain.left, true)
    if loss > MAX_LOSS_CYCLES and overruled_by is None:
        raise ExportError(
            f"{run}: int8 loses {loss:.2f} cycles, at most {MAX_LOSS_CYCLES:g} are allowed",
            "give more machines to measure the ranges by, or have somebody overrule it by name",
        )
    last = records[-1]
    report = {
        "task": TASK,
        "trained_on": f"run {settings.run}",
        "sealed": False,
        "seed": settings.seed,
        "cap": CAP,
        "margin": margin,
        "means": Means.of(left, units.cycle).card(),
        "measured_on": units.path.name,
        "measured_on_sha256": hashlib.sha256(units.path.read_bytes()).hexdigest(),
        "units": len(units.ends),
        "rows": int(rows.sum()),
        **bootstrap(
            rmse, quantized.left, true, groups=units.unit[rows], seed=settings.seed, repeats=200
        ).row("rmse_int8"),
        "rmse_float": rmse(plain.left, true),
        "int8_loss": loss,
        "held": float(((quantized.low <= true) & (true <= quantized.high)).mean()),
        "int8_bytes": len(int8.data),
        "int8_ops": list(int8.ops),
        "int8_arena": int8.arena,
        "run": settings.run,
        "strategy": settings.strategy,
        "secure": settings.masks is not None,
        "rounds": len(records),
        "sites": sorted({site.site for record in records for site in record.sites}),
        "epsilon": last.epsilon,
        "delta": last.delta,
        "model_sha256": last.after,
    }
    if overruled_by is not None:
        report["overruled_by"] = overruled_by
    with written_whole(out) as new:
        (new / INT8_FILE).write_bytes(int8.data)
        (new / FLOAT_FILE).write_bytes(float_data)
        write_card(new, report | {"preparation": scales, "lineage": _lineage(records)})
    return report


def _lineage(records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Who took part in which round, and the hash of the model after each."""
    return {
        "before": records[0].before,
        "members": {site.site: site.member for record in records for site in record.sites},
        "after": [record.after for record in records],
        "took_part": [[site.site for site in record.sites] for record in records],
    }


def _converted(
    arrays: Arrays, representative: npt.NDArray[np.float32]
) -> tuple[bytes, TfliteModel]:
    """The network in floats and in int8."""
    network = _keras(arrays)
    return to_float_tflite(network), to_int8_tflite(network, representative, FOG_NODE)


def _keras(arrays: Arrays) -> Any:
    """The same network of plain layers, as TensorFlow converts them."""
    import keras

    layers = keras.layers
    given = hidden = keras.Input((arrays[0].shape[0],))
    for at in range(0, len(arrays), 2):
        kernel, bias = arrays[at : at + 2]
        is_last = at + 2 == len(arrays)
        dense = layers.Dense(len(bias), activation="linear" if is_last else "relu")
        hidden = dense(hidden)
        dense.set_weights([kernel, bias])
    return keras.Model(given, hidden)
