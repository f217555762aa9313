"""Readings from CSV files in the layout of a data set, and marked as not sealed.

    source.json                                                    what was imported, replaced last
    readings/device_type=<type>/day=<UTC day>/<file's SHA-256>.parquet    a row per reading time

The files have the columns of sealed ones, but for what only a chain knows, and `anomalous` where
the CSV says it. A file is imported whole or not at all, and once: it is known by its SHA-256.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fog_node.protocol.keys import KID_BYTES
from fog_node.protocol.merkle import root
from fog_node.protocol.senml import MAX_CHANNELS

from .dataset_tables import ROW_FIELDS, channel_column, day_of, partition
from .errors import DatasetError
from .files import read_bounded, save_file
from .label_files import read_time
from .labels import Labels
from .readings import Readings
from .recording import ANSWER_COLUMNS
from .selection import Query, Selection, within
from .tables import Table, read_table

FORMAT = 1
SOURCE_FILE = "source.json"
LOCK_FILE = "lock"
MAX_SOURCE_BYTES = 16 * 1024 * 1024
ANOMALOUS = "anomalous"
_REMEDY = "remove the directory and import anew"


@dataclass(frozen=True)
class Columns:
    """What the columns of a CSV file are.

    Attributes:
        time: ISO 8601, or s since 1970.
        channels: names of those to take; empty: all others but ANSWER_COLUMNS.
        label: of 0 and 1, whether a row is anomalous; None: there is none.
        delimiter: between cells.
        utc: times without a zone are UTC; else they are refused.
    """

    time: str
    channels: tuple[str, ...] = ()
    label: str | None = None
    delimiter: str = ","
    utc: bool = False

    def taken(self, header: Sequence[str]) -> tuple[str, ...]:
        """Names of the channels among a file's columns."""
        others = ANSWER_COLUMNS | {self.time, self.label}
        return self.channels or tuple(name for name in header if name not in others)


@dataclass(frozen=True)
class ImportedFile:
    """A file that was imported.

    Attributes:
        name: without its folders.
        sha256: hex.
        device: name that was given to what it is of.
        left_out: columns that were not taken.
    """

    name: str
    sha256: str
    device_type: str
    device: str
    channels: tuple[str, ...]
    rows: int
    left_out: tuple[str, ...] = ()


