"""What engineers say of readings and images: payload of a transaction.

A label refers to what it labels; it changes nothing there. Who was wrong says something else of
the same: of each signer the latest label of a row or image counts. What two signers say of one
stands side by side, for readers to see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .cbor import decode, encode
from .errors import FormatError
from .keys import KID_BYTES
from .merkle import HASH_BYTES
from .validate import array, octets, text, text_map, time_ms, uint

# With the envelope it stays below what a transaction may have.
MAX_PAYLOAD_BYTES = 23 * 1024
MAX_LABELS = 128
MAX_VALUE_CHARS = 64
MAX_NOTE_CHARS = 200
# Of readings: as they should be, and not; any other value names a class that is not as it should.
NORMAL, ANOMALY = "normal", "anomaly"


@dataclass(frozen=True)
class TimeSpan:
    """A board's rows of `first` to `last`, both ms since 1970 and in it."""

    device: bytes
    first: int
    last: int

    @property
    def value(self) -> list[Any]:
        """As it stands in the payload."""
        return ["time", self.device, self.first, self.last]


@dataclass(frozen=True)
class PackSpan:
    """All rows of a board's transactions number `first` to `last`, both in it."""

    device: bytes
    first: int
    last: int

    @property
    def value(self) -> list[Any]:
        """As it stands in the payload."""
        return ["packs", self.device, self.first, self.last]


@dataclass(frozen=True)
class Image:
    """A file with this SHA-256, wherever it lies."""

    sha256: bytes

    @property
    def value(self) -> list[Any]:
        """As it stands in the payload."""
        return ["image", self.sha256]


Target = TimeSpan | PackSpan | Image


@dataclass(frozen=True)
class Labelled:
    """One label.

    Attributes:
        target: what is labelled.
        value: NORMAL, ANOMALY, or the name of a class; None takes back what the signer said.
    """

    target: Target
    value: str | None


@dataclass(frozen=True)
class Label:
    """Labels that one engineer gives at once.

    Attributes:
        labels: in this order; a later one counts.
        note: why, in words; may be empty.
        time: ms since 1970.
    """

    kind: ClassVar[str] = "label"
    labels: tuple[Labelled, ...]
    note: str
    time: int

    @property
    def devices(self) -> frozenset[bytes]:
        """Key ids of the boards whose readings are labelled."""
        return frozenset(
            item.target.device for item in self.labels if not isinstance(item.target, Image)
        )

    @classmethod
    def decode(cls, payload: bytes) -> Label:
        """Parse; raises EncodingError, FormatError."""
        names = {"labels", "note", "time"}
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, "label"), names, "label")
        listed = array(value["labels"], "label.labels", at_most=MAX_LABELS)
        if not listed:
            raise FormatError("label.labels", "is empty")
        return cls(
            labels=tuple(_labelled(item, f"label.labels[{i}]") for i, item in enumerate(listed)),
            note=text(value["note"], "label.note", MAX_NOTE_CHARS, allow_empty=True),
            time=time_ms(value["time"], "label.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "labels": [[item.target.value, item.value] for item in self.labels],
                "note": self.note,
                "time": self.time,
            }
        )


def label_value(value: Any, field: str) -> str:
    """Return `value` as what a label may say; raises FormatError."""
    said = text(value, field, MAX_VALUE_CHARS)
    if said != said.strip():
        raise FormatError(field, "begins or ends with a space")
    return said


def _labelled(item: Any, where: str) -> Labelled:
    target, value = array(item, where, length=2)
    return Labelled(
        parse_target(target, f"{where}.target"),
        None if value is None else label_value(value, f"{where}.value"),
    )


def parse_target(value: Any, where: str) -> Target:
    """Read what a label is of; raises FormatError."""
    kind, *rest = array(value, where, at_most=4) or [None]
    if kind == "image" and len(rest) == 1:
        return Image(octets(rest[0], f"{where}.sha256", HASH_BYTES))
    if kind not in ("time", "packs") or len(rest) != 3:
        raise FormatError(where, "is none of time, packs and image, with what belongs to it")
    device = octets(rest[0], f"{where}.device", KID_BYTES)
    target: TimeSpan | PackSpan
    if kind == "time":
        first, last = (time_ms(end, f"{where}.{name}") for end, name in _ends(rest))
        target = TimeSpan(device, first, last)
    else:
        first, last = (uint(end, f"{where}.{name}", at_least=1) for end, name in _ends(rest))
        target = PackSpan(device, first, last)
    if target.first > target.last:
        raise FormatError(f"{where}.last", "is before the first")
    return target


def _ends(rest: list[Any]) -> tuple[tuple[Any, str], tuple[Any, str]]:
    return (rest[1], "first"), (rest[2], "last")
