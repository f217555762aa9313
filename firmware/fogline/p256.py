"""ECDSA and ECDH over P-256 (FIPS 186-5, SP 800-186) in MicroPython's own big integers.

Points are affine (x, y) or, while a sum grows, (X, Y, ZZ, ZZZ) with x = X/ZZ, y = Y/ZZZ and
ZZ^3 = ZZZ^2: ten multiplications for adding an affine point, nine for a doubling, and the
neutral element is ZZ = 0. Formulas: Explicit-Formulas Database, "xyzz", with a = -3.

Every scalar is made odd (k or n - k) and written with 256 digits +1 and -1, so that each
multiplication is one fixed sequence of doublings and additions, whatever the scalar. The
base point has a signed comb of 8 teeth in 2 blocks, 16 KiB of affine points, which a board reads
from a file in its flash, point by point (`prepare`): a signature is
31 additions, 15 doublings and 2 inversions, 463 multiplications and 414 reductions before the
inversions, or about 9.5 million Thumb-2 instructions. An arbitrary point has windows of 4 bits.
A signature leaves some 70 KB of small garbage behind. It is collected once, afterwards, where the
heap has that much free; else on the way, which costs up to several times as much.

What a side channel could see. Nothing here is constant-time: big integers take time and
memory by their size, the comb is read at places that depend on the scalar, and the
allocator and garbage collector are shared. Against timing and simple power analysis stand
the fixed sequence, fresh random projective coordinates for each multiplication by a secret,
and a random factor on the nonce and the key wherever one is inverted or multiplied by
known data; these come from the RFC 6979 generator, so they need no entropy and leave the
signature as RFC 6979 prints it. An attacker who holds the board and measures its power or
radiation, or runs code on it, must be expected to get the key.
"""

import gc

from .errors import CryptoError
from .hmac256 import hmac_sha256
from .modules import forget

SECRET_BYTES = 32
PUBLIC_BYTES = 64
SIGNATURE_BYTES = 64
DIGEST_BYTES = 32
# 64 bits more than the order has, so that the reduction's bias is below 2^-64 (FIPS 186-5 A.2.1).
KEY_ENTROPY_BYTES = 40

_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

_TEETH = 8
_BLOCKS = 2
_SPACING = 16  # bits; tooth j of block b weighs 2 ** (32 * j + 16 * b)
_BLOCK_POINTS = 1 << (_TEETH - 1)  # the last tooth's sign is the entry's own
_BLOCK_BYTES = _BLOCK_POINTS * 64

_comb = None  # open file of all blocks, x || y for each point
_entry = memoryview(bytearray(64))  # of the comb, as it was read last
_entry_x, _entry_y = _entry[:32], _entry[32:]


def prepare(flash=None):
    """Open the comb of the base point (16 KiB), unless that was done; build it if need be.

    Building costs about 12 signatures and 16 KiB in one piece; `sign` does it when first called.

    Args:
        flash: the Flash that keeps it in a file, from start to start; None: it is kept in memory.

    Raises CryptoError `p256.memory`, `p256.table` where the flash does not take it.
    """
    global _comb
    if _comb is None:
        _comb = _now_and_then("open_comb", flash)


def table_digest():
    """Return SHA-256 of the comb (built if need be): the self-test knows the answer."""
    prepare()
    return _now_and_then("digest_of", _comb)


def sign(secret, digest):
    """Return the ES256 signature r || s (64 bytes) with s in the lower half of the order.

    Args:
        secret: the private key, 32 bytes.
        digest: SHA-256 of what is signed.

    The nonce is RFC 6979's. Raises CryptoError for a bad key, and `p256.fault` where the
    arithmetic went wrong: nothing is signed then.
    """
    r, s = _sign(secret, digest)
    return _pair(r, min(s, _N - s))


def sign_raw(secret, digest):
    """Return r || s exactly as RFC 6979 has it, before `sign` lowers s. For test vectors."""
    return _pair(*_sign(secret, digest))


def verify(public, digest, signature):
    """Whether `signature` (64 bytes, low-S only) over `digest` is of the key `public`.

    Raises CryptoError `p256.point` where `public` (x || y, 64 bytes) is no point.
    """
    return _now_and_then("verify", public, digest, signature)


def ecdh(secret, public):
    """Return the x coordinate (32 bytes) of secret * public.

    Raises CryptoError `p256.point` for a point that is not on the curve, `p256.secret`.
    """
    return _now_and_then("ecdh", secret, public)


def public_key(secret):
    """Return x || y (64 bytes) of the private key `secret` (32 bytes)."""
    return _now_and_then("public_key", secret)


def secret_from_entropy(entropy):
    """Return a private key (32 bytes) from at least 40 uniform bytes (FIPS 186-5 A.2.1)."""
    if len(entropy) < KEY_ENTROPY_BYTES:
        raise CryptoError("p256.entropy", f"needs {KEY_ENTROPY_BYTES} bytes")
    return (int.from_bytes(entropy, "big") % (_N - 1) + 1).to_bytes(SECRET_BYTES, "big")


def is_secret(secret):
    """Whether `secret` is a private key: 32 bytes, between 1 and the order less 1."""
    return len(secret) == SECRET_BYTES and 0 < int.from_bytes(secret, "big") < _N


def _now_and_then(name, *arguments):
    """Call a function of p256_points.py: what signing does not need is not kept on the heap."""
    from . import p256_points

    try:
        return getattr(p256_points, name)(*arguments)
    finally:
        forget("p256_points")


def _pair(a, b):
    return a.to_bytes(32, "big") + b.to_bytes(32, "big")


def _secret(secret):
    if not is_secret(secret):
        raise CryptoError("p256.secret")
    return int.from_bytes(secret, "big")


