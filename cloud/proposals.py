"""What to label next: where the model is least sure, spread over boards and time.

Uncertainty sampling: a window whose score is at the threshold could be either; a label of it tells
more than one of a window that is clearly normal. Neighbouring windows share rows and tell the same,
so that only one of them is proposed, and boards take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fog_node.protocol.keys import kid_hex
from fog_node.protocol.manifest import Manifest

from .dataset import SealedVerdict
from .errors import DatasetError, TrainingError
from .labels import Labels
from .readings import Readings
from .selection import Selection
from .times import iso
from .train.anomaly_model import BoardModel

# Windows of a board that are proposed together are so many windows apart.
APART_WINDOWS = 4
_MODEL_PREFIX_BYTES = 8


@dataclass(frozen=True)
class Proposal:
    """A window that is worth a label.

    Attributes:
        device: key id.
        first, last: ms since 1970, of its first and last row.
        score, threshold: of the model.
        uncertainty: from 1, at the threshold, down to 0, nowhere near it.
    """

    device: bytes
    first: int
    last: int
    score: int
    threshold: int
    uncertainty: float

    def row(self) -> dict[str, Any]:
        """For people, JSON and CSV; `value` is left for the engineer."""
        side = "above" if self.score > self.threshold else "at or below"
        return {
            "device": kid_hex(self.device),
            "from": iso(self.first),
            "until": iso(self.last),
            "value": "",
            "score": self.score,
            "threshold": self.threshold,
            "uncertainty": round(self.uncertainty, 4),
            "why": f"score is {side} the threshold, by a factor of {self._factor():.2f}",
        }

    def _factor(self) -> float:
        low, high = sorted((self.score + 1, self.threshold + 1))
        return high / low


@dataclass(frozen=True)
class _Windows:
    """Windows of a board that have no label, with their scores."""

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    scores: npt.NDArray[np.int64]


def propose(
    selection: Selection,
    model_directory: Path,
    count: int,
    sealed: Sequence[SealedVerdict] | None = None,
) -> list[Proposal]:
    """Choose windows that are worth a label, the best first.

    Args:
        selection: readings, and the labels that there are: what has one is not proposed.
        model_directory: as training wrote it.
        count: how many at most.
        sealed: boards' own verdicts, whose scores are to be taken; None: LiteRT's, which are
            there for rows that no board has judged.

    Raises:
        ReleaseError: the directory is not as training wrote it.
        DatasetError: boards have other channels than the model.
        TrainingError: nothing is left to propose.
    """
    model = BoardModel.load(model_directory)
    manifest = model.manifest
    boards = {}
    for device, readings in selection.readings.items():
        try:
            own = readings.only(manifest.channels)
        except DatasetError as error:
            raise DatasetError(
                f"{kid_hex(device)}: measures {', '.join(readings.channels)}, the model takes "
                f"{', '.join(manifest.channels)}",
                "give the model of these boards, or leave the board out",
            ) from error
        if sealed is None:
            windows = _by_litert(own, model, device)
        else:
            windows = _by_board([v for v in sealed if v.device == device], own, manifest)
        boards[device] = _unlabelled(windows, device, own, selection.labels)
    chosen = list(_in_turn(_ranked(boards, manifest), count))
    if not chosen:
        raise TrainingError(
            "proposals: no window without a label is left",
            "collect later blocks, ask for more boards or time, or give the model that judged",
        )
    return chosen


def _by_litert(readings: Readings, model: BoardModel, device: bytes) -> _Windows:
    windows, scores = model.judge(readings, kid_hex(device))
    return _Windows(_first_rows(windows.last, readings, model.manifest), windows.last, scores)


def _by_board(sealed: Sequence[SealedVerdict], readings: Readings, manifest: Manifest) -> _Windows:
    identity = manifest.payload_sha256[:_MODEL_PREFIX_BYTES]
    at = {float(time): row for row, time in enumerate(readings.times)}
    own = [v for v in sealed if v.model == identity and v.time in at]
    last = np.array([at[v.time] for v in own], np.int64)
    return _Windows(
        _first_rows(last, readings, manifest), last, np.array([v.score for v in own], np.int64)
    )


def _first_rows(
    last: npt.NDArray[np.int64], readings: Readings, manifest: Manifest
) -> npt.NDArray[np.int64]:
    """Index of each window's first row: rows with a missing value are in no window."""
    whole = np.flatnonzero(np.isfinite(readings.values).all(axis=1))
    position = np.searchsorted(whole, last)
    first: npt.NDArray[np.int64] = whole[np.maximum(position - manifest.window + 1, 0)]
    return first


def _unlabelled(
    windows: _Windows, device: bytes, readings: Readings, labels: Labels
) -> list[tuple[int, int, int]]:
    """(first ms, last ms, score) of the windows without a labelled row."""
    known = np.concatenate([[0], np.cumsum(labels.of_rows(device, readings).known)])
    free = known[windows.last + 1] == known[windows.first]
    times = readings.times_ms
    return [
        (int(times[first]), int(times[last]), int(scored))
        for first, last, scored in zip(
            windows.first[free], windows.last[free], windows.scores[free], strict=True
        )
    ]


def _ranked(
    boards: Mapping[bytes, Sequence[tuple[int, int, int]]], manifest: Manifest
) -> dict[bytes, list[Proposal]]:
    """Proposals of each board, the most uncertain first, none near a better one."""
    limit = np.log1p(manifest.threshold)
    ranked = {}
    for device, windows in boards.items():
        made = [
            Proposal(
                device,
                first,
                last,
                scored,
                manifest.threshold,
                float(np.exp(-abs(np.log1p(scored) - limit))),
            )
            for first, last, scored in windows
            if first <= last
        ]
        made.sort(key=lambda proposal: (-proposal.uncertainty, proposal.first))
        ranked[device] = _apart(made)
    return ranked


def _apart(proposals: Sequence[Proposal]) -> list[Proposal]:
    taken: list[Proposal] = []
    spans = np.zeros((0, 2), np.int64)
    for proposal in proposals:
        apart = (proposal.last - proposal.first) * APART_WINDOWS
        near = (spans[:, 0] - apart <= proposal.last) & (proposal.first <= spans[:, 1] + apart)
        if not near.any():
            taken.append(proposal)
            spans = np.vstack([spans, [proposal.first, proposal.last]])
    return taken


def _in_turn(ranked: Mapping[bytes, Sequence[Proposal]], count: int) -> Iterator[Proposal]:
    """The best of each board, then the second best of each, until there are enough."""
    given = 0
    for turn in range(max((len(own) for own in ranked.values()), default=0)):
        round_ = [own[turn] for own in ranked.values() if turn < len(own)]
        for proposal in sorted(round_, key=lambda p: (-p.uncertainty, p.device)):
            if given == count:
                return
            given += 1
            yield proposal
