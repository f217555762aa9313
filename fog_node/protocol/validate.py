"""Small checks that the formats share: each names its field when it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import FormatError

# Milliseconds since 1970; the bound is far future, yet exact in a double.
MAX_TIME_MS = 2**48


def text_map(value: Any, required: set[str], field: str) -> dict[str, Any]:
    """Return `value` as a map with exactly the keys `required`."""
    if not isinstance(value, dict):
        raise FormatError(field, "is not a map")
    keys = set(value)
    if missing := required - keys:
        raise FormatError(f"{field}.{min(missing)}", "is missing")
    if unknown := keys - required:
        raise FormatError(f"{field}.{min(map(str, unknown))}", "is unknown")
    return value


def array(value: Any, field: str, length: int | None = None, at_most: int = 2**16) -> list[Any]:
    """Return `value` as a list, of `length` items where given."""
    if not isinstance(value, list):
        raise FormatError(field, "is not an array")
    if length is not None and len(value) != length:
        raise FormatError(field, f"has {len(value)} items, must have {length}")
    if len(value) > at_most:
        raise FormatError(field, f"has {len(value)} items, at most {at_most} are allowed")
    return value


def uint(value: Any, field: str, at_most: int = 2**63 - 1, at_least: int = 0) -> int:
    """Return `value` as an integer within the bounds."""
    if type(value) is not int or not at_least <= value <= at_most:
        raise FormatError(field, f"is not an integer from {at_least} to {at_most}")
    return value


def integers(values: Iterable[Any]) -> bool:
    """Whether all are integers: 1.0 and true equal 1 in Python, and are other CBOR."""
    return all(type(value) is int for value in values)


def integer(value: Any, field: str, magnitude: int = 2**31 - 1) -> int:
    """Return `value` as an integer of at most this magnitude."""
    return uint(value, field, magnitude, -magnitude)


def number(value: Any, field: str) -> float:
    """Return `value` as a finite float."""
    if type(value) not in (int, float) or not abs(value) < float("inf"):
        raise FormatError(field, "is not a finite number")
    return float(value)


def text(value: Any, field: str, max_chars: int, allow_empty: bool = False) -> str:
    """Return `value` as printable text of bounded length."""
    if not isinstance(value, str) or len(value) > max_chars:
        raise FormatError(field, f"is not text of at most {max_chars} characters")
    if not value and not allow_empty:
        raise FormatError(field, "is empty")
    if not value.isprintable():
        raise FormatError(field, "has characters that cannot be printed")
    return value


def octets(value: Any, field: str, length: int) -> bytes:
    """Return `value` as a byte string of exactly `length` bytes."""
    if not isinstance(value, bytes) or len(value) != length:
        raise FormatError(field, f"is not a byte string of {length} bytes")
    return value


def time_ms(value: Any, field: str) -> int:
    """Return `value` as milliseconds since 1970."""
    return uint(value, field, MAX_TIME_MS)
