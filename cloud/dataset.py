"""Sealed readings as Parquet files, for any tool that reads them.

    state.json                                                how far it goes, replaced last
    readings/device_type=<type>/day=<UTC day>/<heights>.parquet    a row per reading time
    transactions/<heights>.parquet                            every transaction, chain order
    verdicts/<heights>.parquet                                what the boards' models said
    faults/<heights>.parquet                                  which sensors failed, once per pack

A row of a board that did not know the time has `boot` and `up_s` instead: which start of the board
it was, and how long it had been up. Once the board has said when that start was, `time` follows
(and `corrected` is true), here or when the data set is read; before, such rows are left out of what
is read, and stand under the day of their block.

A file is named by the first and last height of the blocks it was made of. Files above the height
in `state.json` are left over from a crash: they are not read, and removed before the next write,
so that nothing is ever there twice.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fog_node.protocol.block import Block
from fog_node.protocol.clocks import Start
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.merkle import root
from fog_node.protocol.senml import Pack, Reading
from fog_node.protocol.transactions import DatasetReference, PackBody, Transaction

from .chain_view import ChainView, EnrolledDevice
from .errors import DatasetError
from .readings import Readings
from .recording import read_csv

FORMAT = 2
STATE_FILE = "state.json"
LOCK_FILE = "lock"
MAX_STATE_BYTES = 256 * 1024 * 1024
_SUFFIX = ".parquet"
_SECONDS_PER_DAY = 86_400
_COLLECT_ANEW = "remove the directory and collect anew; nothing is lost, the chain has it all"

_ROW_FIELDS = {
    "device": pa.string(),
    "device_type": pa.string(),
    "sequence": pa.int64(),
    "row": pa.int32(),
    "height": pa.int64(),
    "transaction": pa.string(),
    "time": pa.float64(),
    "corrected": pa.bool_(),
    "boot": pa.int64(),
    "up_s": pa.float64(),
}
_TRANSACTIONS = pa.schema(
    {
        "id": pa.string(),
        "height": pa.int64(),
        "index": pa.int32(),
        "kind": pa.string(),
        "signer": pa.string(),
        "sequence": pa.int64(),
    }
)
_VERDICTS = pa.schema(
    {
        "device": pa.string(),
        "sequence": pa.int64(),
        "time": pa.float64(),
        "corrected": pa.bool_(),
        "boot": pa.int64(),
        "up_s": pa.float64(),
        "score": pa.int64(),
        "anomaly": pa.bool_(),
        "output": pa.string(),
        "model": pa.string(),
        "height": pa.int64(),
    }
)

_FAULTS = pa.schema(
    {
        "device": pa.string(),
        "sequence": pa.int64(),
        "time": pa.float64(),
        "corrected": pa.bool_(),
        "boot": pa.int64(),
        "up_s": pa.float64(),
        "sensor": pa.string(),
        "code": pa.string(),
        "height": pa.int64(),
    }
)


class SealedFault(NamedTuple):
    """A sensor that gave nothing, as its board sealed it.

    Attributes:
        device: key id.
        time: of the first row of the pack that it is missing from, s since 1970.
        sensor: its label on the board.
        code: why; see SPEC.md of the protocol.
        height: of the block.
    """

    device: bytes
    time: float
    sensor: str
    code: str
    height: int


class SealedVerdict(NamedTuple):
    """What the model of a board said, as it is on the chain.

    Attributes:
        device: key id.
        time: of the last row of the window, s since 1970.
        output, model: first 8 bytes of the SHA-256 of the output tensor and the `.tflite`.
        height: of the block.
    """

    device: bytes
    time: float
    score: int
    anomaly: bool
    output: bytes
    model: bytes
    height: int


class Dataset:
    """A data set as it was when it was opened or last appended to."""

    def __init__(self, directory: Path, view: ChainView | None) -> None:
        self._directory = directory
        self._view = view
        self._is_clean = False

    @classmethod
    def open(cls, directory: Path) -> Dataset:
        """Open a data set; one that is not there is empty, and made by the first `append`.

        Raises:
            DatasetError: the state file is damaged or of another format.
        """
        return cls(directory, _load_view(directory / STATE_FILE))

    @property
    def view(self) -> ChainView | None:
        """The chain up to the data set's height; None while it is empty."""
        return self._view

    @property
    def height(self) -> int:
        """Height of the latest block in it; 0 while it is empty."""
        return 0 if self._view is None else self._view.height

    def devices(self) -> tuple[EnrolledDevice, ...]:
        """All boards enrolled up to this height, in the order of their enrolment."""
        return () if self._view is None else tuple(self._view.devices.values())

    def append(self, blocks: Sequence[Block], view: ChainView) -> None:
        """Add blocks that were checked; they are on the disk when this returns.

        Args:
            blocks: the next ones, in order, at least one.
            view: the chain after them.

        Raises:
            DatasetError: they do not follow, another process writes, or the disk fails.
        """
        heights = [block.height for block in blocks]
        if heights != list(range(self.height + 1, view.height + 1)) or not heights:
            raise DatasetError(
                f"{self._directory}: blocks up to {view.height} do not follow {self.height}",
                "append every block once, in order",
            )
        if self._view is not None and view.chain_id != self._view.chain_id:
            raise DatasetError(
                f"{self._directory}: is of the chain {self._view.chain_id.hex()}",
                "use another directory for another consortium",
            )
        name = f"{heights[0]:010d}-{heights[-1]:010d}{_SUFFIX}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._remove_leftovers()
                self._is_clean = False
                for folder, table in _tables(blocks, view.devices):
                    _save(self._directory / folder / name, _parquet(table))
                _save(self._directory / STATE_FILE, _encode_view(view))
        except OSError as error:
            raise DatasetError(
                f"{self._directory}: cannot be written ({error.strerror})",
                "check its permissions and the free space, and collect again",
            ) from error
        self._is_clean = True
        self._view = view

    def readings(self, device_type: str, device: bytes | None = None) -> dict[bytes, Readings]:
        """Sealed readings of each board of a type, in the board's own order.

        Args:
            device_type: as enrolled.
            device: key id, where only one board is wanted.

        Returns:
            Key id to readings; boards without any are left out.

        Raises:
            DatasetError: no such type or board, or a damaged file.
        """
        devices = self._of_type(device_type)
        if device is not None:
            if device not in devices:
                raise DatasetError(
                    f"{self._directory}: {kid_hex(device)} is no {device_type} up to block "
                    f"{self.height}",
                    "check the key id, or collect later blocks",
                )
            devices = {device: devices[device]}
        folder = f"readings/{_partition('device_type', device_type)}"
        table = self._read(folder, set(map(kid_hex, devices)))
        if table is None:
            return {}
        found = {}
        kids = np.array(table["device"].to_pylist(), np.str_)
        for kid, enrolled in devices.items():
            rows = np.flatnonzero(kids == kid_hex(kid))
            if len(rows):
                readings = _as_readings(table.take(rows), enrolled)
                if len(readings):
                    found[kid] = readings
        return found

    def verdicts(self, device_type: str) -> list[SealedVerdict]:
        """Verdicts of all boards of a type, in chain order; raises DatasetError."""
        devices = self._of_type(device_type)
        table = self._read("verdicts", set(map(kid_hex, devices)))
        found = []
        for row in [] if table is None else table.to_pylist():
            _complete(row, devices[bytes.fromhex(row["device"])].starts)
            if row["time"] is not None:
                found.append(_as_verdict(row))
        return found

    def faults(self, device_type: str) -> list[SealedFault]:
        """Sensors that failed on boards of a type, in chain order; raises DatasetError."""
        devices = self._of_type(device_type)
        table = self._read("faults", set(map(kid_hex, devices)))
        found = []
        for row in [] if table is None else table.to_pylist():
            device = bytes.fromhex(row["device"])
            _complete(row, devices[device].starts)
            if row["time"] is not None:
                found.append(
                    SealedFault(device, row["time"], row["sensor"], row["code"], row["height"])
                )
        return found

    def reference(self, device_type: str) -> DatasetReference:
        """What a release says of its data: all packs of a type, up to this height.

        Raises:
            DatasetError: no such type, no pack of it, or a damaged file.
        """
        table = self._read("transactions", set(map(kid_hex, self._of_type(device_type))), "signer")
        packs = [row for row in table.to_pylist() if row["kind"] == "pack"] if table else []
        if not packs:
            raise DatasetError(
                f"{self._directory}: holds no readings of {device_type} up to block {self.height}",
                "collect later blocks, when its boards have sent some",
            )
        return DatasetReference(
            root=root([bytes.fromhex(pack["id"]) for pack in packs]),
            count=len(packs),
            first=packs[0]["height"],
            last=packs[-1]["height"],
        )

    def _of_type(self, device_type: str) -> dict[bytes, EnrolledDevice]:
        found = {device.kid: device for device in self.devices() if device.type == device_type}
        if not found:
            known = ", ".join(sorted({device.type for device in self.devices()})) or "none"
            raise DatasetError(
                f"{self._directory}: no device of type {device_type!r} up to block {self.height}",
                f"give one that is enrolled ({known}), or collect later blocks",
            )
        return found

    def _read(self, folder: str, wanted: Collection[str], column: str = "device") -> Any:
        """Read the rows in whose `column` is one of `wanted`, in the order of heights."""
        paths = [
            path
            for path in sorted(self._directory.glob(f"{folder}/**/*{_SUFFIX}"))
            if _heights(path)[1] <= self.height
        ]
        parts = []
        for path in sorted(paths, key=_heights):
            try:
                parts.append(
                    pq.read_table(path, partitioning=None, filters=[(column, "in", set(wanted))])
                )
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(f"{path}: cannot be read ({error})", _COLLECT_ANEW) from error
        return pa.concat_tables(parts, promote_options="default") if parts else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other collectors out, and see that none has been here."""
        with (self._directory / LOCK_FILE).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._other_writer() from error
            on_disk = _load_view(self._directory / STATE_FILE)
            if (on_disk.height if on_disk else 0) != self.height:
                raise self._other_writer()
            yield

    def _other_writer(self) -> DatasetError:
        return DatasetError(
            f"{self._directory}: another process writes to it",
            "let it finish, or use another directory",
        )

    def _remove_leftovers(self) -> None:
        if self._is_clean:
            return
        for path in self._directory.rglob(f"*{_SUFFIX}*"):
            if not path.name.endswith(_SUFFIX) or _heights(path)[0] > self.height:
                path.unlink()


def _heights(path: Path) -> tuple[int, int]:
    first, _, last = path.name.removesuffix(_SUFFIX).partition("-")
    try:
        return int(first), int(last)
    except ValueError:
        raise DatasetError(
            f"{path}: is not named by two heights, so it is none of this data set's files",
            "move it elsewhere",
        ) from None


def _partition(key: str, value: str) -> str:
    # A device type may hold any printable character, a slash among them.
    return f"{key}={quote(value, safe='')}"


def _channel_column(name: str) -> str:
    """Column of a channel: its name, unless that is taken; two channels never share one."""
    return f"channel:{name}" if name in _ROW_FIELDS or name.startswith("channel:") else name


def _day(time: float) -> str:
    return str(np.datetime64(int(time // _SECONDS_PER_DAY), "D"))


def _tables(
    blocks: Sequence[Block], devices: dict[bytes, EnrolledDevice]
) -> Iterator[tuple[str, Any]]:
    """Give each table that the blocks make, with its folder."""
    listed: list[dict[str, Any]] = []
    judged: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    partitions: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for block in blocks:
        for index, transaction in enumerate(block.transactions, start=1):
            listed.append(
                {
                    "id": transaction.id.hex(),
                    "height": block.height,
                    "index": index,
                    "kind": transaction.kind,
                    "signer": kid_hex(transaction.signer),
                    "sequence": transaction.sequence,
                }
            )
            if isinstance(transaction.body, PackBody):
                pack = transaction.body.pack
                device = devices[transaction.signer]
                for row in _rows(transaction, pack, block.height, device):
                    _complete(row, device.starts)
                    day = block.coinbase.time / 1000 if row["time"] is None else row["time"]
                    partitions[device.type, _day(day)].append(row)
                for verdict in _judged(transaction, pack, block.height):
                    _complete(verdict, device.starts)
                    judged.append(verdict)
                for fault in _failed(transaction, pack, block.height):
                    _complete(fault, device.starts)
                    failed.append(fault)
    for (device_type, day), rows in partitions.items():
        folder = f"readings/{_partition('device_type', device_type)}/{_partition('day', day)}"
        channels = {
            _channel_column(name): pa.float32()
            for device in devices.values()
            if device.type == device_type
            for name in device.channels
        }
        schema = pa.schema(_ROW_FIELDS | channels)
        yield folder, pa.Table.from_pylist(rows, schema=schema)
    if judged:
        yield "verdicts", pa.Table.from_pylist(judged, schema=_VERDICTS)
    if failed:
        yield "faults", pa.Table.from_pylist(failed, schema=_FAULTS)
    if listed:
        yield "transactions", pa.Table.from_pylist(listed, schema=_TRANSACTIONS)


def _rows(
    transaction: Transaction, pack: Pack, height: int, device: EnrolledDevice
) -> Iterator[dict[str, Any]]:
    for index, (time, readings) in enumerate(_by_time(pack.readings)):
        row = {
            "device": kid_hex(device.kid),
            "device_type": device.type,
            "sequence": transaction.sequence,
            "row": index,
            "height": height,
            "transaction": transaction.id.hex(),
            **_when(pack, time),
        }
        for reading in readings:
            if reading.name not in device.channels:
                raise DatasetError(
                    f"block {height}: {kid_hex(device.kid)} sends {reading.name!r}, which is "
                    "not enrolled",
                    "do not trust the consortium's validators: their rules forbid such a block",
                )
            row[_channel_column(reading.name)] = reading.value
        yield row


def _by_time(readings: Sequence[Reading]) -> Iterator[tuple[float, list[Reading]]]:
    row: list[Reading] = []
    for reading in readings:
        if row and reading.time != row[0].time:
            yield row[0].time, row
            row = []
        row.append(reading)
    if row:
        yield row[0].time, row


def _when(pack: Pack, time: float) -> dict[str, Any]:
    """Columns that say when something of a pack was, as far as the pack knows it."""
    if pack.clock is None or pack.has_time:
        return {"time": time, "corrected": False, "boot": None, "up_s": None}
    up_s = pack.clock.up_ms / 1000 + time
    return {"time": None, "corrected": False, "boot": pack.clock.boot, "up_s": up_s}


def _complete(row: dict[str, Any], starts: Sequence[Start]) -> None:
    """Give a row the time that it lacks, where the board has said when it had started."""
    if row["time"] is not None:
        return
    for start in starts:
        if start.boot == row["boot"] and start.sequence > row["sequence"]:
            row["time"] = start.time / 1000 + row["up_s"]
            row["corrected"] = True
            return


def _judged(transaction: Transaction, pack: Pack, height: int) -> list[dict[str, Any]]:
    model = "" if pack.model is None else pack.model.hex()
    return [
        {
            "device": kid_hex(pack.device),
            "sequence": transaction.sequence,
            **_when(pack, verdict.time),
            "score": verdict.score,
            "anomaly": verdict.anomaly,
            "output": verdict.output.hex(),
            "model": model,
            "height": height,
        }
        for verdict in pack.verdicts
    ]


def _failed(transaction: Transaction, pack: Pack, height: int) -> list[dict[str, Any]]:
    return [
        {
            "device": kid_hex(pack.device),
            "sequence": transaction.sequence,
            **_when(pack, fault.time),
            "sensor": fault.sensor,
            "code": fault.code,
            "height": height,
        }
        for fault in pack.faults
    ]


def _as_readings(table: Any, device: EnrolledDevice) -> Readings:
    """Rows in the board's order, without those whose time is not known (yet)."""
    sequence = table["sequence"].to_numpy()
    times = table["time"].to_numpy().astype(np.float64)  # NaN where there is none
    corrected = table["corrected"].to_numpy().astype(np.bool_)
    if np.isnan(times).any():
        boots = table["boot"].to_numpy()
        for start in device.starts:
            at = np.isnan(times) & (boots == start.boot) & (sequence < start.sequence)
            times[at] = start.time / 1000 + table["up_s"].to_numpy()[at]
            corrected |= at
    order = np.lexsort((table["row"].to_numpy(), sequence))
    order = order[~np.isnan(times[order])]
    columns = [table[_channel_column(name)].to_numpy() for name in device.channels]
    return Readings(
        times=times[order],
        values=np.stack(columns, axis=1).astype(np.float32, copy=False)[order],
        channels=device.channels,
        sequence=sequence[order],
        sealed=True,
        corrected=corrected[order] if corrected.any() else None,
    )


