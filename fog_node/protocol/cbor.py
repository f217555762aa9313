"""Deterministic CBOR (RFC 8949 section 4.2.1) on top of cbor2.

`decode` accepts exactly the bytes `encode` would write, so one value has one encoding
and a hash over bytes is a hash over the value.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import cbor2

from .errors import EncodingError

MAX_DEPTH = 16
_SHARED_REFERENCE = b"\x1d"  # the last byte of tag 29 in each of its forms


def encode(value: Any) -> bytes:
    """Encode `value` deterministically; raises EncodingError for what CBOR cannot hold."""
    _check_depth(value, 0)
    try:
        data = cbor2.dumps(value, canonical=True)
        return _encode_exactly(value) if _is_doubtful(data) else data
    except (cbor2.CBOREncodeError, OverflowError, ValueError) as error:
        raise EncodingError("cbor", f"cannot be encoded ({error})") from error


def decode(data: bytes, max_bytes: int, field: str = "cbor") -> Any:
    """Decode one CBOR item that fills `data` and is deterministically encoded.

    Args:
        data: the bytes, at most `max_bytes` of them (checked before parsing).
        max_bytes: the limit that SPEC.md sets for this message.
        field: how to call the item in errors.

    Raises:
        EncodingError: too large, malformed, not deterministic, nested too deep for cbor2,
            or followed by further bytes.
    """
    if len(data) > max_bytes:
        raise EncodingError(field, f"{len(data)} bytes, at most {max_bytes} are allowed")
    try:
        value = cbor2.loads(data)
        again = _reencode(value, data)
        if again != data or _is_doubtful(data):
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


def _is_doubtful(data: bytes) -> bool:
    # cbor2 5.9 writes halves from 32768 to 65504 as binary32; these are how such begin.
    return b"\xfa\x47" in data or b"\xfa\xc7" in data


def _encode_exactly(value: Any) -> bytes:
    """Encode by the letter of RFC 8949 section 4.2.1, where cbor2's canonical form differs.

    It differs in halves (above), and sorts map keys by (length, bytes) as RFC 7049 did.
    """
    match value:
        case float():
            return _encode_float(value)
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


class _Bounded(BytesIO):
    """Stops an encoder that writes more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def write(self, data: Any, /) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("expands to more than its own size")
        return super().write(data)


def _reencode(value: Any, data: bytes) -> bytes:
    # Shared references (tag 29) can make a few bytes expand without end; where such a
    # tag may stand, the encoder is stopped at the size of the input.
    if _SHARED_REFERENCE not in data:
        return cbor2.dumps(value, canonical=True)
    out = _Bounded(len(data))
    cbor2.CBOREncoder(out, canonical=True).encode(value)
    return out.getvalue()


def _check_depth(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
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
