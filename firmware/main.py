"""Runs the board; MicroPython starts this file behind boot.py."""

import sys

from fogline import app, board

status = app.main()
if board.HAS_EXIT_STATUS:
    sys.exit(status)
