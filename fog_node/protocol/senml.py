"""SenML packs (RFC 8428) in CBOR: readings of one device, sensors that failed, model verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from .cbor import decode, encode
from .errors import FormatError
from .keys import kid_hex

CONTENT_TYPE = "application/senml+cbor"
BASE_NAME = -2
BASE_TIME = -3
NAME = 0
UNIT = 1
VALUE = 2
TEXT_VALUE = 3
BOOL_VALUE = 4
TIME = 6
DATA_VALUE = 8

MAX_PAYLOAD_BYTES = 16 * 1024
MAX_ROWS = 120
MAX_CHANNELS = 32
MAX_NAME_CHARS = 32
MAX_UNIT_CHARS = 16
MAX_TIME_S = 2**40
# RFC 8428 section 4.5.3: a smaller time is relative to now.
MIN_TIME_S = 2**28
# How long before its signature a pack without time may have begun.
MAX_AGE_S = 2**20
MAX_BOOT = 2**32 - 1
MAX_UP_MS = 2**53 - 1
DIGEST_PREFIX_BYTES = 8
MAX_FAULTS = 32
MAX_FAULT_CODE_CHARS = 16

MODEL_ID = "model/id"
MODEL_SCORE = "model/score"
MODEL_ANOMALY = "model/anomaly"
MODEL_OUTPUT = "model/output"
CLOCK_BOOT = "clock/boot"
CLOCK_UP = "clock/up"
CLOCK_BY = "clock/by"
UP_UNIT = "ms"
# Who gave the time, where it was no gateway.
BY_OWN_CLOCK, BY_NTP = 0, 1
_COMMON_FIELDS = frozenset({BASE_NAME, BASE_TIME, TIME, NAME})
_VERDICT_NAMES = frozenset({MODEL_SCORE, MODEL_ANOMALY, MODEL_OUTPUT})
_CLOCK_NAMES = (CLOCK_BOOT, CLOCK_UP, CLOCK_BY)
FAULT_PREFIX = "fault/"
_RESERVED = ("model/", "clock/", FAULT_PREFIX)
_FAULT_CODE_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-:./_")


class Reading(NamedTuple):
    """One value of one channel.

    Attributes:
        time: seconds since 1970; in a pack without time, seconds before its signature, from
            -MAX_AGE_S to 0.
        name: channel name as enrolled.
        unit: UCUM unit.
        value: in that unit.
    """

    time: float
    name: str
    unit: str
    value: float


class Fault(NamedTuple):
    """A sensor that gave nothing at `time`, for the first time in its pack.

    Attributes:
        time: seconds since 1970.
        sensor: its label on the board.
        code: the reason, one word.
    """

    time: float
    sensor: str
    code: str


class Verdict(NamedTuple):
    """What the board's model said of the window whose last row is at `time`.

    Attributes:
        time: as a reading's.
        score: the manifest's integer score.
        anomaly: the debounced decision.
        output: first 8 bytes of the SHA-256 of the model's output tensor.
    """

    time: float
    score: int
    anomaly: bool
    output: bytes


class Clock(NamedTuple):
    """What a pack says of the board's own clock.

    Attributes:
        base_time: of the pack.
        boot: how often the board had started.
        up_ms: its monotonic clock, ms since that start: at the base time, or, in a pack without
            time, when it was signed.
        by: who gave the board its time: key id of a gateway, BY_OWN_CLOCK or BY_NTP; None in a
            pack without time.
    """

    base_time: int
    boot: int
    up_ms: int
    by: bytes | int | None

    @property
    def start_ms(self) -> int:
        """When the monotonic clock stood at 0, ms since 1970; for a pack with time only."""
        return self.base_time * 1000 - self.up_ms


@dataclass(frozen=True)
class Pack:
    """Readings, oldest row first, with the verdicts that were made meanwhile.

    Attributes:
        device: key id in the base name.
        enterprise_number: the private enterprise number in the base name.
        base_time: s since 1970; at most 0 in a pack without time.
        model: first 8 bytes of the SHA-256 of the model; None without verdicts.
        clock: what it says of the board's clock; None where it says nothing.
        faults: sensors that failed meanwhile.
    """

    device: bytes
    enterprise_number: int
    base_time: int
    readings: tuple[Reading, ...] = field(repr=False)
    verdicts: tuple[Verdict, ...] = field(default=(), repr=False)
    model: bytes | None = None
    clock: Clock | None = None
    faults: tuple[Fault, ...] = field(default=(), repr=False)

    @property
    def has_time(self) -> bool:
        """Whether its times are since 1970; else they are before its signature."""
        return self.base_time >= MIN_TIME_S


def base_name(enterprise_number: int, device: bytes) -> str:
    """Device URN with the name separator (RFC 9039 section 4.3, subtype `org`)."""
    return f"urn:dev:org:{enterprise_number}-{kid_hex(device)}_"


@lru_cache(maxsize=4096)
def valid_name(name: str) -> bool:
    """Whether RFC 8428 section 4.5.1 allows `name` for a channel of ours."""
    return (
        0 < len(name) <= MAX_NAME_CHARS
        and name[0].isalnum()
        and _NAME_CHARS.issuperset(name)
        and not name.startswith(_RESERVED)
    )


def valid_fault_name(name: str) -> bool:
    """Whether a fault's record may be called this: the prefix, and a label like a name."""
    return (
        name.startswith(FAULT_PREFIX)
        and len(name) <= MAX_NAME_CHARS
        and name[len(FAULT_PREFIX) :][:1].isalnum()
        and _NAME_CHARS.issuperset(name)
    )


