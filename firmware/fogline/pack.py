"""SenML packs (RFC 8428 in CBOR) of readings and verdicts, and the payload of an alert.

Readings come row by row, channels in enrolled order; behind them a record for each sensor that
failed, three for each verdict, and the model's id last. Values, and times that are not whole
seconds, are binary32 on every board, so that all boards write the same bytes for the same
readings.

A board that does not know the time gives its rows the clock that counts from its start, which is
below MIN_TIME_MS: the pack then says how long before its signature each was.
"""

import struct

from . import cbor
from .errors import EncodingError, PackError

MAX_PAYLOAD_BYTES = 16 * 1024
MAX_ROWS = 120
MAX_CHANNELS = 32
MAX_SCORE = (1 << 31) - 1
# RFC 8428 section 4.5.3: a time below 2^28 s would be relative to now.
MIN_TIME_MS = (1 << 28) * 1000
MAX_SPAN_MS = 16_000_000  # so far binary32 tells milliseconds apart
MAX_FAULTS = 32
MAX_LABEL_CHARS = 26
MAX_FAULT_CODE_CHARS = 16
PREFIX_BYTES = 8  # of the SHA-256 of a model or an output tensor
MODEL_BYTES = 32

# Labels of RFC 8428, table 6.
_BASE_NAME = -2
_BASE_TIME = -3
_NAME = 0
_UNIT = 1
_VALUE = 2
_TEXT = 3
_BOOL = 4
_TIME = 6
_DATA = 8
_NUMBER_BYTES = 5  # the longest binary32, and the longest integer below 2^32
_FIELD_BYTES = 1 + _NUMBER_BYTES
_MAX_BASE_TIME_BYTES = 9
_MAX_HEAD_BYTES = 3
_MAX_BOOT = (1 << 32) - 1
_MAX_UP_MS = (1 << 53) - 1
_LARGEST = struct.unpack(">f", b"\x7f\x7f\xff\xff")[0]


