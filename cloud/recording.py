"""Reads recordings of a water-circulation test bed from CSV files, as the SKAB set has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import RecordingError
from .readings import Readings
from .tables import read_table

DELIMITER = ";"
TIME_COLUMN = "datetime"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
TIME_EXAMPLE = "2020-03-09 10:14:33"
LABEL_COLUMN = "anomaly"
# No sensor of the test bed reads more than some hundreds.
MAX_READING = 1_000_000.0
# What the set says of its rows: answers, which no sensor gives.
ANSWER_COLUMNS = frozenset({LABEL_COLUMN, "changepoint"})
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


def read_csv(path: Path) -> Readings:
    """Read a recording; times in it are UTC.

    Columns other than the time, the eight channels and the label are not read.

    Raises:
        RecordingError: names the file, the line (from 1, the header) and the column.
    """
    table = read_table(path, (*CHANNEL_COLUMNS.values(), TIME_COLUMN), DELIMITER)
    answers = [name for name in table.header if any(one in name.lower() for one in ANSWER_COLUMNS)]
    if answers and LABEL_COLUMN not in answers:
        # Without labels all of it would be taken for normal operation.
        raise RecordingError(
            f"{path}: line 1: has a column {answers[0][:40]!r}, and none named {LABEL_COLUMN!r}",
            f"name the labels so, or leave out {answers[0][:40]!r} where every row is normal",
        )
    values = [
        table.numbers(column, -MAX_READING, MAX_READING) for column in CHANNEL_COLUMNS.values()
    ]
    return Readings(
        times=table.times(TIME_COLUMN, TIME_FORMAT, TIME_EXAMPLE),
        values=np.stack(values, axis=1).astype(np.float32),
        channels=tuple(CHANNEL_COLUMNS),
        sequence=np.array(table.lines, np.int64),
        sealed=False,
        labels=table.flags(LABEL_COLUMN) if LABEL_COLUMN in table.header else None,
    )
