"""Fogline on the board: signed packs, the flash outbox, releases and their models.

Everything here runs on stock MicroPython, 1.24 or later, without a custom build.
"""

VERSION = "0.1.0"
# Of the firmware as boards compare it: a release brings a higher one.
VERSION_NUMBER = 1
