"""How many cycles a machine has left: remaining useful life, and how sure that is.

Networks learn it from units that ran until they failed. What they see of a unit is in
`rul_features`, what they are in `rul_network`, what they are held against in `rul_baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import LabelError, ModelError, TrainingError
from cloud.intervals import bootstrap
from cloud.model_files import load_tflite, read_card, write_card, written_whole
from cloud.plots import plot_course, plot_left
from cloud.tables import write_table

from .experiment_log import experiment_log
from .job import Job
from .rul_baselines import MEAN, Means, Method, fit_baselines
from .rul_data import TEST, TRAIN, TRUTH, Units, find, labelled, read_truth, read_units
from .rul_features import CLIP, Preparation, fit_preparation
from .rul_network import (
    CAP,
    COVERAGE,
    FULL,
    MAX_LEFT,
    MIN_SEEN,
    QUICK,
    Ensemble,
    Estimate,
    Floats,
    estimate,
    fit_ensemble,
    judged,
)
from .table_labels import TableLabels

TASK = "rul"
# Of fewer units, a part that is left out would be two or three.
MIN_UNITS = 15
MIN_CYCLES = 40
# The larger, the less a unit is of use that is early or late by as many cycles (PHM 2008).
EARLY_CYCLES, LATE_CYCLES = 13.0, 10.0
PUBLISHED = {
    "FD001": {
        "RMSE 10.61: STAR": 10.61,
        "RMSE 11.43: DAST": 11.43,
        "RMSE 12.61: DCNN": 12.61,
    }
}
INT8, FLOAT = "networks, int8", "networks, float"
INT8_FILE, FLOAT_FILE = "model.tflite", "model_float.tflite"
_PREDICTED = ("unit", "cycle", "left", "low", "high")


def train(data: Path, job: Job) -> dict[str, Any]:
    """Fit networks to units that ran until they failed, and write the model's directory.

    Returns:
        The report, which is written as well.

    Raises:
        RecordingError: a file is not of the format. TrainingError: too few units, or too short.
        LabelError.
    """
    units, said = _to_learn(data, job)
    fitted = _fit(units, job, more=0)
    ensemble, preparation = fitted.ensemble, fitted.preparation
    report = {
        "task": TASK,
        "trained_on": units.path.name,
        "units": len(units.ends),
        "rows": len(units),
        "conditions": len(preparation.centres),
        "sensors": len(preparation.sensors),
        "seed": job.seed,
        "quick": job.quick,
        "sealed": False,
        "labels": said,
        "cap": CAP,
        "margin": ensemble.margin,
        "means": Means.of(units.left(), units.cycle).card(),
        "validation": fitted.validation,
        "int8_bytes": len(ensemble.int8.data),
        "int8_ops": list(ensemble.int8.ops),
        "int8_arena": ensemble.int8.arena,
    }
    _plot_a_course(job.out / "course.png", units, ensemble.left_out)
    with written_whole(job.out) as new:
        (new / INT8_FILE).write_bytes(ensemble.int8.data)
        (new / FLOAT_FILE).write_bytes(ensemble.float_data)
        write_card(new, report | {"preparation": preparation.card()})
    return report


def source(data: Path) -> Path:
    """The file that `predict` reads: the path, or a folder's `test_` file."""
    return find(data, TEST) if data.is_dir() else data


