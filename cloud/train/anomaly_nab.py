"""A file of the Numenta Anomaly Benchmark: one value at a time, scored as the benchmark does.

Learned from the probationary period alone, without labels: the network of `anomaly`, with one
channel, which looks back an hour as a board would. An alarm is where a score is above all that the
probationary period gave, and none follows within a day.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import RecordingError, TrainingError
from cloud.files import read_bounded
from cloud.intervals import bootstrap
from cloud.plots import plot_timeline
from cloud.readings import Readings
from cloud.tables import Table, read_table

from . import anomaly
from .anomaly_baselines import trailing_mean
from .anomaly_data import first_rows
from .anomaly_model import AnomalyModel
from .job import Job
from .nab_score import (
    PROFILES,
    STANDARD,
    Window,
    nab_score,
    normalised,
    probation,
    window_scores,
)

WINDOWS_FILE = "combined_windows.json"
MAX_WINDOWS_BYTES = 1024 * 1024
_MAX_HEADER_BYTES = 100
TIME_COLUMN, VALUE_COLUMN = "timestamp", "value"
TIME_FORMAT, TIME_EXAMPLE = "%Y-%m-%d %H:%M:%S", "2013-12-02 21:15:00"
CHANNEL = "value"
ROW_S = 300.0
# Local times step back by so much where summer time ends.
SUMMER_TIME_S = 3600.0
# A day of rows five minutes apart: how long an alarm stands before there may be another.
HOLD_OFF = 288
# Baselines look back a day, and an hour.
DAY, HOUR = 288, 12
DEVIATIONS = 4.0
CUSUM_SLACK, CUSUM_LIMIT = 0.5, 5.0
MIN_DEVIATION = 1e-9
# What thresholds are tried in hindsight.
HINDSIGHT = 200
NETWORK, NO_NETWORK = "network, int8", "the same scaling, no network"
PUBLISHED = {
    "realKnownCause/machine_temperature_system_failure.csv": {
        "2.556: ARTime": 2.556,
        "1.584: Numenta HTM": 1.584,
    }
}

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NabFile:
    """A file and its labelled windows.

    Attributes:
        key: under which the windows are listed.
        readings: one channel.
        windows: first and last row of each.
    """

    key: str
    readings: Readings = field(repr=False)
    windows: tuple[Window, ...]

    @property
    def values(self) -> Scores:
        """float64 [n]."""
        return self.readings.values[:, 0].astype(np.float64)

    def scored(self, first: int) -> tuple[Window, ...]:
        """The windows that are not over before this row."""
        return tuple(window for window in self.windows if window[1] >= first)


def is_nab(data: Path) -> bool:
    """Whether a file or folder is of the benchmark: by its windows beside it, or its columns."""
    if (_folder(data) / WINDOWS_FILE).exists():
        return True
    files = sorted(data.glob("*.csv")) if data.is_dir() else [data]
    if len(files) != 1 or not files[0].is_file():
        return False
    with files[0].open("rb") as file:
        first = file.readline(_MAX_HEADER_BYTES).decode("utf-8-sig", "replace")
    return first.strip() == f"{TIME_COLUMN},{VALUE_COLUMN}"


def read_rows(data: Path) -> tuple[Path, Readings]:
    """Read a file without its windows, which are needed to evaluate alone.

    Args:
        data: the CSV file, or the folder with it alone.

    Returns:
        The file, and its rows.

    Raises:
        RecordingError: names the file, and line and column where there are such.
    """
    path = data
    if data.is_dir():
        files = sorted(data.glob("*.csv"))
        if len(files) != 1:
            raise RecordingError(
                f"{data}: must hold one CSV file, holds {len(files)}", "name the file itself"
            )
        path = files[0]
    table = read_table(path, (TIME_COLUMN, VALUE_COLUMN))
    times = table.times(TIME_COLUMN, TIME_FORMAT, TIME_EXAMPLE)
    _check_order(table, times)
    return path, Readings(
        times=times,
        values=table.numbers(VALUE_COLUMN).astype(np.float32).reshape(-1, 1),
        channels=(CHANNEL,),
        sequence=np.array(table.lines, np.int64),
        sealed=False,
    )


def read_nab(data: Path) -> NabFile:
    """Read a file and its windows, which lie beside it; see `read_rows`."""
    path, readings = read_rows(data)
    key, bounds = _windows_of(_folder(data) / WINDOWS_FILE, path)
    windows = tuple(_rows(readings.times, bound, path) for bound in bounds)
    for before, after in pairwise(windows):
        if after[0] <= before[1]:
            raise RecordingError(
                f"{_folder(data) / WINDOWS_FILE}: windows of {key} overlap, at line "
                f"{readings.sequence[after[0]]} of {path.name}",
                f"give {WINDOWS_FILE} as the benchmark has it",
            )
    return NabFile(key, readings, windows)


def _check_order(table: Table, times: npt.NDArray[np.float64]) -> None:
    """Raise RecordingError where time steps back by more than the end of summer time makes it."""
    back = np.flatnonzero(times < np.maximum.accumulate(times) - SUMMER_TIME_S)
    if len(back):
        raise RecordingError(
            f"{table.path}: line {table.lines[back[0]]}: column {TIME_COLUMN!r} is before that of "
            "a row above",
            "give the rows in the order of time, each once",
        )


def _folder(data: Path) -> Path:
    return data if data.is_dir() else data.parent


def _windows_of(path: Path, recording: Path) -> tuple[str, list[tuple[float, float]]]:
    """Key and times of the windows of a recording, in the order of time."""
    remedy = f"give {WINDOWS_FILE} as the benchmark has it"
    try:
        listed = json.loads(read_bounded(path, MAX_WINDOWS_BYTES))
        keys = [key for key in listed if key.rpartition("/")[2] == recording.name]
        if len(keys) != 1:
            raise RecordingError(
                f"{path}: lists {len(keys)} files named {recording.name}, must list one", remedy
            )
        bounds = [(_seconds(begin), _seconds(end)) for begin, end in listed[keys[0]]]
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror})", remedy) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RecordingError(f"{path}: is no list of windows ({error})", remedy) from error
    return keys[0], sorted(bounds)


def _seconds(text: str) -> float:
    moment = np.datetime64(text.strip().replace(" ", "T"), "us")
    if np.isnat(moment):
        raise ValueError(f"{text!r} is no time")
    return float(moment.astype(np.int64)) / 1e6


def _rows(times: npt.NDArray[np.float64], bound: tuple[float, float], path: Path) -> Window:
    inside = np.flatnonzero((times >= bound[0]) & (times <= bound[1]))
    if len(inside) and (bound[0] < times[0] or bound[1] > times[-1]):
        raise RecordingError(
            f"{path}: a window of {WINDOWS_FILE} begins before its first row, or ends after its "
            "last one",
            "give the whole file",
        )
    if len(inside) < 2:
        raise RecordingError(
            f"{path}: has {len(inside)} rows in a window of {WINDOWS_FILE}, at least 2 are needed",
            "give the whole file",
        )
    return int(inside[0]), int(inside[-1])


def evaluate(data: Path, job: Job) -> dict[str, Any]:
    """Learn from the probationary period of a file, and score what is said of the rest.

    Raises:
        RecordingError, TrainingError, ExportError. ReleaseError: of the model to measure.
    """
    file = read_nab(data)
    first = probation(len(file.readings))
    if not file.scored(first):
        raise TrainingError(
            f"{data}: has no labelled windows after its first {first} rows, which are learned from",
            "give a file with anomalies there",
        )
    job.out.mkdir(parents=True, exist_ok=True)
    directory = job.model or train(data, job, job.out / "model").directory
    scores = _network_scores(file, first, AnomalyModel.load(directory))
    job.progress("baselines", 0, 1)
    values = file.values
    scores["isolation forest"] = _forest(values, first, job.seed)
    judged = {name: (said, float(said[:first].max())) for name, said in scores.items()}
    judged["moving mean of an hour"] = (_moving(values), DEVIATIONS)
    judged["CUSUM"] = (_cusum(values, first), CUSUM_LIMIT)
    judged["no alarm"] = (np.zeros(len(values)), 1.0)
    results = [
        _row(name, said, limit, file, first, job.seed) for name, (said, limit) in judged.items()
    ]
    results.sort(key=lambda row: -row["standard"])
    labels = np.zeros(len(values), np.bool_)
    for begin, end in file.windows:
        labels[begin : end + 1] = True
    plot_timeline(
        job.out / "timeline.png",
        judged[NETWORK][0][first:],
        round(judged[NETWORK][1]),
        labels[first:],
        file.key,
    )
    result = {
        "task": "anomaly",
        "file": file.key,
        "protocol": f"NAB: the first {first} rows may be learned from and are not scored; the "
        f"network {'was trained before' if job.model else 'learns from these'}; an alarm "
        f"is told once, then none for {HOLD_OFF} rows; limits fixed beforehand; "
        "in_hindsight takes the limit that is best for the labels, as the benchmark does over "
        "all of its files; the interval draws windows, each with what follows it: of few windows "
        "it tells little",
        "rows": len(values),
        "windows": len(file.windows),
        "seed": job.seed,
        "quick": job.quick,
        "published": PUBLISHED.get(file.key, {}),
        "results": results,
        "verdict": _verdict(results),
    }
    return job.keep(result)


def held_off(over: npt.NDArray[np.bool_], rows: int = HOLD_OFF) -> npt.NDArray[np.bool_]:
    """Alarms: the first row that is over, and the first one at least `rows` later, and so on."""
    alarms = np.zeros(len(over), np.bool_)
    free = 0
    for row in np.flatnonzero(over):
        if row >= free:
            alarms[row] = True
            free = int(row) + rows
    return alarms


def _row(
    name: str, scores: Scores, limit: float, file: NabFile, first: int, seed: int
) -> dict[str, Any]:
    alarms = held_off((scores > limit) & (np.arange(len(scores)) >= first))
    inside = [bool(alarms[begin : end + 1].any()) for begin, end in file.windows]
    within = sum(int(alarms[begin : end + 1].sum()) for begin, end in file.windows)
    found: dict[str, Any] = {"model": name}
    for profile, weights in PROFILES.items():
        each = window_scores(alarms, file.windows, first, weights)
        found |= bootstrap(lambda drawn: float(drawn.sum()), each, seed=seed).row(profile)
    return found | {
        "normalised": normalised(found["standard"], len(file.scored(first))),
        "windows_found": sum(inside),
        "false_alarms": int(alarms.sum()) - within,
        "in_hindsight": _best(scores, file.windows, first),
    }


def _best(scores: Scores, windows: Sequence[Window], first: int) -> float:
    """The standard score with the limit that is best for it."""
    scored = np.arange(len(scores)) >= first
    limits = np.quantile(scores[first:], 1 - np.geomspace(1e-4, 1, HINDSIGHT))
    return max(
        nab_score(held_off((scores > limit) & scored), windows, first, STANDARD)
        for limit in [*limits, scores.max()]
    )


def train(data: Path, job: Job, out: Path) -> anomaly.TrainingResult:
    """Train on the probationary period of a file, which is what the model is calibrated on as well.

    Raises:
        RecordingError, TrainingError, ExportError.
    """
    _, readings = read_rows(data)
    first = probation(len(readings))
    return anomaly.train(
        {b"": first_rows(readings, first)}, "recorded", out, dataset=None, quick=job.quick,
        seed=job.seed, progress=job.progress,
        cutting=replace(anomaly.CUTTING, window=HOUR, stride=1, calibrate=first), where=str(data),
    )  # fmt: skip


def _network_scores(file: NabFile, first: int, model: AnomalyModel) -> dict[str, Scores]:
    """Scores of every row by the int8 network as a board has them, and by its input alone."""
    calibrate = model.board.manifest.calibrate
    if calibrate > first:
        raise RecordingError(
            f"{file.key}: has a probationary period of {first} rows, the model calibrates on "
            f"{calibrate}",
            "train on this file",
        )
    # What is calibrated on is played twice, and then judged as all rows are. Row after row, as the
    # benchmark has it: local times step back where summer time ends.
    values = np.concatenate([file.readings.values[first - calibrate : first], file.readings.values])
    rows = np.arange(len(values))
    times = ROW_S * rows.astype(np.float64)
    readings = Readings(times, values, file.readings.channels, rows, sealed=False)
    windows, scores = model.board.judge(readings, file.key)
    scaled, cut = model.cut_scaled(readings)
    found = {NETWORK: np.zeros(len(values)), NO_NETWORK: np.zeros(len(values))}
    found[NETWORK][windows.last] = scores
    found[NO_NETWORK][cut.last] = anomaly.plain_score(scaled)
    return {name: said[calibrate:] for name, said in found.items()}


def _moving(values: Scores) -> Scores:
    """How many deviations of the last day the mean of the last hour is from the day's mean."""
    column = values[:, np.newaxis]
    mean = trailing_mean(column, DAY)[:, 0]
    variance = np.maximum(trailing_mean(column**2, DAY)[:, 0] - mean**2, 0)
    away = np.abs(trailing_mean(column, HOUR)[:, 0] - mean)
    return away / np.maximum(np.sqrt(variance), MIN_DEVIATION)


