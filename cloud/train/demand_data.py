"""The carparts format: monthly demand of spare parts, a row per part and a column per month.

Source: R. J. Hyndman, data set `carparts` of the R package expsmooth. The public file ends in
March 2002; any other span of whole months will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloud.errors import RecordingError
from cloud.tables import read_table

PART_COLUMN = "Part"
MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTHS_A_YEAR = 12
# Distributions are worked out over whole counts, so these are bounded.
MAX_DEMAND = 10_000
MAX_MONTHS = 600
# Two digits of a year: from here on they are of the 1900s.
_PIVOT = 70
_MONTH = re.compile(r"([A-Z][a-z]{2})-(\d{2})")


@dataclass(frozen=True)
class DemandData:
    """Demand of parts by month.

    Attributes:
        parts: their names, as in the file.
        first: the first month, counted from January of year 0.
        demand: pieces, float64 [parts, months]; 0 where nothing is recorded.
        recorded: bool [parts, months].
    """

    parts: tuple[str, ...] = field(repr=False)
    first: int
    demand: npt.NDArray[np.float64] = field(repr=False)
    recorded: npt.NDArray[np.bool_] = field(repr=False)

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.parts)

    @property
    def months(self) -> int:
        """How many there are."""
        return int(self.demand.shape[1])

    def month(self, at: int) -> str:
        """The month at a position as YYYY-MM; those after the last one, too."""
        return f"{(self.first + at) // MONTHS_A_YEAR:04}-{(self.first + at) % MONTHS_A_YEAR + 1:02}"

    def position(self, month: str) -> int:
        """Where a month like YYYY-MM lies, below 0 before the first one; raises ValueError."""
        at = date.fromisoformat(f"{month}-01")
        return at.year * MONTHS_A_YEAR + at.month - 1 - self.first

    def until(self, months: int) -> DemandData:
        """The same with the first months only."""
        return DemandData(
            self.parts, self.first, self.demand[:, :months], self.recorded[:, :months]
        )


def read_demand(path: Path) -> DemandData:
    """Read a file of the format, or the one CSV file that a folder holds.

    An empty cell is a month in which nothing was recorded.

    Raises:
        RecordingError: names file, line and column.
    """
    path = source(path)
    table = read_table(path, (PART_COLUMN,))
    columns = [name for name in table.header if name != PART_COLUMN]
    if not columns or len(columns) > MAX_MONTHS:
        raise RecordingError(
            f"{path}: line 1: {len(columns)} columns of months, must be 1 to {MAX_MONTHS}",
            f"give {PART_COLUMN} and then a column per month, named like Jan-98",
        )
    months = [_month(path, name) for name in columns]
    for name, before, month in zip(columns[1:], months, months[1:], strict=False):
        if month != before + 1:
            raise RecordingError(
                f"{path}: line 1: column {name!r} is not the month after the column before it",
                "give every month once, the earliest first; leave cells empty if need be",
            )
    parts = table.names(PART_COLUMN, "give each part one row")
    demand = np.stack([table.numbers(name, 0, MAX_DEMAND, empty=True) for name in columns], axis=1)
    recorded = ~np.isnan(demand)
    broken = np.argwhere(recorded & (np.nan_to_num(demand) % 1 != 0))
    if len(broken):
        row, column = broken[0]
        cell = f"{demand[row, column]:g}"
        raise table.bad_cell(table.lines[row], columns[column], cell, "a whole number of pieces")
    return DemandData(tuple(parts), months[0], np.nan_to_num(demand), recorded)


def source(path: Path) -> Path:
    """The file that is read: the path, or a folder's one CSV file; raises RecordingError."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.csv"))
    if len(files) != 1:
        raise RecordingError(
            f"{path}: holds {len(files)} CSV files, not one", "give the path of the file"
        )
    return files[0]


def _month(path: Path, name: str) -> int:
    match = _MONTH.fullmatch(name)
    if match is None or match[1] not in MONTH_NAMES:
        raise RecordingError(
            f"{path}: line 1: column {name[:40]!r} is no month like Jan-98",
            f"give {PART_COLUMN} and then a column per month",
        )
    year = int(match[2])
    year += 1900 if year >= _PIVOT else 2000
    return year * MONTHS_A_YEAR + MONTH_NAMES.index(match[1])


def read_stock(path: Path, rows: DemandData) -> npt.NDArray[np.float64]:
    """Pieces in stock of each part, float64 [parts], from a CSV file with columns part, stock.

    Raises:
        RecordingError: names file, line and column; or a part that has no row, or two.
    """
    table = read_table(path, ("part", "stock"))
    pieces = table.numbers("stock", 0, MAX_DEMAND * MAX_MONTHS)
    found = dict(zip(table.names("part", "give each part one row"), pieces, strict=True))
    missing = [part for part in rows.parts if part not in found]
    if missing:
        raise RecordingError(
            f"{path}: has no row of part {missing[0][:40]!r} and {len(missing) - 1} others",
            "give the stock of each part of --data; 0 where there is none",
        )
    return np.array([found[part] for part in rows.parts])
