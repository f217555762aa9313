"""Anomalies in recordings: training, prediction, and the protocol of SKAB with baselines beside it.

The network for boards is trained on normal operation alone: recordings without labels, and the rows
of each experiment that the protocol allows to fit to. See `anomaly` for what is trained, and
`anomaly_nab` for what is done with a file of the Numenta Anomaly Benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import RecordingError, ReleaseError
from cloud.evaluate import rows_judged
from cloud.export import Interpreter
from cloud.intervals import bootstrap
from cloud.model_card import MODEL_FILE, ModelCard, read_bounded
from cloud.plots import plot_timeline
from cloud.preprocess import quantize, score, verdicts
from cloud.readings import Readings
from cloud.tables import write_table
from cloud.windows import Cutting
from fog_node.protocol.manifest import MAX_PAYLOAD_BYTES, Manifest

from . import anomaly, anomaly_nab
from .anomaly_baselines import ALL, DETECTORS, PUBLISHED
from .anomaly_data import FIT_ROWS, Experiment, read_recordings, require_to_judge
from .job import Job
from .thresholds import f1

TASK = "anomaly"
DEVICE_TYPE = "recorded"
# The share with the highest F1 on the development half of SKAB, where half of all rows are faults.
FALSE_ALARMS = 0.2
INT8, FLOAT = "network for boards, int8", "the same network, float"
LATE = "network for boards, int8, told half a window later"
PLAIN = "the same scaling, squared means of windows, no network"
PUBLISHED_FIGURES = {"F1 0.78: Conv-AE fitted to each experiment, all 35 of them": 0.78}
_PREDICTED = ("file", "line", "time", "score", "anomaly")

Flags = npt.NDArray[np.bool_]


def train(data: Path, job: Job) -> dict[str, Any]:
    """Train on all normal operation of a file or folder and write the model's directory.

    That is recordings without labels, and the rows that the protocol allows to fit to.

    Returns:
        The report; see `anomaly.train`.

    Raises:
        RecordingError, TrainingError, ExportError.
    """
    if anomaly_nab.is_nab(data):
        return anomaly_nab.train(data, job, job.out).report
    recordings = read_recordings(data)
    normal = recordings.normal(recordings.experiments)
    return _train(normal, job, job.out).report


def predict(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Write a CSV file: what a board would say of each window, at the line that completes it.

    Raises:
        RecordingError, ReleaseError.
    """
    manifest, payload = _load(model)
    parts = _by_name(data)
    interpreter = Interpreter(payload)
    rows = []
    for name, readings in sorted(parts.items()):
        if readings.channels != manifest.channels:
            raise RecordingError(f"{name}: has other channels than the model", "train on these")
        cut = quantize(readings.values, readings.times_ms, manifest)
        scores = score(cut.values, interpreter.run(cut.values), manifest)
        said = verdicts(scores, cut.segment, manifest)
        for at, last in enumerate(cut.last):
            line, time = int(readings.sequence[last]), f"{readings.times[last]:.3f}"
            rows.append((name, line, time, int(scores[at]), int(said[at])))
    write_table(out, _PREDICTED, rows)
    anomalies = sum(row[-1] for row in rows)
    return {"files": len(parts), "windows": len(rows), "anomalies": anomalies, "out": str(out)}


