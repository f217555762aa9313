"""Parameters that several routes share: their bounds, and how they are read."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import Path, Query, Request

from fog_node.protocol.block import hash_hex
from fog_node.protocol.errors import FormatError
from fog_node.protocol.keys import parse_kid
from fog_node.protocol.merkle import HASH_BYTES

from .errors import RequestError, of_protocol, unprocessable

MAX_BLOCKS_PAGE = 100
MAX_TRANSACTIONS_PAGE = 200
MAX_DEVICES_PAGE = 500
MAX_NUMBER = 2**62
# One range of bytes (RFC 9110 section 14.1.2).
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

Height = Annotated[int, Path(ge=0, le=MAX_NUMBER, description="number of blocks below it")]
HexHash = Annotated[str, Path(description="64 hex digits")]
HexKid = Annotated[str, Path(description="key id, 16 hex digits")]
BlocksLimit = Annotated[int, Query(ge=1, le=MAX_BLOCKS_PAGE, description="blocks on a page")]
TransactionsLimit = Annotated[
    int, Query(ge=1, le=MAX_TRANSACTIONS_PAGE, description="transactions on a page")
]
DevicesLimit = Annotated[int, Query(ge=1, le=MAX_DEVICES_PAGE, description="devices on a page")]

__all__ = [
    "BlocksLimit",
    "DevicesLimit",
    "Height",
    "HexHash",
    "HexKid",
    "TransactionsLimit",
    "byte_range",
    "check_height",
    "hash_hex",
    "read_hash",
    "read_kid",
    "read_place",
]


def read_hash(text: str, field: str) -> bytes:
    """Read a transaction id or SHA-256; RequestError 422."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES or len(text) != 2 * HASH_BYTES:
        raise unprocessable(field, f"{text[:80]!r} is no hash", f"give {2 * HASH_BYTES} hex digits")
    return value


def read_kid(text: str, field: str = "kid") -> bytes:
    """Read a key id; RequestError 422."""
    try:
        return parse_kid(text[:80], field)
    except FormatError as error:
        raise of_protocol(error) from error


def read_place(text: str | None) -> tuple[int, int] | None:
    """Read the place that a listing goes on below, as `next` of the page before gives it."""
    if text is None:
        return None
    height, dot, index = text.partition(".")
    digits = height + index
    if not dot or not (height and index and digits.isascii() and digits.isdigit()):
        problem = f"{text[:80]!r} is no place in the chain"
        raise unprocessable("before", problem, "give HEIGHT.INDEX, as `next` of a page says")
    if len(digits) > 30:
        raise unprocessable("before", "is out of range", f"give numbers of at most {MAX_NUMBER}")
    return min(int(height), MAX_NUMBER), min(int(index), MAX_NUMBER)


def check_height(field: str, height: int, least: int, most: int) -> None:
    """Raise RequestError 422 unless `height` is in the range that this chain has now."""
    if not least <= height <= most:
        raise unprocessable(field, f"is {height}", f"give a height from {least} to {most}")


def byte_range(request: Request, size: int) -> tuple[int, int] | None:
    """Read the Range header: (first, last) byte; None without one.

    Raises:
        RequestError: 416 where it is not one range within `size` bytes.
    """
    text = request.headers.get("range")
    if text is None:
        return None
    match = _RANGE.fullmatch(text.strip())
    if match and any(match.groups()):
        first, last = match.groups()
        if not first:  # the last so many bytes
            begin, end = max(0, size - int(last)), size - 1
        else:
            begin, end = int(first), min(int(last), size - 1) if last else size - 1
        if begin <= end:
            return begin, end
    raise RequestError(
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        "Range",
        f"{text[:80]!r} is not one range within the blob",
        f"give bytes=FIRST-LAST within 0 to {size - 1}",
        {"Content-Range": f"bytes */{size}"},
    )
