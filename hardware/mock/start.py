"""Runs code in CPython as a board would: `python start.py CODE`, in the folder that is its flash.

Adds to CPython's modules what MicroPython's have beside it, under MicroPython's names.
"""

import asyncio
import builtins
import gc
import math
import os
import struct
import sys
import time
import traceback

# As on 32-bit boards, so that code that lets ticks run over is wrong here too.
_PERIOD = 1 << 30
_BOARD_HEAP_BYTES = 8 << 20  # what `gc.mem_free` says: CPython's heap has no bound of its own
_DIRECTORY, _FILE = 0x4000, 0x8000  # types in os.ilistdir


def _add_time():
    def ticks_diff(end, start):
        return (end - start + _PERIOD // 2) % _PERIOD - _PERIOD // 2

    time.ticks_us = lambda: time.monotonic_ns() // 1000 % _PERIOD
    time.ticks_ms = lambda: time.monotonic_ns() // 1_000_000 % _PERIOD
    time.ticks_add = lambda ticks, delta: (ticks + delta) % _PERIOD
    time.ticks_diff = ticks_diff
    time.sleep_us = lambda us: time.sleep(max(0, us) / 1e6)
    time.sleep_ms = lambda ms: time.sleep(max(0, ms) / 1e3)


def _add_asyncio():
    asyncio.sleep_ms = lambda ms: asyncio.sleep(max(0, ms) / 1e3)
    asyncio.wait_for_ms = lambda what, ms: asyncio.wait_for(what, ms / 1e3)


def _add_gc():
    threshold = [-1]

    def gc_threshold(*amount):
        if not amount:
            return threshold[0]
        threshold[0] = amount[0]
        return None

    # MicroPython's counts bytes, CPython's objects: the number is kept and no more.
    gc.threshold = gc_threshold
    gc.mem_free = lambda: _BOARD_HEAP_BYTES


def _add_os():
    def ilistdir(path="."):
        for entry in os.scandir(path or "."):
            is_directory = entry.is_dir()
            size = 0 if is_directory else entry.stat().st_size
            yield entry.name, _DIRECTORY if is_directory else _FILE, entry.stat().st_ino, size

    os.ilistdir = ilistdir


def _add_sys():
    def print_exception(error, file=sys.stdout):
        traceback.print_exception(error, file=file)

    sys.print_exception = print_exception


def _add_struct():
    pack = struct.pack

    def pack_as_a_board(form, *values):
        try:
            return pack(form, *values)
        except OverflowError:  # a double that is too large for a float: infinity, as C has it
            return pack(form, *(math.copysign(math.inf, value) for value in values))

    struct.pack = pack_as_a_board


def _add_types():
    """The types that viper's annotations name, and `micropython`, which needs no import."""
    import micropython

    for name in ("ptr8", "ptr16", "ptr32", "ptr", "uint"):
        setattr(builtins, name, micropython.pointer(name))
    builtins.micropython = micropython


def main():
    """Run the code that is the only argument."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = ["", here, *(path for path in sys.path if os.path.abspath(path) != here)]
    sys.dont_write_bytecode = True
    for add in (_add_time, _add_asyncio, _add_gc, _add_os, _add_sys, _add_struct, _add_types):
        add()
    code = sys.argv[1]
    del sys.argv[1:]
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
