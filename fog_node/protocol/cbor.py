"""Deterministic CBOR (RFC 8949 section 4.2.1) on top of cbor2.

`decode` accepts exactly the bytes `encode` would write, so one value has one encoding
and a hash over bytes is a hash over the value.
"""

from __future__ import annotations

import io
import math
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cbor2

from . import native_reading
from .errors import EncodingError

MAX_DEPTH = 16
# What one message may make of us: an empty map is one byte here and some 70 in memory.
MAX_ITEMS = 2**17
# Keys that collide (arrays may be keys, and their hash is no secret) cost time by the square.
MAX_MAP_ENTRIES = 128
# COSE_Mac0 and COSE_Sign1. cbor2 makes objects of many other tags: a decimal from a big integer
# takes time by the square of its length, a shared reference makes kilobytes out of bytes.
TAGS = (17, 18)

_BYTES, _TEXT, _MAP, _TAG = 2, 3, 5, 6
# By initial byte, how many bytes lead to the next item's initial byte; 0 where more must be read.
_STEPS = bytearray(256)


class _Encoders(threading.local):
    """An encoder of cbor2's for each thread: to make one takes longer than what is encoded mostly.

    One that has failed is not used again; it may remember what it was in the midst of.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.dumps: Callable[[Any], bytes] = cbor2.CBOREncoder(
            io.BytesIO(), canonical=True
        ).encode_to_bytes


_ENCODERS = _Encoders()


def encode(value: Any) -> bytes:
    """Encode `value` deterministically; raises EncodingError for what CBOR cannot hold."""
    try:
        data = _dumps(value)
        if native_reading.is_deterministic(data):
            return data
        # What cbor2 writes otherwise; or what no structure here has, and decode refuses.
        _check_depth(value, 0)
        return _encode_exactly(value)
    except RecursionError as error:
        raise EncodingError("cbor", f"is nested deeper than {MAX_DEPTH} levels") from error
    except (cbor2.CBOREncodeError, OverflowError, ValueError) as error:
        raise EncodingError("cbor", f"cannot be encoded ({error})") from error


def decode(data: bytes, max_bytes: int, field: str = "cbor") -> Any:
    """Decode one CBOR item that fills `data` and is deterministically encoded.

    Args:
        data: the bytes, at most `max_bytes` of them (checked before parsing).
        max_bytes: the limit that SPEC.md sets for this message.
        field: how to call the item in errors.

    Raises:
        EncodingError: too large, malformed, not deterministic, nested too deep, followed by
            further bytes, or with a tag, a map or a number of items that no structure here has.
    """
    if len(data) > max_bytes:
        raise EncodingError(field, f"{len(data)} bytes, at most {max_bytes} are allowed")
    if native_reading.is_deterministic(data):
        return cbor2.loads(data)
    return decode_plainly(data, field)


def decode_plainly(data: bytes, field: str = "cbor") -> Any:
    """Do what `decode` does, in Python: its twin, which knows the reason of a refusal."""
    _check_items(data, field)
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH + 1)  # it counts what is inside, too
        # Not by cbor2's canonical form: what sorts its keys as RFC 7049 did would pass.
        again = _encode_exactly(value)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EncodingError(field, f"is not well-formed CBOR ({error})") from error
    if again != data:
        raise EncodingError(
            field,
            "is not deterministically encoded",
            "encode it as RFC 8949 section 4.2.1 says, with nothing behind it",
        )
    return value


def _dumps(value: Any) -> bytes:
    """Encode as `cbor2.dumps` does where it is to be canonical."""
    try:
        return _ENCODERS.dumps(value)
    except BaseException:
        _ENCODERS.renew()
        raise


def _encode_exactly(value: Any) -> bytes:
    """Encode by the letter of RFC 8949 section 4.2.1, where cbor2's canonical form differs.

    cbor2 5.9 writes halves from 32768 to 65504 as binary32, and sorts map keys by (length, bytes)
    as RFC 7049 did.
    """
    match value:
        case float():
            return _encode_float(value)
        case cbor2.CBORSimpleValue():  # a tuple, too
            return cbor2.dumps(value)
        case list() | tuple():
            return _head(4, len(value)) + b"".join(_encode_exactly(item) for item in value)
        case Mapping():
            pairs = sorted((_encode_exactly(k), _encode_exactly(v)) for k, v in value.items())
            return _head(5, len(pairs)) + b"".join(k + v for k, v in pairs)
        case cbor2.CBORTag():
            return _head(6, value.tag) + _encode_exactly(value.value)
        case _:
            return cbor2.dumps(value, canonical=True)


def _encode_float(value: float) -> bytes:
    if math.isnan(value):
        return b"\xf9\x7e\x00"
    for initial, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return initial + packed
    return b"\xfb" + struct.pack(">d", value)


def _head(major: int, argument: int) -> bytes:
    """Initial byte and argument of a major type, from the encoding of an unsigned integer."""
    head = cbor2.dumps(argument)
    return bytes([head[0] | major << 5]) + head[1:]


def _check_items(data: bytes, field: str) -> None:
    """Refuse, before anything is made of it, what no structure here has and costs too much.

    Goes from one initial byte to the next; whether the items fit together is left to cbor2.
    """
    at, end, steps = 0, len(data), _STEPS
    for _ in range(MAX_ITEMS):
        if at >= end:
            return
        step = steps[data[at]]
        at += step or _step_of_long(data, at, field)
    if at < end:
        raise EncodingError(field, f"has more than {MAX_ITEMS} items")


def _step_of_long(data: bytes, at: int, field: str) -> int:
    """How far it is to the next item where the initial byte alone does not say."""
    major, info = data[at] >> 5, data[at] & 31
    if info > 27:
        # cbor2 refuses what is reserved; lengths left open are never deterministic.
        raise EncodingError(
            field,
            f"has the initial byte {data[at]:#04x}, which is not deterministic",
            "encode it as RFC 8949 section 4.2.1 says, with nothing behind it",
        )
    head = 1 + (1 << (info - 24) if info > 23 else 0)
    argument = int.from_bytes(data[at + 1 : at + head], "big") if info > 23 else info
    if major in (_BYTES, _TEXT):
        return head + argument
    if major == _MAP:
        if argument <= MAX_MAP_ENTRIES:
            return head
        raise EncodingError(field, f"has a map of more than {MAX_MAP_ENTRIES} entries")
    raise EncodingError(field, f"has tag {argument}, which has no use here")


def _fill_steps() -> None:
    for initial in range(256):
        major, info = initial >> 5, initial & 31
        if info > 27:
            continue
        head = 1 + (1 << (info - 24) if info > 23 else 0)
        if major in (_BYTES, _TEXT):
            _STEPS[initial] = head + info if info < 24 else 0
        elif major == _TAG:
            _STEPS[initial] = 1 if info in TAGS else 0
        elif major == _MAP:
            _STEPS[initial] = 1 if info < 24 else 0
        else:
            _STEPS[initial] = head


_fill_steps()


def _check_depth(value: Any, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise EncodingError("cbor", f"is nested deeper than {MAX_DEPTH} levels")
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    elif isinstance(value, cbor2.CBORTag):
        inner = (value.value,)
    for item in inner:
        if isinstance(item, (Mapping, list, tuple, cbor2.CBORTag)):
            _check_depth(item, depth + 1)