class Imported:
    """Readings that were imported; see `cloud.sources`."""

    sealed = False

    def __init__(self, directory: Path, files: Sequence[ImportedFile]) -> None:
        self.files = tuple(files)
        self._directory = directory

    @classmethod
    def open(cls, directory: Path) -> Imported:
        """Open; one that is not there is empty, and made by `add`. Raises DatasetError."""
        path = directory / SOURCE_FILE
        try:
            data = read_bounded(path, MAX_SOURCE_BYTES)
        except FileNotFoundError:
            return cls(directory, ())
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror})", _REMEDY) from error
        try:
            value = json.loads(data)
            if value["format"] == FORMAT and value["sealed"] is False:
                return cls(directory, [_file(item) for item in value["files"]])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DatasetError(f"{path}: is damaged ({error!r})", _REMEDY) from error
        raise DatasetError(f"{path}: is not of format {FORMAT}", _REMEDY)

    @property
    def fingerprint(self) -> bytes:
        """RFC 9162 root over the SHA-256 of the files, in their order: tells what was used."""
        return root([bytes.fromhex(file.sha256) for file in sorted(self.files, key=_by_hash)])

    def add(self, path: Path, device_type: str, device: str, columns: Columns) -> ImportedFile:
        """Import a file; it is on the disk when this returns.

        Args:
            path: of a CSV file.
            device_type: of what it is of; other files of the type have the same channels.
            device: its name.
            columns: what is in it.

        Raises:
            RecordingError: names the line and column.
            DatasetError: it was imported before, has other channels than others of its type,
                or cannot be written.
        """
        table = read_table(path, (columns.time,), columns.delimiter)
        channels = columns.taken(table.header)
        if not 0 < len(channels) <= MAX_CHANNELS:
            raise DatasetError(
                f"{path}: has {len(channels)} channels, must have 1 to {MAX_CHANNELS}",
                "name those to take",
            )
        readings = _readings(table, columns, channels)
        digest = table.sha256.hex()
        left_out = tuple(
            name for name in table.header if name not in {columns.time, columns.label, *channels}
        )
        file = ImportedFile(
            path.name, digest, device_type, device, channels, len(readings), left_out
        )
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._check_new(file)
                for folder, rows in _tables(file, readings):
                    save_file(self._directory / folder / f"{digest}.parquet", rows, parents=True)
                files = (*self.files, file)
                listed = [asdict(each) for each in files]
                value = {"format": FORMAT, "sealed": False, "files": listed}
                save_file(self._directory / SOURCE_FILE, json.dumps(value, indent=1).encode())
        except OSError as error:
            raise DatasetError(
                f"{self._directory}: cannot be written ({error.strerror})",
                "check its permissions and the free space, and import again",
            ) from error
        self.files = files
        return file

    def select(self, query: Query) -> Selection:
        """Put a query; its height and labels count for nothing here. Raises DatasetError."""
        files = [file for file in self.files if file.device_type == query.device_type]
        if not files:
            known = ", ".join(sorted({file.device_type for file in self.files})) or "none"
            raise DatasetError(
                f"{self._directory}: holds nothing of {query.device_type!r}",
                f"give a type that was imported ({known})",
            )
        parts: defaultdict[bytes, list[Readings]] = defaultdict(list)
        for file in files:
            kid = device_id(file.device)
            if query.devices is None or kid in query.devices:
                parts[kid].append(self._read(file))
        readings = {
            kid: rows for kid, own in parts.items() if len(rows := within(_joined(own), query))
        }
        if not readings:
            raise DatasetError(
                f"{self._directory}: holds nothing of that device or time", "ask for more"
            )
        return Selection(query, None, (), readings, Labels(()))

    def describe(self) -> dict[str, Any]:
        """For people and JSON."""
        return {
            "kind": "imported readings",
            "sealed": False,
            "fingerprint": self.fingerprint.hex(),
            "files": [
                {
                    "file": file.name,
                    "device_type": file.device_type,
                    "device": file.device,
                    "id": device_id(file.device).hex(),
                    "rows": file.rows,
                    "channels": list(file.channels),
                    "left_out": list(file.left_out),
                    "sha256": file.sha256,
                }
                for file in self.files
            ],
        }

    def _check_new(self, file: ImportedFile) -> None:
        on_disk = Imported.open(self._directory).files
        if on_disk != self.files:
            raise DatasetError(f"{self._directory}: another process writes to it", "try again")
        for other in self.files:
            if other.sha256 == file.sha256:
                raise DatasetError(
                    f"{file.name}: was imported before, as {other.name} of {other.device}",
                    "leave it out: no reading is taken twice",
                )
            if other.device_type == file.device_type and other.channels != file.channels:
                raise DatasetError(
                    f"{file.name}: has other channels than {other.name} of the same type "
                    f"({', '.join(other.channels)})",
                    "name these columns in this order, or give another device type",
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / LOCK_FILE).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DatasetError(
                    f"{self._directory}: another process writes to it", "let it finish"
                ) from error
            yield

    def _read(self, file: ImportedFile) -> Readings:
        folder = f"readings/{partition('device_type', file.device_type)}"
        paths = sorted(self._directory.glob(f"{folder}/*/{file.sha256}.parquet"))
        try:
            parts = [pq.read_table(path, partitioning=None) for path in paths]
            table = pa.concat_tables(parts).sort_by("sequence")
            columns = [table[_column(name)].to_numpy() for name in file.channels]
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise DatasetError(f"{file.name}: cannot be read ({error})", _REMEDY) from error
        if len(table) != file.rows:
            raise DatasetError(f"{file.name}: has lost rows", _REMEDY)
        labels = None
        if not table[ANOMALOUS].null_count:
            labels = table[ANOMALOUS].to_numpy().astype(np.bool_)
        return Readings(
            times=table["time"].to_numpy(),
            values=np.stack(columns, axis=1).astype(np.float32, copy=False),
            channels=file.channels,
            sequence=table["sequence"].to_numpy(),
            sealed=False,
            labels=labels,
            excluded=labels,
        )


