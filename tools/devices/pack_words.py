"""A transaction of a board in words: a pack with each channel's range, an alert, a gap."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from fog_node.protocol import senml
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.transactions import PackBody, parse_transaction

__all__ = ["transaction_lines"]


def transaction_lines(data: bytes) -> Iterator[str]:
    """Lines for people. The signature is not checked here: whose key it is, a gateway knows."""
    try:
        transaction = parse_transaction(data)
    except ProtocolError as error:
        yield f"[unreadable] {len(data)} bytes: {_plain(str(error))}"
        return
    body, number = transaction.body, transaction.sequence
    if isinstance(body, PackBody):
        yield from _pack(body.pack, number, transaction.signer.hex())
    else:
        yield f"[{transaction.kind}] {transaction.signer.hex()} number {number}"


def _pack(pack: senml.Pack, number: int, signer: str) -> Iterator[str]:
    rows = len({reading.time for reading in pack.readings})
    when = ""
    if pack.readings:
        first, last = pack.readings[0].time, pack.readings[-1].time
        when = f", {_clock(first)} to {_clock(last)}" if pack.has_time else ", time not known"
    yield f"[pack] {signer} number {number}: {rows} rows{when}"
    channels: dict[tuple[str, str], list[float]] = {}
    for reading in pack.readings:
        channels.setdefault((reading.name, reading.unit), []).append(reading.value)
    for (name, unit), values in channels.items():
        least, most = min(values), max(values)
        span = f"{least:.6g}" if least == most else f"{least:.6g} to {most:.6g}"
        yield f"    {name} {span} {unit}"
    for fault in pack.faults:
        yield f"    {fault.sensor} has failed: {fault.code}"
    for verdict in pack.verdicts:
        words = "ANOMALY" if verdict.anomaly else "normal"
        yield f"    model {(pack.model or b'').hex()}: {words}, score {verdict.score}"


def _clock(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"


def _plain(text: str) -> str:
    return "".join(char for char in text[:200] if char.isprintable())
