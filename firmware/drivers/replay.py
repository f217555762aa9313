"""Plays recorded CSV files as if the sensors were there.

A file has a header, `;` between cells, a column `datetime` (`YYYY-MM-DD HH:MM:SS`, UTC) and
the columns of `CSV_COLUMNS`, or, where `channels` says which they are, a
column of each channel's name. Any other column, labels among them, is never read. An empty cell
is a sensor that gave nothing. A row that cannot be read is reported and skipped. Files are
streamed: memory does not depend on their length.

    {"name": "replay", "script": [
        {"path": "normal.csv", "first": 0, "count": null}, {"wait": "model"}, ...],
        "channels": [["coolant", "Cel", -40, 215], ...]}

`first` and `count` (null: to the end) count the rows below the header, unreadable ones too. A file
may grow: a board that has played all of it goes on with what is new when it starts again.
"""

from fogline.errors import ConfigError, DriverError

from .base import WAIT_MODEL, Channel
from .script import check_position, check_script
from .water_circulation import CHANNELS

# Column of the Skoltech Anomaly Benchmark's CSV files for each channel of the water circulation.
CSV_COLUMNS = (
    "Accelerometer1RMS",
    "Accelerometer2RMS",
    "Current",
    "Pressure",
    "Temperature",
    "Thermocouple",
    "Voltage",
    "Volume Flow RateRMS",
)

