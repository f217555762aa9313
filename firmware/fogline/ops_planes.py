"""Operators that move a window over each channel by itself."""

from . import kernels_planes as k
from .kernels import fast, machine_call
from .kernels_ops import copied, elements, refuse, same_quantization
from .ops_windows import (
    bias_of,
    factors,
    forward_window,
    planes_of,
    weights_of,
    window_step,
)


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

    def call(arena, block):
        if one_each and fast("windows"):
            return machine_call(arena, copied(w), block, depthwise=1)
        return k.depthwise, (0, arena, copied(w), arena, block)

    return window_step(
        call,
        window,
        options.unsigned(4, 1),
        window.positions() * elements(w.shape),
        (bias, lambda: factors(x, w, y, cout)),
        max(cout, 2 * window.taps[0] * window.taps[1]),
    )


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
