"""Rows of a data set's Parquet files, as they follow from blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from fog_node.protocol.block import Block
from fog_node.protocol.clocks import Start, starts_after
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.labels import Image, Label, TimeSpan
from fog_node.protocol.membership import Membership
from fog_node.protocol.senml import Pack, Reading
from fog_node.protocol.transactions import PackBody, Release, Transaction

from .chain_view import ChainView, EnrolledDevice
from .errors import DatasetError

_SECONDS_PER_DAY = 86_400

# When something of a pack was: see the docstring of `dataset`.
_WHEN_FIELDS = {
    "time": pa.float64(),
    "corrected": pa.bool_(),
    "boot": pa.int64(),
    "up_s": pa.float64(),
}
ROW_FIELDS = {
    "device": pa.string(),
    "device_type": pa.string(),
    "sequence": pa.int64(),
    "row": pa.int32(),
    "height": pa.int64(),
    "transaction": pa.string(),
    **_WHEN_FIELDS,
}
TRANSACTIONS = pa.schema(
    {
        "id": pa.string(),
        "height": pa.int64(),
        "index": pa.int32(),
        "block_time": pa.float64(),
        "kind": pa.string(),
        "signer": pa.string(),
        "sequence": pa.int64(),
        "rows": pa.int32(),
    }
)
VERDICTS = pa.schema(
    {
        "device": pa.string(),
        "sequence": pa.int64(),
        **_WHEN_FIELDS,
        "score": pa.int64(),
        "anomaly": pa.bool_(),
        "output": pa.string(),
        "model": pa.string(),
        "height": pa.int64(),
    }
)
FAULTS = pa.schema(
    {
        "device": pa.string(),
        "sequence": pa.int64(),
        **_WHEN_FIELDS,
        "sensor": pa.string(),
        "code": pa.string(),
        "height": pa.int64(),
    }
)
STARTS = pa.schema(
    {
        "device": pa.string(),
        "boot": pa.int64(),
        "time": pa.float64(),
        "by": pa.string(),
        "sequence": pa.int64(),
        "height": pa.int64(),
    }
)
LABELS = pa.schema(
    {
        "transaction": pa.string(),
        "height": pa.int64(),
        "position": pa.int32(),
        "signer": pa.string(),
        "member": pa.string(),
        "device": pa.string(),
        "from_ms": pa.int64(),
        "until_ms": pa.int64(),
        "first": pa.int64(),
        "last": pa.int64(),
        "image": pa.string(),
        "value": pa.string(),
        "note": pa.string(),
        "said": pa.float64(),
    }
)
RELEASES = pa.schema(
    {
        "id": pa.string(),
        "height": pa.int64(),
        "signer": pa.string(),
        "member": pa.string(),
        "name": pa.string(),
        "version": pa.int64(),
        "device_type": pa.string(),
        "bundle": pa.string(),
        "payload": pa.binary(),
    }
)


def partition(key: str, value: str) -> str:
    """Name of a folder of a partition, as Hive has them."""
    # A device type may hold any printable character, a slash among them.
    return f"{key}={quote(value, safe='')}"


def channel_column(name: str) -> str:
    """Column of a channel: its name, unless that is taken; two channels never share one."""
    return f"channel:{name}" if name in ROW_FIELDS or name.startswith("channel:") else name


def tables(
    blocks: Sequence[Block], before: Mapping[bytes, EnrolledDevice], view: ChainView
) -> Iterator[tuple[str, Any]]:
    """Give each table that the blocks make, with its folder.

    Args:
        blocks: in order.
        before: boards as they were before the first of them.
        view: the chain after the last one.
    """
    starts = _Starts(before)
    for transaction, block in _transactions(blocks):
        starts.take(transaction, block.height)
    parts = _Parts(view, starts)
    for block in blocks:
        for index, transaction in enumerate(block.transactions, start=1):
            parts.take(transaction, block, index)
    yield from parts.tables()
    if starts.new:
        yield "starts", pa.Table.from_pylist(starts.new, schema=STARTS)


def complete(row: dict[str, Any], starts: Iterable[Start]) -> None:
    """Give a row the time that it lacks, where the board has said when it had started."""
    if row["time"] is not None:
        return
    for start in starts:
        if start.boot == row["boot"] and start.sequence > row["sequence"]:
            row["time"] = start.time / 1000 + row["up_s"]
            row["corrected"] = True
            return


class _Starts:
    """All starts that boards have told of: the view keeps the latest ones only."""

    def __init__(self, before: Mapping[bytes, EnrolledDevice]) -> None:
        self.new: list[dict[str, Any]] = []
        self._latest = {kid: device.starts for kid, device in before.items()}
        self._known: dict[bytes, list[Start]] = {k: list(s) for k, s in self._latest.items()}

    def of(self, device: bytes) -> Sequence[Start]:
        return self._known.get(device, ())

    def take(self, transaction: Transaction, height: int) -> None:
        body, kid = transaction.body, transaction.signer
        if not isinstance(body, PackBody) or body.clock is None:
            return
        known = self._latest.get(kid, ())
        after = starts_after(known, body.clock, transaction.sequence)
        if after is known:
            return
        self._latest[kid] = after
        start = after[-1]
        self._known.setdefault(kid, []).append(start)
        self.new.append(
            {
                "device": kid_hex(kid),
                "boot": start.boot,
                "time": start.time / 1000,
                "by": kid_hex(start.by) if isinstance(start.by, bytes) else str(start.by),
                "sequence": start.sequence,
                "height": height,
            }
        )


class _Parts:
    """Rows of each table, as they are gathered."""

    def __init__(self, view: ChainView, starts: _Starts) -> None:
        self._view = view
        self._starts = starts
        self._flat: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._readings: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)

    def take(self, transaction: Transaction, block: Block, index: int) -> None:
        body = transaction.body
        rows: list[dict[str, Any]] = []
        if isinstance(body, PackBody):
            rows = self._take_pack(transaction, body.pack, block)
        elif isinstance(body, Label):
            self._flat["labels"] += _labels(transaction, body, block.height, self._view.membership)
        elif isinstance(body, Release):
            self._flat["releases"].append(
                _release(transaction, body, block.height, self._view.membership)
            )
        self._flat["transactions"].append(
            {
                "id": transaction.id.hex(),
                "height": block.height,
                "index": index,
                "block_time": block.coinbase.time / 1000,
                "kind": transaction.kind,
                "signer": kid_hex(transaction.signer),
                "sequence": transaction.sequence,
                "rows": len(rows) if isinstance(body, PackBody) else None,
            }
        )

    def tables(self) -> Iterator[tuple[str, Any]]:
        for (device_type, day), rows in self._readings.items():
            folder = f"readings/{partition('device_type', device_type)}/{partition('day', day)}"
            channels = {
                channel_column(name): pa.float32()
                for device in self._view.devices.values()
                if device.type == device_type
                for name in device.channels
            }
            yield folder, pa.Table.from_pylist(rows, schema=pa.schema(ROW_FIELDS | channels))
        for folder, schema in (
            ("verdicts", VERDICTS),
            ("faults", FAULTS),
            ("labels", LABELS),
            ("releases", RELEASES),
            ("transactions", TRANSACTIONS),
        ):
            if self._flat[folder]:
                yield folder, pa.Table.from_pylist(self._flat[folder], schema=schema)

    def _take_pack(
        self, transaction: Transaction, pack: Pack, block: Block
    ) -> list[dict[str, Any]]:
        height, device = block.height, self._view.devices[transaction.signer]
        starts = self._starts.of(device.kid)
        rows = list(_rows(transaction, pack, height, device))
        verdicts = _judged(transaction, pack, height)
        faults = _failed(transaction, pack, height)
        for row in (*rows, *verdicts, *faults):
            complete(row, starts)
        for row in rows:
            day = block.coinbase.time / 1000 if row["time"] is None else row["time"]
            self._readings[device.type, day_of(day)].append(row)
        self._flat["verdicts"] += verdicts
        self._flat["faults"] += faults
        return rows


def _transactions(blocks: Sequence[Block]) -> Iterator[tuple[Transaction, Block]]:
    for block in blocks:
        for transaction in block.transactions:
            yield transaction, block


def day_of(time: float) -> str:
    """The UTC day of s since 1970, as folders are named by it."""
    return str(np.datetime64(int(time // _SECONDS_PER_DAY), "D"))


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
            row[channel_column(reading.name)] = reading.value
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


def _labels(
    transaction: Transaction, body: Label, height: int, membership: Membership
) -> Iterator[dict[str, Any]]:
    for position, item in enumerate(body.labels):
        target = item.target
        row: dict[str, Any] = {
            "transaction": transaction.id.hex(),
            "height": height,
            "position": position,
            "signer": kid_hex(transaction.signer),
            "member": _name(transaction.signer, membership),
            "value": item.value,
            "note": body.note,
            "said": body.time / 1000,
        }
        if isinstance(target, Image):
            row["image"] = target.sha256.hex()
        else:
            of_time = isinstance(target, TimeSpan)
            ends = ("from_ms", "until_ms") if of_time else ("first", "last")
            row |= {"device": kid_hex(target.device), ends[0]: target.first, ends[1]: target.last}
        yield row


def _release(
    transaction: Transaction, body: Release, height: int, membership: Membership
) -> dict[str, Any]:
    return {
        "id": transaction.id.hex(),
        "height": height,
        "signer": kid_hex(transaction.signer),
        "member": _name(transaction.signer, membership),
        "name": body.name,
        "version": body.version,
        "device_type": body.device_type,
        "bundle": body.bundle.hex(),
        "payload": transaction.message.payload,
    }


def _name(kid: bytes, membership: Membership) -> str:
    """Name of the member that signs, or signed, with this key; names are never used again."""
    while (retired := membership.retired.get(kid)) is not None:
        kid = retired.successor
    record = membership.members.get(kid)
    return kid_hex(kid) if record is None else record.name
