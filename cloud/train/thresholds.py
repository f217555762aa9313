"""From scores to decisions, and how good those are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


def best_threshold(scores: Scores, labels: Flags) -> float:
    """The threshold with the highest F1 where `score >= threshold` is positive.

    It lies in the middle between two scores, as other data has scores between them.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), np.cumsum(labels[order])
    found = 2 * hits / (np.arange(1, len(ranked) + 1) + labels.sum())
    # Rows of equal score fall together: only the last of them is a place to cut.
    cuts = np.append(np.diff(ranked) != 0, True)
    at = int(np.argmax(np.where(cuts, found, -1)))
    if at + 1 == len(ranked):
        return float(ranked[at])
    return float((ranked[at] + ranked[at + 1]) / 2)


def f1(decided: Flags, labels: Flags) -> float:
    """F1 of the positive class; 0 where nothing is positive."""
    both = int((decided & labels).sum())
    return 2 * both / max(1, int(decided.sum()) + int(labels.sum()))


def precision(decided: Flags, labels: Flags) -> float:
    """Share of what was decided to be positive that is."""
    return float((decided & labels).sum() / max(1, decided.sum()))


def recall(decided: Flags, labels: Flags) -> float:
    """Share of what is positive that was decided to be."""
    return float((decided & labels).sum() / max(1, labels.sum()))
