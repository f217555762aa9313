"""MicroPython runs this file first on a bare board."""

import gc

import micropython
from fogline import lock

# First of all: until here a Ctrl-C still counts.
lock.hold()
# So that an error in an interrupt handler or in a full heap can still be told.
micropython.alloc_emergency_exception_buf(100)
# Collect early: what is free then lies in large pieces, which TLS and models need.
gc.threshold(16 * 1024)
