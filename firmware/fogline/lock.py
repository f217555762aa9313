"""A board whose console shows no prompt: what is in its flash stays there.

A board with the file `locked` at its flash root is locked. Ctrl-C does not stop its program, and
where the program ends the board starts anew instead of offering MicroPython's prompt. What this
keeps out, and what it does not, is in firmware/README.md.
"""

import os

FILE = "locked"
RESTART_PAUSE_S = 10  # so that what the board says last can be read


def is_locked(directory=""):
    """Whether the board whose files are there is locked."""
    try:
        os.stat(directory + "/" + FILE if directory else FILE)
    except OSError as error:
        if error.args[0] == 2:  # ENOENT
            return False
    return True  # also where the flash cannot say


def hold():
    """Let Ctrl-C be a byte like any other, if the board is locked; boot.py does so first."""
    if is_locked():
        import micropython

        micropython.kbd_intr(-1)


def leave():
    """Start the board anew, if it is locked, before MicroPython can offer its prompt."""
    if is_locked():
        from time import sleep

        import machine

        try:
            sleep(RESTART_PAUSE_S)
        finally:
            machine.reset()
