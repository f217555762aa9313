"""Will this machine fail, and how: classifiers over one row of its state.

Candidates are a generalised linear model, a random forest, gradient boosting and a neural network,
and the super learner over them (see `super_learner`); beside them stands an int8 network for
boards. Failure modes are told by a random forest of several labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import TrainingError
from cloud.export import TfliteModel
from cloud.intervals import bootstrap
from cloud.model_files import (
    SEEN_FILE,
    load_seen,
    load_sklearn,
    read_card,
    write_card,
    written_whole,
)
from cloud.plots import plot_losses, plot_precision_recall
from cloud.tables import write_table

from .experiment_log import experiment_log
from .failure_data import FEATURES, MODES, FailureData, labelled, made_up, read_failures, rule
from .failure_model import (
    BOARD,
    FLOAT_BOARD,
    MODES_FILE,
    SUPER,
    TASK,
    FailureModel,
    load_learner,
    mode_probabilities,
)
from .failure_network import NetworkFit, fit_network
from .job import Job, Steps
from .super_learner import INNER_FOLDS, SuperLearner, fit_super_learner
from .table_labels import TableLabels
from .thresholds import best_threshold, f1, precision, recall

FOLDS = 5
QUICK_FOLDS = 3
# With fewer of either class, a fold could be without one.
MIN_ROWS_OF_A_CLASS = 25
TREES = 400
QUICK_TREES = 100
# Learning rate times trees of the boosting: what learns faster takes single failures for a rule.
BOOST = 6.0
# The network for boards is taught of so many rows that nobody measured; so many are drawn for each.
TAUGHT, QUICK_TAUGHT = 40_000, 20_000
DRAWN_FOR_ONE = 3
TAUGHT_THRESHOLDS = (0.001, 0.999)
PUBLISHED = {
    "F1 0.895: XGBoost, cross-validated without leakage, all 10,000 rows": 0.895,
}
RULE, ALL = "rule of the description", "all fail"
_PREDICTED = ("id", "probability", "failure", "mode")


def train(data: Path, job: Job) -> dict[str, Any]:
    """Fit all of it to a file of the format and write the model's directory.

    Returns:
        The report, which is written as well.

    Raises:
        RecordingError: the file is not of the format. TrainingError: too few failures. LabelError.
    """
    rows, said = _read(data, job)
    failed, modes = _labels(rows, data)
    fitted = _fit(rows.features, failed, modes, job, _steps(job, "train", 1))
    model, int8 = fitted.model, fitted.int8
    with experiment_log(job.out) as note:
        for epoch, loss in enumerate(fitted.losses):
            note("int8 network/loss", loss, epoch)
        for name, values in fitted.out_of_fold().items():
            note(f"{name}/f1", f1(values >= model.thresholds[name], failed), 0)
    plot_losses(job.out / "loss.png", [fitted.losses], "cross-entropy")
    plot_precision_recall(job.out / "precision_recall.png", fitted.out_of_fold(), failed)
    card = {
        "task": TASK,
        "rows": len(rows),
        "failures": int(failed.sum()),
        "seed": job.seed,
        "quick": job.quick,
        "sealed": False,
        "labels": said,
        "features": list(FEATURES),
        "never_change": rows.still(),
        "modes": list(MODES),
        **model.card(),
        "int8": {
            "bytes": len(int8.data), "ops": list(int8.ops), "arena": int8.arena,
            "input_scale": int8.input_scale, "input_zero": int8.input_zero,
            "mean": model.network.mean.tolist(),
            "deviation": model.network.deviation.tolist(),
        },
    }  # fmt: skip
    with written_whole(job.out) as new:
        model.save(new)
        np.save(new / SEEN_FILE, np.unique(rows.digests()))
        write_card(new, card)
    return {key: value for key, value in card.items() if key != "int8"} | {
        "int8_bytes": len(int8.data),
        "int8_arena": int8.arena,
    }


def predict(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Write a CSV file: id, probability and decision of each row, and the likeliest mode.

    Raises:
        RecordingError, ModelError.
    """
    learner, threshold = load_learner(model, read_card(model, TASK))
    rows = read_failures(data, labelled=False)
    probability = learner.combined(learner.predict(rows.features))
    decided = probability >= threshold
    likely = np.argmax(mode_probabilities(load_sklearn(model / MODES_FILE), rows.features), axis=1)
    names = list(MODES)
    write_table(
        out,
        _PREDICTED,
        (
            (id_, f"{share:.6f}", int(fails), names[mode] if fails else "")
            for id_, share, fails, mode in zip(rows.ids, probability, decided, likely, strict=True)
        ),
    )
    return {"rows": len(rows), "failures": int(decided.sum()), "out": str(out)}


