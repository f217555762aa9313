"""Errors of the proof of work.

PowError
├── KernelError   a kernel that this machine does not have was asked for
└── WorkError     the work makes no sense: header, target, range, threads
"""

from __future__ import annotations

__all__ = ["KernelError", "PowError", "WorkError"]


class PowError(Exception):
    """Base class of everything the package raises."""


class KernelError(PowError):
    """A kernel is missing. `kernel` is the one asked for, `available` what there is instead."""

    def __init__(self, kernel: str, available: tuple[str, ...]) -> None:
        super().__init__(
            f"kernel: no {kernel!r} on this machine; choose one of {', '.join(available)}"
        )
        self.kernel = kernel
        self.available = available


class WorkError(PowError, ValueError):
    """Work that cannot be done as asked. `field` names the argument at fault."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
