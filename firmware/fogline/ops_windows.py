"""Operators with windows of weights over all channels, and how windows lie on their input."""

import struct

from . import kernels as k
from . import kernels_math as fixed
from .kernels_ops import (
    INT8,
    INT32,
    Step,
    activations,
    copied,
    elements,
    fill_table,
    integers,
    limited,
    output_range,
    refuse,
)

MAX_MAP_ENTRIES = 1 << 15  # of one operator's window maps, 2 bytes each
_MAX_LENGTH = 0x7FFF  # of a spatial axis: the maps keep one bit for NO_TAP
_SAME = 0
_VALID = 1


def weights_of(op, at, rank, channel_axis):
    """Return the constant int8 weights at input `at`, checked to be symmetric."""
    w = op.inputs[at] if len(op.inputs) > at else None
    if w is None or w.kind != INT8 or w.data is None:
        refuse(op, "the weights must be a constant of int8")
    if len(w.shape) != rank or w.zero_point:
        refuse(op, "weights of shape %s, zero point %d" % (w.shape, w.zero_point))
    channels = w.channels()
    if channels not in (1, w.shape[channel_axis]) or (channels > 1 and w.axis != channel_axis):
        refuse(op, "%d weight scales along axis %d" % (channels, w.axis))
    return w


def bias_of(op, at, count):
    """Return the bias tensor at input `at`, or None when the operator has none."""
    bias = op.inputs[at] if len(op.inputs) > at else None
    if bias is not None and (bias.kind != INT32 or bias.data is None or bias.shape != (count,)):
        refuse(op, "the bias must be a constant of %d int32" % count)
    return bias


def factors(x, w, y, channels, single=False):
    """Yield the (m, shift) of each of the output's channels: input times weight over output.

    `single`: the product of the two scales is rounded to binary32.
    """
    factor = None
    for channel in range(channels):
        if factor is None or w.channels() > 1:
            scale = fixed.product(x.scale(), w.scale(channel), single)
            factor = fixed.multiplier(scale, y.scale())
        yield factor


class Window:
    """How the windows of one operator lie on its input; see `kernels.window_block`.

    Args:
        x, y: tensors, both [batch, height, width, channels].
        taps: rows and columns of the window.
        row, column: row(o, tap) returns the input row that tap `tap` of output row `o` reads,
            or NO_TAP; column(o, tap) the same for columns.
    """

    def __init__(self, op, x, y, taps, row, column):
        entries = y.shape[0] * y.shape[1] * taps[0] + y.shape[2] * taps[1]
        if entries > MAX_MAP_ENTRIES or x.shape[0] * x.shape[1] > _MAX_LENGTH:
            refuse(op, "windows of %s on shape %s are too many" % (taps, x.shape))
        self.x = x
        self.y = y
        self.taps = taps
        self.map_bytes = 2 * entries
        self._row = row
        self._column = column

    def positions(self):
        """Return how many windows there are."""
        return elements(self.y.shape[:3])

    def input_columns(self, fresh):
        """Yield the input columns of a row's windows, of each but the first the last `fresh`."""
        for o in range(self.y.shape[2]):
            for tap in range(self.taps[1] - fresh if o else 0, self.taps[1]):
                yield self._column(o, tap)

    def fill(self, arena, at):
        """Write the maps to the arena; returns the offsets of both."""
        ymap = at
        for batch in range(self.y.shape[0]):
            for o in range(self.y.shape[1]):
                for tap in range(self.taps[0]):
                    row = self._row(o, tap)
                    if row != k.NO_TAP:  # batches are further rows
                        row += batch * self.x.shape[1]
                    struct.pack_into("<H", arena, at, row)
                    at += 2
        xmap = at
        for o in range(self.y.shape[2]):
            for tap in range(self.taps[1]):
                struct.pack_into("<H", arena, at, self._column(o, tap))
                at += 2
        return ymap, xmap


def planes_of(op, at=0, channels=None):
    """Return the activations x (input `at`) and y, both [batch, height, width, channels].

    `channels` is how many y must have, None for as many as x.
    """
    x, y = activations(op, at=at)
    if len(x.shape) != 4 or len(y.shape) != 4:
        refuse(op, "%s or %s is not of rank 4" % (x.label, y.label))
    if x.shape[0] != y.shape[0] or y.shape[3] != (channels or x.shape[3]):
        refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    if max(x.shape[1:3]) > _MAX_LENGTH or max(y.shape[1:3]) > _MAX_LENGTH:
        refuse(op, "an axis longer than %d" % _MAX_LENGTH)
    return x, y