def evaluate(data: Path, job: Job) -> dict[str, Any]:
    """Measure by cross-validation, or measure a model that was trained before.

    By cross-validation, all that is learned, and each threshold, is of other rows alone. A model
    that was trained before is judged by the rows that it has not learned from. What engineers'
    labels say counts as true, as it does in training.

    Raises:
        RecordingError, TrainingError, LabelError, ModelError.
    """
    from sklearn.model_selection import StratifiedKFold

    if job.model is not None:
        return _measure(job.model, data, job)
    rows, said = _read(data, job)
    failed, modes = _labels(rows, data)
    count = QUICK_FOLDS if job.quick else FOLDS
    folds = StratifiedKFold(count, shuffle=True, random_state=job.seed)
    verdicts = _Verdicts(rows)
    steps = _steps(job, "cross-validation", count)
    with experiment_log(job.out) as note:
        for fold, (learn, judge) in enumerate(folds.split(rows.features, failed)):
            fitted = _fit(rows.features[learn], failed[learn], modes[learn], job, steps)
            verdicts.add(fitted.model, judge)
            for name, decided in verdicts.decided.items():
                note(f"{name}/f1", f1(decided[judge], failed[judge]), fold)
    protocol = f"{count} folds, stratified; models, weights and thresholds of the other folds"
    about = {"protocol": protocol, "labels": said, "quick": job.quick, "published": PUBLISHED}
    return _judged(verdicts, job, about)


def _measure(directory: Path, data: Path, job: Job) -> dict[str, Any]:
    """Judge rows by a model that was trained before, but for those that it has learned from."""
    card, seen = read_card(directory, TASK), load_seen(directory, np.uint64)
    model = FailureModel.load(directory, card)
    rows, said = _read(data, job)
    learned = np.isin(rows.digests(), seen)
    judged = rows.only(~learned)
    if not len(judged):
        raise TrainingError(
            f"{data}: the model has learned from each of the {len(rows)} rows",
            "give rows that came later",
        )
    if not _outcomes(judged)[0].any():
        raise TrainingError(
            f"{data}: no machine failed in the {len(judged)} rows that are judged",
            "give more rows, with failures among them",
        )
    verdicts = _Verdicts(judged)
    verdicts.add(model, np.arange(len(judged)))
    protocol = "rows judged by a model that was trained before, but for those it has learned from"
    about = {"protocol": protocol, "learned": len(seen), "left_out_as_learned": int(learned.sum())}
    return _judged(verdicts, job, {**about, "labels": said})


class _Verdicts:
    """What models say of rows, by the model's name; and which modes are told, bool [n, modes]."""

    def __init__(self, rows: FailureData) -> None:
        self.rows = rows
        self.scores: dict[str, npt.NDArray[np.float64]] = {}
        self.decided: dict[str, npt.NDArray[np.bool_]] = {}
        self.modes = np.zeros((len(rows), len(MODES)), np.bool_)

    def add(self, model: FailureModel, at: npt.NDArray[np.int64]) -> None:
        """Take what a model says of the rows at these positions."""
        count, features = len(self.rows), self.rows.features[at]
        for name, values in model.scores(features).items():
            self.scores.setdefault(name, np.zeros(count))[at] = values
            flags = self.decided.setdefault(name, np.zeros(count, np.bool_))
            flags[at] = values >= model.thresholds[name]
        self.modes[at] = model.told_modes(features)


def _judged(verdicts: _Verdicts, job: Job, about: dict[str, Any]) -> dict[str, Any]:
    """Hold verdicts, and those of what learns nothing, against what happened, and write it.

    Returns:
        The result, with what it is `about`.
    """
    rows = verdicts.rows
    failed, modes = _outcomes(rows)
    decided = verdicts.decided | {
        RULE: rule(rows.features),
        ALL: np.ones(len(rows), np.bool_),
    }
    results = [_row(name, flags, failed, job.seed) for name, flags in decided.items()]
    results.sort(key=lambda row: (-row["f1"], row["model"] != SUPER))
    result = {
        "task": TASK,
        **about,
        "rows": len(rows),
        "failures": int(failed.sum()),
        "seed": job.seed,
        "results": results,
        "modes": [
            {"mode": mode, "rows": int(true.sum()), "f1": f1(told, true)}
            for mode, told, true in zip(MODES, verdicts.modes.T, modes.T, strict=True)
        ],
        "verdict": _verdict(results),
    }
    job.out.mkdir(parents=True, exist_ok=True)
    plot_precision_recall(job.out / "precision_recall.png", verdicts.scores, failed)
    return job.keep(result)


@dataclass(frozen=True)
class _Fitted:
    """What was learned, and how.

    Attributes:
        int8: the network for boards, as it is fed there.
        losses: of each of its epochs.
    """

    model: FailureModel
    int8: TfliteModel
    losses: Sequence[float]

    def out_of_fold(self) -> dict[str, npt.NDArray[np.float64]]:
        """Probability of each row by candidates that had not seen it, by name."""
        learner = self.model.learner
        return {**learner.out_of_fold, SUPER: learner.combined(learner.out_of_fold)}


def _steps(job: Job, what: str, rounds: int) -> Steps:
    """Count the fits."""
    # Each candidate in each inner fold and once to everything; the network; the modes.
    return Steps(job, what, rounds * (len(candidates(job)) * (INNER_FOLDS + 1) + 2))


