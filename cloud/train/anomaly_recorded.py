"""Anomalies in recordings: training, prediction, and the protocol of SKAB with baselines beside it.

The network for boards is trained on normal operation alone: recordings without labels, and the rows
of each experiment that the protocol allows to fit to. See `anomaly` for what is trained, and
`anomaly_nab` for what is done with a file of the Numenta Anomaly Benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import RecordingError, TrainingError
from cloud.evaluate import rows_judged
from cloud.intervals import bootstrap
from cloud.plots import plot_timeline
from cloud.preprocess import segments, verdicts
from cloud.readings import Readings
from cloud.tables import write_table
from fog_node.protocol.manifest import Manifest

from . import anomaly, anomaly_nab
from .anomaly_baselines import ALL, DETECTORS, PUBLISHED
from .anomaly_data import (
    FIT_ROWS,
    Experiment,
    Recordings,
    read_recordings,
    require_halves,
    require_to_judge,
)
from .anomaly_model import AnomalyModel, BoardModel
from .job import Job
from .thresholds import f1

TASK = "anomaly"
DEVICE_TYPE = "recorded"
# The share with the highest F1 on the development half of SKAB, where half of all rows are faults.
FALSE_ALARMS = 0.2
INT8, FLOAT = "network for boards, int8", "the same network, float"
LATE = "network for boards, int8, told half a window later"
PLAIN = "the same scaling, squared means of windows, no network"
PUBLISHED_FIGURES = {"F1 0.78: Conv-AE fitted to each experiment, all of them": 0.78}
# So many places at which boards would begin anew are named.
LISTED = 20
_PREDICTED = ("file", "line", "time", "score", "anomaly", "anomaly_told_later")

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
    recordings.require_each_once()
    report = _train(recordings, recordings.experiments, job, job.out).report
    return {name: value for name, value in report.items() if name != "learned_from"}


def predict(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Write a CSV file: what a board would say of each window, at the line that completes it.

    And what it says of that line half a window later, which lines before the first window have
    as well, and those do not have whose recording, or run of rows without a gap, ends before.

    Returns:
        How many there are, and where boards would begin anew, LISTED at most.

    Raises:
        RecordingError: also where no recording is long enough for a verdict. ReleaseError.
    """
    board = BoardModel.load(model)
    late = _late_rows(board.manifest)
    parts = _by_name(data)
    rows: list[tuple[object, ...]] = []
    breaks: list[dict[str, object]] = []
    windows = anomalies = 0
    for name, readings in sorted(parts.items()):
        cut, scores = board.judge(readings, name)
        said = verdicts(scores, cut.segment, board.manifest)
        at_once = {int(last): (int(scores[at]), int(said[at])) for at, last in enumerate(cut.last)}
        later = {last - late: anomalous for last, (_, anomalous) in at_once.items()}
        for row in sorted(at_once | later):
            line, time = int(readings.sequence[row]), f"{readings.times[row]:.3f}"
            rows.append((name, line, time, *at_once.get(row, ("", "")), later.get(row, "")))
        windows += len(said)
        anomalies += int(said.sum())
        breaks += _breaks(name, readings, board.manifest.max_gap_s)
    _require_windows(str(data), windows, board.manifest)
    write_table(out, _PREDICTED, rows)
    return {
        "files": len(parts),
        "windows": windows,
        "anomalies": anomalies,
        "began_anew": len(breaks),
        "at": breaks[:LISTED],
        "out": str(out),
    }


def evaluate(data: Path, job: Job) -> dict[str, Any]:
    """Run the protocol that belongs to the data: SKAB's, or NAB's where its windows lie there.

    A model that was trained before is judged by all experiments that it has not learned from.

    Raises:
        RecordingError, TrainingError, ExportError. ReleaseError: of the model to measure.
    """
    if anomaly_nab.is_nab(data):
        return anomaly_nab.evaluate(data, job)
    recordings = read_recordings(data)
    recordings.require_each_once()
    experiments = recordings.experiments
    if job.model is None:
        require_halves(data, experiments)
        development = tuple(each for each in experiments if each.development)
        model = AnomalyModel.load(_train(recordings, development, job, job.out / "model").directory)
        of = (
            "f1 is of the report half, by which nothing was chosen; halves by the first bit of the "
            "file's SHA-256"
        )
        learned = {"trained_on": [each.name for each in development] + list(recordings.plain)}
    else:
        model = AnomalyModel.load(job.model)
        experiments = _not_learned_from(data, recordings, model)
        of = "f1 is of all experiments that the model, trained before, has not learned from"
        known = [name for name, digest in recordings.sha256.items() if digest in model.learned_from]
        learned = {"left_out_as_learned": known}
    said = _said(experiments, model, job)
    judged = _Judged.of(experiments)
    results = [judged.row(name, flags, job.seed) for name, flags in said.items()]
    results.sort(key=lambda row: -row["f1"])
    f1_of = {row["model"]: row["f1"] for row in results}
    result = {
        "task": TASK,
        "protocol": f"SKAB: the first {FIT_ROWS} rows of each experiment may be fitted to, all "
        f"later ones are scored, together; {of}; intervals draw whole experiments",
        **learned,
        "experiments": len(experiments),
        "reported_on": sum(not each.development for each in experiments),
        "rows": int(judged.report.sum()),
        "anomalous_rows": int(judged.labels[judged.report].sum()),
        "seed": job.seed,
        "quick": job.quick,
        "published": PUBLISHED_FIGURES,
        "results": results,
        "left_out": [PUBLISHED] if job.quick else [],
        "by_experiment": judged.by_experiment(said[INT8]),
        "int8_loss": f1_of[FLOAT] - f1_of[INT8],
        "bytes": len(model.board.payload),
        "arena": model.board.manifest.arena,
        "verdict": _verdict(results),
    }
    return job.keep(result)


