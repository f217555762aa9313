"""What the board under us is and can do, and its buses and pins by logical name.

`select` takes the board that `board.json` names from the generated `board_table`. Code asks for
capabilities (`board.has_wifi`), never for a board's name.

A driver claims its buses and pins when it reads its settings (`claim`), so that two sensors on
one pin are refused before anything runs; the others are forgotten then (`settle`). It gets them
when it opens (`get`). What does so is in `buses.py`, which a board at work has no need of.
"""

import json
import sys

from .modules import forget

# An operating system takes an exit status; a bare board would start over again.
HAS_EXIT_STATUS = sys.platform in ("linux", "darwin")

_TABLES = ("i2c", "spi", "uart", "adc", "pin")

name = None
board_class = None
arena_bytes = 0
has_pins = False
has_wifi = False
has_network = False  # sockets: over Wi-Fi, or an operating system's own
has_tls = False
has_watchdog = False
has_deep_sleep = False
has_native_code = False
has_calibrated_adc = False
# What `buses.py` remembers: pins by kind and name, who has which GPIO, largest Hz, opened buses.
tables = {}
claims = {}
limits = {}
opened = {}


def select(board_name):
    """Be this board; raises ConfigError `config.board` with the names that there are."""
    global name, board_class, arena_bytes, has_pins, has_wifi, has_network, has_tls
    global has_watchdog, has_deep_sleep, has_native_code, has_calibrated_adc, tables
    from .board_table import TABLES
    from .checks import check_choice

    boards = {entry["board"]: entry for entry in map(json.loads, TABLES)}
    forget("board_table")  # the other boards' tables are of no use any more
    check_choice("config.board", board_name, sorted(boards))
    entry = boards[board_name]
    can = entry["capabilities"].split()
    name = board_name
    board_class = entry["board_class"]
    arena_bytes = entry["arena_bytes"]
    has_pins = "pins" in can
    has_wifi = "wifi" in can
    has_network = has_wifi or "network" in can
    has_tls = "tls" in can
    has_watchdog = "watchdog" in can
    has_deep_sleep = "deep_sleep" in can
    has_native_code = "native_code" in can
    has_calibrated_adc = "calibrated_adc" in can
    tables = {kind: entry.get(kind, {}) for kind in _TABLES}
    claims.clear()
    limits.clear()
    opened.clear()


def claim(where, kind, logical):
    """Keep a bus or pin for one driver: see `buses.claim`."""
    get("claim", where, kind, logical)


def settle():
    """Keep only what was claimed: nobody claims anything any more."""
    used = set(claims.values())
    for kind, table in tables.items():
        tables[kind] = {logical: table[logical] for logical in table if logical in used}
    claims.clear()


def get(what, *arguments):
    """Return a bus or pin: `what` names a function of `buses.py`, which gets the arguments."""
    from . import buses

    try:
        return getattr(buses, what)(*arguments)
    finally:
        forget("buses")
