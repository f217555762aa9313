"""Reads recordings of a water-circulation test bed from CSV files, as the SKAB set has them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .errors import RecordingError
from .readings import Readings

MAX_CSV_BYTES = 64 * 1024 * 1024
DELIMITER = ";"
TIME_COLUMN = "datetime"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
LABEL_COLUMN = "anomaly"
# Column of the Skoltech Anomaly Benchmark for each channel, in the order of the enrolment.
CHANNEL_COLUMNS = {
    "accelerometer1": "Accelerometer1RMS",
    "accelerometer2": "Accelerometer2RMS",
    "current": "Current",
    "pressure": "Pressure",
    "temperature": "Temperature",
    "thermocouple": "Thermocouple",
    "voltage": "Voltage",
    "flow": "Volume Flow RateRMS",
}
_MAX_QUOTED = 40
_MAX_VALUE = float(np.finfo(np.float32).max)


def read_csv(path: Path) -> Readings:
    """Read a recording; times in it are UTC.

    Columns other than the time, the eight channels and the label are not read.

    Raises:
        RecordingError: names the file, the line (from 1, the header) and the column.
    """
    lines = _lines(path)
    header = next(lines, (1, []))[1]
    columns = {name: _position(path, header, name) for name in CHANNEL_COLUMNS.values()}
    time_at = _position(path, header, TIME_COLUMN)
    label_at = _position(path, header, LABEL_COLUMN) if LABEL_COLUMN in header else None
    times, values, labels, numbers = [], [], [], []
    for number, cells in lines:
        if len(cells) != len(header):
            raise RecordingError(
                f"{path}: line {number}: has {len(cells)} cells, the header has {len(header)}",
                "repair the line or leave it out",
            )
        numbers.append(number)
        times.append(_time(path, number, cells[time_at]))
        values.append([_number(path, number, name, cells[at]) for name, at in columns.items()])
        if label_at is not None:
            labels.append(_label(path, number, cells[label_at]))
    if not values:
        raise RecordingError(f"{path}: has no rows", "give a recording with at least one")
    return Readings(
        times=np.array(times, np.float64),
        values=np.array(values, np.float32),
        channels=tuple(CHANNEL_COLUMNS),
        sequence=np.array(numbers, np.int64),
        sealed=False,
        labels=None if label_at is None else np.array(labels, np.bool_),
    )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give the cells of each line with its number, from 1."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CSV_BYTES + 1)
    except OSError as error:
        raise RecordingError(
            f"{path}: cannot be read ({error.strerror})", "check its path and permissions"
        ) from error
    if len(data) > MAX_CSV_BYTES:
        raise RecordingError(f"{path}: is over {MAX_CSV_BYTES} bytes", "split it into several")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecordingError(f"{path}: line {line}: is not UTF-8", "save it as UTF-8") from error
    reader = csv.reader(text.splitlines(), delimiter=DELIMITER, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise RecordingError(
            f"{path}: line {reader.line_num}: is not CSV ({error})", "repair the line"
        ) from error


def _position(path: Path, header: list[str], name: str) -> int:
    count = header.count(name)
    if count != 1:
        raise RecordingError(
            f"{path}: line 1: column {name!r} is there {count} times",
            f"give a header with it once, cells separated by {DELIMITER!r}",
        )
    return header.index(name)


def _time(path: Path, line: int, text: str) -> float:
    try:
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise _bad_cell(path, line, TIME_COLUMN, text, "a time like 2020-03-09 10:14:33") from error


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Python reads 1_000, which no sensor writes; a reading must also fit into a float32.
    if "_" in text or not abs(value) <= _MAX_VALUE:
        raise _bad_cell(path, line, column, text, "a finite number")
    return value


def _label(path: Path, line: int, text: str) -> bool:
    if text not in {"0", "0.0", "1", "1.0"}:
        raise _bad_cell(path, line, LABEL_COLUMN, text, "0 or 1")
    return text[0] == "1"


def _bad_cell(path: Path, line: int, column: str, text: str, wanted: str) -> RecordingError:
    what = f"is {text[:_MAX_QUOTED]!r}, not {wanted}" if text else f"is empty, must be {wanted}"
    return RecordingError(
        f"{path}: line {line}: column {column!r} {what}", "correct the cell or leave the line out"
    )
