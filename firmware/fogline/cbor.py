"""Deterministic CBOR (RFC 8949 section 4.2.1), the board's half of the hub's codec.

Supported: integers of up to 64 bits, byte and text strings, arrays, maps whose keys are
integers or strings, tags, false, true, null and floats. Not supported, and refused:
indefinite lengths, undefined and other simple values. Tags are passed through as they
are; a bignum is a `Tagged` byte string.

`decode` takes exactly the bytes that `encode` would write, so one value has one encoding.
A float that only binary64 can hold is refused where the board's floats are binary32:
rounding it in silence would change what was signed.
"""

import math
import struct

from .errors import EncodingError

MAX_DEPTH = 8
MAX_ITEMS = 1024
_MAX_ARGUMENT = (1 << 64) - 1
_DOUBLE = float(1 << 24) + 1.0 != float(1 << 24)
_HALF_UNIT = struct.unpack(">f", b"\x33\x80\x00\x00")[0]  # 2 ** -24, the least half
_NAN = b"\xf9\x7e\x00"


class Tagged:
    """A tagged item: `tag` is its number, `value` what stands behind it."""

    def __init__(self, tag, value):
        self.tag = tag
        self.value = value


def encode(value):
    """Return `value` as deterministic CBOR; raises EncodingError for what is unsupported."""
    out = bytearray()
    try:
        _put(out, value, 0)
        return bytes(out)
    except MemoryError:
        raise EncodingError("cbor.memory") from None


def encode_head(major, argument):
    """Return the shortest head of `major` type (0 to 7) with `argument` (0 to 2^64 - 1)."""
    major <<= 5
    if argument < 24:
        return bytes((major | argument,))
    if argument < 0x100:
        return bytes((major | 24, argument))
    if argument < 0x10000:
        return struct.pack(">BH", major | 25, argument)
    if argument < 0x100000000:
        return struct.pack(">BI", major | 26, argument)
    if argument <= _MAX_ARGUMENT:
        return struct.pack(">BQ", major | 27, argument)
    raise EncodingError("cbor.range", "more than 64 bits")


def encode_float(value):
    """Return the shortest of binary16, binary32 and binary64 that holds `value` exactly."""
    if math.isnan(value):
        return _NAN
    single = struct.pack(">f", value)
    if struct.unpack(">f", single)[0] != value:
        return b"\xfb" + struct.pack(">d", value)
    # Two halves of 16 bits, because 32 bits would be a big integer on most boards.
    high, low = struct.unpack(">HH", single)
    half = _to_half(high, low)
    return b"\xfa" + single if half is None else struct.pack(">BH", 0xF9, half)


def _to_half(high, low):
    """The binary16 that equals the binary32 `high`:`low`, or None; not for a NaN."""
    sign = high & 0x8000
    exponent = (high >> 7) & 0xFF
    mantissa = (high & 0x7F) << 16 | low
    if exponent == 0xFF:
        return sign | 0x7C00
    if exponent == 0:
        return None if mantissa else sign
    exponent -= 127 - 15
    if 0 < exponent < 31:
        return None if mantissa & 0x1FFF else sign | exponent << 10 | mantissa >> 13
    if -10 <= exponent <= 0:
        shift = 14 - exponent
        mantissa |= 0x800000
        return None if mantissa & ((1 << shift) - 1) else sign | mantissa >> shift
    return None


def _put(out, value, depth):
    if depth > MAX_DEPTH:
        raise EncodingError("cbor.depth")
    if value is None:
        out.append(0xF6)
    elif value is True:
        out.append(0xF5)
    elif value is False:
        out.append(0xF4)
    elif isinstance(value, int):
        out.extend(encode_head(0, value) if value >= 0 else encode_head(1, -1 - value))
    elif isinstance(value, float):
        out.extend(encode_float(value))
    elif isinstance(value, str):
        data = value.encode()
        out.extend(encode_head(3, len(data)))
        out.extend(data)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        out.extend(encode_head(2, len(value)))
        out.extend(value)
    elif isinstance(value, (list, tuple)):
        out.extend(encode_head(4, len(value)))
        for item in value:
            _put(out, item, depth + 1)
    elif isinstance(value, dict):
        out.extend(encode_head(5, len(value)))
        keys = {_encode_key(key): key for key in value}
        for encoded in sorted(keys):
            out.extend(encoded)
            _put(out, value[keys[encoded]], depth + 1)
    elif isinstance(value, Tagged):
        out.extend(encode_head(6, value.tag))
        _put(out, value.value, depth + 1)
    else:
        raise EncodingError("cbor.type", type(value).__name__)


def _encode_key(key):
    if isinstance(key, bool) or not isinstance(key, (int, str)):
        raise EncodingError("cbor.key", type(key).__name__)
    out = bytearray()
    _put(out, key, 0)
    return bytes(out)


def decode(data, max_bytes):
    """Decode the one item that fills `data` (bytes-like), of at most `max_bytes` bytes.

    Byte strings come back as `bytes`, tags as `Tagged`. Raises EncodingError; its code
    says what is wrong with the bytes.
    """
    if len(data) > max_bytes:
        raise EncodingError("cbor.size", f"{len(data)} bytes, at most {max_bytes}")
    try:
        value, end = _get(memoryview(data), 0, 0)
    except MemoryError:
        raise EncodingError("cbor.memory") from None
    if end != len(data):
        raise EncodingError("cbor.trailing", f"{len(data) - end} bytes")
    return value


