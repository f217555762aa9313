"""On a board under QEMU that counts instructions: how many it has executed since its start.

Two calls of `now` around something give its cost and that of the call; `measure` takes the call's
away.
"""

import sys

import qemu

# ns of virtual time per instruction, as a power of two; tools/hil/qemu.py starts QEMU with it.
_SHIFT = 7
_NS_PER_TICK = 40 if "mps2" in sys.implementation._machine else 100  # noqa: SLF001 - public name


def now():
    """Instructions since the machine's start."""
    return qemu.ticks() * _NS_PER_TICK >> _SHIFT


def measure(function, *arguments):
    """Instructions that one call takes, garbage collection included; its result is dropped."""
    ticks = qemu.ticks
    ticks()
    start = ticks()
    between = ticks()
    function(*arguments)
    end = ticks()
    return (end - between - (between - start)) * _NS_PER_TICK >> _SHIFT
