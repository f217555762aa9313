"""Reads CSV tables strictly, each error naming file, line and column; writes them whole.

A table costs a bounded amount of memory: it is read to its end only up to MAX_CSV_BYTES, and made
into cells only up to MAX_CELLS. Beyond that the recording has to be given in parts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import RecordingError
from .files import whole_file

# Of one table: a week of eight sensors at 1 Hz has 40 MiB and 5.4 million cells. A cell takes some
# 60 bytes of memory.
MAX_CSV_BYTES = 64 * 1024 * 1024
MAX_CELLS = 8_000_000
MAX_VALUE = float(np.finfo(np.float32).max)
_MAX_QUOTED = 40
_MAX_NAMES = 120
_IN_PARTS = "give it in parts: fewer rows, a file each"


@dataclass(frozen=True)
class Table:
    """Cells as they stand in a file.

    Attributes:
        path: of the file.
        header: names of the columns.
        lines: number of each row's line, from 1, the header.
        rows: cells of each row.
        sha256: of the file's bytes, as they were read.
    """

    path: Path
    header: tuple[str, ...]
    lines: tuple[int, ...] = field(repr=False)
    rows: tuple[tuple[str, ...], ...] = field(repr=False)
    sha256: bytes = field(default=b"", repr=False)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def require(self, columns: Sequence[str]) -> None:
        """Raise RecordingError unless each of these columns is there once."""
        for name in columns:
            self._position(name)

    def numbers(
        self, column: str, low: float = -MAX_VALUE, high: float = MAX_VALUE, *, empty: bool = False
    ) -> npt.NDArray[np.float64]:
        """Numbers of a column, float64 [n].

        Args:
            column: its name.
            low, high: what is allowed, both ends included.
            empty: whether a cell may be empty; it is NaN then.
        """
        at = self._position(column)
        return np.array(
            [
                math.nan
                if empty and not cells[at]
                else self._number(line, column, cells[at], low, high)
                for line, cells in zip(self.lines, self.rows, strict=True)
            ],
            np.float64,
        )

    def flags(self, column: str) -> npt.NDArray[np.bool_]:
        """A column of 0 and 1, bool [n]."""
        return self.codes(column, {"0": 0, "0.0": 0, "1": 1, "1.0": 1}, "0 or 1").astype(np.bool_)

    def codes(
        self, column: str, codes: Mapping[str, int], wanted: str | None = None
    ) -> npt.NDArray[np.int64]:
        """A column of words that stand for numbers, int64 [n].

        Args:
            column: its name.
            codes: number of each word.
            wanted: the words, for the error.
        """
        at = self._position(column)
        found = []
        for line, cells in zip(self.lines, self.rows, strict=True):
            code = codes.get(cells[at])
            if code is None:
                raise self.bad_cell(line, column, cells[at], wanted or " or ".join(codes))
            found.append(code)
        return np.array(found, np.int64)

    def times(self, column: str, form: str, example: str) -> npt.NDArray[np.float64]:
        """Times of a column as s since 1970, those of the file being UTC; float64 [n]."""
        at = self._position(column)
        found = []
        for line, cells in zip(self.lines, self.rows, strict=True):
            try:
                time = datetime.strptime(cells[at], form).replace(tzinfo=UTC)
            except ValueError as error:
                raise self.bad_cell(line, column, cells[at], f"a time like {example}") from error
            found.append(time.timestamp())
        return np.array(found, np.float64)

    def texts(self, column: str) -> list[str]:
        """A column as it stands; no cell may be empty."""
        at = self._position(column)
        for line, cells in zip(self.lines, self.rows, strict=True):
            if not cells[at].strip():
                raise self.bad_cell(line, column, "", "a name")
        return [cells[at] for cells in self.rows]

    def names(self, column: str, remedy: str) -> list[str]:
        """A column that names each row's thing: no cell may be empty, nor be as another one is."""
        names = self.texts(column)
        seen: dict[str, int] = {}
        for line, name in zip(self.lines, names, strict=True):
            if name in seen:
                raise RecordingError(
                    f"{self.path}: line {line}: column {column!r} is {name[:_MAX_QUOTED]!r}, "
                    f"as in line {seen[name]}",
                    remedy,
                )
            seen[name] = line
        return names

    def bad_cell(self, line: int, column: str, text: str, wanted: str) -> RecordingError:
        """Make the error that a cell is not what it must be."""
        what = f"is {text[:_MAX_QUOTED]!r}, not {wanted}" if text else f"is empty, must be {wanted}"
        return RecordingError(
            f"{self.path}: line {line}: column {column!r} {what}",
            "correct the cell or leave the line out",
        )

    def _position(self, name: str) -> int:
        count = self.header.count(name)
        if count != 1:
            names = repr(", ".join(self.header)[:_MAX_NAMES])[:_MAX_NAMES]
            raise RecordingError(
                f"{self.path}: line 1: column {name!r} is there {count} times, in {names}",
                "give a header with it once, and cells separated as in the public data set",
            )
        return self.header.index(name)

    def _number(self, line: int, column: str, text: str, low: float, high: float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Python reads 1_000 and the digits of every script, which no sensor writes.
        if "_" in text or not text.isascii() or not math.isfinite(value):
            raise self.bad_cell(line, column, text, "a finite number")
        if not low <= value <= high:
            raise self.bad_cell(line, column, text, f"from {low:g} to {high:g}")
        return value


def read_table(
    path: Path, columns: Sequence[str], delimiter: str = ",", *, header: bool = True
) -> Table:
    """Read a table and check its shape.

    Args:
        path: of the file.
        columns: that it must have; where it has no header, all of them in their order.
        delimiter: between cells; " " is any number of blanks.
        header: whether the first line names the columns.

    Raises:
        RecordingError: unreadable, over MAX_CSV_BYTES or MAX_CELLS, not UTF-8, no rows, a column
            lacks, or a row has another number of cells.
    """
    data = _content(path)
    if not data.strip():
        raise RecordingError(f"{path}: is empty", "give a recording with rows in it")
    text = _text(path, data)
    lines: list[int] = []
    rows: list[tuple[str, ...]] = []
    names = None if header else tuple(columns)
    for line, cells in _cells(path, text, delimiter):
        if names is None:
            names = tuple(cells)
            Table(path, names, (), ()).require(columns)
            continue
        if len(cells) != len(names):
            raise RecordingError(
                f"{path}: line {line}: has {len(cells)} cells, "
                f"{'the header has' if header else 'must have'} {len(names)}",
                "repair the line or leave it out",
            )
        if (len(rows) + 1) * len(names) > MAX_CELLS:
            raise RecordingError(
                f"{path}: line {line}: has more than {MAX_CELLS:,} cells by there",
                _IN_PARTS,
            )
        lines.append(line)
        rows.append(tuple(cells))
    if names is None or not rows:
        if names is None:
            Table(path, (), (), ()).require(columns)
        raise RecordingError(f"{path}: has no rows", "give a recording with at least one")
    return Table(path, names, tuple(lines), tuple(rows), hashlib.sha256(data).digest())


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file as `files.whole_file` does; raises RecordingError where that cannot be."""
    try:
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
    except OSError as error:
        raise RecordingError(
            f"{path}: cannot be written ({error.strerror})",
            "check its path, its permissions and the room on the disk",
        ) from error


def _content(path: Path) -> bytes:
    """All bytes of a file, and of a file alone: a pipe may never end, or never begin."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise RecordingError(f"{path}: is a folder", "name the CSV file in it")
        if not stat.S_ISREG(mode):
            raise RecordingError(f"{path}: is no file", "write what it gives into one, and name it")
        with path.open("rb") as file:
            data = file.read(MAX_CSV_BYTES + 1)
    except OSError as error:
        raise RecordingError(
            f"{path}: cannot be read ({error.strerror})", "check its path and permissions"
        ) from error
    if len(data) > MAX_CSV_BYTES:
        raise RecordingError(f"{path}: is over {MAX_CSV_BYTES:,} bytes", _IN_PARTS)
    return data


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecordingError(f"{path}: line {line}: is not UTF-8", "save it as UTF-8") from error


def _cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # Line by line, so that a file of nothing but line ends costs no more than its first.
    lines = io.StringIO(text, newline=None)
    if delimiter == " ":
        yield from ((number, line.split()) for number, line in enumerate(lines, start=1))
        return
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    done = 0
    try:
        for cells in reader:
            done = reader.line_num
            yield done, cells
    except csv.Error as error:
        # Where what is wrong begins: a quotation mark without another takes in all that follows.
        raise RecordingError(
            f"{path}: line {done + 1}: is not CSV ({error})", "repair the line"
        ) from error
