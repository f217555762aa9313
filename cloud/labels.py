"""What engineers have said of readings and images, and what follows for each row.

Of each member the latest label of a row counts. Where two say different things, both stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fog_node.protocol.labels import NORMAL, Image, PackSpan, Target, TimeSpan

from .readings import Readings

_UNLABELLED = -1


class SealedLabel(NamedTuple):
    """A label as it is on the chain.

    Attributes:
        transaction: its id; `position`, its place in it.
        height: of the block.
        member: name of who said so.
        value: as in the protocol's Labelled.
        note: why; empty where nobody says.
        said: when, s since 1970, by the signer's own clock.
    """

    transaction: bytes
    position: int
    height: int
    member: str
    target: Target
    value: str | None
    note: str
    said: float


@dataclass(frozen=True)
class RowLabels:
    """What is said of a board's rows.

    Attributes:
        members: who says something of any of them, in the order of their names.
        values: what is said.
        said: int64 [members, n], position in `values`; -1 where a member says nothing.
    """

    members: tuple[str, ...]
    values: tuple[str, ...]
    said: npt.NDArray[np.int64] = field(repr=False)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether anybody says anything, bool [n]."""
        known: npt.NDArray[np.bool_] = (self.said != _UNLABELLED).any(axis=0)
        return known

    @property
    def normal(self) -> npt.NDArray[np.bool_]:
        """Whether anybody says that it is normal, bool [n]."""
        return self._is_said([value == NORMAL for value in self.values])

    @property
    def anomalous(self) -> npt.NDArray[np.bool_]:
        """Whether anybody says anything else, bool [n]."""
        return self._is_said([value != NORMAL for value in self.values])

    @property
    def disputed(self) -> npt.NDArray[np.bool_]:
        """Whether two say different things, bool [n]."""
        highest = self.said.max(axis=0, initial=_UNLABELLED)
        others = (self.said != _UNLABELLED) & (self.said != highest)
        disputed: npt.NDArray[np.bool_] = others.any(axis=0)
        return disputed

    def words(self) -> list[str]:
        """What is said of each row, by whom: `member: value; ...`; empty where nothing is."""
        found = []
        for row in self.said.T:
            said = [
                f"{member}: {self.values[what]}"
                for member, what in zip(self.members, row, strict=True)
                if what != _UNLABELLED
            ]
            found.append("; ".join(said))
        return found

    def _is_said(self, wanted: list[bool]) -> npt.NDArray[np.bool_]:
        # The last place is for who says nothing.
        table = np.array([*wanted, False], np.bool_)
        said: npt.NDArray[np.bool_] = np.logical_or.reduce(table[self.said], axis=0)
        return said


class _Sorted:
    """Rows in the order of a column, so that a span is found at once."""

    def __init__(self, column: npt.NDArray[np.int64]) -> None:
        self._order = np.argsort(column, kind="stable")
        self._column = column[self._order]

    def between(self, first: int, last: int) -> npt.NDArray[np.int64]:
        begin = np.searchsorted(self._column, first, "left")
        end = np.searchsorted(self._column, last, "right")
        rows: npt.NDArray[np.int64] = self._order[begin:end]
        return rows


class Labels:
    """Labels in the chain's order."""

    def __init__(self, labels: Sequence[SealedLabel]) -> None:
        """Take labels in the chain's order."""
        self.all = tuple(labels)

    def of_rows(self, device: bytes, readings: Readings) -> RowLabels:
        """What is said of each row of a board."""
        own = [
            label
            for label in self.all
            if not isinstance(label.target, Image) and label.target.device == device
        ]
        members = sorted({label.member for label in own})
        values = sorted({label.value for label in own if label.value is not None})
        said = np.full((len(members), len(readings)), _UNLABELLED, np.int64)
        places = {name: at for at, name in enumerate(members)}
        codes: dict[str | None, int] = {value: at for at, value in enumerate(values)}
        by_time, by_number = _Sorted(readings.times_ms), _Sorted(readings.sequence)
        for label in own:
            target = label.target
            assert not isinstance(target, Image)
            of = by_number if isinstance(target, PackSpan) else by_time
            rows = of.between(target.first, target.last)
            said[places[label.member], rows] = codes.get(label.value, _UNLABELLED)
        return RowLabels(tuple(members), tuple(values), said)

    def truth(self, device: bytes, readings: Readings) -> dict[float, bool]:
        """Whether rows are anomalous, by their time: those of which all who say anything agree.

        Agreed is whether a row is normal; what else it is may be disputed.
        """
        rows = self.of_rows(device, readings)
        anomalous, normal = rows.anomalous, rows.normal
        agreed = np.flatnonzero(anomalous != normal)
        return {float(readings.times[at]): bool(anomalous[at]) for at in agreed}

    def of_images(self) -> dict[bytes, dict[str, str]]:
        """What each member says of each image, by its SHA-256 and the member's name."""
        found: dict[bytes, dict[str, str]] = {}
        for label in self.all:
            if not isinstance(label.target, Image):
                continue
            said = found.setdefault(label.target.sha256, {})
            if label.value is None:
                said.pop(label.member, None)
            else:
                said[label.member] = label.value
        return {sha256: said for sha256, said in found.items() if said}

    def standing(self) -> list[str]:
        """Say of each label how it stands.

        Returns:
            `taken back`: it takes back what was said; `superseded`: its member has said
            something of the same later; `disputed`: another member says something else of some
            of the same; `stands`. A later label of only some of the same rows supersedes just
            these, so the earlier one stands.
        """
        latest = {(label.member, label.target): i for i, label in enumerate(self.all)}
        standing = []
        for i, label in enumerate(self.all):
            if latest[label.member, label.target] != i:
                standing.append("superseded")
            else:
                standing.append("stands" if label.value is not None else "taken back")
        for one, other in _overlaps([i for i, s in enumerate(standing) if s == "stands"], self.all):
            first, second = self.all[one], self.all[other]
            if first.member != second.member and first.value != second.value:
                standing[one] = standing[other] = "disputed"
        return standing


def _overlaps(places: list[int], labels: Sequence[SealedLabel]) -> list[tuple[int, int]]:
    """Pairs of labels that have some of the same, as far as labels alone tell.

    Spans of time and of packs are not compared: only the rows tell what they have in common.
    """
    groups: dict[tuple[str, bytes], list[tuple[int, int, int]]] = {}
    for place in places:
        match labels[place].target:
            case Image(sha256):
                groups.setdefault(("image", sha256), []).append((0, 0, place))
            case TimeSpan(device, first, last):
                groups.setdefault(("time", device), []).append((first, last, place))
            case PackSpan(device, first, last):
                groups.setdefault(("packs", device), []).append((first, last, place))
    found = []
    for group in groups.values():
        open_: list[tuple[int, int]] = []
        for first, last, place in sorted(group):
            open_ = [(end, other) for end, other in open_ if end >= first]
            found += [(other, place) for _, other in open_]
            open_.append((last, place))
    return found
