"""The tests that a board must pass at each start before it may touch its key.

| test | code | fails when |
| --- | --- | --- |
| SHA-256 of the two examples of FIPS 180-4 | selftest.sha256 | hashing is wrong |
| digest of the base point's comb | selftest.table | any of its 256 points is wrong |
| RFC 6979 A.2.5 signature, low-S | selftest.sign | nonce, curve or inversion is wrong |
| length and sameness of two draws | selftest.entropy | the source is short or stuck |
| repetition count (SP 800-90B 4.4.1) | selftest.entropy | one byte six times in a row |
| adaptive proportion (SP 800-90B 4.4.2) | selftest.entropy | a byte fills a window |

The entropy tests see a source that broke, not one that an attacker predicts. Their cutoffs
are those of a source with 4 bits in each byte and a false alarm in 2^20 windows, so a good
one (8 bits) practically never alarms.
"""

import hashlib

from . import p256
from .errors import SelfTestError

WINDOW_BYTES = 512
REPETITION_CUTOFF = 6
PROPORTION_CUTOFF = 62

_SHA256 = (
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
)
_TABLE = "42e44c043b60b19753fe92d78d7fe1985d930d2cf27bf607992a79747cfd3b17"
_SECRET = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
_MESSAGE = b"sample"
_SIGNATURE = (
    "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    "0834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9"
)


def run(entropy, sha256=hashlib.sha256, table_digest=p256.table_digest, sign=p256.sign):
    """Run all tests; raises SelfTestError with the code of the first that fails.

    Args:
        entropy: function of a byte count: the board's random source.
        sha256, table_digest, sign: what is tested; others only in tests of this test.
    """
    for message, digest in _SHA256:
        if sha256(message).digest() != bytes.fromhex(digest):
            raise SelfTestError("selftest.sha256")
    if table_digest() != bytes.fromhex(_TABLE):
        raise SelfTestError("selftest.table")
    digest = sha256(_MESSAGE).digest()
    if sign(bytes.fromhex(_SECRET), digest) != bytes.fromhex(_SIGNATURE):
        raise SelfTestError("selftest.sign")
    first, second = _draw(entropy), _draw(entropy)
    if first == second:
        raise SelfTestError("selftest.entropy", "the same bytes twice")
    check_samples(first)
    check_samples(second)


def _draw(entropy):
    data = entropy(WINDOW_BYTES)
    if len(data) != WINDOW_BYTES:
        raise SelfTestError("selftest.entropy", "short read")
    return data


def check_samples(data):
    """Run the two SP 800-90B tests over one window of bytes; raises SelfTestError."""
    run_length = 0
    previous = None
    for byte in data:
        run_length = run_length + 1 if byte == previous else 1
        previous = byte
        if run_length >= REPETITION_CUTOFF:
            raise SelfTestError("selftest.entropy", "repetition count")
    if sum(1 for byte in data if byte == data[0]) >= PROPORTION_CUTOFF:
        raise SelfTestError("selftest.entropy", "adaptive proportion")
