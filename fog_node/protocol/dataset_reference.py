"""What a release says of its data: which transactions, and by which question they were chosen.

Whoever has the chain puts the question again and comes to the same root, or says how not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import FormatError
from .keys import KID_BYTES
from .merkle import HASH_BYTES
from .validate import array, octets, text_map, time_ms, uint

# With more a question is for a whole device type.
MAX_DEVICES = 256


@dataclass(frozen=True)
class LabelsReference:
    """The exact transactions whose labels were followed.

    Attributes:
        root: RFC 9162 root over them, in chain order.
        count: how many; at least 1.
    """

    root: bytes
    count: int


@dataclass(frozen=True)
class DatasetQuery:
    """How the transactions were chosen, among the packs of boards of the release's device type.

    Attributes:
        height: packs and labels up to this block.
        devices: key ids of the boards, rising; None: all of the type.
        since, until: ms since 1970, both in it: packs with a row whose time, as it was known
            at `height`, is in the span. None: without that bound; where both are None, packs
            without any time are chosen, too.
        labels: all that had been said of these boards' readings; None: labels were not looked
            at, or nobody had given any.
    """

    height: int
    devices: tuple[bytes, ...] | None = None
    since: int | None = None
    until: int | None = None
    labels: LabelsReference | None = None

    @classmethod
    def parse(cls, value: Any, where: str) -> DatasetQuery:
        """Read what `value` gives; raises FormatError."""
        given = text_map(value, {"height", "devices", "since", "until", "labels"}, where)
        query = cls(
            height=uint(given["height"], f"{where}.height"),
            devices=_devices(given["devices"], f"{where}.devices"),
            since=_time(given["since"], f"{where}.since"),
            until=_time(given["until"], f"{where}.until"),
            labels=_labels(given["labels"], f"{where}.labels"),
        )
        if query.since is not None and query.until is not None and query.since > query.until:
            raise FormatError(f"{where}.until", "is before since")
        return query

    @property
    def value(self) -> dict[str, Any]:
        """As it stands in the payload."""
        labels = self.labels
        return {
            "height": self.height,
            "devices": None if self.devices is None else list(self.devices),
            "since": self.since,
            "until": self.until,
            "labels": None if labels is None else {"root": labels.root, "count": labels.count},
        }


@dataclass(frozen=True)
class DatasetReference:
    """The exact transactions a model was trained on.

    Attributes:
        root: RFC 9162 root over them, in chain order.
        count: how many.
        first, last: heights of the blocks of the first and the last one.
        query: how they were chosen; None: all packs of the release's device type in these
            blocks, and no labels. Firmware counts 0 and has none.
    """

    root: bytes
    count: int
    first: int
    last: int
    query: DatasetQuery | None = None

    @classmethod
    def parse(cls, value: Any, where: str) -> DatasetReference:
        """Read what `value` gives; raises FormatError."""
        names = {"root", "count", "first", "last"}
        if isinstance(value, dict) and "query" in value:
            names.add("query")
        given = text_map(value, names, where)
        reference = cls(
            root=octets(given["root"], f"{where}.root", HASH_BYTES),
            count=uint(given["count"], f"{where}.count"),
            first=uint(given["first"], f"{where}.first"),
            last=uint(given["last"], f"{where}.last"),
            query=DatasetQuery.parse(given["query"], f"{where}.query")
            if "query" in given
            else None,
        )
        if reference.query is not None and reference.query.height < reference.last:
            raise FormatError(f"{where}.query.height", "is below last")
        return reference

    @property
    def value(self) -> dict[str, Any]:
        """As it stands in the payload."""
        value: dict[str, Any] = {
            "root": self.root,
            "count": self.count,
            "first": self.first,
            "last": self.last,
        }
        return value if self.query is None else value | {"query": self.query.value}


def _devices(value: Any, where: str) -> tuple[bytes, ...] | None:
    if value is None:
        return None
    listed = array(value, where, at_most=MAX_DEVICES)
    devices = tuple(octets(kid, where, KID_BYTES) for kid in listed)
    if not devices or list(devices) != sorted(set(devices)):
        raise FormatError(where, "is empty, or not rising")
    return devices


def _time(value: Any, where: str) -> int | None:
    return None if value is None else time_ms(value, where)


def _labels(value: Any, where: str) -> LabelsReference | None:
    if value is None:
        return None
    given = text_map(value, {"root", "count"}, where)
    return LabelsReference(
        octets(given["root"], f"{where}.root", HASH_BYTES),
        uint(given["count"], f"{where}.count", at_least=1),
    )
