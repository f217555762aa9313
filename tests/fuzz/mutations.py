"""Changes to valid messages that get past a parser's first check; all chance is `Random`'s."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import cbor2

TAGS = (0, 1, 2, 3, 4, 5, 16, 17, 18, 24, 25, 28, 29, 30, 35, 36, 37, 55799)
NUMBERS = (
    -(2**63),
    -1,
    0,
    1,
    23,
    24,
    255,
    256,
    2**31 - 1,
    2**31,
    2**32,
    2**53 + 1,
    2**63,
    2**64 - 1,
)
FLOATS = (0.0, -0.0, 1.5, 1e300, float("inf"), float("-inf"), float("nan"), 65504.0, 65520.0)
TEXTS = ("", "\0", "a" * 65, "\u202e", "/", "model/id", "../x", "é", "1_0", "NaN")
RAW = (
    b"",
    b"\x80",
    b"\xf6",
    b"\x9f\xff",
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xfb\x7f\xf8" + bytes(6),
)


def mutate(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """One to three changes, of bytes or of structure; `others` are there to splice from."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        data = chance.choice(_BY_STRUCTURE + _BY_BYTES)(data, others, chance)
    return data


Mutation = Callable[[bytes, Sequence[bytes], random.Random], bytes]


# Of bytes


def flip(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """One bit the other way."""
    if not data:
        return b"\x00"
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Some bytes replaced by others that parsers care for."""
    if not data:
        return b"\xff"
    at = chance.randrange(len(data))
    new = chance.choice(RAW) or chance.randbytes(chance.randrange(1, 9))
    return data[:at] + new + data[at + len(new) :]


def truncate(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data) + 1)]


def extend(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Something stands behind, or in between, that does not belong there."""
    at = chance.choice((len(data), chance.randrange(len(data) + 1)))
    return data[:at] + (chance.choice(RAW) or chance.randbytes(3)) + data[at:]


def splice(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """The begin of one message and the end of another."""
    other = chance.choice(others)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def duplicate(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A piece stands there again."""
    begin = chance.randrange(len(data) + 1)
    end = min(len(data), begin + chance.randrange(1, 64))
    return data[:end] + data[begin:end] + data[end:]


# Of structure


def replace_node(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """One item of the CBOR becomes another, and all is encoded well again."""
    return _changed(data, chance, lambda value: _other_value(value, others, chance))


def retag(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """One item gets a tag, or another one."""
    tag = chance.choice(TAGS)
    return _changed(
        data,
        chance,
        lambda value: cbor2.CBORTag(
            tag, value.value if isinstance(value, cbor2.CBORTag) else value
        ),
    )


def drop_or_double(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """One member of an array or a map is missing or there twice."""

    def change(value: object) -> object:
        if isinstance(value, list) and value:
            at = chance.randrange(len(value))
            return value[:at] + value[at : at + 1] * chance.choice((0, 2)) + value[at + 1 :]
        if isinstance(value, dict) and value:
            key = chance.choice(list(value))
            return {k: v for k, v in value.items() if k != key} | chance.choice(({}, {"new": 0}))
        return value

    return _changed(data, chance, change)


def uncanonical(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A head that takes more bytes than it needs, somewhere."""
    if not data:
        return b"\x18\x00"
    at = chance.randrange(len(data))
    major, info = data[at] >> 5, data[at] & 31
    if info > 23:
        return flip(data, others, chance)
    size = chance.choice((1, 2, 4, 8))
    head = bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + info.to_bytes(size, "big")
    return data[:at] + head + data[at + 1 :]


def within_a_byte_string(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """What is embedded, a payload or a protected header, is changed; lengths around it fit."""

    def change(value: object) -> object:
        if isinstance(value, bytes) and len(value) > 1:
            return chance.choice(_BY_STRUCTURE[:3] + _BY_BYTES)(value, others, chance)
        return value

    return _changed(data, chance, change)


_BY_BYTES: tuple[Mutation, ...] = (flip, overwrite, truncate, extend, splice, duplicate)
_BY_STRUCTURE: tuple[Mutation, ...] = (
    replace_node,
    retag,
    drop_or_double,
    within_a_byte_string,
    within_a_byte_string,
    uncanonical,
)


def _changed(data: bytes, chance: random.Random, change: Callable[[object], object]) -> bytes:
    """Decode, change one item somewhere in it, encode; as it was where that does not work out."""
    try:
        value = cbor2.loads(data)
        return cbor2.dumps(_change_one(value, chance, change), canonical=True)
    except Exception:  # noqa: BLE001 - cbor2 raises what it likes on what was mutated before
        return flip(data, (), chance)


def _change_one(value: object, chance: random.Random, change: Callable[[object], object]) -> object:
    inner: list[object] = []
    if isinstance(value, cbor2.CBORTag):
        inner = ["tag"]
    elif isinstance(value, list):
        inner = list(range(len(value)))
    elif isinstance(value, dict):
        inner = list(value)
    elif isinstance(value, bytes) and chance.random() < 0.5:
        try:
            deeper = cbor2.loads(value)
        except Exception:  # noqa: BLE001 - most byte strings hold no CBOR
            return change(value)
        if isinstance(deeper, list | dict | cbor2.CBORTag):
            return cbor2.dumps(_change_one(deeper, chance, change), canonical=True)
    if not inner or chance.random() < 0.2:
        return change(value)
    key = chance.choice(inner)
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, _change_one(value.value, chance, change))
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = _change_one(changed[key], chance, change)
    return changed


def _other_value(value: object, others: Sequence[bytes], chance: random.Random) -> object:
    nearby: list[object] = [None, True, [], {}, [value], {0: value}]
    if isinstance(value, bool):
        nearby.append(not value)
    elif isinstance(value, int):
        nearby += [value + 1, value - 1, -value, float(value) if abs(value) < 2**60 else 0.0]
    elif isinstance(value, float):
        nearby += [-value, value / 2, int(value) if abs(value) < 2**60 else 0]
    elif isinstance(value, bytes):
        nearby += [value[:-1], value + b"\0", bytes(len(value)), value[::-1], value.hex()]
        nearby += [chance.choice(others)]
    elif isinstance(value, str):
        nearby += [value[:-1], value + "x", value.upper(), value.encode()]
    return chance.choice((*nearby, *NUMBERS, *FLOATS, *TEXTS))
