"""Operators with two operands of any shapes that fit each other."""

import struct

from . import kernels_math as fixed
from . import kernels_pairs as k
from .kernels import CHANNEL_WORDS
from .kernels_ops import (
    Step,
    activations,
    bounded,
    copied,
    elements,
    fill_table,
    limited,
    output_range,
    refuse,
)


def _broadcast(op, a, b, y):
    """Return how two tensors run against each other: [(length, step of a, step of b)].

    The innermost comes last; there are at least two, and neighbours that run alike are one.
    """
    rank = len(y.shape)
    if len(a.shape) > rank or len(b.shape) > rank:
        refuse(op, "shapes %s and %s to %s" % (a.shape, b.shape, y.shape))
    loops = []
    sizes = [1, 1]
    for axis in range(1, rank + 1):
        length = y.shape[-axis]
        steps = []
        for number, tensor in enumerate((a, b)):
            mine = tensor.shape[-axis] if axis <= len(tensor.shape) else 1
            if mine not in (1, length):
                refuse(op, "shapes %s and %s to %s" % (a.shape, b.shape, y.shape))
            steps.append(sizes[number] if mine > 1 else 0)
            sizes[number] *= mine
        if length == 1:
            continue
        if loops and all(loops[0][1 + i] * loops[0][0] == steps[i] for i in (0, 1)):
            loops[0] = (loops[0][0] * length,) + loops[0][1:]
        else:
            loops.insert(0, (length, steps[0], steps[1]))
    if max(sizes) > y.size:
        refuse(op, "shapes %s and %s to %s" % (a.shape, b.shape, y.shape))
    while len(loops) < 2:
        loops.insert(0, (1, 0, 0))
    return loops


def _pair_step(op, kernel, a, b, y, about, table_bytes, factor, activation):
    """Return the Step of an operator on two tensors of any shapes that fit each other.

    about(arena, at): fills what the kernel needs of each operand at `at`, and returns it.
    """
    loops = _broadcast(op, a, b, y)
    low, high = output_range(y, activation)
    (rounds, more_a, more_b), (length, step_a, step_b) = loops[-2:]
    bounded(op, elements([size for size, _, _ in loops[:-2]]))
    starts = [(0, 0)]
    for size, far_a, far_b in loops[:-2]:
        starts = [(i + n * far_a, j + n * far_b) for i, j in starts for n in range(size)]

    def load(arena, step):
        at = step.constant_at
        quick = fill_table(arena, at, None, [factor])
        data = [arena if tensor.data is None else copied(tensor) for tensor in (a, b)]
        places = [tensor.at if tensor.data is None else 0 for tensor in (a, b)]
        block = k.pair_block(
            (places[0], places[1], y.at),
            about(arena, at + 4 * CHANNEL_WORDS) + (at,),
            (rounds, length),
            (step_a, step_b),
            (more_a - length * step_a, more_b - length * step_b),
            y.zero_point + 128,
        )
        call = kernel, (0, arena, data[0], data[1], block)
        if len(starts) == 1:
            if quick and kernel is k.add:
                call = k.add_call(arena, data[0], data[1], block)
            return limited(call, arena, y, low, high)

        def run():
            block[2] = y.at
            for start_a, start_b in starts:
                block[0] = places[0] + start_a
                block[1] = places[1] + start_b
                kernel(*call[1])
                block[2] += rounds * length

        return limited((run, ()), arena, y, low, high)

    return Step(load, 4 * CHANNEL_WORDS + table_bytes, 0, y.size)


def _sum(op, sign, options):
    """Return the Step of ADD (`sign` 1) or SUB (-1)."""
    a, b, y = activations(op, 2, constants=True)
    # Both operands are brought to twice the larger scale, with 20 more bits.
    scale = max(a.scale(), b.scale(), key=_size)
    common = scale[0], scale[1] + 1
    out_scale = y.scale()
    factor = fixed.multiplier(common, (out_scale[0], out_scale[1] + 20))
    if factor[1] > 0:
        refuse(op, "the output's scale is too small")
    rescales = [fixed.multiplier(tensor.scale(), common) for tensor in (a, b)]

    def about(arena, at):
        tables = at, at + 1024
        for tensor, rescale, factor in zip((a, b), rescales, (1, sign)):
            # A constant lies in the file as int8, all else in the arena as q + 128.
            flip = 0 if tensor.data is None else 128
            for byte in range(256):
                q = (byte ^ flip) - 128 - tensor.zero_point
                struct.pack_into("<i", arena, at, factor * fixed.multiply(q << 20, rescale))
                at += 4
        return tables

    activation = op.options(options).unsigned(0, 1)
    return _pair_step(op, k.add, a, b, y, about, 2048, factor, activation)


def add(op):
    return _sum(op, 1, 11)


def sub(op):
    return _sum(op, -1, 28)


def mul(op):
    a, b, y = activations(op, 2, constants=True)
    factor = fixed.multiplier(fixed.product(a.scale(), b.scale()), y.scale())

    def about(arena, at):
        return tuple(
            (tensor.zero_point + 128) << 8 | (0 if tensor.data is None else 128)
            for tensor in (a, b)
        )

    activation = op.options(21).unsigned(0, 1)
    return _pair_step(op, k.multiply, a, b, y, about, 0, factor, activation)


def _size(scale):
    """A key that orders normal scales (m, e) with 24-bit m by size."""
    return scale[1], scale[0]
