"""Several learners, weighted by how well they did on what they had not seen.

The super learner of van der Laan, Polley and Hubbard (Statistical Applications in Genetics and
Molecular Biology 6, 2007), as Butte et al. use it for machine failures: predictions of each
candidate out of fold, non-negative least squares over them, and each candidate fitted again to
everything.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.scale_out import HERE, Pool

INNER_FOLDS = 5

Probabilities = npt.NDArray[np.float64]


class SuperLearner:
    """A weighted mean of classifiers of two classes.

    Attributes:
        models: the candidates, fitted to everything.
        weights: of each, not negative, 1 in all.
        out_of_fold: by candidate, each row's probability by a model that had not seen it;
            float64 [n]. `combined` of them is what to set a threshold by.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        weights: Mapping[str, float],
        out_of_fold: Mapping[str, Probabilities],
    ) -> None:
        self.models = dict(models)
        self.weights = dict(weights)
        self.out_of_fold = dict(out_of_fold)

    def predict(self, features: npt.NDArray[np.float64]) -> dict[str, Probabilities]:
        """Probability of the positive class by each candidate, float64 [n]."""
        return {name: _positive(model, features) for name, model in self.models.items()}

    def combined(self, each: Mapping[str, Probabilities]) -> Probabilities:
        """Put the candidates' probabilities together."""
        total: Probabilities = np.sum(
            [self.weights[name] * values for name, values in each.items()], axis=0
        )
        return total


def fit_super_learner(
    candidates: Mapping[str, Callable[[], Any]],
    features: npt.NDArray[np.float64],
    labels: npt.NDArray[np.bool_],
    seed: int,
    step: Callable[[], None],
    pool: Pool = HERE,
) -> SuperLearner:
    """Fit the candidates and their weights.

    Args:
        candidates: makes of a classifier in the manner of scikit-learn, by name.
        features: float64 [n, features].
        labels: bool [n].
        seed: of the folds.
        step: called after each of the (INNER_FOLDS + 1) fits of a candidate.
        pool: does the fits.
    """
    from scipy.optimize import nnls
    from sklearn.model_selection import StratifiedKFold

    folds = list(
        StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed).split(features, labels)
    )
    out_of_fold = {name: np.zeros(len(labels)) for name in candidates}
    models = {}
    parts = [(name, fold) for name in candidates for fold in (*range(len(folds)), None)]
    fits = pool.map(_fit, parts, (candidates, features, labels, folds))
    for (name, fold), found in zip(parts, fits, strict=True):
        if fold is None:
            models[name] = found
        else:
            out_of_fold[name][folds[fold][1]] = found
        step()
    shares, _ = nnls(np.stack(list(out_of_fold.values()), axis=1), labels.astype(np.float64))
    if not shares.any():  # none of them tells anything
        shares = np.ones(len(shares))
    weights = dict(zip(out_of_fold, (shares / shares.sum()).tolist(), strict=True))
    return SuperLearner(models, weights, out_of_fold)


def _fit(part: tuple[str, int | None], shared: Any) -> Any:
    """Fit a candidate: its probabilities for a fold by the others, or without one the model."""
    candidates, features, labels, folds = shared
    name, fold = part
    if fold is None:
        return _fitted(candidates[name], features, labels)
    learn, judge = folds[fold]
    return _positive(_fitted(candidates[name], features[learn], labels[learn]), features[judge])


def _fitted(
    make: Callable[[], Any], features: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]
) -> Any:
    """Fit a candidate; one that has not settled by then weighs as little as it is worth."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make().fit(features, labels)


def _positive(model: Any, features: npt.NDArray[np.float64]) -> Probabilities:
    probabilities: Probabilities = model.predict_proba(features)[:, 1]
    return probabilities
