"""Records that somebody falsifies after a car has signed them, and a car's stolen key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2

from fog_node.protocol import senml
from fog_node.protocol.cose import TAG_SIGN1, sign1
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Transaction

_KEY_MARK = b"FGK1"
_KEY_BYTES = 32


@dataclass(frozen=True)
class Falsified:
    """A message that a gateway must refuse.

    Attributes:
        what: for people.
        car: name of the car that it is sent as; `claimed` its key id.
        cause: of the incident that is to become final.
    """

    what: str
    car: str
    claimed: bytes
    cause: str
    message: bytes

    @property
    def digest(self) -> bytes:
        """By which the incident names it."""
        return hashlib.sha256(self.message).digest()


def changed(sealed: Transaction, channel: str, by: float) -> bytes:
    """A sealed pack with all values of one channel changed, under its old signature."""
    message = sealed.message
    records = _change(message.payload, channel, by)
    tag = cbor2.CBORTag(TAG_SIGN1, [message.protected, {}, records, message.signature])
    return cbor2.dumps(tag, canonical=True)


def cloned(sealed: Transaction, flash: Path, chain_id: bytes, channel: str, by: float) -> bytes:
    """What a thief makes of a copy of a car's flash: another pack under a number that was used."""
    key = stolen_key(flash)
    return sign1(
        key,
        senml.CONTENT_TYPE,
        _change(sealed.message.payload, channel, by),
        chain_id,
        sequence=sealed.sequence,
        dropped=sealed.message.dropped or 0,
    )


def stranger(sealed: Transaction, chain_id: bytes, enterprise_number: int) -> tuple[bytes, bytes]:
    """(key id, message) of a car that no plant has built."""
    key = SigningKey.generate()
    records = cbor2.loads(sealed.message.payload)
    records[0][senml.BASE_NAME] = senml.base_name(enterprise_number, key.kid)
    payload = cbor2.dumps(records, canonical=True)
    return key.kid, sign1(key, senml.CONTENT_TYPE, payload, chain_id, sequence=1, dropped=0)


def stolen_key(flash: Path) -> SigningKey:
    """The private key in a board's flash."""
    data = (flash / "key.bin").read_bytes()
    assert data.startswith(_KEY_MARK)
    return SigningKey.from_secret(int.from_bytes(data[len(_KEY_MARK) :][:_KEY_BYTES], "big"))


def _change(payload: bytes, channel: str, by: float) -> bytes:
    records: Sequence[dict[int, Any]] = cbor2.loads(payload)
    for record in records:
        if record.get(senml.NAME) == channel:
            record[senml.VALUE] = float(record[senml.VALUE]) + by
    return cbor2.dumps(records, canonical=True)
