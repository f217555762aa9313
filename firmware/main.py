"""Runs the board; MicroPython starts this file behind boot.py."""

import sys

import launcher

if launcher.state is None:  # an operating system runs this file alone
    launcher.select()
try:
    from fogline import lock
except Exception as error:  # noqa: BLE001 - whatever an update can do wrong
    launcher.recover(error)
try:
    try:
        from fogline import update

        update.preload()  # before anything else takes the heap
        del update
        from fogline import app, board
    except Exception as error:  # noqa: BLE001 - as above
        launcher.recover(error)
    status = app.main()
    if status == launcher.EXIT_RESTART or (status and launcher.is_on_trial()):
        launcher.restart()
finally:
    lock.leave()
if board.HAS_EXIT_STATUS:
    sys.exit(status)