def encode_pack(
    enterprise_number: int,
    device: bytes,
    base_time: int,
    rows: Sequence[tuple[float, Sequence[tuple[str, str, float]]]],
    verdicts: Sequence[Verdict] = (),
    model: bytes | None = None,
    clock: Clock | None = None,
    faults: Sequence[Fault] = (),
) -> bytes:
    """Encode rows of (offset in s from `base_time`, [(name, unit, value)])."""

    def at(time: float) -> dict[int, Any]:
        offset = time - base_time
        return {TIME: int(offset) if offset == int(offset) else offset} if offset else {}

    records: list[dict[int, Any]] = []
    for offset, channels in rows:
        for name, unit, value in channels:
            record: dict[int, Any] = {NAME: name, UNIT: unit, VALUE: value}
            if offset:
                record[TIME] = offset
            records.append(record)
    for fault in faults:
        name = FAULT_PREFIX + fault.sensor
        records.append({NAME: name, TEXT_VALUE: fault.code, **at(fault.time)})
    for verdict in verdicts:
        when = at(verdict.time)
        records.append({NAME: MODEL_SCORE, VALUE: verdict.score, **when})
        records.append({NAME: MODEL_ANOMALY, BOOL_VALUE: verdict.anomaly, **when})
        records.append({NAME: MODEL_OUTPUT, DATA_VALUE: verdict.output, **when})
    if verdicts:
        records.append({NAME: MODEL_ID, DATA_VALUE: model})
    if clock is not None:
        records.append({NAME: CLOCK_BOOT, VALUE: clock.boot})
        records.append({NAME: CLOCK_UP, UNIT: UP_UNIT, VALUE: clock.up_ms})
        if clock.by is not None:
            label = DATA_VALUE if isinstance(clock.by, bytes) else VALUE
            records.append({NAME: CLOCK_BY, label: clock.by})
    if records:
        records[0][BASE_NAME] = base_name(enterprise_number, device)
        records[0][BASE_TIME] = base_time
    return encode(records)


def decode_pack(payload: bytes) -> Pack:
    """Parse a pack strictly as SPEC.md says; raises EncodingError, FormatError."""
    records = decode(payload, MAX_PAYLOAD_BYTES, "pack")
    if not isinstance(records, list) or not records:
        raise FormatError("pack", "is not a list of SenML records")
    first = records[0]
    if not isinstance(first, dict) or BASE_NAME not in first or BASE_TIME not in first:
        raise FormatError("pack[0]", "lacks the base name (-2) or base time (-3)")
    enterprise_number, device = _parse_base_name(first[BASE_NAME])
    base_time = first[BASE_TIME]
    if type(base_time) is not int or not (
        MIN_TIME_S <= base_time <= MAX_TIME_S or -MAX_AGE_S <= base_time <= 0
    ):
        raise FormatError(
            "pack[0].bt", "is neither whole seconds since 1970 nor before the signature"
        )
    reader = _Reader(base_time)
    for index, record in enumerate(records):
        # For Python, True and 1.0 are the same key as 1.
        if not isinstance(record, dict) or any(type(label) is not int for label in record):
            raise FormatError(f"pack[{index}]", "is not a SenML record with integer labels")
        if index and (BASE_NAME in record or BASE_TIME in record):
            raise FormatError(f"pack[{index}]", "repeats a base field")
        reader.take(index, record)
    verdicts = _verdicts(reader.judged)
    if bool(verdicts) != (reader.model is not None):
        raise FormatError("pack", "verdicts and model/id must come together")
    readings, faults = tuple(reader.readings), tuple(reader.faults.values())
    clock = reader.clock()
    return Pack(
        device, enterprise_number, base_time, readings, verdicts, reader.model, clock, faults
    )