def device_id(name: str) -> bytes:
    """What stands for a key id, of a device that has no key."""
    return hashlib.sha256(b"not sealed: " + name.encode()).digest()[:KID_BYTES]


def _file(item: dict[str, Any]) -> ImportedFile:
    lists = {name: tuple(item.get(name, ())) for name in ("channels", "left_out")}
    return ImportedFile(**item | lists)


def _column(name: str) -> str:
    return f"channel:{name}" if name == ANOMALOUS else channel_column(name)


def _by_hash(file: ImportedFile) -> str:
    return file.sha256


def _readings(table: Table, columns: Columns, channels: Sequence[str]) -> Readings:
    values = [table.numbers(name, empty=True) for name in channels]
    labels = None if columns.label is None else table.flags(columns.label)
    return Readings(
        times=_times(table, columns),
        values=np.stack(values, axis=1).astype(np.float32),
        channels=tuple(channels),
        sequence=np.array(table.lines, np.int64),
        sealed=False,
        labels=labels,
    )


def _times(table: Table, columns: Columns) -> npt.NDArray[np.float64]:
    found = []
    for line, text in zip(table.lines, table.texts(columns.time), strict=True):
        try:
            found.append(read_time(_zoned(text.strip(), columns.utc), columns.time) / 1000)
        except ValueError as error:
            wanted = "a time with its zone, or s since 1970; where all are UTC, say so (--utc)"
            raise table.bad_cell(line, columns.time, text, wanted) from error
    return np.array(found, np.float64)


def _zoned(text: str, utc: bool) -> str:
    if not utc:
        return text
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def _tables(file: ImportedFile, readings: Readings) -> Iterator[tuple[str, bytes]]:
    days: defaultdict[str, list[int]] = defaultdict(list)
    for at, time in enumerate(readings.times):
        days[day_of(float(time))].append(at)
    schema = pa.schema(
        ROW_FIELDS
        | {ANOMALOUS: pa.bool_()}
        | {_column(name): pa.float32() for name in file.channels}
    )
    kid = device_id(file.device).hex()
    for day, rows in days.items():
        folder = f"readings/{partition('device_type', file.device_type)}/{partition('day', day)}"
        columns: dict[str, Any] = {
            name: [None] * len(rows) for name in ("height", "transaction", "boot", "up_s")
        }
        columns |= {
            "device": [kid] * len(rows),
            "device_type": [file.device_type] * len(rows),
            "sequence": readings.sequence[rows],
            "row": [0] * len(rows),
            "time": readings.times[rows],
            "corrected": [False] * len(rows),
            ANOMALOUS: [None] * len(rows) if readings.labels is None else readings.labels[rows],
        }
        columns |= {
            _column(name): readings.values[rows, at] for at, name in enumerate(file.channels)
        }
        sink = pa.BufferOutputStream()
        pq.write_table(
            pa.table(columns, schema=schema), sink, compression="zstd", write_page_checksum=True
        )
        yield folder, sink.getvalue().to_pybytes()


def _joined(parts: Sequence[Readings]) -> Readings:
    """Several files of one device, one behind the other; a step back in time ends a segment."""
    if len(parts) == 1:
        return parts[0]
    labels = None
    if all(part.labels is not None for part in parts):
        labels = np.concatenate([part.labels for part in parts if part.labels is not None])
    return replace(
        parts[0],
        times=np.concatenate([part.times for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        sequence=np.concatenate([part.sequence for part in parts]),
        labels=labels,
        excluded=labels,
    )
