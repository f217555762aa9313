"""Labels in CSV files: a row each, as engineers write them, or fill in what was proposed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import parse_kid
from fog_node.protocol.labels import (
    MAX_LABELS,
    MAX_PAYLOAD_BYTES,
    Image,
    Label,
    Labelled,
    PackSpan,
    Target,
    TimeSpan,
    label_value,
)
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.validate import MAX_TIME_MS

from .digests import file_sha256
from .errors import DatasetError, LabelError
from .tables import read_table

MAX_ROWS = 100_000
# An image, or a sheet: a table has no more (`tables.py`).
MAX_LABELLED_BYTES = 64 * 1024 * 1024
VALUE = "value"
# What names the target: one of these sets of columns is filled in.
COLUMNS = ("device", "from", "until", "first", "last", "image")
# What `label propose` adds for the engineer.
IGNORED = ("score", "threshold", "uncertainty", "why", "note")
# What takes back an earlier label.
TAKE_BACK = "-"


def read_labels(path: Path) -> list[Labelled]:
    """Read labels; rows without a value are left out, as proposals that nobody has answered.

    Columns: `value`, and of `device`, `from`, `until` (times), `device`, `first`, `last`
    (numbers of the board's transactions), `image` (SHA-256, or a file beside the CSV) those that
    name what is labelled.

    Raises:
        RecordingError: no such table.
        LabelError: names the line and column.
    """
    table = read_table(path, (VALUE,))
    if unknown := [n for n in table.header if n not in (VALUE, *COLUMNS, *IGNORED)]:
        raise LabelError(
            f"{path}: line 1: column {unknown[0][:40]!r} is unknown",
            f"give {VALUE} and of {', '.join(COLUMNS)} those that name what is labelled",
        )
    if len(set(table.header)) < len(table.header):
        raise LabelError(f"{path}: line 1: has a column twice", "name each column once")
    if len(table) > MAX_ROWS:
        raise LabelError(f"{path}: has {len(table)} rows, at most {MAX_ROWS}", "split it")
    found = []
    for line, cells in zip(table.lines, table.rows, strict=True):
        row = {n: cell.strip() for n, cell in zip(table.header, cells, strict=True)}
        if not row[VALUE]:
            continue
        try:
            value = None if row[VALUE] == TAKE_BACK else label_value(row[VALUE], VALUE)
            found.append(Labelled(_target(row, path), value))
        except (ProtocolError, ValueError) as error:
            raise LabelError(
                f"{path}: line {line}: {error}", "correct the line or leave it out"
            ) from error
    if not found:
        raise LabelError(
            f"{path}: no row has a value", f"fill in the column {VALUE}: normal, anomaly, a class"
        )
    return found


def bodies(labels: Sequence[Labelled], note: str, time_ms: int) -> list[Label]:
    """Put labels into as few transactions as hold them, in their order."""
    made: list[Label] = []
    rest = list(labels)
    while rest:
        size = min(MAX_LABELS, len(rest))
        while len(Label(tuple(rest[:size]), note, time_ms).encode()) > MAX_PAYLOAD_BYTES:
            size = size * 3 // 4
        made.append(Label(tuple(rest[:size]), note, time_ms))
        rest = rest[size:]
    return made


def read_time(text: str, column: str) -> int:
    """Read ISO 8601 with its zone, or s since 1970; returns ms. Raises ValueError."""
    try:
        ms = round(float(text) * 1000) if _is_number(text) else _iso_ms(text)
    except (ValueError, OverflowError):
        ms = -1
    if not 0 <= ms <= MAX_TIME_MS:
        raise ValueError(
            f"column {column!r} is {text[:40]!r}, not a time like 2026-01-01T12:00:00+00:00 or s "
            "since 1970"
        )
    return ms


def image_sha256(path: Path) -> bytes:
    """SHA-256 of an image, or of a sheet of labels; raises LabelError."""
    try:
        return file_sha256(path, MAX_LABELLED_BYTES)
    except DatasetError as error:
        raise LabelError(error.problem, "give its SHA-256, or where it lies") from error


def proposals_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Proposals, at least one, as CSV; with `value` filled in, `read_labels` takes it back."""
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _target(row: dict[str, str], path: Path) -> Target:
    given = {name for name in COLUMNS if row.get(name)}
    if given == {"image"}:
        return Image(_image(row["image"], path))
    if given == {"device", "from", "until"}:
        device = parse_kid(row["device"])
        first, last = (read_time(row[name], name) for name in ("from", "until"))
        return _checked(TimeSpan(device, first, last), "until")
    if given == {"device", "first", "last"}:
        device = parse_kid(row["device"])
        first, last = (_number(row[name], name) for name in ("first", "last"))
        return _checked(PackSpan(device, first, last), "last")
    raise ValueError(
        f"columns {', '.join(sorted(given)) or 'none'} are filled in; give device, from and until, "
        "or device, first and last, or image"
    )


def _checked(target: TimeSpan | PackSpan, column: str) -> Target:
    if target.first > target.last:
        raise ValueError(f"column {column!r} is before the beginning")
    return target


def _image(text: str, path: Path) -> bytes:
    if len(text) == 2 * HASH_BYTES:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    return image_sha256(path.parent / text)


def _number(text: str, column: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise ValueError(f"column {column!r} is {text[:40]!r}, not a number from 1")
    return int(text)


def _is_number(text: str) -> bool:
    return "_" not in text and text.replace(".", "", 1).isdigit()


def _iso_ms(text: str) -> int:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("has no zone")
    return round((time - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000)
