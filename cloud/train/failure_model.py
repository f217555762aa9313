"""A trained model of failures as it runs: `train` writes it, `predict` and `evaluate` read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError
from cloud.model_files import load_sklearn, save_sklearn

from .failure_data import FEATURES
from .failure_network import FailureNetwork
from .super_learner import SuperLearner

TASK = "failure"
SUPER, BOARD, FLOAT_BOARD = "super learner", "int8 network", "the same network, float"
MODES_FILE = "modes.skops"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FailureModel:
    """All that is learned.

    Attributes:
        learner: tells whether a machine fails.
        network: tells it on boards.
        modes: tells how: a random forest of several labels.
        thresholds: of the learner, each of its candidates, and the network, by name.
    """

    learner: SuperLearner = field(repr=False)
    network: FailureNetwork
    modes: Any = field(repr=False)
    thresholds: Mapping[str, float]

    def scores(self, features: Floats) -> dict[str, Floats]:
        """What each of them says of rows, by name; held against its threshold."""
        each = self.learner.predict(features)
        return {
            **each,
            SUPER: self.learner.combined(each),
            FLOAT_BOARD: self.network.float_scores(features),
            BOARD: self.network.int8_scores(features).astype(np.float64),
        }

    def told_modes(self, features: Floats) -> npt.NDArray[np.bool_]:
        """How each row would fail, bool [n, modes]."""
        told: npt.NDArray[np.bool_] = mode_probabilities(self.modes, features) >= 0.5
        return told

    def card(self) -> dict[str, Any]:
        """What must be known to run it, besides what the network is fed with."""
        others = {name: self.thresholds[name] for name in (*self.learner.models, FLOAT_BOARD)}
        return {
            "weights": self.learner.weights,
            "threshold": self.thresholds[SUPER],
            "int8_threshold": int(np.ceil(self.thresholds[BOARD])),
            "other_thresholds": others,
        }

    def save(self, directory: Path) -> None:
        """Write its files; the card is not among them."""
        for name, model in self.learner.models.items():
            save_sklearn(directory / _file(name), model)
        save_sklearn(directory / MODES_FILE, self.modes)
        self.network.save(directory)

    @classmethod
    def load(cls, directory: Path, card: Mapping[str, Any]) -> FailureModel:
        """Read what was saved, of which a card tells; raises ModelError."""
        learner, threshold = load_learner(directory, card)
        thresholds = {SUPER: threshold}
        try:
            thresholds[BOARD] = float(card["int8_threshold"])
            for name in (*learner.models, FLOAT_BOARD):
                thresholds[name] = float(card["other_thresholds"][name])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{directory}: card is damaged ({error!r})", "train again") from error
        network = FailureNetwork.load(directory, card.get("int8"), len(FEATURES))
        return cls(learner, network, load_sklearn(directory / MODES_FILE), thresholds)


def load_learner(directory: Path, card: Mapping[str, Any]) -> tuple[SuperLearner, float]:
    """Read the super learner that a card tells of, and its threshold; raises ModelError."""
    try:
        weights = {name: float(share) for name, share in card["weights"].items()}
        threshold = float(card["threshold"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{directory}: card is damaged ({error!r})", "train again") from error
    models = {name: load_sklearn(directory / _file(name)) for name in weights}
    return SuperLearner(models, weights, {}), threshold


def mode_probabilities(forest: Any, features: Floats) -> Floats:
    """Probability of each mode, float64 [n, modes]; 0 for one that was never seen."""
    columns = []
    for classes, values in zip(forest.classes_, forest.predict_proba(features), strict=True):
        seen = list(classes)
        columns.append(values[:, seen.index(True)] if True in seen else np.zeros(len(features)))
    return np.stack(columns, axis=1)


def _file(name: str) -> str:
    return name.replace(" ", "_") + ".skops"
