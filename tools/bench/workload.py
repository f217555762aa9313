"""Consortiums, boards and signed packs for benchmarks."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fog_node.protocol import senml
from fog_node.protocol.cose import sign1
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Channel, Enrol, Transaction, sign_transaction

# A pump test bench samples its sensors once a second: eight channels a row, as many rows as the
# readings fill.
CHANNELS = (
    Channel("acceleration-1", "m/s2", 0.0, 100.0),
    Channel("acceleration-2", "m/s2", 0.0, 100.0),
    Channel("current", "A", 0.0, 40.0),
    Channel("pressure", "bar", -1.0, 10.0),
    Channel("temperature", "Cel", -40.0, 125.0),
    Channel("thermocouple", "Cel", -40.0, 125.0),
    Channel("voltage", "V", 0.0, 400.0),
    Channel("flow", "L/min", 0.0, 200.0),
)
MAX_READINGS = len(CHANNELS) * senml.MAX_ROWS
DEVICE_TYPE = "pump"
_SINGLE = struct.Struct(">f")


@dataclass
class Board:
    """A board that signs on the hub, as fast as the hub can."""

    key: SigningKey
    next: int = 1

    @classmethod
    def make(cls) -> Board:
        """A board with a new key."""
        return cls(SigningKey.generate())

    def sign_pack(self, readings: int, enterprise_number: int, chain_id: bytes) -> bytes:
        """Sign a pack of so many readings, no two packs alike, as the next transaction."""
        payload = senml.encode_pack(
            enterprise_number, self.key.kid, int(time.time()), _rows(readings, self.next)
        )
        raw = sign1(self.key, senml.CONTENT_TYPE, payload, chain_id, self.next, 0)
        self.next += 1
        return raw


def _rows(readings: int, salt: int) -> list[tuple[int, list[tuple[str, str, float]]]]:
    """Rows of float32 values, as the boards' drivers give them."""
    rows = []
    for first in range(0, readings, len(CHANNELS)):
        row = []
        for place, channel in enumerate(CHANNELS[: readings - first]):
            step = (salt * 7919 + first * 31 + place * 101) % 1000
            span = min(channel.maximum, 100.0) - channel.minimum
            value = channel.minimum + span * step / 1000
            row.append((channel.name, channel.unit, _SINGLE.unpack(_SINGLE.pack(value))[0]))
        rows.append((first // len(CHANNELS), row))
    return rows


def enrolments(
    operator: SigningKey, owner: str, boards: Sequence[Board], chain_id: bytes, first: int = 1
) -> list[Transaction]:
    """The operator's transactions, from number `first` on, that put boards on the chain."""
    now = time.time_ns() // 1_000_000
    return [
        sign_transaction(
            operator,
            Enrol(board.key.public, owner, DEVICE_TYPE, "hub", CHANNELS, now),
            chain_id,
            number,
        )
        for number, board in enumerate(boards, start=first)
    ]
