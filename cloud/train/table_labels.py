"""What engineers say of the things in a table, as a CSV file, and who stands by it.

A column names the thing as the table does, `value` says what it is; others are not looked at, so
what `fogline predict` wrote can be filled in. Who stands by the file has sealed a label of its
SHA-256, as of an image, with the value SHEET.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.digests import file_sha256
from cloud.errors import LabelError, RecordingError
from cloud.labels import Labels
from cloud.tables import Table, read_table

from .job import LabelSheet

SHEET = "labels"
VALUE = "value"


@dataclass(frozen=True)
class TableLabels:
    """What a sheet says.

    Attributes:
        values: by the thing's name; those that nobody has answered are not in it.
    """

    sheet: LabelSheet
    column: str
    values: dict[str, str]
    _table: Table = field(repr=False)

    @classmethod
    def read(cls, sheet: LabelSheet, column: str) -> TableLabels:
        """Read a sheet whose `column` names things.

        Raises:
            RecordingError: names file, line and column.
            LabelError: nothing is answered.
        """
        table = read_table(sheet.path, (column, VALUE))
        at = table.header.index(VALUE)
        values: dict[str, str] = {}
        for line, name, cells in zip(table.lines, table.texts(column), table.rows, strict=True):
            if not (value := cells[at].strip()):
                continue
            if values.setdefault(name, value) != value:
                raise table.bad_cell(line, VALUE, value, f"{values[name]!r} as in a line above")
        if not values:
            raise LabelError(f"{sheet.path}: no row has a value", f"fill in the column {VALUE}")
        return cls(sheet, column, values, table)

    def check_names(self, known: Iterable[str]) -> None:
        """Raise RecordingError for a thing that is not among these."""
        names = set(known)
        for name in self.values:
            if name not in names:
                raise self.bad(self.column, name, "one of the table that is learned from")

    def bad(self, column: str, text: str, wanted: str) -> RecordingError:
        """Make the error that a cell, the first with this text, is not what it must be."""
        at = self._table.header.index(column)
        lines = zip(self._table.lines, self._table.rows, strict=True)
        line = next(line for line, cells in lines if cells[at].strip() == text.strip())
        return self._table.bad_cell(line, column, text, wanted)

    def card(self, left_out: int) -> dict[str, Any]:
        """What a model's card says; `left_out`: things that are not learned from for it."""
        return {
            "sha256": self._table.sha256.hex(),
            "labelled": len(self.values),
            "left_out": left_out,
            "sealed_by": list(self.sheet.members),
        }


def sealed_sheet(path: Path, sealed: Labels) -> LabelSheet:
    """A sheet that members stand by; raises LabelError where none does."""
    digest = file_sha256(path)
    said = sealed.of_images().get(digest, {})
    members = tuple(sorted(member for member, value in said.items() if value == SHEET))
    if not members:
        raise LabelError(
            f"{path}: no member stands by it: none has sealed {SHEET!r} of {digest.hex()}",
            f"have one do so, fogline label add --image {path.name} --value {SHEET}, and collect",
        )
    return LabelSheet(path, members)
