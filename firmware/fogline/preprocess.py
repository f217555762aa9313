"""Readings to int8 and a model's answer to a score, in integers alone.

Every board and the hub (`cloud/preprocess.py`) must come to the same bytes, so a reading is
taken apart as the binary32 that is signed, never multiplied as a float: boards round single,
a desktop double. SPEC.md of the protocol, "Pre-processing" and "Score", is the definition.
"""

import struct

MAX_SCORE = (1 << 31) - 1  # a greater sum is reported as this
_LIMIT = 1 << 30
_LARGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]


def fixed_point(value, exponent):
    """Return floor(value * 2**exponent) within +-2**30, None if the value is missing.

    Missing is None, and what binary32 cannot hold as a finite number; packs leave it out.
    """
    # A NaN is not within bounds either.
    if value is None or not -_LARGEST <= value <= _LARGEST:
        return None
    # Two halves of 16 bits: a word of 32 would be a big integer on most boards.
    low, high = struct.unpack("<HH", struct.pack("<f", value))
    biased = (high >> 7) & 0xFF
    mantissa = (high & 0x7F) << 16 | low
    if biased:
        mantissa |= 0x800000
    else:
        biased = 1
    shift = biased - 150 + exponent
    if high & 0x8000:
        mantissa = -mantissa
    if shift > 30:  # 2**30 and more, unless it is zero
        shift = 30
    scaled = mantissa << shift if shift >= 0 else mantissa >> min(-shift, 30)
    return min(max(scaled, -_LIMIT), _LIMIT)


def to_int8(fixed, multiplier, offset):
    """Return the int8 of a fixed-point reading, as the unsigned byte that stores it."""
    return min(max((fixed * multiplier + offset) >> 16, -128), 127) & 0xFF


def deviation(total, squares, count):
    """Return floor(isqrt(count * squares - total**2) / count), for the sums of `count` values."""
    square = count * squares - total * total
    root = 1
    while root * root <= square:
        root <<= 1
    while root * root > square:  # Newton's method from above
        root = (root + square // root) >> 1
    return root // count


def score(x, y, zero_x, zero_y, factor):
    """Return how far the model's output `y` is from its input `x`, 0 to MAX_SCORE.

    Args:
        x, y: bytes-like int8 of one length.
        zero_x, zero_y: their zero points.
        factor: the output's scale over the input's, times 256; at most 2**14.
    """
    return _score(x, y, len(x), zero_x + 128, zero_y + 128, factor, MAX_SCORE)


@micropython.viper
def _score(x: ptr8, y: ptr8, n: int, zero_x: int, zero_y: int, factor: int, most: int) -> int:
    total = 0
    while n:
        # `q ^ 128` is q + 128 of an int8 that was loaded unsigned.
        d = (factor * ((y[0] ^ 128) - zero_y) - (((x[0] ^ 128) - zero_x) << 8)) >> 8
        d *= d  # below 2**29
        if d > most - total:
            return most
        total += d
        x = ptr8(int(x) + 1)
        y = ptr8(int(y) + 1)
        n -= 1
    return total
