"""Runs the board; MicroPython starts this file behind boot.py."""

import sys

from fogline import lock

try:
    from fogline import app, board

    status = app.main()
finally:
    lock.leave()
if board.HAS_EXIT_STATUS:
    sys.exit(status)
