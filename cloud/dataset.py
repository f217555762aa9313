"""Sealed readings as Parquet files, for any tool that reads them.

    state.json                                                how far it goes, replaced last
    readings/device_type=<type>/day=<UTC day>/<heights>.parquet    a row per reading time
    transactions/<heights>.parquet                            every transaction, chain order
    verdicts/<heights>.parquet                                what the boards' models said
    faults/<heights>.parquet                                  which sensors failed, once per pack
    labels/<heights>.parquet                                  what engineers said, chain order
    starts/<heights>.parquet                                  when boards' clocks began
    releases/<heights>.parquet                                which models and firmware
    files/<heights>.json                                      SHA-256 of each of these files

A row of a board that did not know the time has `boot` and `up_s` instead: which start of the board
it was, and how long it had been up. Once the board has said when that start was, `time` follows
(and `corrected` is true), here or when the data set is read (from `starts`, `time` + `up_s`);
before, such rows are left out of what is read, and stand under the day of their block.

A file is named by the first and last height of the blocks it was made of. Files above the height
in `state.json` are left over from a crash: they are not read, and removed before the next write,
so that nothing is ever there twice. What is read depends on the blocks alone, not on how they came
to be in files.

What is read is what was written: `state.json` has a digest over all of `files`, and a file that is
gone, or has other bytes than its SHA-256 there, is refused. Whoever can write to the directory can
change all three; who does not trust it collects anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fog_node.protocol.block import Block
from fog_node.protocol.clocks import Start
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.labels import Image, PackSpan, Target, TimeSpan
from fog_node.protocol.transactions import Release

from .chain_view import ChainView, EnrolledDevice
from .dataset_tables import channel_column, complete, partition, tables
from .errors import DatasetError
from .files import read_bounded, save_file
from .labels import Labels, SealedLabel
from .readings import Readings

FORMAT = 4
STATE_FILE = "state.json"
FILES_FOLDER = "files"
LOCK_FILE = "lock"
MAX_STATE_BYTES = 256 * 1024 * 1024
MAX_FILES_BYTES = 16 * 1024 * 1024
_SUFFIX = ".parquet"
_COLLECT_ANEW = "remove the directory and collect anew; nothing is lost, the chain has it all"


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


class SealedPack(NamedTuple):
    """A pack as the chain has it.

    Attributes:
        id: of the transaction.
        height, place: of its block, and its place in that, from 1.
        block_time: s since 1970.
        device: key id; `sequence`, its number.
        rows: how many it has.
    """

    id: bytes
    height: int
    place: int
    block_time: float
    device: bytes
    sequence: int
    rows: int


@dataclass(frozen=True)
class SealedRelease:
    """A release as it is on the chain.

    Attributes:
        id: of the transaction.
        height: of the block.
        member: name of who released it.
    """

    id: bytes
    height: int
    member: str
    release: Release


class Dataset:
    """A data set as it was when it was opened or last appended to."""

    def __init__(self, directory: Path, view: ChainView | None, files: _Files) -> None:
        self._directory = directory
        self._view = view
        self._files = files
        self._is_clean = False

    @classmethod
    def open(cls, directory: Path) -> Dataset:
        """Open a data set; one that is not there is empty, and made by the first `append`.

        Raises:
            DatasetError: the state file is damaged or of another format, or what it says of the
                others does not hold.
        """
        view, digest = _load_state(directory / STATE_FILE)
        files = _Files()
        if view is not None:
            files = _load_files(directory / FILES_FOLDER, view.height)
        if files.digest != digest:
            raise DatasetError(
                f"{directory / FILES_FOLDER}: is not what {STATE_FILE} says", _COLLECT_ANEW
            )
        return cls(directory, view, files)

    @property
    def view(self) -> ChainView | None:
        """The chain up to the data set's height; None while it is empty."""
        return self._view

    @property
    def height(self) -> int:
        """Height of the latest block in it; 0 while it is empty."""
        return 0 if self._view is None else self._view.height

    def check_chain(self, founding: Founding) -> None:
        """Raise DatasetError where it is of another consortium; an empty one is of any."""
        if self._view is not None and self._view.chain_id != founding.chain_id:
            raise DatasetError(
                f"{self._directory}: is of the chain {self._view.chain_id.hex()}, the founding "
                f"file of {founding.chain_id.hex()}",
                "give the founding file that it was begun with, or another directory",
            )

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
        before = {} if self._view is None else self._view.devices
        name = f"{heights[0]:010d}-{heights[-1]:010d}"
        hashes = {}
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._remove_leftovers()
                self._is_clean = False
                for folder, table in tables(blocks, before, view):
                    data, path = _parquet(table), f"{folder}/{name}{_SUFFIX}"
                    save_file(self._directory / path, data, parents=True)
                    hashes[path] = hashlib.sha256(data).hexdigest()
                listed = json.dumps(hashes, indent=1).encode()
                files = self._files.with_more(listed)
                save_file(self._directory / FILES_FOLDER / f"{name}.json", listed, parents=True)
                save_file(self._directory / STATE_FILE, _encode_state(view, files.digest))
        except OSError as error:
            raise DatasetError(
                f"{self._directory}: cannot be written ({error.strerror})",
                "check its permissions and the free space, and collect again",
            ) from error
        self._is_clean = True
        self._view = view
        self._files = files

    def readings(
        self, device_type: str, device: bytes | None = None, height: int | None = None
    ) -> dict[bytes, Readings]:
        """Sealed readings of each board of a type, in the board's own order.

        Args:
            device_type: as enrolled.
            device: key id, where only one board is wanted.
            height: as they were known after this block; None: after the latest one.

        Returns:
            Key id to readings; boards without any are left out.

        Raises:
            DatasetError: no such type or board, or a damaged file.
        """
        devices = self.of_type(device_type)
        if device is not None:
            devices = self.among(devices, (device,), device_type)
        folder = f"readings/{partition('device_type', device_type)}"
        table = self._read(folder, set(map(kid_hex, devices)), height=height)
        if table is None:
            return {}
        starts = self._starts(devices, height)
        found = {}
        kids = np.array(table["device"].to_pylist(), np.str_)
        for kid, enrolled in devices.items():
            rows = np.flatnonzero(kids == kid_hex(kid))
            if len(rows):
                readings = _as_readings(table.take(rows), enrolled, starts[kid])
                if len(readings):
                    found[kid] = readings
        return found

    def verdicts(self, device_type: str) -> list[SealedVerdict]:
        """Verdicts of all boards of a type, in chain order; raises DatasetError."""
        return [_as_verdict(row) for row in self._timed("verdicts", device_type)]

    def faults(self, device_type: str) -> list[SealedFault]:
        """Sensors that failed on boards of a type, in chain order; raises DatasetError."""
        return [
            SealedFault(
                bytes.fromhex(row["device"]),
                row["time"],
                row["sensor"],
                row["code"],
                row["height"],
            )
            for row in self._timed("faults", device_type)
        ]

    def packs(self, devices: Collection[bytes], height: int | None = None) -> list[SealedPack]:
        """Packs of these boards up to a block, in chain order; raises DatasetError."""
        table = self._read("transactions", set(map(kid_hex, devices)), "signer", height)
        return [
            SealedPack(
                id=bytes.fromhex(row["id"]),
                height=row["height"],
                place=row["index"],
                block_time=row["block_time"],
                device=bytes.fromhex(row["signer"]),
                sequence=row["sequence"],
                rows=row["rows"],
            )
            for row in ([] if table is None else table.to_pylist())
            if row["kind"] == "pack"
        ]

    def labels(self, height: int | None = None) -> Labels:
        """What engineers have said up to a block; raises DatasetError."""
        table = self._read("labels", height=height)
        return Labels([_as_label(row) for row in ([] if table is None else table.to_pylist())])

    def releases(self) -> list[SealedRelease]:
        """Releases of models and firmware, in chain order; raises DatasetError."""
        table = self._read("releases")
        found = []
        for row in [] if table is None else table.to_pylist():
            try:
                release = Release.decode(row["payload"])
            except ProtocolError as error:
                raise DatasetError(
                    f"{self._directory}: release {row['id']} is damaged ({error})", _COLLECT_ANEW
                ) from error
            found.append(
                SealedRelease(bytes.fromhex(row["id"]), row["height"], row["member"], release)
            )
        return found

    def of_type(self, device_type: str) -> dict[bytes, EnrolledDevice]:
        """Boards of a type by key id, in the order of their enrolment; raises DatasetError."""
        found = {device.kid: device for device in self.devices() if device.type == device_type}
        if not found:
            known = ", ".join(sorted({device.type for device in self.devices()})) or "none"
            raise DatasetError(
                f"{self._directory}: no device of type {device_type!r} up to block {self.height}",
                f"give one that is enrolled ({known}), or collect later blocks",
            )
        return found

    def among(
        self, devices: Mapping[bytes, EnrolledDevice], wanted: Collection[bytes], device_type: str
    ) -> dict[bytes, EnrolledDevice]:
        """Those of `devices` that are wanted; DatasetError where one is not among them."""
        for kid in wanted:
            if kid not in devices:
                raise DatasetError(
                    f"{self._directory}: {kid_hex(kid)} is no {device_type} up to block "
                    f"{self.height}",
                    "check the key id, or collect later blocks",
                )
        return {kid: device for kid, device in devices.items() if kid in wanted}

    def _timed(self, folder: str, device_type: str) -> Iterator[dict[str, Any]]:
        """Rows of boards of a type, in chain order, but those whose time is not known."""
        devices = self.of_type(device_type)
        table = self._read(folder, set(map(kid_hex, devices)))
        starts = self._starts(devices, None)
        for row in [] if table is None else table.to_pylist():
            complete(row, starts[bytes.fromhex(row["device"])])
            if row["time"] is not None:
                yield row

    def _starts(
        self, devices: Collection[bytes], height: int | None
    ) -> defaultdict[bytes, list[Start]]:
        """All starts that boards have told of up to a block."""
        found: defaultdict[bytes, list[Start]] = defaultdict(list)
        table = self._read("starts", set(map(kid_hex, devices)), height=height)
        for row in [] if table is None else table.to_pylist():
            by = row["by"]
            found[bytes.fromhex(row["device"])].append(
                Start(
                    row["boot"],
                    round(row["time"] * 1000),
                    int(by) if len(by) == 1 else bytes.fromhex(by),
                    row["sequence"],
                )
            )
        return found

    def _read(
        self,
        folder: str,
        wanted: Collection[str] | None = None,
        column: str = "device",
        height: int | None = None,
    ) -> Any:
        """Read rows in the order of heights.

        Args:
            folder: of the table.
            wanted: only rows in whose `column` is one of these; None: all rows.
            column: see `wanted`.
            height: only rows up to this block.
        """
        last = self.height if height is None else min(height, self.height)
        for path in self._directory.glob(f"{folder}/**/*{_SUFFIX}"):
            name = path.relative_to(self._directory).as_posix()
            if _heights(path)[1] <= self.height and name not in self._files.hashes:
                raise DatasetError(f"{path}: is none of this data set's files", "move it elsewhere")
        paths = [
            path
            for path in map(Path, self._files.hashes)
            if path.is_relative_to(folder) and _heights(path)[0] <= last
        ]
        filters: list[Any] = [("height", "<=", last)]
        if wanted is not None:
            filters.append((column, "in", set(wanted)))
        parts = []
        for path in sorted(paths, key=_heights):
            data = self._bytes(path)
            try:
                parts.append(pq.read_table(pa.BufferReader(data), filters=filters))
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(f"{path}: cannot be read ({error})", _COLLECT_ANEW) from error
        return pa.concat_tables(parts, promote_options="default") if parts else None

    def _bytes(self, name: Path) -> bytes:
        """A file as it was written; `name` is its path in the directory."""
        path = self._directory / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot be read ({error.strerror})", _COLLECT_ANEW
            ) from error
        if hashlib.sha256(data).hexdigest() != self._files.hashes[name.as_posix()]:
            raise DatasetError(f"{path}: is not what was written", _COLLECT_ANEW)
        return data

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other collectors out, and see that none has been here."""
        with (self._directory / LOCK_FILE).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._other_writer() from error
            on_disk, _ = _load_state(self._directory / STATE_FILE)
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
        listed = (self._directory / FILES_FOLDER).glob("*.json*")
        for path in (*self._directory.rglob(f"*{_SUFFIX}*"), *listed):
            if path.suffix not in (_SUFFIX, ".json") or _heights(path)[0] > self.height:
                path.unlink()


def _heights(path: Path) -> tuple[int, int]:
    first, _, last = path.name.partition(".")[0].partition("-")
    try:
        return int(first), int(last)
    except ValueError:
        raise DatasetError(
            f"{path}: is not named by two heights, so it is none of this data set's files",
            "move it elsewhere",
        ) from None


def _as_readings(table: Any, device: EnrolledDevice, starts: Sequence[Start]) -> Readings:
    """Rows in the board's order, without those whose time is not known (yet)."""
    sequence = table["sequence"].to_numpy()
    times = table["time"].to_numpy().astype(np.float64)
    # What was corrected when it was written may not have been known at the height in question.
    boots = table["boot"].to_numpy().astype(np.float64)  # NaN where the board knew the time
    times[~np.isnan(boots)] = np.nan
    corrected = np.zeros(len(times), np.bool_)
    for start in starts:
        at = np.isnan(times) & (boots == start.boot) & (sequence < start.sequence)
        times[at] = start.time / 1000 + table["up_s"].to_numpy()[at]
        corrected |= at
    order = np.lexsort((table["row"].to_numpy(), sequence))
    order = order[~np.isnan(times[order])]
    columns = [table[channel_column(name)].to_numpy() for name in device.channels]
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


