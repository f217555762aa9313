"""MicroPython runs this file first on a bare board."""

import micropython

# First of all, whatever comes: a locked board must not be stopped while it starts.
micropython.kbd_intr(-1)

import gc  # noqa: E402

import launcher  # noqa: E402

launcher.select()
try:
    from fogline import lock
except Exception as error:  # noqa: BLE001 - whatever an update can do wrong
    launcher.recover(error)
if not lock.is_locked():
    micropython.kbd_intr(3)
# So that an error in an interrupt handler or in a full heap can still be told.
micropython.alloc_emergency_exception_buf(100)
# Collect early: what is free then lies in large pieces, which TLS and models need.
gc.threshold(16 * 1024)
