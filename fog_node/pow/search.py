"""Searching a nonce: the choice of the kernel and the split over threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from . import _pow, python_twin
from .cancel import CancelToken
from .errors import KernelError, WorkError

__all__ = ["MAX_THREADS", "MineResult", "best", "double_sha256", "kernels", "mine", "usable_cores"]

HEADER_BYTES = 80
NONCE_BYTES = 4
NONCES = 1 << 32
TARGETS = 1 << 256
MAX_THREADS = 256


@dataclass(frozen=True, slots=True)
class MineResult:
    """What a search came to.

    nonce: one whose hash meets the target, None without one. hashes: nonces judged, over all
    threads. cancelled: the search was ended by its token before the range was done.
    """

    nonce: int | None
    hashes: int
    cancelled: bool


def kernels() -> list[str]:
    """Names of the kernels that this machine runs, fastest first; "python" is the twin."""
    return [*_pow.kernels(), python_twin.NAME]


def best() -> str:
    """Name of the fastest kernel of this machine."""
    return kernels()[0]


def usable_cores() -> int:
    """How many cores this process may use, and so the most threads that a search starts."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def double_sha256(header: bytes) -> bytes:
    """SHA-256 of the SHA-256 of an 80-byte header, in internal byte order (shown reversed).

    Raises WorkError for another length.
    """
    if len(header) != HEADER_BYTES:
        raise WorkError("header", f"{len(header)} bytes; a header has {HEADER_BYTES}")
    return _pow.double_sha256(header)


def mine(
    header: bytes,
    target: int,
    *,
    kernel: str,
    start: int = 0,
    count: int | None = None,
    threads: int = 1,
    cancel: CancelToken | None = None,
) -> MineResult:
    """Look for a nonce with which the header's double SHA-256 is at most the target.

    header: 80 bytes, whose nonce is ignored, or the 76 before the nonce.
    target: 0 to 2**256 - 1; the hash is read as a little-endian number.
    kernel: one of kernels(), say best(). It is used or refused, never replaced.
    start, count: the nonces to look at; by default from start to the end of the 32-bit range.
    threads: the range is cut into this many equal parts, each searched by a thread of its own; into
    usable_cores() parts if those are fewer, since a thread that waits for a core finds nothing and
    notices no token. With one thread the nonce found is the lowest of the range, with more it is
    one of those that the threads found first.
    cancel: lets another thread end the search. Each thread then ends with the batch of nonces it
    is at, 1 ms of work at most even on a Raspberry Pi 3.

    Blocks the calling thread, not the interpreter: the C kernels run without the GIL.
    Raises KernelError for a missing kernel and WorkError for any other bad argument.
    """
    if kernel not in kernels():
        raise KernelError(kernel, tuple(kernels()))
    if count is None:
        count = NONCES - start
    _check(header, target, start, count, threads)
    prefix = header[: HEADER_BYTES - NONCE_BYTES]
    limit = target.to_bytes(32, "little")
    cancel = cancel or CancelToken()
    found = CancelToken()

    def search_part(first: int, size: int) -> tuple[int | None, int]:
        if kernel == python_twin.NAME:
            nonce, judged = python_twin.search(
                prefix, limit, first, size, lambda: cancel.cancelled or found.cancelled
            )
        else:
            nonce, judged = _pow.search(kernel, prefix, limit, first, size, cancel.flag, found.flag)
        if nonce is not None:
            found.cancel()
        return nonce, judged

    parts = min(threads, usable_cores())
    bounds = [start + count * part // parts for part in range(parts + 1)]
    # Even a single part gets a thread, so that Ctrl-C reaches the waiting main thread.
    with ThreadPoolExecutor(parts, thread_name_prefix="pow") as pool:
        try:
            futures = [pool.submit(search_part, low, high - low) for low, high in pairwise(bounds)]
            results = [future.result() for future in futures]
        finally:
            found.cancel()
    nonces = [nonce for nonce, _ in results if nonce is not None]
    hashes = sum(judged for _, judged in results)
    return MineResult(min(nonces, default=None), hashes, not nonces and hashes < count)


def _check(header: bytes, target: int, start: int, count: int, threads: int) -> None:
    if len(header) not in (HEADER_BYTES - NONCE_BYTES, HEADER_BYTES):
        raise WorkError(
            "header",
            f"{len(header)} bytes; give {HEADER_BYTES}, or {HEADER_BYTES - NONCE_BYTES} without"
            " the nonce",
        )
    if not 0 <= target < TARGETS:
        raise WorkError("target", f"{target:#x} is not within 0 and 2**256 - 1")
    if not 0 <= start < NONCES:
        raise WorkError("start", f"{start} is not a 32-bit nonce")
    if not 0 <= count <= NONCES - start:
        raise WorkError("count", f"{count} is not within 0 and {NONCES - start}, the rest of range")
    if not 1 <= threads <= MAX_THREADS:
        raise WorkError("threads", f"{threads} is not within 1 and {MAX_THREADS}")
