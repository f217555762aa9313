"""Whose releases a board trusts: those it was provisioned with, until an update brings others.

Keys of an update are stored beside a hash of board.json's, and are void once that is provisioned
with others: who holds the board has the last word.
"""

import hashlib

from . import cbor
from .errors import EncodingError

FILE = "release_keys.bin"
_MAX_BYTES = 512


def load(flash, provisioned):
    """Return the list of keys (x || y) that are trusted now."""
    data = flash.load(FILE, _MAX_BYTES)
    if data is not None:
        try:
            instead_of, keys = cbor.decode(data, _MAX_BYTES)
        except (EncodingError, ValueError, TypeError):
            return list(provisioned)
        if instead_of == _hash(provisioned):
            return keys
    return list(provisioned)


def save(flash, provisioned, keys):
    """Trust these from now on; raises OSError."""
    flash.save(FILE, cbor.encode([_hash(provisioned), keys]))


def _hash(keys):
    return hashlib.sha256(b"".join(keys)).digest()
