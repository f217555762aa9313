"""Operators that move a window over each channel by itself."""

import struct
from array import array

from micropython import const

from . import kernels_planes as k
from . import tflite
from .kernels import CHANNEL_WORDS, NO_TAP, fast, machine_call
from .kernels_ops import copied, elements, refuse, same_quantization
from .ops_windows import (
    Rows,
    bias_of,
    factors,
    forward_window,
    planes_of,
    weights_of,
    window_step,
)

_SLOW = const(1 << 29)  # in a table's fourth word, as in `kernels_planes`
_MOST_CODE = const(18)  # in a table, of a shift whose rounding leaves that bit alone
_TABLE = const(4)  # word of a windowed kernel's block


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
    taps = w.shape[1:3]
    if x.shape[0] == x.shape[2] == y.shape[2] == taps[1] == 1:
        # One column, such as a series in time, is one row, too: kernels begin less often.
        x, y = Rows(x, x.shape[3]), Rows(y, cout)
        taps, strides, dilations = map(_turned, (taps, strides, dilations))
    window = forward_window(op, x, y, taps, options.unsigned(0, 1), strides, dilations)
    one_each = cout == x.shape[3]
    height, width = taps
    # Of a window behind another, so many columns are not that one's, too.
    fresh = width if dilations[1] > 1 else min(strides[1], width)

    def call(arena, block, quick):
        machine = one_each and quick and fast("depthwise")
        split = not machine or tflite.kernel == "thumb"
        _settle(arena, block[_TABLE], w, x.zero_point + 128, split)
        if machine:
            weights = _by_channel(w) if tflite.kernel == "rv32" else copied(w)
            return machine_call("depthwise", arena, weights, block)
        block.extend(array("i", (dilations[1] * x.shape[3], 4 * fresh * height)))
        for run in _runs(window.input_columns(fresh), dilations[1]):
            block.extend(array("i", run))
        block.append(0)
        words = array("i", bytes(4 * w.size))
        at = 0
        for channel in range(cout):
            for column in range(width):
                for place in range(column * cout + channel, w.size, width * cout):
                    words[at] = (w.data[place] ^ 128) - 128
                    at += 1
        return k.depthwise, (0, arena, words, block)

    strip = (width + (y.shape[2] - 1) * fresh) * height
    return window_step(
        call,
        window,
        options.unsigned(4, 1),
        window.positions() * elements(w.shape),
        (bias, lambda: factors(x, w, y, cout)),
        max(strip, 2 * height * width),
        (x.shape[3] + 3) // 4,
    )


def _turned(axes):
    return axes[1], axes[0]


def _runs(columns, pace):
    """Yield (how many, the first) of columns that follow each other `pace` apart, or NO_TAP."""
    count = first = 0
    for column in columns:
        if count and column == (first if first == NO_TAP else first + count * pace):
            count += 1
            continue
        if count:
            yield count, first
        count, first = 1, column
    yield count, first


def _settle(arena, table, w, zero_point, split):
    """Fit a requantization table to sums of inputs that have their zero point still.

    That times all weights of a channel is taken off the channel's bias. `split`: the multiplier
    is put in three parts, m >> 21, m >> 10 & 2047 and m & 1023, where no sum comes to 2**20: so
    each part's product has 32 bits. Behind the parts, 16 bits each, stand the whole shift and, in
    a word, what rounds. Where sums may be larger, or shifts are out of the ordinary, the entry
    stays as `kernels_ops.fill_table` made it and has _SLOW in its last word.
    """
    cout = w.shape[3]
    reach = (1 << 20) - (w.size // cout) * 255 * 128
    for channel in range(cout):
        total = 0
        for at in range(channel, w.size, cout):
            total += (w.data[at] ^ 128) - 128
        bias, m, half, code = struct.unpack_from("<4i", arena, table)
        if split:
            if abs(bias) < reach and half and code <= _MOST_CODE:
                m, half = m >> 21 | (m >> 10 & 2047) << 16, m & 1023 | code + 11 << 16
                code = (1 << code + 10) + 512
            else:
                code |= _SLOW
        bias = bias - total * zero_point & 0xFFFFFFFF
        struct.pack_into("<I3i", arena, table, bias, m, half, code)
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
