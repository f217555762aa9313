"""Stands for MicroPython's module `uctypes`."""

import ctypes


def addressof(buffer):
    """Give the address of a writable buffer."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def bytearray_at(address, size):
    """Give the memory there."""
    return memoryview((ctypes.c_uint8 * size).from_address(address)).cast("B")
