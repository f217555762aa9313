"""Proof of work: double SHA-256 of 80-byte block headers, in C and in Python."""

from __future__ import annotations

from .cancel import CancelToken
from .errors import KernelError, PowError, WorkError
from .search import MAX_THREADS, MineResult, best, double_sha256, kernels, mine, usable_cores

__all__ = [
    "MAX_THREADS",
    "CancelToken",
    "KernelError",
    "MineResult",
    "PowError",
    "WorkError",
    "best",
    "double_sha256",
    "kernels",
    "mine",
    "usable_cores",
]
