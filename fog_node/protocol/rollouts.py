"""Rollouts: a release comes to a device type's boards group by group, after a second approval.

What they do to the state is in ledger/rollouts.py; SPEC.md, "Rollouts", is the definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .cbor import decode, encode
from .errors import FormatError
from .keys import KID_BYTES
from .manifest import FIRMWARE_PREFIX
from .merkle import HASH_BYTES
from .validate import array, octets, text, text_map, time_ms, uint

MAX_PAYLOAD_BYTES = 8 * 1024
MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 200
MAX_GROUPS = 16
# Boards that all groups of a rollout may name by their key ids.
MAX_LISTED_BOARDS = 256
MAX_VERDICTS = 100_000
MAX_WAIT_S = 30 * 24 * 3600
# Of a model's SHA-256, what a pack says.
MODEL_ID_BYTES = 8
# Said of a board: it did not take the release, or went back by itself.
REFUSED, ROLLED_BACK = "refused", "rolled-back"
OUTCOMES = (REFUSED, ROLLED_BACK)
PAUSE, RESUME, ROLL_BACK = "pause", "resume", "rollback"
ACTIONS = (PAUSE, RESUME, ROLL_BACK)


@dataclass(frozen=True)
class Named:
    """A release as a rollout names it: bundle is the SHA-256 of its file."""

    name: str
    version: int
    bundle: bytes

    def value(self) -> dict[str, Any]:
        """The map that stands for it."""
        return {"name": self.name, "version": self.version, "bundle": self.bundle}


@dataclass(frozen=True)
class Group:
    """Boards that get the release together.

    Attributes:
        percent: of the device type's boards that have it when this group has it, too; None
            where `boards` says who.
        boards: key ids.
        success: percent of its boards that must have done well for the next group to begin.
        errors: percent of its boards whose failure stops the rollout.
    """

    percent: int | None
    boards: tuple[bytes, ...]
    success: int
    errors: int

    def value(self) -> list[Any]:
        """The array that stands for it."""
        who = list(self.boards) if self.percent is None else self.percent
        return [who, self.success, self.errors]


@dataclass(frozen=True)
class Rollout:
    """Asks for a release to be rolled out.

    Attributes:
        device_type: whose boards.
        release: the latest of its name.
        model: SHA-256 of its `.tflite`, by which boards' packs tell that they run it.
        back: what boards that took it get when it is rolled back: what they ran before, released
            under a higher version than `release`, for boards refuse lower ones. None where
            there was nothing before.
        groups: in their order; the last has all boards that are left.
        verdicts, soak_s: a board has done well after so many sealed verdicts of the new model,
            and s since its first pack with one.
        anomalies: percent of those verdicts; a board with more has failed.
        silent_s: a board that was heard since its group began, and then not for so many s, has
            failed.
        note: why, for people.
        time: ms since 1970.
    """

    kind: ClassVar[str] = "rollout"
    device_type: str
    release: Named
    model: bytes
    back: Named | None
    groups: tuple[Group, ...]
    verdicts: int
    soak_s: int
    anomalies: int
    silent_s: int
    note: str
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> Rollout:
        """Parse; raises EncodingError, FormatError."""
        names = {
            "device_type", "release", "model", "back", "groups", "verdicts", "soak_s",
            "anomalies", "silent_s", "note", "time",
        }  # fmt: skip
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, "rollout"), names, "rollout")
        device_type = text(value["device_type"], "rollout.device_type", MAX_NAME_CHARS)
        if device_type.startswith(FIRMWARE_PREFIX):
            raise FormatError("rollout.device_type", "is of firmware; rollouts are of models")
        release = _named(value["release"], "rollout.release")
        back = None if value["back"] is None else _named(value["back"], "rollout.back")
        if back is not None and back.version <= release.version:
            raise FormatError("rollout.back.version", "is not above rollout.release.version")
        return cls(
            device_type=device_type,
            release=release,
            model=octets(value["model"], "rollout.model", HASH_BYTES),
            back=back,
            groups=_groups(value["groups"], "rollout.groups"),
            verdicts=uint(value["verdicts"], "rollout.verdicts", MAX_VERDICTS, at_least=1),
            soak_s=uint(value["soak_s"], "rollout.soak_s", MAX_WAIT_S),
            anomalies=uint(value["anomalies"], "rollout.anomalies", 100),
            silent_s=uint(value["silent_s"], "rollout.silent_s", MAX_WAIT_S, at_least=1),
            note=text(value["note"], "rollout.note", MAX_TEXT_CHARS, allow_empty=True),
            time=time_ms(value["time"], "rollout.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "device_type": self.device_type,
                "release": self.release.value(),
                "model": self.model,
                "back": None if self.back is None else self.back.value(),
                "groups": [group.value() for group in self.groups],
                "verdicts": self.verdicts,
                "soak_s": self.soak_s,
                "anomalies": self.anomalies,
                "silent_s": self.silent_s,
                "note": self.note,
                "time": self.time,
            }
        )


@dataclass(frozen=True)
class RolloutApprove:
    """A second member is for a rollout, named by its transaction's id: it begins."""

    kind: ClassVar[str] = "rollout-approve"
    rollout: bytes

    @classmethod
    def decode(cls, payload: bytes) -> RolloutApprove:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"rollout"}, "rollout-approve")
        return cls(octets(value["rollout"], "rollout-approve.rollout", HASH_BYTES))

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"rollout": self.rollout})