def predict(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Write a CSV file: cycles left of each unit at its last row, with the interval's two ends.

    `data` is a file of any name, or the folder with a `test_` file in it.

    Raises:
        RecordingError, ModelError.
    """
    _, preparation, margin = _read_card(model)
    file = load_tflite(model / INT8_FILE)
    units = read_units(source(data))
    ends = units.ends
    said = estimate(file, preparation.features(units)[ends], margin)
    cycles = zip(said.left, said.low, said.high, strict=True)
    write_table(
        out,
        _PREDICTED,
        (
            (units.unit[end], units.cycle[end], *(f"{value:.1f}" for value in values))
            for end, values in zip(ends, cycles, strict=True)
        ),
    )
    return {"data": str(units.path), "units": len(ends), "out": str(out)}


def evaluate(data: Path, job: Job) -> dict[str, Any]:
    """Judge by the last row of each unit of the `test_` file.

    Judged is what is trained on the `train_` file, or a model that was trained before. Engineers'
    labels are of the units that are learned from.

    Raises:
        RecordingError, TrainingError, LabelError, ModelError.
    """
    if job.model is not None:
        return _measure(job.model, data, job)
    units, engineers = _to_learn(data, job)
    test = _Test.read(data)
    fitted = _fit(units, job, more=1, test=test.units)
    ensemble = fitted.ensemble
    methods = fit_baselines(fitted.features, units.left(), units.cycle, job.seed)
    fitted.step("baselines")
    _plot_a_course(job.out / "course.png", units, ensemble.left_out)
    candidates = _Candidates(
        units.path.name, fitted.preparation, ensemble.margin, ensemble.int8.data,
        ensemble.float_data, methods,
    )  # fmt: skip
    about = {
        "protocol": f"learned from {units.path.name} alone",
        "units_learned": len(units.ends),
        "labels": engineers,
        "quick": job.quick,
        "validation": fitted.validation,
    }
    return _judge(candidates, test, job, about)


def _measure(directory: Path, data: Path, job: Job) -> dict[str, Any]:
    """Judge a model that was trained before."""
    if job.labels is not None:
        raise LabelError(
            f"{job.labels.path}: says when units failed that are learned from, and a trained "
            "model learns nothing",
            f"leave it out; how long units of a {TEST}_ file had left stands in the {TRUTH}_ file",
        )
    candidates = _Candidates.load(directory)
    test = _Test.read(data)
    about = {"protocol": f"trained before, on {candidates.trained_on}"}
    return _judge(candidates, test, job, about)


def _read_card(directory: Path) -> tuple[dict[str, Any], Preparation, float]:
    """A model's card, and its preparation and margin; raises ModelError."""
    card = read_card(directory, TASK)
    try:
        return card, Preparation.of_card(card["preparation"]), float(card["margin"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{directory}: card is damaged ({error})", "train again") from error


@dataclass(frozen=True)
class _Candidates:
    """What tells cycles left: networks as they run, and simple methods beside them.

    Attributes:
        trained_on: name of the file, or the run, of what was learned from.
        preparation, margin: of the networks.
        int8, float_data: their files.
        methods: by name.
    """

    trained_on: str
    preparation: Preparation
    margin: float
    int8: bytes = field(repr=False)
    float_data: bytes = field(repr=False)
    methods: Mapping[str, Method]

    @classmethod
    def load(cls, directory: Path) -> _Candidates:
        """Read a model's directory, with the simple methods that need no more; ModelError."""
        card, preparation, margin = _read_card(directory)
        try:
            means, trained_on = Means.of_card(card["means"]), str(card["trained_on"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{directory}: card is damaged ({error!r})", "train again") from error
        return cls(
            trained_on, preparation, margin, load_tflite(directory / INT8_FILE),
            load_tflite(directory / FLOAT_FILE), means.methods(),
        )  # fmt: skip


@dataclass(frozen=True)
class _Test:
    """Units to judge by, and the cycles that each had left, capped."""

    units: Units
    true: Floats

    @classmethod
    def read(cls, data: Path) -> _Test:
        """Read the files of a subset; raises RecordingError."""
        units = read_units(find(data, TEST))
        return cls(units, np.minimum(read_truth(find(data, TRUTH), units), CAP))

    @property
    def subset(self) -> str:
        """Its name, like FD001."""
        return self.units.path.stem.partition("_")[2]


def _judge(
    candidates: _Candidates, test: _Test, job: Job, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Hold what is told against what is true, once, by the last row of each unit, and write it.

    Returns:
        The result, with what it is `about`.
    """
    units, true, ends = test.units, test.true, test.units.ends
    preparation, margin = candidates.preparation, candidates.margin
    features, cycle = preparation.features(units)[ends], units.cycle[ends]
    int8 = estimate(candidates.int8, features, margin)
    plain = estimate(candidates.float_data, features, margin)
    said = {INT8: int8.left, FLOAT: plain.left}
    said |= {name: method(features, cycle) for name, method in candidates.methods.items()}
    results = [_row(name, values, true, job.seed) for name, values in said.items()]
    results.sort(key=lambda row: row["rmse"])
    by_name = {row["model"]: row["rmse"] for row in results}
    verdict = _verdict(results)
    is_own = candidates.trained_on == find(units.path, TRAIN).name
    if not is_own:
        verdict += f"; learned from {candidates.trained_on}, which is not of {test.subset}"
    result = {
        "task": TASK,
        "subset": test.subset,
        "trained_on": candidates.trained_on,
        **about,
        "protocol": f"{about['protocol']}; judged once, by the last row of each unit of "
        f"{units.path.name}, true and told cycles capped at {CAP:.0f}",
        "units_judged": len(ends),
        "conditions": len(preparation.centres),
        "cut_off": float((np.abs(preparation.standardised(units)) >= CLIP).mean()),
        "seed": job.seed,
        "published": PUBLISHED.get(test.subset, {}) if is_own else {},
        "results": results,
        "int8_loss": by_name[INT8] - by_name[FLOAT],
        "interval": _coverage(int8, true, job.seed),
        "verdict": verdict,
    }
    job.out.mkdir(parents=True, exist_ok=True)
    plot_left(job.out / "left.png", true, int8.left, int8.low, int8.high)
    return job.keep(result)


@dataclass(frozen=True)
class _Steps:
    """Counts networks and whatever comes after, for whoever watches."""

    job: Job
    of: int

    def __call__(self, what: str, done: int | None = None) -> None:
        self.job.progress(what, self.of if done is None else done, self.of)


@dataclass(frozen=True)
class _Fitted:
    """What was learned.

    Attributes:
        features: of the units that were learned from.
        validation: see `_validation`.
        step: tells of what follows.
    """

    preparation: Preparation
    features: npt.NDArray[np.float32]
    ensemble: Ensemble
    validation: dict[str, Any]
    step: _Steps


def _to_learn(data: Path, job: Job) -> tuple[Units, dict[str, Any] | None]:
    """Units that ran until they failed, and what the report says of the engineers' labels."""
    units = read_units(find(data, TRAIN))
    said: dict[str, Any] | None = None
    if job.labels is not None:
        labels, count = TableLabels.read(job.labels, "unit"), len(units.ends)
        units = labelled(units, labels)
        said = labels.card(count - len(np.unique(units.unit)))
    _check_enough(units)
    return units, said


def _check_enough(units: Units) -> None:
    lengths = [rows.stop - rows.start for rows in units.slices] if len(units) else []
    if len(lengths) < MIN_UNITS:
        raise TrainingError(
            f"{units.path}: {len(lengths)} units, at least {MIN_UNITS} are needed",
            "add units that ran until they failed",
        )
    for end, length in zip(units.ends, lengths, strict=True):
        if length < MIN_CYCLES:
            raise TrainingError(
                f"{units.path}: unit {units.unit[end]} has {length} cycles, at least "
                f"{MIN_CYCLES} are needed",
                "leave the unit out, or give all of its rows",
            )
    left = units.left()
    if not (judged(left, units.cycle) & (left < CAP)).any():
        raise TrainingError(
            f"{units.path}: no unit has {MIN_SEEN} cycles behind it and less than {CAP:.0f} left",
            "give units whose rows go on until they failed, or correct what --labels says of that",
        )


def _fit(units: Units, job: Job, *, more: int, test: Units | None = None) -> _Fitted:
    """Learn all that is learned; `more` steps follow. Of `test` only is seen that it can be judged.

    Raises:
        RecordingError: `test` has rows of an operating condition that `units` have not.
    """
    preparation = fit_preparation(units)
    if test is not None:
        preparation.standardised(test)
    features = preparation.features(units)
    job.out.mkdir(parents=True, exist_ok=True)
    shape = QUICK if job.quick else FULL
    step = _Steps(job, shape.networks + more)
    step("networks", 0)
    with experiment_log(job.out) as note:

        def told(number: int, losses: Sequence[float]) -> None:
            for epoch, loss in enumerate(losses):
                note(f"loss, network {number}", loss, epoch)
            step("networks", number + 1)

        left = units.left()
        rows = judged(left, units.cycle)
        ensemble = fit_ensemble(
            features, left, units.unit, rows, shape, seed=job.seed, told=told, pool=job.pool
        )
        found = _validation(units, ensemble.left_out, job.seed)
        for name in ("rmse", "held"):
            note(f"validation/{name}", found[name], 0)
    return _Fitted(preparation, features, ensemble, found, step)


def _validation(units: Units, said: Estimate, seed: int) -> dict[str, Any]:
    """How good the networks are for training units that they were not shown."""
    left = units.left()
    rows = judged(left, units.cycle)
    true, unit = np.minimum(left, CAP)[rows], units.unit[rows]
    return {
        "protocol": "training units by the networks that were not shown them, at each cycle from "
        f"{MIN_SEEN} on with at most {MAX_LEFT:.0f} left",
        **bootstrap(rmse, said.left[rows], true, groups=unit, seed=seed, repeats=200).row("rmse"),
        "held": float(_held(said, np.minimum(left, CAP))[rows].mean()),
        "held_below_cap": float(_held(said, left)[rows & (left < CAP)].mean()),
    }


def rmse(said: Floats, true: Floats) -> float:
    """Root of the mean squared error, in cycles."""
    return float(np.sqrt(np.mean((said - true) ** 2)))


def nasa_score(said: Floats, true: Floats) -> float:
    """Sum of what each unit's error costs, too late being dearer than too early (PHM 2008)."""
    late = said - true
    return float(
        np.where(late < 0, np.expm1(-late / EARLY_CYCLES), np.expm1(late / LATE_CYCLES)).sum()
    )


def _row(name: str, said: Floats, true: Floats, seed: int) -> dict[str, Any]:
    return {
        "model": name,
        **bootstrap(rmse, said, true, seed=seed).row("rmse"),
        **bootstrap(nasa_score, said, true, seed=seed).row("score"),
    }


def _held(said: Estimate, true: Floats) -> npt.NDArray[np.float64]:
    """1 where the interval holds what is true, else 0."""
    return ((said.low <= true) & (true <= said.high)).astype(np.float64)


def _coverage(said: Estimate, true: Floats, seed: int) -> dict[str, Any]:
    """What share of intervals hold, of all units and of those that are no further off than CAP."""
    held, below = _held(said, true), true < CAP
    found = {
        "wanted": COVERAGE,
        **bootstrap(lambda a: float(a.mean()), held, seed=seed).row("held"),
        "mean_width": float((said.high - said.low).mean()),
    }
    if below.any():
        found["held_below_cap"] = float(held[below].mean())
        found["mean_width_below_cap"] = float((said.high - said.low)[below].mean())
    return found


def _plot_a_course(path: Path, units: Units, said: Estimate) -> None:
    """Plot the training unit of median life, by networks that were not shown it."""
    each = list(units.slices)
    rows = sorted(each, key=lambda rows: rows.stop - rows.start)[len(each) // 2]
    plot_course(
        path, units.cycle[rows], np.minimum(units.left(), CAP)[rows],
        said.left[rows], said.low[rows], said.high[rows],
        f"unit {units.unit[rows.start]}, by networks that were not shown it",
    )  # fmt: skip


def _verdict(results: list[dict[str, Any]]) -> str:
    """Say plainly which is best, and whether the simple ones would do."""
    by_name = {row["model"]: row for row in results}
    ours = by_name[INT8]
    simple = next(row for row in results if row["model"] not in {INT8, FLOAT})
    said = f"networks in int8 have RMSE {ours['rmse']:.2f}, {simple['model']} {simple['rmse']:.2f}"
    if simple["rmse"] <= ours["rmse"]:
        return f"{said}: the simple method wins"
    if simple["rmse"] <= ours["rmse_high"]:
        said += ", which is within the networks' interval"
    return f"{said}; {MEAN} has {by_name[MEAN]['rmse']:.2f}"
