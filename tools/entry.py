"""`fogline` as it is typed: Ctrl-C ends it with a word, also while it is still being read in.

A Raspberry Pi takes seconds for that.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

EXIT_REFUSED = 1


def main() -> None:
    """Run the command line."""
    try:
        from tools import cli

        cli.main()
    except KeyboardInterrupt:
        print("Aborted.", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
