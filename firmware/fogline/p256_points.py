"""What P-256 needs beside signing: the comb, public keys, agreeing on keys, verifying.

Loaded by `p256.py` for each use, and let go of: nothing of it is needed to sample and sign.
"""

import hashlib
from io import BytesIO

from . import p256
from .errors import CryptoError
from .hmac256 import hmac_sha256
from .p256 import (
    _B,
    _BLOCK_BYTES,
    _BLOCKS,
    _G,
    _N,
    _P,
    _SPACING,
    _TEETH,
    DIGEST_BYTES,
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    _add,
    _blind,
    _checked,
    _comb_entry,
    _double,
    _inverse,
    _multiply_base,
    _pair,
    _randomised,
    _secret,
    _signs,
)

COMB_FILE = "p256.comb"

_WINDOW_POINTS = 8  # P, 3P, ... 15P
_DIGEST = "42e44c043b60b19753fe92d78d7fe1985d930d2cf27bf607992a79747cfd3b17"
_CHUNK_BYTES = 512


def open_comb(flash):
    """Return the comb as an open file: that of an earlier start where it is whole, else a new one.

    As `p256.prepare`.
    """
    if flash is None:
        return BytesIO(_comb())
    try:
        kept = _kept_comb(flash)
        if kept is None:
            flash.replace_whole(COMB_FILE, _comb())
            kept = _kept_comb(flash)
    except OSError as error:
        raise CryptoError("p256.table", f"OSError {error.args[0]}") from None
    if kept is None:
        raise CryptoError("p256.table", "is not what was written")
    return kept


def _kept_comb(flash):
    """Open the comb in flash; None unless there is one, and whole."""
    if not flash.size(COMB_FILE):
        return None
    file = flash.open(COMB_FILE)
    if digest_of(file) == bytes.fromhex(_DIGEST):
        return file
    file.close()
    return None


def digest_of(comb):
    """Return SHA-256 of an open comb."""
    found = hashlib.sha256()
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    comb.seek(0)
    while True:
        count = comb.readinto(chunk)
        if not count:
            return found.digest()
        found.update(chunk[:count])


def _comb():
    """Return the comb of the base point: all blocks, x || y for each point."""
    try:
        data = bytearray(_BLOCKS * _BLOCK_BYTES)
    except MemoryError:
        raise CryptoError("p256.memory", "the table needs 16 KiB in one piece") from None
    table = memoryview(data)
    teeth = [_G]
    while len(teeth) < _BLOCKS * _TEETH:
        teeth.append(_affine(_doubled(teeth[-1], _SPACING)))
    for block in range(_BLOCKS):
        _build_block(table[block * _BLOCK_BYTES :], teeth[block::_BLOCKS])
    return data


def verify(public, digest, signature):
    """As `p256.verify`."""
    q = _point(public)
    if len(signature) != SIGNATURE_BYTES or len(digest) != DIGEST_BYTES:
        return False
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not 0 < r < _N or not 0 < s <= _N >> 1:
        return False
    p256.prepare()
    w = _inverse(s, _N)
    z = int.from_bytes(digest, "big")
    x, _, zz, _ = _multiply_add(z * w % _N, r * w % _N, q)
    return zz != 0 and x * _inverse(zz, _P) % _P % _N == r


def ecdh(secret, public):
    """As `p256.ecdh`."""
    q = _point(public)
    d = _secret(secret)
    blind = _blind(hmac_sha256(secret, b"fogline ecdh", public))
    x, _ = _affine(_checked(_multiply(d, q, blind)))
    return x.to_bytes(32, "big")


def public_key(secret):
    """As `p256.public_key`."""
    p256.prepare()
    d = _secret(secret)
    blind = _blind(hmac_sha256(secret, b"fogline public"))
    return _pair(*_affine(_checked(_multiply_base(d, blind))))


