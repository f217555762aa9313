"""The operators a model may use: what each demands, how much memory it takes, how it runs.

`OPERATORS` maps the schema's number of an operator to (name, plan). `plan(op)` checks the
operator's tensors and options and returns a Step, or None when the operator only renames its
input. Nothing large is allocated before every operator was checked. A new operator is one
plan function and one line in the table.

Tensor shapes and layouts are TensorFlow Lite's: activations [batch, height, width, channels].
"""

import struct
from array import array

from . import kernels as k
from . import kernels_math as fixed
from .errors import ModelError

MAX_MAP_ENTRIES = 1 << 15  # of one operator's window maps, 2 bytes each
_MAX_LENGTH = 0x7FFF  # of a spatial axis: the maps keep one bit for NO_TAP

INT32 = 2
INT8 = 9
_SAME = 0
_VALID = 1


class Step:
    """One operator, ready to be placed in the arena.

    Attributes:
        load: load(arena, step) fills the constants and returns (function, arguments).
        constant_bytes, constant_at: memory it fills once and keeps, and its place.
        scratch_bytes, scratch_at: memory it needs while it runs, and its place.
        work: multiply-accumulates, or bytes handled where there are none.
    """

    def __init__(self, load, constant_bytes=0, scratch_bytes=0, work=0):
        self.load = load
        self.constant_bytes = constant_bytes
        self.constant_at = 0
        self.scratch_bytes = scratch_bytes
        self.scratch_at = 0
        self.work = work


def _refuse(op, why):
    raise ModelError("model.operator", "%s: %s" % (op.name, why))


def _count(shape):
    total = 1
    for size in shape:
        total *= size
    return total


def _activations(op, inputs=1, at=0):
    """Return the operator's `inputs` activation tensors, the first at `at`, and its output."""
    if len(op.inputs) < at + inputs or len(op.outputs) != 1:
        _refuse(op, "%d inputs and %d outputs" % (len(op.inputs), len(op.outputs)))
    found = op.inputs[at : at + inputs] + op.outputs
    for tensor in found:
        if tensor is None:
            _refuse(op, "an input is missing")
        if tensor.kind != INT8:
            _refuse(op, "%s is not int8" % tensor.label)
        if tensor.channels() != 1:
            _refuse(op, "%s is quantized per channel" % tensor.label)
    for tensor in found[:-1]:
        if tensor.data is not None and op.name != "ADD":
            _refuse(op, "%s is a constant" % tensor.label)
    return found


