"""Which inner loops of the int8 operators this board can run, and how they are called.

They are in viper in `kernels_windows` and its like, which every board has; `kernels_thumb`,
`kernels_rv32` and their `_planes` have the most frequent ones in assembler, for boards whose
MicroPython has one. All give the same bytes. Needed while a model is loaded, and not afterwards:
see `tflite.unload`.
"""

import sys
from array import array

from micropython import const
from uctypes import addressof

from . import tflite
from .errors import ModelError

WRAP = 32 if sys.maxsize >> 31 else 0
NO_TAP = const(0x8000)  # in a map: this tap of the window lies outside the input
TAIL_BYTES = const(7)  # `windows` reads so far past the end of the weights
CHANNEL_WORDS = const(4)  # of a requantization table, per output channel
LEFT_SHIFT = const(8)  # in a table's fourth word, where the shift to the right is less than 2

_WRAP = const(18)  # word of a block


def window_block(places, positions, taps, sizes, values):
    """Return the argument block of the windowed kernels.

    Args:
        places: offsets in the arena, in bytes: input, output, sums, runs, table, ymap, xmap.
        positions: rows and columns of the output; batches are further rows.
        taps: rows and columns of the window. Tap ky of row y reads input row
            ymap[y * kh + ky], tap kx of column x reads input column xmap[x * kw + kx]; NO_TAP
            reads nothing.
        sizes: columns of the input, its channels, channels of the output.
        values: zero points of input and output, lowest and highest output (of pools), all + 128.
    """
    return array("i", places + positions + taps + sizes + values + (WRAP,))


# By the machine that `sys.implementation` names: assembler, and kernels from fast to slow.
_ASSEMBLERS = {4: ("thumb", ("thumb",)), 11: ("rv32", ("rv32",))}
_ARMV7M = (5, 6, 7, 8)
_PLACES = const(7)  # words of a block that are offsets in the arena
_OWN_WORDS = const(11)  # that a kernel in assembler keeps behind a block


def available():
    """Return the names of the kernels that this board can run, the fastest first."""
    architecture = getattr(sys.implementation, "_mpy", 0) >> 10 & 15
    if architecture in _ARMV7M:
        assembler, names = "thumb", ("thumb2", "thumb")
    else:
        assembler, names = _ASSEMBLERS.get(architecture, ("", ()))
    if assembler:
        try:
            exec("@micropython.asm_%s\ndef empty():\n pass" % assembler, {})
        except SyntaxError:  # built without one
            names = ()
    return names + ("viper",)


def use(name=None):
    """Take these kernels from the next `allocate` on, the fastest by default; returns the name.

    Raises ModelError `model.kernel` for one that this board cannot run.
    """
    names = available()
    if name is None:
        name = names[0]
    if name not in names:
        raise ModelError("model.kernel", "%s: this board has %s" % (name, ", ".join(names)))
    tflite.kernel = name
    return name


def fast(name):
    """Return the chosen kernel `name` in assembler, or None where viper serves."""
    kernel = tflite.kernel or use()
    if kernel == "viper":
        return None
    module = "kernels_rv32" if kernel == "rv32" else "kernels_thumb"
    if name == "depthwise":
        module += "_planes"
    return getattr(getattr(__import__("fogline." + module), module), name)


def windows_call(arena, weights, block, quick):
    """Return (function, arguments) of the chosen `windows`; the memory must stay in its place.

    weights: a copy that becomes the kernel's. quick: see `kernels_ops.fill_table`.
    """
    machine = quick and fast("windows")
    if not machine or tflite.kernel == "thumb":
        tflite.flip(weights, weights, 0, 0, len(weights))
    if machine:
        return machine_call("windows", arena, weights, block)
    from .kernels_windows import windows

    return windows, (0, arena, weights, block)


def machine_call(name, arena, weights, block):
    """Return (function, arguments) of the windowed kernel `name` in assembler.

    Its block has addresses for offsets. In the place of the wrap, which it has no use for, stands
    the address of the weights, behind it whether the processor has all of ARMv7-M's instructions,
    then room of its own.
    """
    words = array("I", block)
    for index in range(_PLACES):
        words[index] += addressof(arena)
    words[_WRAP] = addressof(weights)
    words.extend(array("I", (wide(),) + (0,) * _OWN_WORDS))
    return fast(name), (words, arena, weights)


def wide():
    """Return 1 where kernels in assembler may use all of ARMv7-M's instructions, else 0."""
    return 1 if tflite.kernel == "thumb2" else 0
