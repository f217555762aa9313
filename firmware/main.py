"""Runs the board; MicroPython starts this file behind boot.py."""

import sys

from fogline import lock

try:
    from fogline import update

    update.preload()  # before anything else takes the heap
    from fogline import app, board

    status = app.main()
    if status == app.EXIT_RESTART and not board.HAS_EXIT_STATUS:
        import machine

        machine.reset()
finally:
    lock.leave()
if board.HAS_EXIT_STATUS:
    sys.exit(status)