class PackBuilder:
    """Gathers rows of readings into one pack at a time, in buffers that never grow.

    Args:
        kid: the board's key id, 8 bytes.
        channels: (name, unit) of each channel, in enrolled order; more fields are ignored.
        enterprise_number: of the device URN.
        max_rows: a pack is full with so many.
        sensors: labels of those that may fail; more than MAX_FAULTS raise `pack.channels`.

    Raises PackError `pack.channels`, `pack.rows` or `pack.memory`.
    """

    def __init__(self, kid, channels, enterprise_number, max_rows=MAX_ROWS, sensors=()):
        if not 0 < len(channels) <= MAX_CHANNELS:
            raise PackError("pack.channels", f"1 to {MAX_CHANNELS}")
        if not 0 < max_rows <= MAX_ROWS:
            raise PackError("pack.rows", f"1 to {MAX_ROWS}")
        if len(sensors) > MAX_FAULTS:
            raise PackError("pack.channels", f"at most {MAX_FAULTS} sensors")
        self._names = [
            b"\x00" + cbor.encode(channel[0]) + b"\x01" + cbor.encode(channel[1]) + b"\x02"
            for channel in channels
        ]
        base_name = f"urn:dev:org:{enterprise_number}-{kid.hex()}_"
        self._base = cbor.encode(_BASE_NAME) + cbor.encode(base_name) + cbor.encode(_BASE_TIME)
        base_bytes = len(self._base) + _MAX_BASE_TIME_BYTES
        # One byte for the map's head, a value and a time for each reading.
        self._row_bytes = sum(len(name) + 1 + _NUMBER_BYTES + _FIELD_BYTES for name in self._names)
        # 0.1 s takes as many bytes as any time.
        self._verdict_bytes = len(_verdict(_single(0.1), MAX_SCORE, True, bytes(PREFIX_BYTES)))
        self._model_bytes = len(_model_record(bytes(PREFIX_BYTES)))
        clock_bytes = len(_clock_records(_MAX_BOOT, _MAX_UP_MS, bytes(PREFIX_BYTES)))
        self._room = MAX_PAYLOAD_BYTES - _MAX_HEAD_BYTES - self._model_bytes - clock_bytes
        # A sensor that fails is named in the same pack, however full that is.
        longest = "-" * MAX_FAULT_CODE_CHARS
        for label in sensors:
            if len(label) > MAX_LABEL_CHARS:
                raise PackError("pack.channels", "a sensor's label is too long")
            self._room -= len(_fault(label, longest, _single(0.1)))
        self._sensors = sensors
        self._max_rows = max_rows
        if base_bytes + self._row_bytes + self._verdict_bytes > self._room:
            raise PackError("pack.channels", "one row is more than a pack holds")
        try:
            self._readings = _Buffer(min(self._room, base_bytes + max_rows * self._row_bytes))
            self._verdicts = _Buffer(min(self._room, max_rows * self._verdict_bytes))
        except MemoryError:
            raise PackError("pack.memory", "set a smaller pack_rows") from None
        self._reset()

    def _reset(self):
        self.rows = 0
        self.verdicts = 0
        self.model = None
        self._faults = []  # (time in ms, label, code)
        self._records = 0
        self._base_time = 0
        self._base_span = (0, 0)  # where the base time stands among the readings
        self._last_ms = 0
        self._readings.clear()
        self._verdicts.clear()

    @property
    def full(self):
        """Whether the pack has all its rows."""
        return self.rows == self._max_rows

    @property
    def empty(self):
        """Whether there is nothing to take yet."""
        return self.rows == 0 and not self._faults

    @property
    def timeless(self):
        """Whether the times in it count from the board's start."""
        return not self.empty and self._base_time * 1000 < MIN_TIME_MS

    def fits(self, time_ms):
        """Whether a row of this time and its verdict still fit this pack.

        Args:
            time_ms: since 1970, or, below MIN_TIME_MS, since the board's start.

        If not, take the pack and begin the next with the row: times must rise.
        """
        if self.empty:
            return True
        start_ms = self._base_time * 1000
        if self.timeless != (time_ms < MIN_TIME_MS):
            return False
        if self.full or not start_ms <= time_ms <= start_ms + MAX_SPAN_MS:
            return False
        if self.rows and time_ms <= self._last_ms:
            return False
        needed = self._row_bytes + self._verdict_bytes
        return self._readings.used + self._verdicts.used + needed <= self._room

    def add_row(self, time_ms, values):
        """Add one row: for each channel a number, or None where the sensor gave nothing.

        A value that binary32 cannot hold as a finite number counts as None. Returns whether
        there was anything to add. Raises PackError `pack.row` or `pack.time`.
        """
        if len(values) != len(self._names):
            raise PackError("pack.row", f"{len(values)} values, {len(self._names)} channels")
        if time_ms < 0 or not self.fits(time_ms):
            raise PackError("pack.time", "no place in this pack")
        start = time_ms // 1000 if self.empty else self._base_time
        used = self._readings.used
        try:
            records = self._put_readings(start, time_ms - start * 1000, values)
        except (MemoryError, EncodingError):  # the encoder's own word for no memory
            self._readings.used = used
            raise PackError("pack.memory") from None
        if records:
            self._base_time = start
            self._last_ms = time_ms
            self._records += records
            self.rows += 1
        return records > 0

    def _put_readings(self, start, offset_ms, values):
        offset = b"\x06" + cbor.encode(_offset(offset_ms)) if offset_ms else b""
        put = self._readings.append
        records = 0
        for index, value in enumerate(values):
            # A NaN is not within bounds either.
            if value is None or not -_LARGEST <= value <= _LARGEST:
                continue
            first = self._records + records == 0
            put(bytes((0xA3 + (2 if first else 0) + (1 if offset else 0),)))
            put(self._names[index])
            put(cbor.encode_float(_single(value)))
            put(offset)
            if first:
                put(self._base)
                at = self._readings.used
                put(cbor.encode(start))
                self._base_span = (at, self._readings.used)
            records += 1
        return records

    def add_fault(self, time_ms, label, code):
        """Note that a sensor gave nothing, before the row of that time is added.

        A pack names a sensor once, with the first time and code.

        Args:
            label: one of `sensors`.
            code: 1 to 16 of a to z, 0 to 9 and "-".

        Raises PackError `pack.fault`, or `pack.time` as `add_row` does.
        """
        if label not in self._sensors or not 0 < len(code) <= MAX_FAULT_CODE_CHARS:
            raise PackError("pack.fault", label)
        if time_ms < 0 or not self.fits(time_ms):
            raise PackError("pack.time", "no place in this pack")
        if any(label == fault[1] for fault in self._faults):
            return
        if self.empty:
            self._base_time = time_ms // 1000
        self._faults.append((time_ms, label, code))

    def add_verdict(self, model, score, anomaly, output):
        """Add what the model said of the window that the last row ended.

        Args:
            model: SHA-256 of the .tflite file, the same for all verdicts of a pack.
            score: the manifest's integer score, 0 to 2^31 - 1.
            anomaly: the debounced decision.
            output: SHA-256 of the output tensor; its first 8 bytes are sealed.

        Raises PackError `pack.verdict`, or `pack.model` for another model: take the pack
        before the model changes.
        """
        if self.verdicts >= self.rows:
            raise PackError("pack.verdict", "a row has at most one")
        if not 0 <= score <= MAX_SCORE:
            raise PackError("pack.verdict", "score is not from 0 to 2^31 - 1")
        if self.model not in (None, model):
            raise PackError("pack.model", "the pack has verdicts of another")
        offset = _offset(self._last_ms - self._base_time * 1000)
        self._verdicts.append(_verdict(offset, score, anomaly, output[:PREFIX_BYTES]))
        self.model = model
        self._records += 3
        self.verdicts += 1

    def take(self, clock=None):
        """Return the pack's payload and begin a new pack; raises PackError `pack.empty`.

        Args:
            clock: what it says of the board's clock: (number of the start, ms, who gave the time:
                a key id, 0 for the board's own clock or 1 for NTP). A pack without time needs
                it, with the ms since that start, and None for the giver; another may have it,
                with when that start was, ms since 1970.
        """
        if self.empty:
            raise PackError("pack.empty")
        base = self._base_time
        last = b"" if self.model is None else _model_record(self.model[:PREFIX_BYTES])
        said = b""
        records = self._records + len(self._faults) + (1 if last else 0)
        if clock is not None:
            boot, ms, by = clock
            if self.timeless:
                # Whole seconds, like the base time: so the two together are exact.
                now_s = -(-ms // 1000)
                base -= now_s
                said = _clock_records(boot, now_s * 1000)
                records += 2
            else:
                said = _clock_records(boot, base * 1000 - ms, by)
                records += 3
        elif self.timeless:
            raise PackError("pack.time", "the clock is missing")
        head = cbor.encode_head(4, records)
        begin, end = self._base_span
        readings = self._readings
        try:
            payload = b"".join(
                (
                    head,
                    readings.content(0, begin),
                    cbor.encode(base) if self.rows else b"",
                    readings.content(end, readings.used),
                    self._encoded_faults(base),
                    self._verdicts.content(0, self._verdicts.used),
                    last,
                    said,
                )
            )
        except MemoryError:
            raise PackError("pack.memory", "set a smaller pack_rows") from None
        self._reset()
        return payload

    def _encoded_faults(self, base):
        encoded = []
        for time_ms, label, code in self._faults:
            record = _fault(label, code, _offset(time_ms - self._base_time * 1000))
            if not encoded and self.rows == 0:
                # The first record of the pack carries its base; a map's head counts its items.
                record = bytes((record[0] + 2,)) + record[1:]
                record += self._base + cbor.encode(base)
            encoded.append(record)
        return b"".join(encoded)


class _Buffer:
    def __init__(self, size):
        self._data = memoryview(bytearray(size))
        self.used = 0

    def append(self, part):
        end = self.used + len(part)
        self._data[self.used : end] = part
        self.used = end

    def content(self, begin, end):
        return bytes(self._data[begin:end])

    def clear(self):
        self.used = 0


def encode_alert(time_s, model, score, threshold, pack):
    """Return the payload of an alert: one for each time an anomaly begins.

    Args:
        time_s: of the last row of the window, whole seconds since 1970.
        model: SHA-256 of the .tflite file, 32 bytes.
        score, threshold: integers from 0 to 2^31 - 1.
        pack: number of the pack that holds the verdict.
    """
    if len(model) != MODEL_BYTES:
        raise PackError("pack.alert", "model is not a SHA-256")
    return cbor.encode(
        {"time": time_s, "model": model, "score": score, "threshold": threshold, "pack": pack}
    )


def _single(value):
    return struct.unpack(">f", struct.pack(">f", value))[0]


def _offset(offset_ms):
    """Seconds: an integer if whole, else the nearest binary32."""
    return _single(offset_ms / 1000) if offset_ms % 1000 else offset_ms // 1000


def _fault(label, code, offset):
    record = {_NAME: "fault/" + label, _TEXT: code}
    if offset:
        record[_TIME] = offset
    return cbor.encode(record)


def _verdict(offset, score, anomaly, output):
    records = (
        {_NAME: "model/score", _VALUE: score},
        {_NAME: "model/anomaly", _BOOL: bool(anomaly)},
        {_NAME: "model/output", _DATA: output},
    )
    if offset:
        for record in records:
            record[_TIME] = offset
    return b"".join([cbor.encode(record) for record in records])


def _model_record(model):
    return cbor.encode({_NAME: "model/id", _DATA: model})


def _clock_records(boot, up_ms, by=None):
    records = [{_NAME: "clock/boot", _VALUE: boot}, {_NAME: "clock/up", _UNIT: "ms", _VALUE: up_ms}]
    if by is not None:
        label = _DATA if isinstance(by, bytes) else _VALUE
        records.append({_NAME: "clock/by", label: by})
    return b"".join([cbor.encode(record) for record in records])
