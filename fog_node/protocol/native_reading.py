"""The C extension, or an error that says how to get it: there is no slower stand-in."""

from __future__ import annotations

try:
    from ._native import (
        channels,
        is_deterministic,
        is_plausible,
        read_pack,
        sig_structure,
        to_der,
    )
except ImportError as error:
    raise ImportError(
        f"fog_node.protocol._native: is not built ({error}); install the package, or in a "
        "working copy run: python setup.py build_ext --inplace"
    ) from error

__all__ = [
    "channels",
    "is_deterministic",
    "is_plausible",
    "read_pack",
    "sig_structure",
    "to_der",
]
