"""Starts a board on the unix port as a bare board starts: boot.py, main.py, then the REPL.

Run as `micropython -i board_start.py` in the directory that is the board's flash.
"""

import sys

for _name in ("boot.py", "main.py"):
    try:
        with open(_name) as _file:  # noqa: PTH123 - MicroPython has no pathlib
            _code = _file.read()
    except OSError:
        continue
    try:
        exec(_code, {"__name__": "__main__"})
    except (SystemExit, KeyboardInterrupt):
        pass
    except Exception as _error:  # noqa: BLE001 - a board says what it was, and goes on
        sys.print_exception(_error)