class _Reader:
    """Takes a pack's records one after the other, and refuses what is out of order."""

    def __init__(self, base_time: int) -> None:
        self.readings: list[Reading] = []
        self.faults: dict[str, Fault] = {}
        self.judged: list[tuple[float, str, Any]] = []
        self.model: bytes | None = None
        self._clock: list[Any] = []
        self._base_time = base_time
        self._rows = 0
        self._last_time = -math.inf
        self._names: set[str] = set()

    def take(self, index: int, record: dict[int, Any]) -> None:
        """Take in a record; raises FormatError."""
        where = f"pack[{index}]"
        offset = record.get(TIME, 0)
        if type(offset) not in (int, float) or not abs(offset) <= MAX_TIME_S:
            raise FormatError(f"{where}.t", "is not a finite number of seconds")
        time = self._base_time + offset
        if self._base_time <= 0 and not -MAX_AGE_S <= time <= 0:
            raise FormatError(f"{where}.t", "is not before the signature, or too long")
        name = record.get(NAME)
        fields = record.keys() - _COMMON_FIELDS
        if not isinstance(name, str):
            raise FormatError(f"{where}.n", "is missing or not text")
        if name in _CLOCK_NAMES:
            self._take_clock(name, record, fields, where)
        elif self._clock:
            raise FormatError(where, "stands behind what the pack says of its clock")
        elif self.model is not None:
            raise FormatError(where, "stands behind model/id")
        elif name == MODEL_ID:
            self.model = _data(record, fields, where)
        elif name in _VERDICT_NAMES:
            self.judged.append((time, name, _judged_value(name, record, fields, where)))
        elif self.judged:
            raise FormatError(where, "a reading or fault stands behind the verdicts")
        elif name.startswith(FAULT_PREFIX):
            self._take_fault(name, record, fields, time, where)
        elif self.faults:
            raise FormatError(where, "a reading stands behind the faults")
        else:
            self.readings.append(_reading(record, fields, time, name, where))
            self._check_row(time, name, where)

    def clock(self) -> Clock | None:
        """Return what the records said of the board's clock; raises FormatError."""
        said = len(self._clock)
        if self._base_time <= 0:
            if said != len(_CLOCK_NAMES) - 1:
                raise FormatError("pack", "without time has clock/boot and clock/up, no clock/by")
            boot, up_ms = self._clock
            return Clock(self._base_time, boot, up_ms, None)
        if said not in (0, len(_CLOCK_NAMES)):
            raise FormatError("pack", "clock/boot, clock/up and clock/by must come together")
        if not said:
            return None
        boot, up_ms, by = self._clock
        return Clock(self._base_time, boot, up_ms, by)

    def _take_clock(self, name: str, record: dict[int, Any], fields: set[int], where: str) -> None:
        place = len(self._clock)
        if place == len(_CLOCK_NAMES) or name != _CLOCK_NAMES[place] or TIME in record:
            raise FormatError(where, f"{', '.join(_CLOCK_NAMES)} stand once, in order, without t")
        self._clock.append(_clock_value(name, record, fields, where))

    def _take_fault(
        self, name: str, record: dict[int, Any], fields: set[int], time: float, where: str
    ) -> None:
        code = record.get(TEXT_VALUE)
        if fields != {TEXT_VALUE} or not isinstance(code, str):
            raise FormatError(where, "a fault has a text value (3)")
        if not 0 < len(code) <= MAX_FAULT_CODE_CHARS or not _FAULT_CODE_CHARS.issuperset(code):
            raise FormatError(
                f"{where}.vs", f"is not 1 to {MAX_FAULT_CODE_CHARS} of a to z, 0 to 9 and -"
            )
        if not valid_fault_name(name):
            raise FormatError(f"{where}.n", f"{name[:40]!r} is not a fault of a sensor")
        if name in self.faults:
            raise FormatError(f"{where}.n", f"{name!r} twice in one pack")
        if len(self.faults) == MAX_FAULTS:
            raise FormatError(where, f"more than {MAX_FAULTS} faults")
        self.faults[name] = Fault(time, name[len(FAULT_PREFIX) :], code)

    def _check_row(self, time: float, name: str, where: str) -> None:
        if time < self._last_time:
            raise FormatError(f"{where}.t", "goes back: rows must be in order of time")
        if time > self._last_time:
            self._rows, self._last_time, self._names = self._rows + 1, time, set()
        if name in self._names:
            raise FormatError(f"{where}.n", f"{name!r} twice at one time")
        self._names.add(name)
        if len(self._names) > MAX_CHANNELS:
            raise FormatError(where, f"more than {MAX_CHANNELS} channels in one row")
        if self._rows > MAX_ROWS:
            raise FormatError(where, f"more than {MAX_ROWS} rows")