def _sign(secret, digest):
    d = _secret(secret)
    if len(digest) != DIGEST_BYTES:
        raise CryptoError("p256.digest", "needs 32 bytes")
    prepare()
    threshold = gc.threshold()
    gc.threshold(-1)  # no collection on the way, unless memory runs out
    try:
        return _sign_number(secret, d, int.from_bytes(digest, "big"))
    except OSError:
        raise CryptoError("p256.table", "its file cannot be read") from None
    finally:
        gc.threshold(threshold)


def _sign_number(secret, d, z):
    nonces = _nonces(secret, z % _N)
    while True:
        k, blind = next(nonces)
        x, _, zz, _ = _checked(_multiply_base(k, blind))
        r = x * _inverse(zz, _P) % _P % _N
        s = (blind * z + blind * d % _N * r) * _inverse(blind * k % _N, _N) % _N
        if r and s:
            return r, s


def _nonces(secret, z):
    """Yield RFC 6979 section 3.2 nonces k, each with 128 random bits to blind its use."""
    message = z.to_bytes(32, "big")
    value = b"\x01" * 32
    key = hmac_sha256(bytes(32), value, b"\x00", secret, message)
    value = hmac_sha256(key, value)
    key = hmac_sha256(key, value, b"\x01", secret, message)
    value = hmac_sha256(key, value)
    while True:
        value = hmac_sha256(key, value)
        k = int.from_bytes(value, "big")
        if 0 < k < _N:
            # RFC 6979 itself hashes the value with nothing or with 0x00 behind it.
            yield k, _blind(hmac_sha256(key, value, b"fogline blind"))
        key = hmac_sha256(key, value, b"\x00")
        value = hmac_sha256(key, value)


def _blind(random):
    """A factor that is never zero, of 128 bits."""
    return int.from_bytes(random[:16], "big") | 1


def _inverse(a, m):
    """Return 1 / a modulo the prime m, by Euclid's algorithm: the least work here."""
    u, v = m, a % m
    s, t = 0, 1
    while v:
        q, r = divmod(u, v)
        u, v = v, r
        s, t = t, s - q * t
    return s % m


def _double(point):
    x, y, zz, zzz = point
    p = _P
    u = y + y
    v = u * u % p
    w = u * v % p
    s = x * v % p
    m = 3 * (x - zz) * (x + zz) % p
    x = (m * m - s - s) % p
    return x, (m * (s - x) - w * y) % p, v * zz % p, w * zzz % p


def _add(point, x2, y2):
    """Add the affine (x2, y2)."""
    x, y, zz, zzz = point
    if not zz:
        return x2, y2, 1, 1
    p = _P
    h = (x2 * zz - x) % p
    r = (y2 * zzz - y) % p
    if not h and not r:
        return _double((x2, y2, 1, 1))
    hh = h * h % p
    hhh = h * hh % p
    q = x * hh % p
    x = (r * r - hhh - q - q) % p
    return x, (r * (q - x) - y * hhh) % p, zz * hh % p, zzz * hhh % p


def _checked(point):
    """Return `point` if it is on the curve and not neutral: a fault leaves the curve."""
    x, y, zz, zzz = point
    p = _P
    z4 = zz * zz % p
    right = (x * x % p - 3 * z4) * x + _B * (z4 * zz % p)
    if not zz or (y * y - right) % p or (zzz * zzz - z4 * zz) % p:
        raise CryptoError("p256.fault")
    return point


def _signs(k):
    """Return k, or n - k if k is even, as 256 signs (bit i set: +2^i, else -2^i), and if n - k.

    16 numbers of 16 bits, lowest first.
    """
    even = 1 - (k & 1)
    k = (k, _N - k)[even]
    data = (k >> 1 | 1 << 255).to_bytes(32, "big")
    return [data[i] << 8 | data[i + 1] for i in range(30, -2, -2)], even


def _comb_entry(block, signs, bit, flip):
    """The point that column `bit` of 8 teeth asks for, negated where `flip` is 1.

    block: where the teeth's block begins in the comb, in bytes.
    """
    a, b, c, d, e, f, g, h = signs
    index = a >> bit & 1 | (b >> bit & 1) << 1 | (c >> bit & 1) << 2 | (d >> bit & 1) << 3
    index |= (e >> bit & 1) << 4 | (f >> bit & 1) << 5 | (g >> bit & 1) << 6
    # Where the last tooth is negative, so is the entry, and all other signs with it.
    negative = 1 - (h >> bit & 1)
    _comb.seek(block + ((index ^ -negative) & 127) * 64)
    _comb.readinto(_entry)
    y = int.from_bytes(_entry_y, "big")
    return int.from_bytes(_entry_x, "big"), (y, _P - y)[negative ^ flip]


def _multiply_base(k, blind):
    """Return k * G for 0 < k < n."""
    low, high = 0, _BLOCK_BYTES
    signs, flip = _signs(k)
    even, odd = signs[0::2], signs[1::2]
    x, y = _comb_entry(low, even, _SPACING - 1, flip)
    point = _randomised(x, y, blind)
    x, y = _comb_entry(high, odd, _SPACING - 1, flip)
    point = _add(point, x, y)
    for bit in range(_SPACING - 2, -1, -1):
        x, y = _comb_entry(low, even, bit, flip)
        point = _add(_double(point), x, y)
        x, y = _comb_entry(high, odd, bit, flip)
        point = _add(point, x, y)
    return point


def _randomised(x, y, blind):
    zz = blind * blind % _P
    zzz = zz * blind % _P
    return x * zz % _P, y * zzz % _P, zz, zzz