def _as_label(row: dict[str, Any]) -> SealedLabel:
    target: Target
    if row["image"] is not None:
        target = Image(bytes.fromhex(row["image"]))
    elif row["from_ms"] is not None:
        target = TimeSpan(bytes.fromhex(row["device"]), row["from_ms"], row["until_ms"])
    else:
        target = PackSpan(bytes.fromhex(row["device"]), row["first"], row["last"])
    return SealedLabel(
        transaction=bytes.fromhex(row["transaction"]),
        position=row["position"],
        height=row["height"],
        member=row["member"],
        target=target,
        value=row["value"],
        note=row["note"],
        said=row["said"],
    )


def _parquet(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@dataclass(frozen=True)
class _Files:
    """What was written.

    Attributes:
        hashes: SHA-256, hex, by path in the directory.
        digest: over all files of FILES_FOLDER, one after the other: of the one before and this one.
    """

    hashes: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    def with_more(self, listed: bytes) -> _Files:
        """With those of another file of FILES_FOLDER; raises ValueError where it is none."""
        digest = hashlib.sha256(self.digest.encode() + listed).hexdigest()
        return _Files({**self.hashes, **dict(json.loads(listed))}, digest)


def _encode_state(view: ChainView, digest: str) -> bytes:
    return json.dumps({"format": FORMAT, "files": digest, **view.value()}, indent=1).encode()


def _load_state(path: Path) -> tuple[ChainView | None, str]:
    """The chain up to where the data set goes, and the digest over its files."""
    try:
        data = _bounded(path, MAX_STATE_BYTES)
    except FileNotFoundError:
        return None, ""
    try:
        value = json.loads(data)
        if value["format"] == FORMAT:
            return ChainView.from_value(value), str(value["files"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: is damaged ({error!r})", _COLLECT_ANEW) from error
    raise DatasetError(f"{path}: is not of format {FORMAT}", _COLLECT_ANEW)


def _load_files(folder: Path, height: int) -> _Files:
    """What was written up to a block."""
    hashes: dict[str, str] = {}
    digest = ""
    for path in sorted(folder.glob("*.json"), key=_heights):
        if _heights(path)[1] > height:
            continue
        listed = _bounded(path, MAX_FILES_BYTES)
        try:
            more = _Files(digest=digest).with_more(listed)
        except (TypeError, ValueError, RecursionError) as error:
            raise DatasetError(f"{path}: is damaged ({error!r})", _COLLECT_ANEW) from error
        hashes.update(more.hashes)
        digest = more.digest
    return _Files(hashes, digest)


def _bounded(path: Path, most: int) -> bytes:
    """Raises DatasetError for what cannot be read; FileNotFoundError."""
    try:
        return read_bounded(path, most)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror})", "check its permissions, or collect anew"
        ) from error
