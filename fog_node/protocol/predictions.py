"""What a model on a fog node or in the cloud says, and how far what it sees has moved.

Payloads of transactions. A prediction is its signer's word that this model, by its hash, said so
of that; it changes nothing there. A drift report compares what boards measure, and what models say
of it, with how that was when the model was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from .cbor import decode, encode
from .errors import FormatError
from .labels import Target, label_value, parse_target
from .merkle import HASH_BYTES
from .validate import array, number, octets, text, text_map, time_ms

# With the envelope it stays below what a transaction may have.
MAX_PAYLOAD_BYTES = 23 * 1024
MAX_VERDICTS = 128
MAX_MEASURES = 64
MAX_NAME_CHARS = 64
MAX_NOTE_CHARS = 200
# What a drift report asks for: nothing; a new training; or says that one was begun.
ACTIONS = ("none", "retrain", "retraining")


@dataclass(frozen=True)
class Thing:
    """A thing by the name that its file has for it: a machine, a part, a row's id."""

    name: str

    @property
    def value(self) -> list[Any]:
        """As it stands in the payload."""
        return ["name", self.name]


Subject = Target | Thing


@dataclass(frozen=True)
class Verdict:
    """One thing judged.

    Attributes:
        subject: what was judged.
        said: a class, as labels have it; None where the model gives a number alone.
        score: the model's number: a probability, a score, cycles left; finite.
    """

    subject: Subject
    said: str | None
    score: float


@dataclass(frozen=True)
class Prediction:
    """What one model said of several things.

    Attributes:
        name: of the model, for readers.
        model: SHA-256 of its file.
        source: SHA-256 of the file that the subjects stand in; None where they speak for
            themselves.
        verdicts: in this order; the later one of a subject counts.
        time: ms since 1970, when it was said.
    """

    kind: ClassVar[str] = "prediction"
    name: str
    model: bytes
    source: bytes | None
    verdicts: tuple[Verdict, ...]
    time: int

    @property
    def targets(self) -> tuple[Subject, ...]:
        """What was judged."""
        return tuple(item.subject for item in self.verdicts)

    @classmethod
    def decode(cls, payload: bytes) -> Prediction:
        """Parse; raises EncodingError, FormatError."""
        names = {"name", "model", "source", "verdicts", "time"}
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, cls.kind), names, cls.kind)
        source = value["source"]
        return cls(
            name=text(value["name"], "prediction.name", MAX_NAME_CHARS),
            model=octets(value["model"], "prediction.model", HASH_BYTES),
            source=None if source is None else octets(source, "prediction.source", HASH_BYTES),
            verdicts=tuple(
                _verdict(item, f"prediction.verdicts[{i}]")
                for i, item in enumerate(
                    _filled(value["verdicts"], "prediction.verdicts", MAX_VERDICTS)
                )
            ),
            time=time_ms(value["time"], "prediction.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "name": self.name,
                "model": self.model,
                "source": self.source,
                "verdicts": [[item.subject.value, item.said, item.score] for item in self.verdicts],
                "time": self.time,
            }
        )


@dataclass(frozen=True)
class Measure:
    """How far one thing has moved.

    Attributes:
        name: a channel, or "verdicts".
        value: the distance; what it is the distance by, the report's `statistic` says.
        limit: above it, it counts as moved.
    """

    name: str
    value: float
    limit: float

    @property
    def has_moved(self) -> bool:
        """Whether it is beyond its limit."""
        return self.value > self.limit


@dataclass(frozen=True)
class Drift:
    """What has moved since a model was trained, among the boards of one device type.

    Attributes:
        device_type: of the boards.
        model: SHA-256 of the model's file that runs there; None where none does.
        statistic: by which distances are measured.
        measures: rising by name.
        first, last: ms since 1970: between these the rows were measured that are compared.
        action: one of ACTIONS.
        note: in words; may be empty.
        time: ms since 1970, when it was said.
    """

    kind: ClassVar[str] = "drift"
    device_type: str
    model: bytes | None
    statistic: str
    measures: tuple[Measure, ...]
    first: int
    last: int
    action: str
    note: str
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> Drift:
        """Parse; raises EncodingError, FormatError."""
        names = {
            "device_type", "model", "statistic", "measures", "first", "last", "action", "note",
            "time",
        }  # fmt: skip
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, cls.kind), names, cls.kind)
        model, action = value["model"], value["action"]
        if action not in ACTIONS:
            raise FormatError("drift.action", f"is none of {', '.join(ACTIONS)}")
        drift = cls(
            device_type=text(value["device_type"], "drift.device_type", MAX_NAME_CHARS),
            model=None if model is None else octets(model, "drift.model", HASH_BYTES),
            statistic=text(value["statistic"], "drift.statistic", MAX_NAME_CHARS),
            measures=tuple(
                _measure(item, f"drift.measures[{i}]")
                for i, item in enumerate(_filled(value["measures"], "drift.measures", MAX_MEASURES))
            ),
            first=time_ms(value["first"], "drift.first"),
            last=time_ms(value["last"], "drift.last"),
            action=action,
            note=text(value["note"], "drift.note", MAX_NOTE_CHARS, allow_empty=True),
            time=time_ms(value["time"], "drift.time"),
        )
        if drift.first > drift.last:
            raise FormatError("drift.last", "is before the first")
        if any(one.name >= other.name for one, other in pairwise(drift.measures)):
            raise FormatError("drift.measures", "are not rising by name")
        return drift

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "device_type": self.device_type,
                "model": self.model,
                "statistic": self.statistic,
                "measures": [[item.name, item.value, item.limit] for item in self.measures],
                "first": self.first,
                "last": self.last,
                "action": self.action,
                "note": self.note,
                "time": self.time,
            }
        )


def _filled(value: Any, where: str, at_most: int) -> list[Any]:
    listed = array(value, where, at_most=at_most)
    if not listed:
        raise FormatError(where, "is empty")
    return listed


def _verdict(item: Any, where: str) -> Verdict:
    subject, said, score = array(item, where, length=3)
    return Verdict(
        parse_subject(subject, f"{where}.subject"),
        None if said is None else label_value(said, f"{where}.said"),
        number(score, f"{where}.score"),
    )


def parse_subject(value: Any, where: str) -> Subject:
    """What was judged, as it stands in a payload; raises FormatError."""
    if isinstance(value, list) and len(value) == 2 and value[0] == "name":
        return Thing(text(value[1], f"{where}.name", MAX_NAME_CHARS))
    return parse_target(value, where)


def _measure(item: Any, where: str) -> Measure:
    name, value, limit = array(item, where, length=3)
    return Measure(
        text(name, f"{where}.name", MAX_NAME_CHARS),
        number(value, f"{where}.value"),
        number(limit, f"{where}.limit"),
    )