def candidates(job: Job) -> dict[str, Callable[[], Any]]:
    """Makers of what the super learner weighs, by name."""
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    trees, seed = QUICK_TREES if job.quick else TREES, job.seed
    return {
        "generalised linear model": lambda: make_pipeline(
            StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=2000)
        ),
        "random forest": lambda: RandomForestClassifier(trees, random_state=seed),
        "gradient boosting": lambda: GradientBoostingClassifier(
            n_estimators=trees // 2,
            learning_rate=BOOST / (trees // 2),
            max_depth=4,
            subsample=0.7,
            random_state=seed,
        ),
        "neural network": lambda: make_pipeline(
            StandardScaler(), MLPClassifier((48, 24), max_iter=trees, random_state=seed)
        ),
    }


def _fit(
    features: npt.NDArray[np.float64],
    failed: npt.NDArray[np.bool_],
    modes: npt.NDArray[np.bool_],
    job: Job,
    step: Steps,
) -> _Fitted:
    """Fit everything, each threshold by rows that its model has not seen."""
    from scipy.special import logit
    from sklearn.ensemble import RandomForestClassifier

    learner = fit_super_learner(candidates(job), features, failed, job.seed, step, job.pool)
    thresholds = {
        name: best_threshold(values, failed) for name, values in learner.out_of_fold.items()
    }
    thresholds[SUPER] = best_threshold(learner.combined(learner.out_of_fold), failed)
    # The network says what the learner would, so the learner's threshold is its own.
    thresholds[FLOAT_BOARD] = float(logit(np.clip(thresholds[SUPER], *TAUGHT_THRESHOLDS)))
    fit = _teach(learner, features, failed, job)
    step()
    zero, width = fit.int8.output_zero, fit.int8.output_scale
    thresholds[BOARD] = thresholds[FLOAT_BOARD] / width + zero
    forest = RandomForestClassifier(QUICK_TREES, random_state=job.seed).fit(features, modes)
    step()
    return _Fitted(FailureModel(learner, fit.network, forest, thresholds), fit.int8, fit.losses)


def _teach(
    learner: SuperLearner,
    features: npt.NDArray[np.float64],
    failed: npt.NDArray[np.bool_],
    job: Job,
) -> NetworkFit:
    """Train the network for boards to say what the learner does, most of all where that wavers."""
    count, random = QUICK_TAUGHT if job.quick else TAUGHT, np.random.default_rng(job.seed)
    rows = made_up(features, failed, DRAWN_FOR_ONE * count, random)
    said = learner.combined(learner.predict(rows))
    wavering = np.argsort(np.abs(said - 0.5), kind="stable")[: count // 2]
    others = np.setdiff1d(np.arange(len(rows)), wavering)
    chosen = np.concatenate([wavering, random.choice(others, count - count // 2, replace=False)])
    probability = np.concatenate([learner.combined(learner.predict(features)), said[chosen]])
    return fit_network(features, rows[chosen], probability, quick=job.quick, seed=job.seed)


def _read(data: Path, job: Job) -> tuple[FailureData, dict[str, Any] | None]:
    """Rows with their outcomes, and what the report says of the engineers' labels among these."""
    if job.labels is None:
        return read_failures(data, labelled=True), None
    labels = TableLabels.read(job.labels, "id")
    return labelled(data, labels), labels.card(0)


def _labels(rows: FailureData, data: Path) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Outcomes of rows that are learned from: whether each failed, and how."""
    failed, modes = _outcomes(rows)
    failures = int(failed.sum())
    for what, count in (("failures", failures), ("rows without a failure", len(rows) - failures)):
        if count < MIN_ROWS_OF_A_CLASS:
            raise TrainingError(
                f"{data}: {count} {what}, at least {MIN_ROWS_OF_A_CLASS} are needed",
                "add recordings in which the machine failed and in which it did not",
            )
    return failed, modes


def _outcomes(rows: FailureData) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    assert rows.failed is not None and rows.modes is not None  # noqa: PT018 - read together
    return rows.failed, rows.modes


def _row(
    name: str, decided: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_], seed: int
) -> dict[str, Any]:
    return {
        "model": name,
        **bootstrap(f1, decided, failed, seed=seed).row("f1"),
        **bootstrap(precision, decided, failed, seed=seed).row("precision"),
        **bootstrap(recall, decided, failed, seed=seed).row("recall"),
    }


def _verdict(results: list[dict[str, Any]]) -> str:
    """Say plainly which is best, and whether the simple ones would do."""
    best, by_name = results[0], {row["model"]: row["f1"] for row in results}
    said = f"best is the {best['model']} with F1 {best['f1']:.3f}"
    if best["model"] == SUPER:
        return f"{said}; the {RULE}, which learns nothing, has {by_name[RULE]:.3f}"
    said += f"; the super learner ({by_name[SUPER]:.3f}) does not beat it"
    if best["model"] == RULE:
        said += ": the set is simulated by such rules, which no real machine comes with"
    return said