def _parse_base_name(value: Any) -> tuple[int, bytes]:
    prefix = "urn:dev:org:"
    if isinstance(value, str) and value.startswith(prefix) and value.endswith("_"):
        number, dash, kid = value[len(prefix) : -1].partition("-")
        if dash and number.isascii() and number.isdigit() and len(number) <= 10 and len(kid) == 16:
            try:
                parsed = int(number), bytes.fromhex(kid)
            except ValueError:
                parsed = (0, b"")
            if base_name(*parsed) == value:
                return parsed
    raise FormatError("pack[0].bn", "is not urn:dev:org:<enterprise number>-<key id>_")


def _reading(
    record: dict[int, Any], fields: set[int], time: float, name: str, where: str
) -> Reading:
    if fields != {UNIT, VALUE}:
        raise FormatError(where, "a reading has a unit (1) and a value (2)")
    unit, value = record[UNIT], record[VALUE]
    if not isinstance(unit, str) or not 0 < len(unit) <= MAX_UNIT_CHARS:
        raise FormatError(f"{where}.u", f"is not a unit of 1 to {MAX_UNIT_CHARS} characters")
    if type(value) not in (int, float) or not _is_finite(value):
        raise FormatError(f"{where}.v", "is not a finite number")
    if not valid_name(name):
        raise FormatError(f"{where}.n", f"{name[:40]!r} is not a channel name")
    return Reading(time, name, unit, float(value))


def _is_finite(value: float) -> bool:
    """Whether this is a finite float, or an integer that CBOR holds without a tag."""
    return math.isfinite(value) if isinstance(value, float) else -(2**64) <= value < 2**64


def _judged_value(name: str, record: dict[int, Any], fields: set[int], where: str) -> Any:
    if name == MODEL_SCORE:
        score = record.get(VALUE)
        if fields != {VALUE} or type(score) is not int or not 0 <= score < 2**31:
            raise FormatError(where, "model/score is an integer value from 0 to 2^31 - 1")
        return score
    if name == MODEL_ANOMALY:
        if fields != {BOOL_VALUE} or not isinstance(record[BOOL_VALUE], bool):
            raise FormatError(where, "model/anomaly is a boolean value")
        return record[BOOL_VALUE]
    return _data(record, fields, where)


def _clock_value(name: str, record: dict[int, Any], fields: set[int], where: str) -> Any:
    value = record.get(VALUE)
    if name == CLOCK_BY:
        if fields == {DATA_VALUE}:
            return _data(record, fields, where)
        if fields == {VALUE} and type(value) is int and value in (BY_OWN_CLOCK, BY_NTP):
            return value
        raise FormatError(where, "clock/by is a gateway's key id, 0 (its own clock) or 1 (NTP)")
    if name == CLOCK_UP:
        is_good = fields == {UNIT, VALUE} and record[UNIT] == UP_UNIT
        most = MAX_UP_MS
    else:
        is_good, most = fields == {VALUE}, MAX_BOOT
    if not is_good or type(value) is not int or not 0 <= value <= most:
        raise FormatError(where, f"{name} is a whole number from 0 to {most}")
    return value


def _data(record: dict[int, Any], fields: set[int], where: str) -> bytes:
    data = record.get(DATA_VALUE)
    if fields != {DATA_VALUE} or not isinstance(data, bytes) or len(data) != DIGEST_PREFIX_BYTES:
        raise FormatError(where, f"is a data value of {DIGEST_PREFIX_BYTES} bytes")
    return data


def _verdicts(judged: list[tuple[float, str, Any]]) -> tuple[Verdict, ...]:
    if len(judged) % 3:
        raise FormatError("pack", "a verdict is model/score, model/anomaly and model/output")
    verdicts = []
    for i in range(0, len(judged), 3):
        (time, a, score), (t1, b, anomaly), (t2, c, output) = judged[i : i + 3]
        if (a, b, c) != (MODEL_SCORE, MODEL_ANOMALY, MODEL_OUTPUT) or not time == t1 == t2:
            raise FormatError("pack", "a verdict's three records stand together, at one time")
        verdicts.append(Verdict(time, score, anomaly, output))
    return tuple(verdicts)