@dataclass(frozen=True)
class RolloutControl:
    """Pauses a rollout, lets it go on, or rolls it back.

    Attributes:
        action: one of ACTIONS.
        reason: in words.
    """

    kind: ClassVar[str] = "rollout-control"
    rollout: bytes
    action: str
    reason: str

    @classmethod
    def decode(cls, payload: bytes) -> RolloutControl:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"rollout", "action", "reason"}, "rollout-control")
        if value["action"] not in ACTIONS:
            raise FormatError("rollout-control.action", f"is not one of {', '.join(ACTIONS)}")
        return cls(
            octets(value["rollout"], "rollout-control.rollout", HASH_BYTES),
            value["action"],
            text(value["reason"], "rollout-control.reason", MAX_TEXT_CHARS, allow_empty=True),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"rollout": self.rollout, "action": self.action, "reason": self.reason})


@dataclass(frozen=True)
class RolloutReport:
    """A gateway passes on what a board told it of a release.

    Attributes:
        outcome: one of OUTCOMES.
        reason: the board's words.
        time: ms since 1970.
    """

    kind: ClassVar[str] = "rollout-report"
    rollout: bytes
    device: bytes
    outcome: str
    reason: str
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> RolloutReport:
        """Parse; raises EncodingError, FormatError."""
        names = {"rollout", "device", "outcome", "reason", "time"}
        value = _map(payload, names, "rollout-report")
        if value["outcome"] not in OUTCOMES:
            raise FormatError("rollout-report.outcome", f"is not one of {', '.join(OUTCOMES)}")
        return cls(
            octets(value["rollout"], "rollout-report.rollout", HASH_BYTES),
            octets(value["device"], "rollout-report.device", KID_BYTES),
            value["outcome"],
            text(value["reason"], "rollout-report.reason", MAX_TEXT_CHARS, allow_empty=True),
            time_ms(value["time"], "rollout-report.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "rollout": self.rollout,
                "device": self.device,
                "outcome": self.outcome,
                "reason": self.reason,
                "time": self.time,
            }
        )


def _map(payload: bytes, names: set[str], field: str) -> dict[str, Any]:
    return text_map(decode(payload, MAX_PAYLOAD_BYTES, field), names, field)


def _named(value: Any, field: str) -> Named:
    given = text_map(value, {"name", "version", "bundle"}, field)
    return Named(
        text(given["name"], f"{field}.name", MAX_NAME_CHARS),
        uint(given["version"], f"{field}.version", 2**32 - 1, at_least=1),
        octets(given["bundle"], f"{field}.bundle", HASH_BYTES),
    )


def _groups(value: Any, field: str) -> tuple[Group, ...]:
    groups = tuple(
        _group(item, f"{field}[{index}]")
        for index, item in enumerate(array(value, field, at_most=MAX_GROUPS))
    )
    percents = [group.percent for group in groups if group.percent is not None]
    if not groups or groups[-1].percent != 100:
        raise FormatError(field, "do not end with one of 100 percent: all boards that are left")
    if percents != sorted(set(percents)):
        raise FormatError(field, "have percentages that do not rise")
    listed = [kid for group in groups for kid in group.boards]
    if len(listed) > MAX_LISTED_BOARDS or len(set(listed)) != len(listed):
        raise FormatError(field, f"name a board twice, or over {MAX_LISTED_BOARDS}")
    return groups


def _group(value: Any, field: str) -> Group:
    who, success, errors = array(value, field, length=3)
    percent: int | None = None
    boards: tuple[bytes, ...] = ()
    if isinstance(who, list):
        boards = tuple(octets(kid, field, KID_BYTES) for kid in who)
        if not boards:
            raise FormatError(field, "names no board")
    else:
        percent = uint(who, f"{field}.percent", 100, at_least=1)
    return Group(
        percent,
        boards,
        uint(success, f"{field}.success", 100, at_least=1),
        uint(errors, f"{field}.errors", 100, at_least=1),
    )