def _as_verdict(row: dict[str, Any]) -> SealedVerdict:
    return SealedVerdict(
        device=bytes.fromhex(row["device"]),
        time=row["time"],
        score=row["score"],
        anomaly=row["anomaly"],
        output=bytes.fromhex(row["output"]),
        model=bytes.fromhex(row["model"]),
        height=row["height"],
    )


def _parquet(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _encode_view(view: ChainView) -> bytes:
    return json.dumps({"format": FORMAT, **view.value()}, indent=1).encode()


def _load_view(path: Path) -> ChainView | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STATE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror})", "check its permissions"
        ) from error
    if len(data) > MAX_STATE_BYTES:
        raise DatasetError(f"{path}: is over {MAX_STATE_BYTES} bytes", _COLLECT_ANEW)
    try:
        value = json.loads(data)
        if value["format"] == FORMAT:
            return ChainView.from_value(value)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: is damaged ({error!r})", _COLLECT_ANEW) from error
    raise DatasetError(f"{path}: is not of format {FORMAT}", _COLLECT_ANEW)


def _save(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all, and durably."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for folder in {path.parent, *(parent.parent for parent in missing)}:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


__all__ = ["Dataset", "EnrolledDevice", "Readings", "SealedFault", "SealedVerdict", "read_csv"]
