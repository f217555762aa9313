"""Frames on a serial line: COBS between zero bytes, with a channel and a CRC-32 (SERIAL.md).

COBS is Cheshire and Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on
Networking 7(2), 1999. Byte 03 never stands in a frame (escaped as in RFC 1662): it is the Ctrl-C
that ends a MicroPython program. The board's twin is firmware/fogline/serial_frame.py; both run
tests/vectors/serial_frames.json.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["CONSOLE", "LINK", "MAX_BODY_BYTES", "Decoder", "Frame", "decode", "encode"]

LINK = 1
CONSOLE = 2
MAX_CHANNEL = 15
MAX_BODY_BYTES = 1024
CRC_BYTES = 4
_MAX_PLAIN_BYTES = 1 + MAX_BODY_BYTES + CRC_BYTES
# How many bytes without a zero one COBS code can stand for.
_RUN_BYTES = 254
MAX_ENCODED_BYTES = 2 * (_MAX_PLAIN_BYTES + 1 + _MAX_PLAIN_BYTES // _RUN_BYTES)
_BREAK = b"\x03"
_ESCAPE = b"\x7d"
_ESCAPED_BREAK = b"\x7d\x23"
_ESCAPED_ESCAPE = b"\x7d\x5d"


class Frame(NamedTuple):
    """What arrived: a frame, or (channel None) bytes that belong to no frame.

    The latter are a boot loader's or an interpreter's words, or a frame that was damaged.
    """

    channel: int | None
    body: bytes


def encode(channel: int, body: bytes) -> bytes:
    """One frame, with the zero bytes before and behind it.

    Raises:
        ValueError: the channel is not 1 to 15, or the body longer than 1,024 bytes.
    """
    if not 1 <= channel <= MAX_CHANNEL or len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a frame has a channel of 1 to {MAX_CHANNEL} and {MAX_BODY_BYTES} bytes")
    plain = bytes([channel]) + body
    stuffed = stuff(plain + crc32(plain).to_bytes(CRC_BYTES, "little"))
    return b"\0" + escape(stuffed) + b"\0"


def decode(encoded: bytes) -> Frame | None:
    """The frame that stood between two zero bytes; None if it is none."""
    stuffed = unescape(encoded)
    plain = None if stuffed is None else unstuff(stuffed)
    if plain is None or not 1 + CRC_BYTES <= len(plain) <= _MAX_PLAIN_BYTES:
        return None
    if not 1 <= plain[0] <= MAX_CHANNEL:
        return None
    body, check = plain[:-CRC_BYTES], plain[-CRC_BYTES:]
    if crc32(body) != int.from_bytes(check, "little"):
        return None
    return Frame(body[0], body[1:])


def escape(data: bytes) -> bytes:
    """Leave no byte 03 in the data."""
    return data.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_BREAK, _ESCAPED_BREAK)


def unescape(escaped: bytes) -> bytes | None:
    """Undo `escape`; None for what it cannot have made."""
    escapes = escaped.count(_ESCAPED_BREAK) + escaped.count(_ESCAPED_ESCAPE)
    if _BREAK in escaped or escaped.count(_ESCAPE) != escapes:
        return None
    return escaped.replace(_ESCAPED_BREAK, _BREAK).replace(_ESCAPED_ESCAPE, _ESCAPE)


def stuff(data: bytes) -> bytes:
    """COBS-encode: no zero byte is left in the result."""
    out = bytearray()
    start = 0
    while True:
        zero = data.find(b"\0", start, start + _RUN_BYTES)
        end = zero if zero >= 0 else min(len(data), start + _RUN_BYTES)
        out.append(end - start + 1)
        out += data[start:end]
        if zero < 0 and end == len(data):
            return bytes(out)
        start = end + (zero >= 0)


def unstuff(encoded: bytes) -> bytes | None:
    """Undo `stuff`; None for what it cannot have made."""
    out = bytearray()
    at = 0
    while at < len(encoded):
        code = encoded[at]
        end = at + code
        if code == 0 or end > len(encoded):
            return None
        out += encoded[at + 1 : end]
        at = end
        if code <= _RUN_BYTES and at < len(encoded):
            out.append(0)
    return bytes(out)


class Decoder:
    """Finds frames in what comes off the line; holds at most MAX_ENCODED_BYTES of it."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._is_overrun = False
        self.noise = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes; gives the frames that they complete, and in between what is no frame."""
        *ended, rest = data.split(b"\0")
        for part in ended:
            yield from self._hold(part)
            held, is_overrun = bytes(self._held), self._is_overrun
            self._held.clear()
            self._is_overrun = False
            frame = None if is_overrun else decode(held)
            yield from (frame,) if frame else self._other(held)
        yield from self._hold(rest)

    def flush(self) -> bytes:
        """What is held and not ended by a zero byte: say, a prompt that waits for an answer.

        It is let go of: if it was the begin of a frame, the rest of that will be no frame.
        """
        held = bytes(self._held)
        self._held.clear()
        self.noise += len(held)
        self._is_overrun = self._is_overrun or bool(held)
        return held

    def _hold(self, part: bytes) -> Iterator[Frame]:
        if self._is_overrun or len(self._held) + len(part) > MAX_ENCODED_BYTES:
            other = bytes(self._held) + part
            self._held.clear()
            self._is_overrun = True
            yield from self._other(other)
        else:
            self._held += part

    def _other(self, data: bytes) -> Iterator[Frame]:
        self.noise += len(data)
        if data:
            yield Frame(None, data)
