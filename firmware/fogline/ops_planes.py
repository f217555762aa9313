"""Operators that move a window over each channel by itself."""

import struct
from array import array

from . import kernels_planes as k
from . import tflite
from .kernels import CHANNEL_WORDS, fast, machine_call
from .kernels_ops import copied, elements, refuse, same_quantization
from .ops_windows import (
    bias_of,
    factors,
    forward_window,
    planes_of,
    weights_of,
    window_step,
)

_TABLE = 4  # word of a windowed kernel's block


def depthwise_conv_2d(op):
    w = weights_of(op, 1, 4, 3)
    cout = w.shape[3]
    bias = bias_of(op, 2, cout)
    x, y = planes_of(op, channels=cout)
    options = op.options(2)
    if w.shape[0] != 1 or cout % x.shape[3]:
        refuse(op, "%d channels of weights for %d of input" % (cout, x.shape[3]))
    strides = options.signed(2, 4), options.signed(1, 4)
    dilations = options.signed(6, 4, 1), options.signed(5, 4, 1)
    window = forward_window(op, x, y, w.shape[1:3], options.unsigned(0, 1), strides, dilations)
    one_each = cout == x.shape[3]
    taps = w.shape[1] * w.shape[2]

    def call(arena, block, quick):
        _take_off(arena, block[_TABLE], w, x.zero_point + 128)
        if one_each and quick and fast("depthwise"):
            weights = _by_channel(w) if tflite.kernel == "rv32" else copied(w)
            return machine_call("depthwise", arena, weights, block)
        words = array("i", bytes(4 * w.size))
        for at, value in enumerate(w.data):
            words[at] = (value ^ 128) - 128
        return k.depthwise, (0, arena, words, block)

    return window_step(
        call,
        window,
        options.unsigned(4, 1),
        window.positions() * elements(w.shape),
        (bias, lambda: factors(x, w, y, cout)),
        max(cout, 2 * taps),
        (x.shape[3] + 3) // 4,
    )


def _take_off(arena, table, w, zero_point):
    """Take the input's zero point times all weights of a channel off its bias in the table."""
    cout = w.shape[3]
    for channel in range(cout):
        total = 0
        for at in range(channel, w.size, cout):
            total += (w.data[at] ^ 128) - 128
        bias = struct.unpack_from("<I", arena, table)[0] - total * zero_point
        struct.pack_into("<I", arena, table, bias & 0xFFFFFFFF)
        table += 4 * CHANNEL_WORDS


def _by_channel(w):
    """Return depthwise weights as [cout][kh][kw]."""
    cout = w.shape[3]
    return bytes(w.data[at] for channel in range(cout) for at in range(channel, w.size, cout))


def _alone(kernel):
    return lambda arena, block: (kernel, (arena, arena, block))


def _pool(op, kernel, sums):
    x, y = planes_of(op)
    same_quantization(op, x, y)
    options = op.options(5)
    taps = options.signed(4, 4), options.signed(3, 4)
    strides = options.signed(2, 4), options.signed(1, 4)
    window = forward_window(op, x, y, taps, options.unsigned(0, 1), strides)
    work = y.size * taps[0] * taps[1]
    return window_step(_alone(kernel), window, options.unsigned(5, 1), work, sums=x.shape[3] * sums)


def max_pool_2d(op):
    return _pool(op, k.max_pool, 0)


def average_pool_2d(op):
    return _pool(op, k.average_pool, 1)