def _point(public):
    if len(public) != PUBLIC_BYTES:
        raise CryptoError("p256.point", f"{len(public)} bytes, x || y has 64")
    x = int.from_bytes(public[:32], "big")
    y = int.from_bytes(public[32:], "big")
    if x >= _P or y >= _P or (y * y - (x * x - 3) * x - _B) % _P:
        raise CryptoError("p256.point", "not on the curve")
    return x, y


def _load(table, index, negative):
    at = index << 6
    y = int.from_bytes(table[at + 32 : at + 64], "big")
    return int.from_bytes(table[at : at + 32], "big"), (y, _P - y)[negative]


def _affine(point):
    x, y, zz, zzz = point
    i = _inverse(zzz, _P)
    return x * pow(zz * i % _P, 2, _P) % _P, y * i % _P


def _doubled(affine, times):
    point = affine[0], affine[1], 1, 1
    for _ in range(times):
        point = _double(point)
    return point


def _store(table, index, x, y):
    at = index << 6
    table[at : at + 64] = _pair(x, y)


def _extend(table, count, x2, y2):
    """Behind the first `count` entries of `table` write each of them plus (x2, y2).

    One inversion for all (Montgomery's trick). No entry may equal +-(x2, y2).
    """
    p = _P
    products = []
    product = 1
    for i in range(count):
        products.append(product)
        product = product * (x2 - _load(table, i, 0)[0]) % p
    inverse = _inverse(product, p)
    for i in range(count - 1, -1, -1):
        x, y = _load(table, i, 0)
        slope = (y2 - y) * (products[i] * inverse % p) % p
        inverse = inverse * (x2 - x) % p
        x3 = (slope * slope - x - x2) % p
        _store(table, count + i, x3, (slope * (x - x3) - y) % p)


def _build_block(table, teeth):
    """Fill one block: entry i is the last tooth plus or minus the others, by the bits of i."""
    point = _doubled(teeth[-1], 0)
    for x, y in teeth[:-1]:
        point = _add(point, x, _P - y)
    _store(table, 0, *_affine(point))
    for j, tooth in enumerate(teeth[:-1]):
        # From minus to plus is two teeth.
        _extend(table, 1 << j, *_affine(_doubled(tooth, 1)))


def _odd_multiples(q):
    """Return q, 3q, ... 15q as a table."""
    table = memoryview(bytearray(_WINDOW_POINTS * PUBLIC_BYTES))
    _store(table, 0, *q)
    count = 1
    while count < _WINDOW_POINTS:
        q = _affine(_doubled(q, 1))
        _extend(table, count, *q)
        count *= 2
    return table


def _window_entry(table, signs, position, flip):
    """The multiple that window `position` (0 is lowest) of 4 signs asks for."""
    digit = 2 * (signs[position >> 2] >> 4 * (position & 3) & 15) - 15
    return _load(table, (abs(digit) - 1) >> 1, (digit < 0) ^ flip)


def _multiply(k, q, blind):
    """Return k * q for 0 < k < n."""
    table = _odd_multiples(q)
    signs, flip = _signs(k)
    x, y = _window_entry(table, signs, 63, flip)
    point = _randomised(x, y, blind)
    for position in range(62, -1, -1):
        for _ in range(4):
            point = _double(point)
        x, y = _window_entry(table, signs, position, flip)
        point = _add(point, x, y)
    return point


def _multiply_add(k, j, q):
    """Return k * G + j * q for k, j below n, with common doublings; for public scalars."""
    low, high = 0, _BLOCK_BYTES
    comb_signs, comb_flip = _signs(k)
    even, odd = comb_signs[0::2], comb_signs[1::2]
    table = _odd_multiples(q)
    signs, flip = _signs(j)
    point = 0, 0, 0, 0
    for bit in range(255, -1, -1):
        point = _double(point)
        if bit & 3 == 0:
            point = _add(point, *_window_entry(table, signs, bit >> 2, flip))
        if bit < _SPACING:
            point = _add(point, *_comb_entry(low, even, bit, comb_flip))
            point = _add(point, *_comb_entry(high, odd, bit, comb_flip))
    return point
