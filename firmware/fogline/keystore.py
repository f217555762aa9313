"""The board's private key: made on the board, kept in one flash file, never shown.

The key file is `FGK1`, the 32-byte key and the CRC-32 of both (big-endian). A key gets its
name `key.bin` only when its bytes are durable and were read back, so a power cut leaves
either no key or a whole one. A damaged file is refused rather than replaced: a new key
would be a new device.
"""

import binascii
import os

from . import p256
from .board_key import BoardKey
from .errors import KeyStoreError
from .hmac256 import hkdf_sha256
from .selftest import run as run_selftest

KEY_FILE = "key.bin"
SEED_FILE = "seed.bin"
SEED_BYTES = 32

_TEMPORARY = "key.tmp"
_MAGIC = b"FGK1"
_FILE_BYTES = len(_MAGIC) + p256.SECRET_BYTES + 4
_BOARD_ENTROPY_BYTES = 64


def load_or_create(directory="", entropy=None, test=run_selftest):
    """Return the BoardKey of `directory`, making one if there is none.

    There is no other way to a key, and this one runs the self-test first.

    Args:
        directory: where the files are; "" is the current directory.
        entropy: function of a byte count, the board's random source; os.urandom if None.
        test: the self-test, called with `entropy`; raises SelfTestError.

    A new key mixes the board's entropy with the host's `seed.bin`, if that file is there;
    the seed is deleted once a key stands. Raises SelfTestError; KeyStoreError `key.damaged`,
    `key.range`, `key.seed`, `key.entropy` or `key.write`.
    """
    if entropy is None:
        entropy = os.urandom
    prefix = directory + "/" if directory else ""
    test(entropy)
    data = _read(prefix + KEY_FILE)
    new = data is None
    if new:
        data = _create(prefix, entropy)
    key = BoardKey(_parse(data), new)
    _remove(prefix + SEED_FILE)
    return key


def _create(prefix, entropy):
    seed = _read(prefix + SEED_FILE)
    if seed is not None and len(seed) != SEED_BYTES:
        raise KeyStoreError("key.seed", "seed.bin must have 32 bytes")
    board = entropy(_BOARD_ENTROPY_BYTES)
    if len(board) != _BOARD_ENTROPY_BYTES:
        raise KeyStoreError("key.entropy", "short read")
    mixed = hkdf_sha256(board + (seed or b""), b"fogline key", b"", p256.KEY_ENTROPY_BYTES)
    data = _MAGIC + p256.secret_from_entropy(mixed)
    data += binascii.crc32(data).to_bytes(4, "big")
    try:
        with open(prefix + _TEMPORARY, "wb") as file:
            file.write(data)
            file.flush()  # to flash: MicroPython syncs here
        if _read(prefix + _TEMPORARY) == data:
            os.rename(prefix + _TEMPORARY, prefix + KEY_FILE)
    except OSError as error:
        raise KeyStoreError("key.write", f"OSError {error.args[0]}") from None
    stored = _read(prefix + KEY_FILE)
    if stored != data:
        raise KeyStoreError("key.write", "read back differs")
    return stored


def _parse(data):
    body, check = data[:-4], data[-4:]
    if len(data) != _FILE_BYTES or body[:4] != _MAGIC:
        raise KeyStoreError("key.damaged", "erase key.bin and enrol the board anew")
    if binascii.crc32(body).to_bytes(4, "big") != check:
        raise KeyStoreError("key.damaged", "erase key.bin and enrol the board anew")
    secret = body[4:]
    if not p256.is_secret(secret):
        raise KeyStoreError("key.range", "erase key.bin and enrol the board anew")
    return secret


def _read(path):
    """The file's bytes, or None if there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read(_FILE_BYTES + 1)
    except OSError as error:
        if error.args[0] == 2:  # ENOENT
            return None
        raise KeyStoreError("key.read", f"OSError {error.args[0]}") from None


def _remove(path):
    try:
        os.remove(path)
    except OSError as error:
        if error.args[0] != 2:
            raise KeyStoreError("key.seed", "seed.bin cannot be deleted") from None