def decode_head(data, at):
    """Read the head at offset `at` of `data`; returns (major, argument, offset behind it).

    Lets a reader step over a long byte string that stays where it is. Raises EncodingError
    for a cut, indefinite or non-minimal head. For major type 7 the argument is not checked.
    """
    if at >= len(data):
        raise EncodingError("cbor.truncated")
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if info < 24:
        return major, info, at
    if info > 27:
        raise EncodingError("cbor.indefinite" if info == 31 else "cbor.head")
    size = 1 << (info - 24)
    if at + size > len(data):
        raise EncodingError("cbor.truncated")
    argument = int.from_bytes(data[at : at + size], "big")
    if major != 7 and argument < (24 if size == 1 else 1 << 4 * size):
        raise EncodingError("cbor.minimal")
    return major, argument, at + size


def _get(data, at, depth):
    if depth > MAX_DEPTH:
        raise EncodingError("cbor.depth")
    start = at
    major, argument, at = decode_head(data, at)
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major < 4:
        if argument > len(data) - at:
            raise EncodingError("cbor.truncated")
        raw = bytes(data[at : at + argument])
        return (raw if major == 2 else _text(raw)), at + argument
    if major == 4:
        _check_count(argument)
        items = []
        for _ in range(argument):
            item, at = _get(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        _check_count(argument)
        return _get_map(data, at, argument, depth + 1)
    if major == 6:
        item, at = _get(data, at, depth + 1)
        return Tagged(argument, item), at
    return _get_simple(bytes(data[start:at])), at


def _check_count(count):
    if count > MAX_ITEMS:
        raise EncodingError("cbor.items", f"at most {MAX_ITEMS}")


def _get_map(data, at, count, depth):
    items = {}
    previous = b""
    for _ in range(count):
        start = at
        key, at = _get(data, at, depth)
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise EncodingError("cbor.key", type(key).__name__)
        encoded = bytes(data[start:at])
        if encoded <= previous:
            raise EncodingError("cbor.duplicate" if encoded == previous else "cbor.order")
        previous = encoded
        items[key], at = _get(data, at, depth)
    return items, at


def _get_simple(item):
    """The value of a whole item of major type 7."""
    first = item[0]
    if first == 0xF9:
        return _get_half(item)
    if first == 0xFA:
        high, low = struct.unpack(">HH", item[1:])
        nan = high & 0x7F80 == 0x7F80 and (high & 0x7F or low)
        if nan or _to_half(high, low) is not None:
            raise EncodingError("cbor.minimal")
        return struct.unpack(">f", item[1:])[0]
    if first == 0xFB:
        if _fits_single(item):
            raise EncodingError("cbor.minimal")
        if not _DOUBLE:
            raise EncodingError("cbor.precision", "binary64 on a binary32 board")
        return struct.unpack(">d", item[1:])[0]
    if len(item) > 1 or not 0xF4 <= first <= 0xF6:
        raise EncodingError("cbor.simple")
    return (False, True, None)[first - 0xF4]


def _get_half(item):
    sign, exponent, mantissa = item[1] & 0x80, item[1] >> 2 & 31, (item[1] & 3) << 8 | item[2]
    if exponent == 31 and mantissa:
        if item != _NAN:
            raise EncodingError("cbor.minimal")
        return float("nan")
    if exponent == 0:
        value = mantissa * _HALF_UNIT
        return -value if sign else value
    single = 0xFF if exponent == 31 else exponent - 15 + 127
    high = sign << 8 | single << 7 | mantissa >> 3
    return struct.unpack(">f", struct.pack(">HH", high, (mantissa & 7) << 13))[0]


def _fits_single(item):
    """Whether binary32 holds the binary64 `item` exactly (or it is a NaN): in bits alone."""
    exponent = (item[1] & 0x7F) << 4 | item[2] >> 4
    mantissa = int.from_bytes(item[2:], "big") & ((1 << 52) - 1)
    if exponent == 0x7FF:
        return True
    if exponent == 0:
        return mantissa == 0
    exponent -= 1023
    if exponent < -149 or exponent > 127:
        return False
    # binary32 keeps 23 bits of the mantissa, and one less for each step into its subnormals.
    dropped = 29 + max(0, -126 - exponent)
    return (mantissa | 1 << 52) & ((1 << dropped) - 1) == 0


def _text(raw):
    """Decode UTF-8 strictly (RFC 3629): MicroPython's own decoder lets malformed text pass."""
    at = 0
    while at < len(raw):
        first = raw[at]
        at += 1
        if first < 0x80:
            continue
        # Least and greatest second byte: they shut out overlong forms and surrogates.
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            low = 0xA0 if first == 0xE0 else low
            high = 0x9F if first == 0xED else high
        elif 0xF0 <= first <= 0xF4:
            more = 3
            low = 0x90 if first == 0xF0 else low
            high = 0x8F if first == 0xF4 else high
        else:
            raise EncodingError("cbor.utf8")
        for _ in range(more):
            if at >= len(raw) or not low <= raw[at] <= high:
                raise EncodingError("cbor.utf8")
            low, high = 0x80, 0xBF
            at += 1
    return str(raw, "utf-8")
