"""Deterministic CBOR (RFC 8949 section 4.2.1) on top of cbor2.

`decode` accepts exactly the bytes `encode` would write, so one value has one encoding
and a hash over bytes is a hash over the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import cbor2

from .errors import EncodingError

MAX_DEPTH = 16
_SHORT_KEYS = frozenset(range(-24, 24))  # one byte each, so both orders agree
_SHARED_REFERENCE = b"\x1d"  # the last byte of tag 29 in each of its forms


def encode(value: Any) -> bytes:
    """Encode `value` deterministically; raises EncodingError for what CBOR cannot hold."""
    _check(value, 0)
    try:
        return cbor2.dumps(value, canonical=True)
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
        canonical = _reencode(value, data)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EncodingError(field, f"is not well-formed CBOR ({error})") from error
    if canonical != data:
        raise EncodingError(
            field,
            "is not deterministically encoded",
            "encode it as RFC 8949 section 4.2.1 says, with nothing behind it",
        )
    return value


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


def _all_text(keys: Mapping[Any, Any]) -> bool:
    return all(type(key) is str for key in keys)


def _check(value: Any, depth: int) -> None:
    """Refuse depth, and maps on which cbor2's key order is not RFC 8949's bytewise one.

    cbor2 sorts by (length, bytes) as RFC 7049 did. The two orders differ only where keys
    of different major types have encodings of different length; no format of ours has such.
    """
    if depth > MAX_DEPTH:
        raise EncodingError("cbor", f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        if len(value) > 1 and not _SHORT_KEYS.issuperset(value) and not _all_text(value):
            keys = [cbor2.dumps(key, canonical=True) for key in value]
            if sorted(keys) != sorted(keys, key=lambda key: (len(key), key)):
                raise EncodingError("cbor", "map keys have no agreed order (RFC 7049 vs 8949)")
        for item in value.values():
            if isinstance(item, (Mapping, list, tuple, cbor2.CBORTag)):
                _check(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, (Mapping, list, tuple, cbor2.CBORTag)):
                _check(item, depth + 1)
    elif isinstance(value, cbor2.CBORTag):
        _check(value.value, depth + 1)
