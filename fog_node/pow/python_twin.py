"""The search in plain Python: what the C kernels are tested against, and readable.

It imports nothing of the package, so that the two share no mistake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

__all__ = ["NAME", "NONCES_PER_LOOK", "double_sha256", "search"]

NAME = "python"

# Nonces between two looks at the tokens: 1 ms at 32,000 hashes a second, a third of a Raspberry Pi
# 3's. Threads take turns at the interpreter, so the looks of all its cores add up.
NONCES_PER_LOOK = 32


def double_sha256(header: bytes) -> bytes:
    """SHA-256 of the SHA-256 of an 80-byte header, in the order the hash functions give it."""
    return hashlib.sha256(hashlib.sha256(header).digest()).digest()


def search(
    header: bytes, target: bytes, first: int, count: int, stopped: Callable[[], bool]
) -> tuple[int | None, int]:
    """Look at nonces first..first+count-1 and give the lowest that meets the target.

    header: 76 bytes, without the nonce. target: 32 bytes, least significant first, met by a hash
    that is at most as large. stopped: asked about every millisecond whether to give up.

    Returns the nonce, None if there is none (or it was stopped), and the number of nonces judged.
    """
    sha256 = hashlib.sha256
    before_nonce = sha256(header)
    limit = target[::-1]
    for done in range(count):
        if done % NONCES_PER_LOOK == 0 and stopped():
            return None, done
        inner = before_nonce.copy()
        inner.update((first + done).to_bytes(4, "little"))
        if sha256(inner.digest()).digest()[::-1] <= limit:
            return first + done, done + 1
    return None, count