def _cusum(values: Scores, first: int) -> Scores:
    """Two-sided CUSUM; it starts again with each alarm."""
    known = values[:first]
    scaled = (values - known.mean()) / max(float(known.std()), MIN_DEVIATION)
    up = down = 0.0
    found = np.zeros(len(values))
    for at, value in enumerate(scaled):
        if max(up, down) > CUSUM_LIMIT:
            up = down = 0.0
        up = max(0.0, up + value - CUSUM_SLACK)
        down = max(0.0, down - value - CUSUM_SLACK)
        found[at] = max(up, down)
    return found


def _forest(values: Scores, first: int, seed: int) -> Scores:
    """Isolation forest over the latest hour; what is anomalous is high."""
    from sklearn.ensemble import IsolationForest

    views = np.lib.stride_tricks.sliding_window_view(values, HOUR)
    forest = IsolationForest(random_state=seed).fit(views[: first - HOUR + 1])
    found = np.zeros(len(values))
    found[HOUR - 1 :] = -forest.score_samples(views)
    return found


def _verdict(results: list[dict[str, Any]]) -> str:
    by_name = {row["model"]: row for row in results}
    ours = by_name[NETWORK]
    simple = next(row for row in results if row["model"] != NETWORK)
    said = (
        f"standard score {ours['standard']:.3f} by the network in int8, "
        f"{simple['standard']:.3f} by {simple['model']}"
    )
    return said + (": the simple method wins" if simple["standard"] >= ours["standard"] else "")