MAX_LINE_BYTES = 1024
MAX_PATH_CHARS = 255
MAX_ROWS = 1_000_000_000
MAX_CHANNELS = 32
MAX_NAME_CHARS = 32
MAX_UNIT_CHARS = 16
MAX_VALUE = 1e9
# RFC 8428 section 4.5.1.
_NAME_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-:./_"
BLOCK_BYTES = 512
# RFC 8428 section 4.5.3: a time below 2^28 s would be relative to now.
MIN_TIME_S = 1 << 28
_NUMBER_CHARS = "0123456789+-.eE"
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Driver:
    """See `base.py` for the shape. A position is [script item, rows read of it, offset]."""

    channels = CHANNELS
    sensors = ()
    faults = ()

    def __init__(self, options, report):
        from fogline.checks import check_map

        check_map("config.driver", options, ("name", "script"), ("channels",))
        self._names = CSV_COLUMNS
        if "channels" in options:
            self.channels = _channels(options["channels"])
            self._names = tuple(channel.name for channel in self.channels)
        self._script = options["script"]
        check_script(self._script, ("path",), ("first", "count"))
        for index, item in enumerate(self._script):
            if "path" in item:
                _check_item(f"config.driver.script[{index}]", item)
        self._report = report
        self._lines = None
        self.position = [0, 0, 0]

    def open(self, position):
        """Open every file once, so that a missing one stops the start and not the middle."""
        if position is not None:
            check_position(position, 3)
            if position[0] > len(self._script):
                raise DriverError("driver.position", "lies behind the script's end")
            self.position = position
        for item in self._script:
            if "path" in item:
                lines = _Lines(item["path"])
                _read_header(lines, self._names)
                lines.close()

    def sample(self):
        """Return the next readable row, WAIT_MODEL, or None at the script's end."""
        while True:
            item, row, offset = self.position
            if item == len(self._script):
                return None
            work = self._script[item]
            if "wait" in work:
                self.position = [item + 1, 0, 0]
                return WAIT_MODEL
            if self._lines is None:
                self._begin(work, row, offset)
            count = work.get("count")
            line = None if row == count else self._lines.next()
            if line is None:
                if row == 0:
                    self._report("empty", file=work["path"])
                self.close()
                self.position = [item + 1, 0, 0]
                continue
            self.position = [item, row + 1, self._lines.offset]
            try:
                return self._parse(line)
            except ValueError as error:
                number = work.get("first", 0) + row
                self._report("unreadable", file=work["path"], row=number, reason=str(error))

    def close(self):
        """Close the file in use; `sample` opens it again where it stood."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def _begin(self, work, row, offset):
        self._lines = _Lines(work["path"])
        self._width, self._time_column, self._columns = _read_header(self._lines, self._names)
        if row:
            self._lines.seek(offset)
            return
        for _ in range(work.get("first", 0)):
            if self._lines.next() is None:
                break

    def _parse(self, line):
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
        cells = line.split(b";")
        if len(cells) != self._width:
            raise ValueError(f"{len(cells)} cells, the header has {self._width}")
        values = [_parse_number(cells[column]) for column in self._columns]
        return parse_time(cells[self._time_column]) * 1000, values


class _Lines:
    """Lines of a file, read in blocks; a line too long is cut just above MAX_LINE_BYTES."""

    def __init__(self, path):
        try:
            self._file = open(path, "rb")
        except OSError as error:
            raise DriverError("driver.file", f"{path}: cannot be opened ({error})") from None
        self.path = path
        self.seek(0)

    def seek(self, offset):
        self._file.seek(offset)
        self._block = b""
        self._at = 0
        self.offset = offset

    def next(self):
        """Return the next line without its end, or None at the end of the file."""
        line = b""
        while True:
            end = self._block.find(b"\n", self._at)
            part = self._block[self._at : end if end >= 0 else len(self._block)]
            self.offset += len(part)
            if len(line) <= MAX_LINE_BYTES:
                line += part
            if end >= 0:
                self._at = end + 1
                self.offset += 1
                break
            self._block = self._file.read(BLOCK_BYTES)
            self._at = 0
            if not self._block:
                if not line:
                    return None
                break
        return line.rstrip(b"\r")

    def close(self):
        self._file.close()


def parse_time(cell):
    """Seconds since 1970 of `YYYY-MM-DD HH:MM:SS` (UTC, bytes); raises ValueError."""
    layout = bytes(48 if 48 <= byte <= 57 else byte for byte in cell)
    if layout != b"0000-00-00 00:00:00":
        raise ValueError("datetime is not YYYY-MM-DD HH:MM:SS")
    year, month, day = int(cell[0:4]), int(cell[5:7]), int(cell[8:10])
    hour, minute, second = int(cell[11:13]), int(cell[14:16]), int(cell[17:19])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 59:
        raise ValueError("datetime is not a time of a day")
    if not 1 <= day <= _MONTH_DAYS[month - 1] + (1 if leap and month == 2 else 0):
        raise ValueError("datetime is not a day of a month")
    past = year - 1
    days = 365 * year + past // 4 - past // 100 + past // 400 - 719527
    days += sum(_MONTH_DAYS[: month - 1]) + (1 if leap and month > 2 else 0) + day - 1
    time_s = ((days * 24 + hour) * 60 + minute) * 60 + second
    if time_s < MIN_TIME_S:
        raise ValueError("datetime is before July 1978")
    return time_s


def _parse_number(cell):
    if not cell:
        return None
    text = str(cell, "utf-8")
    for char in text:
        if char not in _NUMBER_CHARS:
            raise ValueError("a cell is not a number")
    return float(text)


def _channels(value):
    """Read the option `channels`: [[name, unit, minimum, maximum], ...]."""
    from fogline.checks import check_list, check_number, check_text

    where = "config.driver.channels"
    check_list(where, value, 1, MAX_CHANNELS)
    channels = []
    for index, item in enumerate(value):
        at = f"{where}[{index}]"
        check_list(at, item, 4, 4)
        name, unit, minimum, maximum = item
        check_text(at + ".name", name, MAX_NAME_CHARS, _NAME_CHARS)
        check_text(at + ".unit", unit, MAX_UNIT_CHARS)
        check_number(at + ".minimum", minimum, -MAX_VALUE, MAX_VALUE)
        check_number(at + ".maximum", maximum, minimum, MAX_VALUE)
        if any(name == other.name for other in channels) or name == "datetime":
            raise ConfigError(at + ".name", "is another column's, too")
        channels.append(Channel(name, unit, float(minimum), float(maximum)))
    return tuple(channels)


def _read_header(lines, channels):
    """Return (columns, index of datetime, index of each channel)."""
    line = lines.next()
    names = line.split(b";") if line is not None and len(line) <= MAX_LINE_BYTES else []
    columns = [_column(lines.path, names, name) for name in channels]
    return len(names), _column(lines.path, names, "datetime"), columns


def _column(path, names, name):
    name = name.encode()
    if names.count(name) != 1:
        raise DriverError("driver.header", f"{path}: needs one column {name.decode()!r}")
    return names.index(name)


def _check_item(where, item):
    from fogline.checks import check_integer, check_text

    check_text(where + ".path", item["path"], MAX_PATH_CHARS)
    check_integer(where + ".first", item.get("first", 0), 0, MAX_ROWS)
    if item.get("count") is not None:
        check_integer(where + ".count", item["count"], 1, MAX_ROWS)