def _padding(op, padding, size, taps, stride, dilation):
    """Return (outputs, zeros before the input) of one axis."""
    if stride < 1 or dilation < 1 or taps < 1:
        refuse(op, "stride %d, dilation %d, %d taps" % (stride, dilation, taps))
    reach = (taps - 1) * dilation + 1
    if padding == _SAME:
        out = -(-size // stride)
        return out, max((out - 1) * stride + reach - size, 0) // 2
    if padding != _VALID or size < reach:
        refuse(op, "padding %d, a window of %d on %d" % (padding, reach, size))
    return (size - reach) // stride + 1, 0


def forward_window(op, x, y, taps, padding, strides, dilations=(1, 1)):
    """Return the Window of a convolution or pooling after checking the output's shape."""
    sources = []
    for axis in (0, 1):
        size = x.shape[1 + axis]
        out, pad = _padding(op, padding, size, taps[axis], strides[axis], dilations[axis])
        if out != y.shape[1 + axis]:
            refuse(op, "output of shape %s" % (y.shape,))
        sources.append(_forward_source(size, strides[axis], dilations[axis], pad))
    return Window(op, x, y, taps, sources[0], sources[1])


def _forward_source(size, stride, dilation, pad):
    def source(o, tap):
        at = o * stride - pad + tap * dilation
        return at if 0 <= at < size else k.NO_TAP

    return source


def _backward_source(size, stride, pad):
    def source(o, tap):
        at = o + pad - tap
        return at // stride if at % stride == 0 and 0 <= at < size * stride else k.NO_TAP

    return source


def window_step(call, window, activation, work, table=None, sums=0, runs=0):
    """Return the Step of a windowed kernel.

    Args:
        call: call(arena, block) returns the kernel and its arguments; with a table,
            call(arena, block, quick), see `fill_table`.
        activation: the schema's number of a fused activation.
        table: (bias, function that returns new `factors`), or None.
        sums, runs: words of scratch.
    """
    x, y = window.x, window.y
    low, high = output_range(y, activation)
    cin, cout = x.shape[-1], y.shape[-1]
    table_bytes = 4 * k.CHANNEL_WORDS * cout if table else 0
    if table:
        for _ in table[1]():  # refuses scales before anything is allocated
            pass

    def load(arena, step):
        at = step.constant_at
        quick = fill_table(arena, at, table[0], table[1]()) if table else False
        ymap, xmap = window.fill(arena, at + table_bytes)
        rows = y.shape[0] * y.shape[1]
        block = k.window_block(
            (x.at, y.at, step.scratch_at, step.scratch_at + 4 * sums, at, ymap, xmap),
            (rows, y.shape[2]),
            window.taps,
            (x.shape[2], cin, cout),
            (x.zero_point + 128, y.zero_point + 128, low, high),
        )
        if table:
            return limited(call(arena, block, quick), arena, y, low, high)
        return call(arena, block)

    # A tap outside the input costs time too.
    work = max(work, window.positions() * window.taps[0] * window.taps[1])
    return Step(load, table_bytes + window.map_bytes, 4 * (sums + runs), work)


def _weighted_step(window, w, bias, activation, positions, single=False):
    """Return the Step of a sum over all input channels; w is [cout, ..., cin] in memory.

    `positions` is how often the whole window is laid down.
    """
    cout, cin = w.shape[0], w.shape[-1]
    taps = window.taps[0] * window.taps[1]
    # Runs are separated by taps outside the input, and filled up to a multiple of eight.
    runs = (taps + 1) // 2
    return window_step(
        lambda arena, block, quick: k.windows_call(arena, copied(w, k.TAIL_BYTES), block, quick),
        window,
        activation,
        positions * cout * taps * cin,
        (bias, lambda: factors(window.x, w, window.y, cout, single)),
        taps * cin + 7 * runs,
        2 * runs,
    )


def conv_2d(op):
    w = weights_of(op, 1, 4, 0)
    bias = bias_of(op, 2, w.shape[0])
    x, y = planes_of(op, channels=w.shape[0])
    if x.shape[3] != w.shape[3]:
        refuse(op, "grouped convolution")
    options = op.options(1)
    strides = options.signed(2, 4), options.signed(1, 4)
    dilations = options.signed(5, 4, 1), options.signed(4, 4, 1)
    window = forward_window(op, x, y, w.shape[1:3], options.unsigned(0, 1), strides, dilations)
    return _weighted_step(window, w, bias, options.unsigned(3, 1), window.positions())


class Rows:
    """A tensor seen as one plane: [1, 1, rows, channels]."""

    def __init__(self, tensor, channels):
        self._tensor = tensor
        self.shape = 1, 1, tensor.size // channels, channels
        self.size = tensor.size
        self.zero_point = tensor.zero_point
        self.scale = tensor.scale

    @property
    def at(self):
        return self._tensor.at


def fully_connected(op):
    x, y = activations(op)
    w = weights_of(op, 1, 2, 0)
    bias = bias_of(op, 2, w.shape[0])
    options = op.options(8)
    if options.unsigned(1, 1):
        refuse(op, "shuffled weights")
    if x.size % w.shape[1] or x.size // w.shape[1] * w.shape[0] != y.size:
        refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    if x.size // w.shape[1] > _MAX_LENGTH:
        refuse(op, "more than %d rows" % _MAX_LENGTH)
    x, y = Rows(x, w.shape[1]), Rows(y, w.shape[0])
    # A convolution with windows of one row. Unlike the convolutions, it multiplies the scales
    # in binary32, unless the weights have one for each channel.
    window = Window(op, x, y, (1, 1), lambda o, tap: o, lambda o, tap: o)
    single = w.channels() == 1
    return _weighted_step(window, w, bias, options.unsigned(0, 1), x.shape[2], single)


def transpose_conv(op):
    w = weights_of(op, 1, 4, 0)
    bias = bias_of(op, 3, w.shape[0])
    x, y = planes_of(op, 2, w.shape[0])
    options = op.options(49)
    if integers(op, 0) != y.shape or x.shape[3] != w.shape[3]:
        refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    sources = []
    for axis in (0, 1):
        stride = options.signed(2 - axis, 4)
        # Padded like the forward window that leads from the output back to the input.
        _, pad = _padding(
            op, options.unsigned(0, 1), y.shape[1 + axis], w.shape[1 + axis], stride, 1
        )
        sources.append(_backward_source(x.shape[1 + axis], stride, pad))
    window = Window(op, x, y, w.shape[1:3], sources[0], sources[1])
    return _weighted_step(window, w, bias, options.unsigned(3, 1), elements(x.shape[:3]))
