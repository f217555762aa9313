"""Modules that a board needs now and then: loaded for it, and let go of afterwards.

A board's heap does not hold all of the firmware at once with room to spare. What only a start
needs, or an update, is imported where it is used, and forgotten when that is done; the next use
reads it from flash again.
"""

import sys

_PACKAGE = __name__.rpartition(".")[0]


def forget(*names):
    """Let go of modules of ours; objects that are still in use keep what they need.

    names: within `fogline`; those of drivers in full.
    """
    for name in names:
        package, _, leaf = name.rpartition(".")
        package = package or _PACKAGE
        parent = sys.modules[package]
        if sys.modules.pop(package + "." + leaf, None) is not None and hasattr(parent, leaf):
            delattr(parent, leaf)
