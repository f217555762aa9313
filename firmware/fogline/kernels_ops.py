"""The operators a model may use, and what all of them need.

`OPERATORS` maps the schema's number of an operator to its name and to the function that plans
it, which is loaded when a model needs it: "windows.conv_2d" is `conv_2d` of `ops_windows`. A plan
function takes the operator, checks its tensors and options and returns a Step, or None when the
operator only renames its input. Nothing large is allocated before every operator was checked. A
new operator is one plan function and one line in the table.

Tensor shapes and layouts are TensorFlow Lite's: activations [batch, height, width, channels].
"""

import struct

from . import kernels as k
from . import kernels_math as fixed
from .errors import ModelError
from .tflite import run_all

MAX_PIECES = 1 << 10  # that one operator handles one after the other

FLOAT32 = 0
INT32 = 2
INT8 = 9


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


def refuse(op, why):
    raise ModelError("model.operator", "%s: %s" % (op.name, why))


def bounded(op, pieces):
    if pieces > MAX_PIECES:
        refuse(op, "in %d pieces" % pieces)


def elements(shape):
    total = 1
    for size in shape:
        total *= size
    return total


def activations(op, inputs=1, at=0, constants=False):
    """Return the operator's `inputs` activation tensors, the first at `at`, and its output.

    `constants`: whether an input may be one.
    """
    if len(op.inputs) < at + inputs or len(op.outputs) != 1:
        refuse(op, "%d inputs and %d outputs" % (len(op.inputs), len(op.outputs)))
    found = op.inputs[at : at + inputs] + op.outputs
    for tensor in found:
        if tensor is None:
            refuse(op, "an input is missing")
        if tensor.kind != INT8:
            refuse(op, "%s is not int8" % tensor.label)
        if tensor.channels() != 1:
            refuse(op, "%s is quantized per channel" % tensor.label)
    for tensor in found[:-1]:
        if tensor.data is not None and not constants:
            refuse(op, "%s is a constant" % tensor.label)
    return found


def copied(tensor, more=0):
    """Return a constant's bytes, without the file around them, and `more` zeros."""
    size = len(tensor.data)
    data = bytearray(size + more)
    data[:size] = tensor.data
    return data


def integers(op, at):
    """Return the values of the constant int32 input number `at`."""
    tensor = op.inputs[at] if len(op.inputs) > at else None
    if tensor is None or tensor.kind != INT32 or tensor.data is None:
        refuse(op, "input %d must be a constant of int32" % at)
    return struct.unpack("<%di" % (len(tensor.data) // 4), tensor.data)


def fill_table(arena, at, bias, factors):
    """Write the requantization table; `factors` yields the (m, shift) of each channel.

    Returns whether all shifts are at least 2 to the right: others are rare, and for viper alone.
    """
    quick = True
    for channel, (m, shift) in enumerate(factors):
        value = struct.unpack_from("<i", bias.data, 4 * channel)[0] if bias else 0
        if shift <= -2:
            half, code = 1 << (-shift - 2), -shift - 1
        else:
            half, code = 0, shift << k.LEFT_SHIFT if shift > 0 else -shift
            quick = False
        struct.pack_into("<4i", arena, at, value, m, half, code)
        at += 4 * k.CHANNEL_WORDS
    return quick


def output_range(y, activation):
    low, high = fixed.activation_range(activation, y.scale(), y.zero_point)
    return low + 128, high + 128


def limited(call, arena, y, low, high):
    """Return `call` (function, arguments) so that y ends in its range, where that is not int8's."""
    if low <= 0 and high >= 255:
        return call
    from .kernels_rows import clamp

    return run_all, ((call, (clamp, (arena, y.at, y.size, low << 8 | high))),)


def same_quantization(op, x, y):
    if x.scale() != y.scale() or x.zero_point != y.zero_point:
        refuse(op, "%s and %s differ in scale or zero point" % (x.label, y.label))


def clamped(value, low, high):
    return min(max(value, low), high)


def plan(code, operator):
    """Return the Step, or None, of a supported operator; raises ModelError."""
    module, function = OPERATORS[code][1].split(".")
    module = "ops_" + module
    return getattr(getattr(__import__("fogline." + module), module), function)(operator)


OPERATORS = {
    0: ("ADD", "pairs.add"),
    1: ("AVERAGE_POOL_2D", "planes.average_pool_2d"),
    2: ("CONCATENATION", "rows.concatenation"),
    3: ("CONV_2D", "windows.conv_2d"),
    4: ("DEPTHWISE_CONV_2D", "planes.depthwise_conv_2d"),
    6: ("DEQUANTIZE", "values.dequantize"),
    9: ("FULLY_CONNECTED", "windows.fully_connected"),
    14: ("LOGISTIC", "values.logistic"),
    17: ("MAX_POOL_2D", "planes.max_pool_2d"),
    18: ("MUL", "pairs.mul"),
    19: ("RELU", "values.relu"),
    21: ("RELU6", "values.relu6"),
    22: ("RESHAPE", "rows.reshape"),
    25: ("SOFTMAX", "values.softmax"),
    28: ("TANH", "values.tanh"),
    34: ("PAD", "rows.pad"),
    40: ("MEAN", "rows.mean"),
    41: ("SUB", "pairs.sub"),
    43: ("SQUEEZE", "rows.reshape"),
    67: ("TRANSPOSE_CONV", "windows.transpose_conv"),
    70: ("EXPAND_DIMS", "rows.reshape"),
    97: ("RESIZE_NEAREST_NEIGHBOR", "rows.resize_nearest_neighbor"),
    114: ("QUANTIZE", "values.quantize"),
}

# Refused, but by name: what converters write most often besides. One text, since each word of a
# table would stay in memory as a name.
OTHER_NAMES = (
    "16 LSTM 20 RELU_N1_TO_1 23 RESIZE_BILINEAR 27 SVDF 32 CUSTOM 36 GATHER 39 TRANSPOSE 44 "
    "UNIDIRECTIONAL_SEQUENCE_LSTM 45 STRIDED_SLICE 49 SPLIT 53 CAST 74 SUM 77 SHAPE 82 "
    "REDUCE_MAX 83 PACK 98 LEAKY_RELU 117 HARD_SWISH"
)


def other_name(code):
    """Return the name of an operator that is not in OPERATORS."""
    words = OTHER_NAMES.split()
    number = str(code)
    return words[words.index(number) + 1] if number in words else "operator " + number
