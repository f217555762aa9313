"""The C-MAPSS format: one row per unit and cycle, blanks between 26 columns, no header.

Source: A. Saxena, K. Goebel, D. Simon and N. Eklund, "Damage Propagation Modeling for Aircraft
Engine Run-to-Failure Simulation", PHM 2008. Units of a `train_` file run until they fail, those of
a `test_` file are cut off before; an `RUL_` file says how many cycles each of these had left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloud.errors import RecordingError
from cloud.tables import Table, read_table

from .table_labels import VALUE, TableLabels

TRAIN, TEST, TRUTH = "train", "test", "RUL"
SETTINGS = ("setting_1", "setting_2", "setting_3")
SENSORS = tuple(f"sensor_{number}" for number in range(1, 22))
COLUMNS = ("unit", "cycle", *SETTINGS, *SENSORS)
MAX_CYCLE = 1_000_000.0
# No sensor of the format reads more than some thousands.
MAX_READING = 1_000_000.0
# Of a unit that has not failed yet, as engineers label it.
RUNNING = "running"


@dataclass(frozen=True)
class Units:
    """Rows of a file; those of a unit follow one another, cycle by cycle.

    Attributes:
        path: of the file.
        unit: number of each row's unit, int64 [n].
        cycle: of each row, since the unit's first, int64 [n].
        settings: float64 [n, len(SETTINGS)].
        sensors: float64 [n, len(SENSORS)].
        end: cycle at which each row's unit failed, int64 [n]; None: at its last row.
    """

    path: Path
    unit: npt.NDArray[np.int64] = field(repr=False)
    cycle: npt.NDArray[np.int64] = field(repr=False)
    settings: npt.NDArray[np.float64] = field(repr=False)
    sensors: npt.NDArray[np.float64] = field(repr=False)
    end: npt.NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.unit)

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """Position of each unit's last row, int64 [units]."""
        return np.append(np.flatnonzero(np.diff(self.unit)), len(self) - 1)

    @property
    def slices(self) -> Iterator[slice]:
        """Each unit's rows."""
        start = 0
        for end in self.ends.tolist():
            yield slice(start, end + 1)
            start = end + 1

    def left(self) -> npt.NDArray[np.float64]:
        """Cycles that each row's unit has left, float64 [n]."""
        if self.end is not None:
            return (self.end - self.cycle).astype(np.float64)
        found = np.zeros(len(self))
        for rows in self.slices:
            found[rows] = self.cycle[rows.stop - 1] - self.cycle[rows]
        return found


def find(path: Path, part: str) -> Path:
    """Find a file of a subset.

    Args:
        path: of the folder that holds the subset's files, or of any of them.
        part: TRAIN, TEST or TRUTH.

    Raises:
        RecordingError: a folder with none, or with several subsets; a file of another name.
    """
    if path.is_dir():
        found = sorted(path.glob(f"{part}_*.txt"))
        if len(found) == 1:
            return found[0]
        names = ", ".join(file.name for file in found) or "none"
        raise RecordingError(
            f"{path}: must hold one {part}_*.txt file, holds {names}",
            f"give the file of the subset that is meant, like {path / f'{part}_FD001.txt'}",
        )
    kind, _, subset = path.name.partition("_")
    if kind not in {TRAIN, TEST, TRUTH} or not subset:
        if not path.exists():
            raise RecordingError(f"{path}: is not there", "check its path")
        raise RecordingError(
            f"{path}: its name does not say which subset it is of",
            f"call it like the public files: {part}_FD001.txt",
        )
    return path.with_name(f"{part}_{subset}")


def read_units(path: Path) -> Units:
    """Read a `train_` or `test_` file.

    Raises:
        RecordingError: names file, line and column.
    """
    table = read_table(path, COLUMNS, " ", header=False)
    unit = _whole(table, "unit")
    cycle = _whole(table, "cycle")
    _check_order(table, unit, cycle)
    settings = np.stack([table.numbers(name) for name in SETTINGS], axis=1)
    sensors = np.stack([table.numbers(name, -MAX_READING, MAX_READING) for name in SENSORS], axis=1)
    return Units(path, unit, cycle, settings, sensors)


def labelled(units: Units, labels: TableLabels) -> Units:
    """Units with what engineers say of their ends.

    A number: the cycle at which the unit failed; rows after it are left out. RUNNING: it has not
    failed, so nothing can be learned from it, and it is left out.

    Raises:
        RecordingError: names file, line and column.
    """
    labels.check_names(str(number) for number in np.unique(units.unit))
    end = np.zeros(len(units), np.int64)
    kept = np.ones(len(units), np.bool_)
    for rows in units.slices:
        value = labels.values.get(str(units.unit[rows.start]))
        if value == RUNNING:
            kept[rows] = False
            continue
        last = int(units.cycle[rows.stop - 1]) if value is None else _cycle(value, labels)
        end[rows] = last
        kept[rows] = units.cycle[rows] <= last
    return Units(
        units.path, units.unit[kept], units.cycle[kept], units.settings[kept],
        units.sensors[kept], end[kept],
    )  # fmt: skip


def _cycle(value: str, labels: TableLabels) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_CYCLE):
        raise labels.bad(VALUE, value, f"the cycle of its failure, or {RUNNING}")
    return int(value)


def read_truth(path: Path, units: Units) -> npt.NDArray[np.float64]:
    """Read how many cycles each unit of a `test_` file had left; float64 [units].

    Raises:
        RecordingError: names file and line.
    """
    table = read_table(path, ("RUL",), " ", header=False)
    left = table.numbers("RUL", 0.0, MAX_CYCLE)
    if len(left) != len(units.ends):
        raise RecordingError(
            f"{path}: has {len(left)} rows, {units.path} has {len(units.ends)} units",
            "give the two files of the same subset",
        )
    return left


def _whole(table: Table, column: str) -> npt.NDArray[np.int64]:
    values = table.numbers(column, 1.0, MAX_CYCLE)
    broken = np.flatnonzero(values != np.rint(values))
    if len(broken):
        at = int(broken[0])
        raise table.bad_cell(table.lines[at], column, f"{values[at]:g}", "a whole number")
    return values.astype(np.int64)


def _check_order(table: Table, unit: npt.NDArray[np.int64], cycle: npt.NDArray[np.int64]) -> None:
    seen: set[int] = set()
    for at, line in enumerate(table.lines):
        same = at > 0 and unit[at] == unit[at - 1]
        if not same and int(unit[at]) in seen:
            raise table.bad_cell(line, "unit", str(unit[at]), "a new unit or that of the row above")
        if same and cycle[at] != cycle[at - 1] + 1:
            raise table.bad_cell(
                line, "cycle", str(cycle[at]), f"{cycle[at - 1] + 1}, the one after the row above's"
            )
        seen.add(int(unit[at]))