def _integers(op, at):
    """Return the values of the constant int32 input number `at`."""
    tensor = op.inputs[at] if len(op.inputs) > at else None
    if tensor is None or tensor.kind != INT32 or tensor.data is None:
        _refuse(op, "input %d must be a constant of int32" % at)
    return struct.unpack("<%di" % (len(tensor.data) // 4), tensor.data)


# --- Weighted sums -----------------------------------------------------------------------


def _weights(op, at, rank, channel_axis):
    """Return the constant int8 weights at input `at`, checked to be symmetric."""
    w = op.inputs[at] if len(op.inputs) > at else None
    if w is None or w.kind != INT8 or w.data is None:
        _refuse(op, "the weights must be a constant of int8")
    if len(w.shape) != rank or w.zero_point:
        _refuse(op, "weights of shape %s, zero point %d" % (w.shape, w.zero_point))
    channels = w.channels()
    if channels not in (1, w.shape[channel_axis]) or (channels > 1 and w.axis != channel_axis):
        _refuse(op, "%d weight scales along axis %d" % (channels, w.axis))
    return w


def _bias(op, at, count):
    """Return the bias tensor at input `at`, or None when the operator has none."""
    bias = op.inputs[at] if len(op.inputs) > at else None
    if bias is not None and (bias.kind != INT32 or bias.data is None or bias.shape != (count,)):
        _refuse(op, "the bias must be a constant of %d int32" % count)
    return bias


def _fill_table(arena, at, bias, factors):
    """Write the requantization table; `factors` yields the (m, shift) of each channel."""
    for channel, (m, shift) in enumerate(factors):
        value = struct.unpack_from("<i", bias.data, 4 * channel)[0] if bias else 0
        code = shift << k.LEFT_SHIFT if shift > 0 else -shift
        struct.pack_into("<4i", arena, at, value, 65536 - (m >> 15), m & 0x7FFF, code)
        at += 4 * k.CHANNEL_WORDS


def _factors(x, w, y, channels, single=False):
    """Yield the (m, shift) of each of the output's channels: input times weight over output.

    `single`: the product of the two scales is rounded to binary32.
    """
    factor = None
    for channel in range(channels):
        if factor is None or w.channels() > 1:
            scale = fixed.product(x.scale(), w.scale(channel), single)
            factor = fixed.multiplier(scale, y.scale())
        yield factor


def _range(y, activation):
    low, high = fixed.activation_range(activation, y.scale(), y.zero_point)
    return low + 128, high + 128


class _Window:
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
            _refuse(op, "windows of %s on shape %s are too many" % (taps, x.shape))
        self.x = x
        self.y = y
        self.taps = taps
        self.map_bytes = 2 * entries
        self._row = row
        self._column = column

    def positions(self):
        """Return how many windows there are."""
        return _count(self.y.shape[:3])

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


def _planes(op, at=0, channels=None):
    """Return the activations x (input `at`) and y, both [batch, height, width, channels].

    `channels` is how many y must have, None for as many as x.
    """
    x, y = _activations(op, at=at)
    if len(x.shape) != 4 or len(y.shape) != 4:
        _refuse(op, "%s or %s is not of rank 4" % (x.label, y.label))
    if x.shape[0] != y.shape[0] or y.shape[3] != (channels or x.shape[3]):
        _refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    if max(x.shape[1:3]) > _MAX_LENGTH or max(y.shape[1:3]) > _MAX_LENGTH:
        _refuse(op, "an axis longer than %d" % _MAX_LENGTH)
    return x, y


def _padding(op, padding, size, taps, stride, dilation):
    """Return (outputs, zeros before the input) of one axis."""
    if stride < 1 or dilation < 1 or taps < 1:
        _refuse(op, "stride %d, dilation %d, %d taps" % (stride, dilation, taps))
    reach = (taps - 1) * dilation + 1
    if padding == _SAME:
        out = -(-size // stride)
        return out, max((out - 1) * stride + reach - size, 0) // 2
    if padding != _VALID or size < reach:
        _refuse(op, "padding %d, a window of %d on %d" % (padding, reach, size))
    return (size - reach) // stride + 1, 0


def _forward_window(op, x, y, taps, padding, strides, dilations=(1, 1)):
    """Return the _Window of a convolution or pooling after checking the output's shape."""
    sources = []
    for axis in (0, 1):
        size = x.shape[1 + axis]
        out, pad = _padding(op, padding, size, taps[axis], strides[axis], dilations[axis])
        if out != y.shape[1 + axis]:
            _refuse(op, "output of shape %s" % (y.shape,))
        sources.append(_forward_source(size, strides[axis], dilations[axis], pad))
    return _Window(op, x, y, taps, sources[0], sources[1])


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


def _window_step(kernel, window, lead, activation, work, table=None, sums=0, runs=0):
    """Return the Step of a windowed kernel.

    Args:
        lead: lead(arena) returns the kernel's arguments before its block.
        activation: the schema's number of a fused activation.
        table: (bias, function that returns new `_factors`), or None.
        sums, runs: words of scratch.
    """
    x, y = window.x, window.y
    low, high = _range(y, activation)
    cin, cout = x.shape[-1], y.shape[-1]
    table_bytes = 4 * k.CHANNEL_WORDS * cout if table else 0
    if table:
        for _ in table[1]():  # refuses scales before anything is allocated
            pass

    def load(arena, step):
        at = step.constant_at
        if table:
            _fill_table(arena, at, table[0], table[1]())
        ymap, xmap = window.fill(arena, at + table_bytes)
        rows = y.shape[0] * y.shape[1]
        block = k.window_block(
            (x.at, y.at, step.scratch_at, step.scratch_at + 4 * sums, at, ymap, xmap),
            (rows, y.shape[2]),
            window.taps,
            (x.shape[2], cin, cout),
            (x.zero_point + 128, y.zero_point + 128, low, high),
        )
        return kernel, lead(arena) + (block,)

    # A tap outside the input costs time too.
    work = max(work, window.positions() * window.taps[0] * window.taps[1])
    return Step(load, table_bytes + window.map_bytes, 4 * (sums + runs), work)


def _weighted_step(op, window, w, bias, activation, positions, single=False):
    """Return the Step of a sum over all input channels; w is [cout, ..., cin] in memory.

    `positions` is how often the whole window is laid down.
    """
    cout, cin = w.shape[0], w.shape[-1]
    taps = window.taps[0] * window.taps[1]
    # Runs are separated by taps outside the input, and filled up to a multiple of eight.
    runs = (taps + 1) // 2
    weights = op.readable(w, k.TAIL_BYTES)
    return _window_step(
        k.windows,
        window,
        lambda arena: (0, arena, weights),
        activation,
        positions * cout * taps * cin,
        (bias, lambda: _factors(window.x, w, window.y, cout, single)),
        taps * cin + 7 * runs,
        2 * runs,
    )


def _conv_2d(op):
    w = _weights(op, 1, 4, 0)
    bias = _bias(op, 2, w.shape[0])
    x, y = _planes(op, channels=w.shape[0])
    if x.shape[3] != w.shape[3]:
        _refuse(op, "grouped convolution")
    options = op.options(1)
    strides = options.signed(2, 4), options.signed(1, 4)
    dilations = options.signed(5, 4, 1), options.signed(4, 4, 1)
    window = _forward_window(op, x, y, w.shape[1:3], options.unsigned(0, 1), strides, dilations)
    return _weighted_step(op, window, w, bias, options.unsigned(3, 1), window.positions())


class _Rows:
    """A tensor seen as one plane: [1, 1, rows, channels]."""

    def __init__(self, tensor, channels):
        self._tensor = tensor
        self.shape = 1, 1, tensor.size // channels, channels
        self.zero_point = tensor.zero_point
        self.scale = tensor.scale

    @property
    def at(self):
        return self._tensor.at


def _fully_connected(op):
    x, y = _activations(op)
    w = _weights(op, 1, 2, 0)
    bias = _bias(op, 2, w.shape[0])
    options = op.options(8)
    if options.unsigned(1, 1):
        _refuse(op, "shuffled weights")
    if x.size % w.shape[1] or x.size // w.shape[1] * w.shape[0] != y.size:
        _refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    if x.size // w.shape[1] > _MAX_LENGTH:
        _refuse(op, "more than %d rows" % _MAX_LENGTH)
    x, y = _Rows(x, w.shape[1]), _Rows(y, w.shape[0])
    # A convolution with windows of one row. Unlike the convolutions, it multiplies the scales
    # in binary32, unless the weights have one for each channel.
    window = _Window(op, x, y, (1, 1), lambda o, tap: o, lambda o, tap: o)
    single = w.channels() == 1
    return _weighted_step(op, window, w, bias, options.unsigned(0, 1), x.shape[2], single)


def _transpose_conv(op):
    w = _weights(op, 1, 4, 0)
    bias = _bias(op, 3, w.shape[0])
    x, y = _planes(op, 2, w.shape[0])
    options = op.options(49)
    if _integers(op, 0) != y.shape or x.shape[3] != w.shape[3]:
        _refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    sources = []
    for axis in (0, 1):
        stride = options.signed(2 - axis, 4)
        # Padded like the forward window that leads from the output back to the input.
        _, pad = _padding(
            op, options.unsigned(0, 1), y.shape[1 + axis], w.shape[1 + axis], stride, 1
        )
        sources.append(_backward_source(x.shape[1 + axis], stride, pad))
    window = _Window(op, x, y, w.shape[1:3], sources[0], sources[1])
    return _weighted_step(op, window, w, bias, options.unsigned(3, 1), _count(x.shape[:3]))


def _depthwise_conv_2d(op):
    w = _weights(op, 1, 4, 3)
    cout = w.shape[3]
    bias = _bias(op, 2, cout)
    x, y = _planes(op, channels=cout)
    options = op.options(2)
    if w.shape[0] != 1 or cout % x.shape[3]:
        _refuse(op, "%d channels of weights for %d of input" % (cout, x.shape[3]))
    strides = options.signed(2, 4), options.signed(1, 4)
    dilations = options.signed(6, 4, 1), options.signed(5, 4, 1)
    window = _forward_window(op, x, y, w.shape[1:3], options.unsigned(0, 1), strides, dilations)
    return _window_step(
        k.depthwise,
        window,
        lambda arena: (0, arena, w.data, arena),
        options.unsigned(4, 1),
        window.positions() * _count(w.shape),
        (bias, lambda: _factors(x, w, y, cout)),
        cout,
    )


# --- Windows without weights ---------------------------------------------------------------


def _twice(arena):
    return arena, arena


def _pool(op, kernel, sums):
    x, y = _planes(op)
    _same_quantization(op, x, y)
    options = op.options(5)
    taps = options.signed(4, 4), options.signed(3, 4)
    strides = options.signed(2, 4), options.signed(1, 4)
    window = _forward_window(op, x, y, taps, options.unsigned(0, 1), strides)
    work = y.size * taps[0] * taps[1]
    return _window_step(
        kernel, window, _twice, options.unsigned(5, 1), work, sums=x.shape[3] * sums
    )


def _max_pool_2d(op):
    return _pool(op, k.max_pool, 0)


def _average_pool_2d(op):
    return _pool(op, k.average_pool, 1)


def _resize_nearest_neighbor(op):
    x, y = _planes(op)
    _same_quantization(op, x, y)
    if _integers(op, 1) != y.shape[1:3]:
        _refuse(op, "output of shape %s" % (y.shape,))
    options = op.options(74)
    align, half = options.unsigned(0, 1), options.unsigned(1, 1)
    window = _Window(
        op,
        x,
        y,
        (1, 1),
        lambda o, tap: fixed.nearest_index(o, x.shape[1], y.shape[1], align, half),
        lambda o, tap: fixed.nearest_index(o, x.shape[2], y.shape[2], align, half),
    )
    # One tap per window: the largest value of it is the value.
    return _window_step(k.max_pool, window, _twice, 0, y.size)


def _same_quantization(op, x, y):
    if x.scale() != y.scale() or x.zero_point != y.zero_point:
        _refuse(op, "%s and %s differ in scale or zero point" % (x.label, y.label))


# --- Single values ---------------------------------------------------------------------------


def _clamped(value, low, high):
    return min(max(value, low), high)


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
    x, y = _activations(op)
    if x.size != y.size:
        _refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    return x, y


def _rescaled(op, activation):
    """Return the Step of an operator that changes scale and zero point, and clamps."""
    x, y = _element_wise(op)
    factor = fixed.multiplier(x.scale(), y.scale())
    low, high = fixed.activation_range(activation, y.scale(), y.zero_point)

    def function(q):
        return _clamped(fixed.multiply(q - x.zero_point, factor) + y.zero_point, low, high)

    return _look_up_step(x, y, function)


def _quantize(op):
    return _rescaled(op, 0)


def _relu(op):
    return _rescaled(op, 1)


def _relu6(op):
    return _rescaled(op, 3)


def _logistic(op):
    x, y = _element_wise(op)
    if y.zero_point != -128:
        _refuse(op, "the output's zero point must be -128")
    return _look_up_step(x, y, lambda q: fixed.logistic_q(q, x.zero_point, x.scale()))


def _tanh(op):
    x, y = _element_wise(op)
    return _look_up_step(x, y, lambda q: fixed.tanh_q(q, x.zero_point, x.scale()))


def _is_suffix(short, long):
    """Whether a tensor of shape `short` repeats along the leading axes of one of `long`."""
    while short and short[0] == 1:
        short = short[1:]
    return len(short) <= len(long) and long[len(long) - len(short) :] == short


def _add(op):
    a, b, y = _activations(op, 2)
    if not _is_suffix(b.shape, a.shape):
        a, b = b, a
    if not _is_suffix(b.shape, a.shape) or a.size != y.size:
        _refuse(op, "shapes %s and %s to %s" % (a.shape, b.shape, y.shape))
    low, high = _range(y, op.options(11).unsigned(0, 1))
    # Both operands are brought to twice the larger scale, with 20 more bits.
    scale = max(a.scale(), b.scale(), key=_size)
    common = scale[0], scale[1] + 1
    out_scale = y.scale()
    factor = fixed.multiplier(common, (out_scale[0], out_scale[1] + 20))
    if factor[1] > 0:
        _refuse(op, "the output's scale is too small")
    size, length = a.size, b.size

    def load(arena, step):
        at = step.constant_at
        operands = []
        for tensor in (a, b):
            rescale = fixed.multiplier(tensor.scale(), common)
            # A constant lies in the file as int8, all else in the arena as q + 128.
            flip = 0 if tensor.data is None else 128
            for byte in range(256):
                q = (byte ^ flip) - 128 - tensor.zero_point
                struct.pack_into("<i", arena, at, fixed.multiply(q << 20, rescale))
                at += 4
            operands.append((arena, tensor.at) if tensor.data is None else (tensor.data, 0))
        _fill_table(arena, at, None, [factor])
        block = array(
            "i",
            (
                operands[0][1],
                operands[1][1],
                y.at,
                step.constant_at,
                step.constant_at + 1024,
                at,
                size // length,
                length,
                y.zero_point + 128,
                low,
                high,
                k.WRAP,
            ),
        )
        return k.add, (0, arena, operands[0][0], operands[1][0], block)

    return Step(load, 2 * 1024 + 4 * k.CHANNEL_WORDS, 0, size)


def _size(scale):
    """A key that orders normal scales (m, e) with 24-bit m by size."""
    return scale[1], scale[0]


# --- Reductions and shapes -------------------------------------------------------------------


def _mean(op):
    x, y = _activations(op)
    rank = len(x.shape)
    axes = [axis + rank if axis < 0 else axis for axis in _integers(op, 1)]
    if any(not 0 <= axis < rank for axis in axes):
        _refuse(op, "axes %s" % axes)
    axes = [axis for axis in range(rank) if axis in axes and x.shape[axis] > 1]
    first = axes[0] if axes else 0
    last = axes[-1] + 1 if axes else 0
    if any(axis not in axes and x.shape[axis] > 1 for axis in range(first, last)):
        _refuse(op, "axes %s are not next to each other" % axes)
    outer, count, inner = (
        _count(x.shape[:first]),
        _count(x.shape[first:last]),
        _count(x.shape[last:]),
    )
    if outer * inner != y.size:
        _refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    m, shift = fixed.multiplier(x.scale(), y.scale())
    # The division by `count` goes into the multiplier; a power of two of it into the shift.
    bits = 0
    while count >> (bits + 1) and bits < 31 + shift:
        bits += 1
    factor = (m << bits) // count, shift - bits

    def load(arena, step):
        block = array("i", (x.at, step.scratch_at, outer, count, inner))
        # The sums are of q + 128.
        offset = count * (x.zero_point + 128)

        def run():
            k.sum_axis(arena, arena, arena, block)
            at = step.scratch_at
            for out in range(y.at, y.at + outer * inner):
                total = struct.unpack_from("<i", arena, at)[0] - offset
                arena[out] = _clamped(fixed.multiply(total, factor) + y.zero_point, -128, 127) + 128
                at += 4

        return run, ()

    return Step(load, 0, 4 * outer * inner, x.size)


def _reshape(op):
    """Give the same bytes another shape: the output lies where the input lies."""
    x, y = _activations(op)
    if x.size != y.size:
        _refuse(op, "from shape %s to %s" % (x.shape, y.shape))
    _same_quantization(op, x, y)
    y.lies_in(x)


OPERATORS = {
    0: ("ADD", _add),
    1: ("AVERAGE_POOL_2D", _average_pool_2d),
    3: ("CONV_2D", _conv_2d),
    4: ("DEPTHWISE_CONV_2D", _depthwise_conv_2d),
    9: ("FULLY_CONNECTED", _fully_connected),
    14: ("LOGISTIC", _logistic),
    17: ("MAX_POOL_2D", _max_pool_2d),
    19: ("RELU", _relu),
    21: ("RELU6", _relu6),
    22: ("RESHAPE", _reshape),
    28: ("TANH", _tanh),
    40: ("MEAN", _mean),
    43: ("SQUEEZE", _reshape),
    67: ("TRANSPOSE_CONV", _transpose_conv),
    70: ("EXPAND_DIMS", _reshape),
    97: ("RESIZE_NEAREST_NEIGHBOR", _resize_nearest_neighbor),
    114: ("QUANTIZE", _quantize),
}

# Refused, but by name: what converters write most often besides.
OTHER_NAMES = {
    2: "CONCATENATION",
    6: "DEQUANTIZE",
    16: "LSTM",
    18: "MUL",
    20: "RELU_N1_TO_1",
    23: "RESIZE_BILINEAR",
    25: "SOFTMAX",
    27: "SVDF",
    32: "CUSTOM",
    34: "PAD",
    36: "GATHER",
    39: "TRANSPOSE",
    41: "SUB",
    44: "UNIDIRECTIONAL_SEQUENCE_LSTM",
    45: "STRIDED_SLICE",
    49: "SPLIT",
    53: "CAST",
    74: "SUM",
    77: "SHAPE",
    82: "REDUCE_MAX",
    83: "PACK",
    98: "LEAKY_RELU",
    117: "HARD_SWISH",
}