def evaluate(data: Path, job: Job) -> dict[str, Any]:
    """Run the protocol that belongs to the data: SKAB's, or NAB's where its windows lie there.

    Raises:
        RecordingError, TrainingError, ExportError.
    """
    if anomaly_nab.is_nab(data):
        return anomaly_nab.evaluate(data, job)
    recordings = read_recordings(data)
    experiments = recordings.experiments
    require_to_judge(data, experiments)
    development = tuple(each for each in experiments if each.development)
    job.out.mkdir(parents=True, exist_ok=True)
    trained = _train(recordings.normal(development), job, job.out / "model")
    said: dict[str, list[Flags]] = {}
    for each in experiments:
        for name, flags in _by_network(each, trained, job.out).items():
            said.setdefault(name, []).append(flags)
    for name, detector in DETECTORS.items():
        if name == PUBLISHED and job.quick:
            continue
        for at, each in enumerate(experiments):
            job.progress(name, at, len(experiments))
            rows = each.readings.values.astype(np.float64)
            said.setdefault(name, []).append(detector(rows[:FIT_ROWS], rows, job.seed))
    judged = _Judged.of(experiments)
    results = [judged.row(name, flags, job.seed) for name, flags in said.items()]
    results.sort(key=lambda row: -row["f1"])
    result = {
        "task": TASK,
        "protocol": f"SKAB: the first {FIT_ROWS} rows of each experiment may be fitted to, all "
        "later ones are scored, together; f1 is of the report half, by which nothing was chosen; "
        "halves by the first bit of the file's SHA-256; intervals draw whole experiments",
        "trained_on": [each.name for each in development] + list(recordings.plain),
        "experiments": len(experiments),
        "reported_on": len(experiments) - len(development),
        "rows": int(judged.report.sum()),
        "anomalous_rows": int(judged.labels[judged.report].sum()),
        "seed": job.seed,
        "quick": job.quick,
        "published": PUBLISHED_FIGURES,
        "results": results,
        "left_out": [PUBLISHED] if job.quick else [],
        "by_experiment": judged.by_experiment(said[INT8]),
        "int8_loss": next(row["f1"] for row in results if row["model"] == FLOAT)
        - next(row["f1"] for row in results if row["model"] == INT8),
        "bytes": trained.report["bytes"],
        "arena": trained.report["arena"],
        "verdict": _verdict(results),
    }
    (job.out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def _by_name(data: Path) -> dict[str, Readings]:
    if anomaly_nab.is_nab(data):
        file = anomaly_nab.read_nab(data)
        return {file.key: file.readings}
    recordings = read_recordings(data)
    return recordings.plain | {each.name: each.readings for each in recordings.experiments}


def _train(normal: Mapping[bytes, Readings], job: Job, out: Path) -> anomaly.TrainingResult:
    return anomaly.train(
        normal, DEVICE_TYPE, out, dataset=None, quick=job.quick, seed=job.seed,
        progress=job.progress, false_alarms=FALSE_ALARMS,
    )  # fmt: skip


def _load(model: Path) -> tuple[Manifest, bytes]:
    card = ModelCard.load(model)
    payload = read_bounded(model / MODEL_FILE, MAX_PAYLOAD_BYTES)
    try:
        Interpreter(payload)
    except (RuntimeError, ValueError) as error:  # whatever LiteRT finds wrong with it
        raise ReleaseError(f"{model / MODEL_FILE}: is no model ({error})", "train again") from error
    return card.manifest("-", card.min_version + 1, payload, 0), payload


def _by_network(
    experiment: Experiment, trained: anomaly.TrainingResult, out: Path
) -> dict[str, Flags]:
    """What the network says of each row, in int8 and in floats, and what its input alone does."""
    readings, report = experiment.readings, trained.report
    manifest, payload = _load(trained.directory)
    count, stride = len(readings), manifest.stride
    windows = quantize(readings.values, readings.times_ms, manifest)
    scores = score(windows.values, Interpreter(payload).run(windows.values), manifest)
    hits = verdicts(scores, windows.segment, manifest)
    if not experiment.development and readings.labels is not None:
        path = out / f"timeline-{experiment.name.replace('/', '-').removesuffix('.csv')}.png"
        labels = readings.labels[windows.last]
        plot_timeline(path, scores, manifest.threshold, labels, experiment.name)
    scaled, cut = anomaly.cut_scaled(
        readings,
        np.array(report["float_least"], np.float32),
        np.array(report["float_wander"], np.float32),
        Cutting.of_manifest(manifest),
    )
    data = (trained.directory / anomaly.FLOAT_MODEL_FILE).read_bytes()
    by_float = anomaly.float_score(scaled, data) > report["float_threshold"]
    plain = anomaly.plain_score(scaled) > report["plain_threshold"]
    told = rows_judged(count, windows.last, hits, stride)
    late = manifest.window // 2
    return {
        INT8: told,
        LATE: np.concatenate([told[late:], np.repeat(told[-1:], late)]),
        FLOAT: rows_judged(count, cut.last, by_float, stride),
        PLAIN: rows_judged(count, cut.last, plain, stride),
    }


@dataclass(frozen=True)
class _Judged:
    """The scored rows of all experiments, one after the other.

    Attributes:
        labels: whether a row is anomalous.
        report: whether it is of the report half.
        group: number of its experiment.
    """

    experiments: tuple[Experiment, ...]
    labels: Flags = field(repr=False)
    report: Flags = field(repr=False)
    group: npt.NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, experiments: tuple[Experiment, ...]) -> _Judged:
        """Gather what is scored."""
        labels, report, group = [], [], []
        for number, each in enumerate(experiments):
            assert each.readings.labels is not None
            rows = len(each.readings) - FIT_ROWS
            labels.append(each.readings.labels[FIT_ROWS:])
            report.append(np.full(rows, not each.development))
            group.append(np.full(rows, number))
        return cls(experiments, *map(np.concatenate, (labels, report, group)))

    def row(self, name: str, flags: list[Flags], seed: int) -> dict[str, Any]:
        """A detector's figures, given what it says of each experiment."""
        said = np.concatenate([each[FIT_ROWS:] for each in flags])
        found: dict[str, Any] = {"model": name}
        for suffix, chosen in (
            ("", self.report), ("_development", ~self.report), ("_all", self.report | True)
        ):  # fmt: skip
            decided, true, group = said[chosen], self.labels[chosen], self.group[chosen]
            interval = bootstrap(f1, decided, true, groups=group, seed=seed)
            found |= interval.row(f"f1{suffix}")
            found[f"false_alarms{suffix}"] = float(decided[~true].mean())
            found[f"missed{suffix}"] = float((~decided[true]).mean())
        return found

    def by_experiment(self, flags: list[Flags]) -> list[dict[str, Any]]:
        """F1 of one detector for each experiment."""
        rows = []
        for each, said in zip(self.experiments, flags, strict=True):
            assert each.readings.labels is not None
            true = each.readings.labels[FIT_ROWS:]
            rows.append(
                {
                    "experiment": each.name,
                    "half": "development" if each.development else "report",
                    "rows": len(true),
                    "anomalous": int(true.sum()),
                    "f1": f1(said[FIT_ROWS:], true),
                }
            )
        return rows


def _verdict(results: list[dict[str, Any]]) -> str:
    """Say plainly which is best, and whether the simple ones would do."""
    by_name = {row["model"]: row for row in results}
    ours = by_name[INT8]
    simple = next(row for row in results if row["model"] not in {INT8, FLOAT, LATE})
    said = f"F1 {ours['f1']:.3f} by the network in int8, {simple['f1']:.3f} by {simple['model']}"
    if simple["f1"] >= ours["f1"]:
        said += ": the simple method wins"
    elif simple["f1"] >= ours["f1_low"]:
        said += ", which is within the network's interval"
    if PUBLISHED in by_name:
        said += f"; Conv-AE, run here, has {by_name[PUBLISHED]['f1']:.3f}"
    return f"{said}; calling every row anomalous has {by_name[ALL]['f1']:.3f}"
