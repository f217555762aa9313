"""Operators that average, join, pad, pick and rename."""

import struct
from array import array

from . import kernels_math as fixed
from . import kernels_rows as k
from .kernels import CHANNEL_WORDS, WRAP
from .kernels_ops import (
    Step,
    activations,
    bounded,
    copied,
    elements,
    fill_table,
    integers,
    refuse,
    same_quantization,
)
from .tflite import run_all


def mean(op):
    x, y = activations(op)
    rank = len(x.shape)
    axes = [axis + rank if axis < 0 else axis for axis in integers(op, 1)]
    if any(not 0 <= axis < rank for axis in axes):
        refuse(op, "axes %s" % axes)
    # Neighbouring axes of one kind are one: [[length, whether it is averaged]].
    groups = []
    for axis, length in enumerate(x.shape):
        if length > 1:
            if groups and groups[-1][1] == (axis in axes):
                groups[-1][0] *= length
            else:
                groups.append([length, axis in axes])
    total = elements([length for length, gone in groups if gone])
    kept = elements([length for length, gone in groups if not gone])
    if kept != y.size:
        refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    # The kernel takes the last three groups as one plane: kept, averaged, kept.
    inner = groups.pop()[0] if groups and not groups[-1][1] else 1
    count = groups.pop()[0] if groups else 1
    outer = groups.pop()[0] if groups else 1
    bounded(op, elements([length for length, _ in groups]))
    # Each plane is [offset in x, offset in the sums, whether it goes on with them].
    planes = [[0, 0, 0]]
    x_step, sum_step = outer * count * inner, outer * inner
    for length, gone in reversed(groups):
        planes = [
            [i + n * x_step, j if gone else j + n * sum_step, 1 if gone and n else more]
            for n in range(length)
            for i, j, more in planes
        ]
        x_step *= length
        sum_step *= 1 if gone else length
    m, shift = fixed.multiplier(x.scale(), y.scale())
    # The division by the count goes into the multiplier; a power of two of it into the shift.
    bits = 0
    while total >> (bits + 1) and bits < 31 + shift:
        bits += 1
    factor = (m << bits) // total, shift - bits

    def load(arena, step):
        at, sums = step.constant_at, step.scratch_at
        fill_table(arena, at, None, [factor])
        # The sums are of q + 128.
        struct.pack_into("<i", arena, at, -total * (x.zero_point + 128))
        summing = []
        for x_at, sum_at, more in planes:
            block = array("i", (x.at + x_at, sums + 4 * sum_at, outer, count, inner, more))
            summing.append((k.sum_axis, (arena, arena, arena, block)))
        block = array("i", (sums, y.at, at, kept, y.zero_point + 128, WRAP))
        return run_all, (summing + [(k.requantize, (0, arena, block))],)

    return Step(load, 4 * CHANNEL_WORDS, 4 * kept, x.size)


def pad(op):
    x, y = activations(op)
    same_quantization(op, x, y)
    rank = len(x.shape)
    widths = integers(op, 1)
    if len(widths) != 2 * rank or len(op.inputs) != 2 or min(widths) < 0:
        refuse(op, "%d padding widths for shape %s" % (len(widths), x.shape))
    if y.shape != tuple(x.shape[i] + widths[2 * i] + widths[2 * i + 1] for i in range(rank)):
        refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    # Rows end where padding does: [offset in y] of each block of rows, from the outside in.
    length = rows = size = 1
    axis = rank
    while axis and not (widths[2 * axis - 2] or widths[2 * axis - 1]):
        axis -= 1
        length *= x.shape[axis]
    size = length
    first = 0
    if axis:
        axis -= 1
        first = widths[2 * axis] * size
        length *= x.shape[axis]
        size *= y.shape[axis]
    row_step = size
    if axis:
        axis -= 1
        first += widths[2 * axis] * size
        rows = x.shape[axis]
        size *= y.shape[axis]
    bounded(op, elements(x.shape[:axis]))
    starts = [first]
    while axis:
        axis -= 1
        starts = [at + (n + widths[2 * axis]) * size for n in range(x.shape[axis]) for at in starts]
        size *= y.shape[axis]

    def load(arena, step):
        copying = []
        at = x.at
        for start in starts:
            block = array("i", (at, y.at + start, rows, length, row_step, 0))
            copying.append((k.copy_rows, (arena, arena, block)))
            at += rows * length
        filling = k.fill, (arena, y.at, y.size, y.zero_point + 128)
        return run_all, ([filling] + copying,)

    return Step(load, 0, 0, x.size + y.size)


def resize_nearest_neighbor(op):
    from .kernels_pick import pick
    from .ops_windows import Window, planes_of, window_step

    x, y = planes_of(op)
    same_quantization(op, x, y)
    if integers(op, 1) != y.shape[1:3]:
        refuse(op, "output of shape %s" % (y.shape,))
    options = op.options(74)
    align, half = options.unsigned(0, 1), options.unsigned(1, 1)
    window = Window(
        op,
        x,
        y,
        (1, 1),
        lambda o, tap: fixed.nearest_index(o, x.shape[1], y.shape[1], align, half),
        lambda o, tap: fixed.nearest_index(o, x.shape[2], y.shape[2], align, half),
    )
    return window_step(lambda arena, block: (pick, (arena, arena, block)), window, 0, y.size)


def concatenation(op):
    inputs = len(op.inputs)
    found = activations(op, inputs, constants=True)
    y = found[-1]
    options = op.options(10)
    rank = len(y.shape)
    axis = options.signed(0, 4)
    axis += rank if axis < 0 else 0
    if options.unsigned(1, 1) or not 0 <= axis < rank or not inputs:
        refuse(op, "axis %d, activation %d" % (axis, options.unsigned(1, 1)))
    joined = 0
    for x in found[:-1]:
        same_quantization(op, x, y)
        if len(x.shape) != rank or x.shape[:axis] + x.shape[axis + 1 :] != (
            y.shape[:axis] + y.shape[axis + 1 :]
        ):
            refuse(op, "%s of shape %s to %s" % (x.label, x.shape, y.shape))
        joined += x.shape[axis]
    if joined != y.shape[axis]:
        refuse(op, "%d joined to %s" % (joined, y.shape))
    rows = elements(y.shape[:axis])
    row = y.size // rows

    def load(arena, step):
        calls = []
        at = y.at
        for x in found[:-1]:
            length = x.size // rows
            constant = x.data is not None
            data, place, mask = (copied(x), 0, 128) if constant else (arena, x.at, 0)
            block = array("i", (place, at, rows, length, row, mask))
            calls.append((k.copy_rows, (data, arena, block)))
            at += length
        return run_all, (calls,)

    return Step(load, 0, 0, y.size)


def reshape(op):
    """Give the same bytes another shape: the output lies where the input lies."""
    x, y = activations(op)
    if x.size != y.size:
        refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    same_quantization(op, x, y)
    y.lies_in(x)
