"""Experiments of a test bed in the format of the Skoltech Anomaly Benchmark (SKAB)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cloud.digests import file_sha256
from cloud.errors import RecordingError, TrainingError
from cloud.readings import Readings
from cloud.recording import read_csv

# SKAB's protocol: these rows of each experiment may be fitted or calibrated to.
FIT_ROWS = 400
MAX_FILES = 1000


@dataclass(frozen=True)
class Experiment:
    """One recorded file with labels.

    Attributes:
        name: path below the folder that was given.
        readings: with `labels`.
        development: whether methods may be chosen by it; else it is only reported on. By the first
            bit of the file's SHA-256, so that it does not depend on what other files are there.
    """

    name: str
    readings: Readings = field(repr=False)
    development: bool

    @property
    def normal(self) -> Readings:
        """The rows that may be fitted to."""
        return first_rows(self.readings, FIT_ROWS)


@dataclass(frozen=True)
class Recordings:
    """What a file or folder holds.

    Attributes:
        path: of it.
        plain: recordings without labels, which are normal operation, by name.
        experiments: those with labels, in the order of their names.
        sha256: of each file, in hex, by name.
    """

    path: Path
    plain: dict[str, Readings]
    experiments: tuple[Experiment, ...]
    sha256: dict[str, str] = field(repr=False)

    def normal(self, experiments: tuple[Experiment, ...]) -> dict[bytes, Readings]:
        """Normal operation of all plain recordings and of these experiments, by a number."""
        parts = [*self.plain.values(), *(each.normal for each in experiments)]
        return {index.to_bytes(8): part for index, part in enumerate(parts)}

    def require_each_once(self) -> None:
        """Raise RecordingError where one file is there twice, and would count so."""
        names: dict[str, str] = {}
        for name, digest in self.sha256.items():
            if names.setdefault(digest, name) != name:
                raise RecordingError(
                    f"{self.path}: {name} is the same as {names[digest]}, and would count twice",
                    "take one of them out",
                )


def read_recordings(path: Path) -> Recordings:
    """Read a file, or all CSV files of a folder and of those in it.

    Raises:
        RecordingError: names the file, and line and column where there are such.
    """
    files = [path]
    if path.is_dir():
        files = _csv_files(path)
        if not files:
            raise RecordingError(f"{path}: holds no CSV files", "name the folder of the recordings")
        if len(files) > MAX_FILES:
            raise RecordingError(
                f"{path}: holds {len(files)} CSV files, at most {MAX_FILES} are read",
                "name a folder with fewer",
            )
    plain, experiments, sha256 = {}, [], {}
    for file in files:
        name = file.name if file == path else str(file.relative_to(path))
        readings = read_csv(file)
        digest = file_sha256(file)
        sha256[name] = digest.hex()
        if readings.labels is None:
            plain[name] = readings
        else:
            experiments.append(Experiment(name, readings, digest[0] < 128))
    return Recordings(path, plain, tuple(experiments), sha256)


def _csv_files(folder: Path) -> list[Path]:
    """Find the CSV files of a folder and of those in it, each of which can be read."""

    def refuse(error: OSError) -> None:
        raise RecordingError(
            f"{error.filename}: cannot be read ({error.strerror})",
            "check its permissions, or take it out",
        ) from error

    return sorted(
        Path(inside) / name
        for inside, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if name.lower().endswith(".csv")
    )


def first_rows(readings: Readings, count: int) -> Readings:
    """The first rows of a recording, without labels."""
    return Readings(
        readings.times[:count],
        readings.values[:count],
        readings.channels,
        readings.sequence[:count],
        readings.sealed,
    )


def require_halves(path: Path, experiments: tuple[Experiment, ...]) -> None:
    """Raise TrainingError unless each half can be judged by; see `require_to_judge`."""
    _require_rows(path, experiments)
    for half, what in ((True, "development"), (False, "report")):
        members = tuple(each for each in experiments if each.development is half)
        if not members:
            raise TrainingError(
                f"{path}: no experiment is of the {what} half, by the first bit of its SHA-256",
                "give more experiments with labels; eight or more are seldom all of one half",
            )
        require_to_judge(path, members, f"all rows of the {what} half")


def require_to_judge(path: Path, experiments: tuple[Experiment, ...], what: str) -> None:
    """Raise unless these can be judged by: rows after the first, of both classes.

    Raises:
        TrainingError: names the file; or says what is wrong with `what`.
    """
    _require_rows(path, experiments)
    labels = np.concatenate([_labels(each)[FIT_ROWS:] for each in experiments])
    if labels.all() or not labels.any():
        raise TrainingError(
            f"{path}: {what} are {'anomalous' if labels.all() else 'normal'}: there is nothing to "
            "tell apart",
            "give experiments with rows of both kinds",
        )


def _require_rows(path: Path, experiments: tuple[Experiment, ...]) -> None:
    for each in experiments:
        if len(each.readings) <= FIT_ROWS:
            raise TrainingError(
                f"{path}: {each.name} has {len(each.readings)} rows, more than {FIT_ROWS} are "
                "needed, which are calibrated to",
                "leave the file out",
            )


def _labels(experiment: Experiment) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    assert experiment.readings.labels is not None
    return experiment.readings.labels