def _not_learned_from(
    data: Path, recordings: Recordings, model: AnomalyModel
) -> tuple[Experiment, ...]:
    """The experiments that a model may be judged by, none of which is for development."""
    chosen = tuple(
        replace(each, development=False)
        for each in recordings.experiments
        if recordings.sha256[each.name] not in model.learned_from
    )
    if not chosen:
        raise TrainingError(
            f"{data}: holds {len(recordings.experiments)} recordings with labels, and the model "
            "has learned from all of them",
            "give recordings that it was not trained on, with a column of labels",
        )
    require_to_judge(data, chosen, "all rows that the model has not learned from")
    return chosen


def _said(
    experiments: tuple[Experiment, ...], model: AnomalyModel, job: Job
) -> dict[str, list[Flags]]:
    """What each detector says of each row of each experiment, by its name."""
    said: dict[str, list[Flags]] = {}
    job.out.mkdir(parents=True, exist_ok=True)
    for each in experiments:
        for name, flags in _by_network(each, model, job.out).items():
            said.setdefault(name, []).append(flags)
    for name, detector in DETECTORS.items():
        if name == PUBLISHED and job.quick:
            continue
        for at, each in enumerate(experiments):
            job.progress(name, at, len(experiments))
            rows = each.readings.values.astype(np.float64)
            said.setdefault(name, []).append(detector(rows[:FIT_ROWS], rows, job.seed))
    return said


def _by_name(data: Path) -> dict[str, Readings]:
    if anomaly_nab.is_nab(data):
        path, readings = anomaly_nab.read_rows(data)
        return {path.name: readings}
    recordings = read_recordings(data)
    return recordings.plain | {each.name: each.readings for each in recordings.experiments}


def _train(
    recordings: Recordings, experiments: tuple[Experiment, ...], job: Job, out: Path
) -> anomaly.TrainingResult:
    """Train on the recordings without labels, and on what may be fitted to of the experiments."""
    names = [*recordings.plain, *(each.name for each in experiments)]
    return anomaly.train(
        recordings.normal(experiments), DEVICE_TYPE, out, dataset=None, quick=job.quick,
        seed=job.seed, progress=job.progress, false_alarms=FALSE_ALARMS,
        learned_from=[recordings.sha256[name] for name in names], where=str(recordings.path),
    )  # fmt: skip


def _by_network(experiment: Experiment, model: AnomalyModel, out: Path) -> dict[str, Flags]:
    """What the network says of each row, in int8 and in floats, and what its input alone does."""
    readings, manifest = experiment.readings, model.board.manifest
    windows, scores = model.board.judge(readings, experiment.name)
    _require_windows(experiment.name, len(scores), manifest)
    count, stride = len(readings), manifest.stride
    hits = verdicts(scores, windows.segment, manifest)
    if not experiment.development and readings.labels is not None:
        path = out / f"timeline-{experiment.name.replace('/', '-').removesuffix('.csv')}.png"
        labels = readings.labels[windows.last]
        plot_timeline(path, scores, manifest.threshold, labels, experiment.name)
    scaled, cut = model.cut_scaled(readings)
    by_float = anomaly.float_score(scaled, model.float_payload) > model.float_threshold
    plain = anomaly.plain_score(scaled) > model.plain_threshold
    told = rows_judged(count, windows.last, hits, stride)
    late = _late_rows(manifest)
    return {
        INT8: told,
        LATE: np.concatenate([told[late:], np.repeat(told[-1:], late)]),
        FLOAT: rows_judged(count, cut.last, by_float, stride),
        PLAIN: rows_judged(count, cut.last, plain, stride),
    }


def _require_windows(where: str, windows: int, manifest: Manifest) -> None:
    """Raise RecordingError where there is nothing that a model could say anything of."""
    if not windows:
        raise RecordingError(
            f"{where}: holds no {manifest.calibrate + manifest.window} rows without a gap or a "
            "step back in time, which the first verdict takes",
            "give longer recordings, in the order of time",
        )


def _breaks(name: str, readings: Readings, max_gap_s: int) -> list[dict[str, object]]:
    """Where a board would calibrate anew: after a gap, or where time steps back."""
    found: list[dict[str, object]] = []
    for start, _ in segments(readings.times_ms, max_gap_s)[1:]:
        step = readings.times[start] - readings.times[start - 1]
        why = f"{step:g} s after the row above" if step > 0 else "before the row above in time"
        found.append({"file": name, "line": int(readings.sequence[start]), "why": why})
    return found


def _late_rows(manifest: Manifest) -> int:
    """Half a window: so much later more of what follows a row is known."""
    return manifest.window // 2


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
            if suffix and self.report.all():
                continue  # There is no other half.
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
                    **({} if self.report.all() else {"half": _half(each)}),
                    "rows": len(true),
                    "anomalous": int(true.sum()),
                    "f1": f1(said[FIT_ROWS:], true),
                }
            )
        return rows


def _half(experiment: Experiment) -> str:
    return "development" if experiment.development else "report"


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
