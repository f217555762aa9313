"""HMAC-SHA256 (RFC 2104) and HKDF-SHA256 (RFC 5869) on stock MicroPython's hashlib."""

import hashlib

HASH_BYTES = 32
_BLOCK_BYTES = 64
_INNER = int.from_bytes(b"\x36" * _BLOCK_BYTES, "big")
_OUTER = int.from_bytes(b"\x5c" * _BLOCK_BYTES, "big")


def hmac_sha256(key, *parts):
    """Return the 32-byte MAC of the concatenated bytes-like `parts` under `key`."""
    if len(key) > _BLOCK_BYTES:
        key = hashlib.sha256(key).digest()
    padded = int.from_bytes(key + bytes(_BLOCK_BYTES - len(key)), "big")
    inner = hashlib.sha256((padded ^ _INNER).to_bytes(_BLOCK_BYTES, "big"))
    for part in parts:
        inner.update(part)
    outer = hashlib.sha256((padded ^ _OUTER).to_bytes(_BLOCK_BYTES, "big"))
    outer.update(inner.digest())
    return outer.digest()


def hkdf_sha256(secret, salt, info, length):
    """Derive `length` bytes (at most 8,160) from `secret`, `salt` and `info`, all bytes."""
    key = hmac_sha256(salt, secret)
    block = b""
    out = b""
    counter = 1
    while len(out) < length:
        block = hmac_sha256(key, block, info, bytes((counter,)))
        out += block
        counter += 1
    return out[:length]


def equal(one, other):
    """Compare two bytes-like values without stopping at the first difference."""
    if len(one) != len(other):
        return False
    difference = 0
    for i in range(len(one)):
        difference |= one[i] ^ other[i]
    return difference == 0
