"""Python source, parsed by one thread at a time."""

from __future__ import annotations

import ast
import threading

__all__ = ["parse"]

_PARSING = threading.Lock()


def parse(text: str) -> ast.Module:
    """Parse a module, as `ast.parse` does. Raises SyntaxError.

    CPython up to 3.12 counts the depth of its syntax trees for all threads together, and two that
    parse at once may fail: "SystemError: AST constructor recursion depth mismatch".
    """
    with _PARSING:
        return ast.parse(text)
