"""Operators on single values, and on rows of them."""

import struct
from array import array

from . import kernels_math as fixed
from . import kernels_rows as k
from .kernels_ops import FLOAT32, INT8, Step, activations, clamped, refuse

_SOFTMAX_WORK = 32  # multiplications that one value stands for


def _look_up_step(x, y, function):
    """Return the Step that maps each int8 by `function` (int8 to int8), through a table."""
    size = x.size

    def load(arena, step):
        for q in range(-128, 128):
            arena[step.constant_at + q + 128] = function(q) + 128
        block = array("i", (x.at, y.at, step.constant_at, size))
        return k.look_up, (arena, arena, arena, block)

    return Step(load, 256, 0, size)


def _element_wise(op):
    x, y = activations(op)
    if x.size != y.size:
        refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    return x, y


def _rescaled(op, activation):
    """Return the Step of an operator that changes scale and zero point, and clamps."""
    x, y = _element_wise(op)
    factor = fixed.multiplier(x.scale(), y.scale())
    low, high = fixed.activation_range(activation, y.scale(), y.zero_point)

    def function(q):
        return clamped(fixed.multiply(q - x.zero_point, factor) + y.zero_point, low, high)

    return _look_up_step(x, y, function)


def relu(op):
    return _rescaled(op, 1)


def relu6(op):
    return _rescaled(op, 3)


def logistic(op):
    x, y = _element_wise(op)
    if y.zero_point != -128:
        refuse(op, "the output's zero point must be -128")
    return _look_up_step(x, y, lambda q: fixed.logistic_q(q, x.zero_point, x.scale()))


def tanh(op):
    x, y = _element_wise(op)
    return _look_up_step(x, y, lambda q: fixed.tanh_q(q, x.zero_point, x.scale()))


def _float_pair(op, floating):
    """Return x and y of an operator that leads from floats or to floats (`floating`: 0 or 1)."""
    if len(op.inputs) != 1 or len(op.outputs) != 1 or op.inputs[0] is None:
        refuse(op, "%d inputs and %d outputs" % (len(op.inputs), len(op.outputs)))
    pair = op.inputs[0], op.outputs[0]
    if pair[0].data is not None or pair[0].size != pair[1].size:
        refuse(op, "from shape %s to %s" % (pair[0].shape, pair[1].shape))
    for tensor, kind in zip(pair, (INT8, FLOAT32) if floating else (FLOAT32, INT8)):
        if tensor.kind != kind:
            refuse(op, "%s is not %s" % (tensor.label, "int8" if kind == INT8 else "float32"))
    if pair[1 - floating].channels() != 1:
        refuse(op, "%s is quantized per channel" % pair[1 - floating].label)
    return pair


def quantize(op):
    if len(op.inputs) != 1 or op.inputs[0] is None or op.inputs[0].kind != FLOAT32:
        return _rescaled(op, 0)
    x, y = _float_pair(op, 0)
    scale = y.scale()

    def load(arena, step):
        def run():
            at = x.at
            for out in range(y.at, y.at + y.size):
                bits = struct.unpack_from("<I", arena, at)[0]
                q = fixed.quantized_float(bits, scale) + y.zero_point
                arena[out] = clamped(q, -128, 127) + 128
                at += 4

        return run, ()

    return Step(load, 0, 0, x.size)


def dequantize(op):
    x, y = _float_pair(op, 1)

    def load(arena, step):
        for q in range(-128, 128):
            bits = fixed.float_of(q - x.zero_point, x.scale())
            struct.pack_into("<I", arena, step.constant_at + 4 * (q + 128), bits)
        block = array("i", (x.at, y.at, step.constant_at, x.size))
        return k.look_up_words, (arena, arena, arena, block)

    return Step(load, 1024, 0, 4 * x.size)


def softmax(op):
    x, y = _element_wise(op)
    if y.zero_point != -128 or y.scale() != (1 << 23, -31):
        refuse(op, "the output's scale must be 1/256, its zero point -128")
    depth = x.shape[-1] if x.shape else 1
    factor = fixed.softmax_factor(op.options(9).unsigned(0, 4), x.scale())

    def load(arena, step):
        at = step.constant_at
        for difference in range(256):
            value = fixed.softmax_exp(-difference, factor)
            struct.pack_into("<i", arena, at + 4 * difference, value)

        def run():
            for row in range(0, x.size, depth):
                _softmax_row(arena, at, x.at + row, y.at + row, depth)

        return run, ()

    return Step(load, 1024, 0, x.size * _SOFTMAX_WORK)


def _softmax_row(arena, table, x, y, depth):
    top = max(arena[at] for at in range(x, x + depth))
    exps = [
        struct.unpack_from("<i", arena, table + 4 * (top - arena[at]))[0]
        for at in range(x, x + depth)
    ]
    share, shift = fixed.softmax_share(exps)
    for value in exps:
        arena[y] = fixed.softmax_q(value, share, shift) + 128
        y += 1
