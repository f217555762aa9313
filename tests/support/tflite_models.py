"""Small full-int8 `.tflite` files at random, from a seed."""

import numpy as np

from tools.bench.tflite_builder import Activation, Kind, ModelBuilder, Operator, Padding

LARGE_PLANE = 200
# Of padding that lies between so many rows a board wants no more.
MAX_PIECES = 1 << 10
# Products of products get ever smaller. Below 6 / 2**31 the interpreters refuse a fused RELU6, and
# below 2**-26 / beta they abort in SOFTMAX, which boards refuse.
MIN_SCALE = 1e-7
# Where exponentials add up to 512, the interpreters' SOFTMAX would shift 32 bits by 32, and aborts.
MAX_SOFTMAX = 511
FUSED = (
    Activation.NONE,
    Activation.NONE,
    Activation.RELU,
    Activation.RELU,
    Activation.RELU6,
    Activation.RELU_N1_TO_1,
)


class RandomModel:
    """A random graph of one to six operators, and random inputs for it.

    Attributes:
        data: the file.
        inputs: one int8 array for each input.
        operators: the schema's numbers of its operators.
    """

    MAX_OPERATORS = 6

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)
        self._builder = ModelBuilder()
        self._inputs = []
        x = self._input(
            (self._pick(1, 1, 2), self._number(1, 9), self._number(1, 12), self._number(1, 9)),
            floating=self._pick(True, False, False, False),
        )
        for _ in range(self._number(1, self.MAX_OPERATORS + 1)):
            candidates = self._ANY
            if len(x.shape) == 4:
                large = x.shape[1] * x.shape[2] > LARGE_PLANE
                candidates += self._PLANES if large else self._PLANES + self._GROWING
            x = getattr(self, self._pick(*candidates))(x)
        if self._pick(True, False, False, False):
            x = self._dequantize(x)
        self.data = self._builder.finish(self._inputs, [x])
        self.operators = frozenset(self._builder.codes)
        self.inputs = [self._values(item) for item in self._inputs]

    # Randomness -------------------------------------------------------------------------

    def _pick(self, *choices):
        return choices[self._rng.integers(len(choices))]

    def _number(self, low, high):
        """A number from `low` to `high` - 1."""
        return int(self._rng.integers(low, high))

    def _int8(self, shape, low=-128):
        return self._rng.integers(low, 128, shape).astype(np.int8)

    def _scale(self, middle):
        return float(np.float32(max(middle * self._rng.uniform(0.4, 2.5), MIN_SCALE)))

    def _zero_point(self):
        return self._pick(-128, 0, self._number(-60, 60), self._number(-128, 128))

    def _values(self, tensor):
        """Random contents of an input; floats go beyond what int8 can hold."""
        if tensor.scale:
            return self._rng.integers(-128, 128, tensor.shape).astype(np.int8)
        values = self._rng.normal(scale=3.0, size=tensor.shape).astype(np.float32)
        # Halves, and what is no normal number.
        flat = values.reshape(-1)
        flat[:: self._number(3, 9)] = self._number(-9, 9) * 0.015625
        flat[0] = self._pick(0.0, -0.0, 1e-42, -3e6, 3e4)
        return values

    def _input(self, shape, *, floating=False):
        made = self._builder.tensor(shape, self._scale(0.03), self._zero_point())
        if not floating:
            self._inputs.append(made)
            return made
        self._inputs.append(self._builder.tensor(shape, kind=Kind.FLOAT32))
        return self._builder.operator(
            Operator.QUANTIZE, [self._inputs[-1]], made, "QuantizeOptions"
        )

    def _dequantize(self, x):
        y = self._builder.tensor(x.shape, kind=Kind.FLOAT32)
        return self._builder.operator(Operator.DEQUANTIZE, [x], y, "DequantizeOptions")

    # Weighted operators -----------------------------------------------------------------

    def _weights(self, x, shape, channels, axis, terms, *, optional_bias=True):
        """Weights, bias (or None) and the scale that suits their sums."""
        builder = self._builder
        per_channel = self._pick(True, True, False)
        scales = [self._scale(0.005) for _ in range(channels if per_channel else 1)]
        # -128 is outside the quantization scheme, but a file can have it.
        data = self._int8(shape, self._pick(-127, -127, -128))
        weights = builder.tensor(shape, scales, data=data, axis=axis)
        bias = None
        if not optional_bias or self._pick(True, True, False):
            values = self._rng.integers(-20_000, 20_000, channels).astype(np.int32)
            if self._pick(True, False, False, False):
                # What a dead channel with a tiny weight scale gets from a converter.
                values[self._number(0, channels)] = self._pick(-(1 << 30), 1 << 30)
            bias = builder.tensor(
                (channels,), [x.scale * scale for scale in scales], kind=Kind.INT32, data=values
            )
        # Now and then so small that sums shift to the left, or by less than two bits to the right.
        middle = self._pick(5000, 5000, 5000, 5000, 5000, 5000, 5000, 10) / 60
        return weights, bias, self._scale(x.scale * 0.005 * middle * terms**0.5)

    def _plane(self, x, padding, taps, stride, dilation):
        """Height and width of a forward window's output."""
        sizes = []
        for axis in (0, 1):
            reach = (taps[axis] - 1) * dilation[axis] + 1
            size = x.shape[1 + axis]
            if padding == Padding.VALID:
                size -= reach - 1
            sizes.append(-(-size // stride[axis]))
        return tuple(sizes)

    def _geometry(self, x, dilate):
        """Padding, taps, strides and dilations that leave at least one output."""
        padding = self._pick(Padding.SAME, Padding.VALID)
        dilation = tuple(self._number(1, 4) for _ in range(2)) if dilate else (1, 1)
        taps = []
        for axis in (0, 1):
            taps.append(self._pick(3, self._number(1, 6)))
            if padding == Padding.VALID:
                while (taps[axis] - 1) * dilation[axis] >= x.shape[1 + axis]:
                    taps[axis] -= 1
        stride = (1, 1) if max(dilation) > 1 else (self._number(1, 4), self._number(1, 4))
        return padding, tuple(taps), stride, dilation

    def _conv_2d(self, x):
        padding, taps, stride, dilation = self._geometry(x, self._pick(True, False))
        cin, cout = x.shape[3], self._number(1, 10)
        weights, bias, scale = self._weights(
            x, (cout, *taps, cin), cout, 0, taps[0] * taps[1] * cin, optional_bias=False
        )  # LiteRT wants one here
        y = self._builder.tensor(
            (x.shape[0], *self._plane(x, padding, taps, stride, dilation), cout),
            scale,
            self._zero_point(),
        )
        return self._builder.operator(
            Operator.CONV_2D,
            [x, weights, bias],
            y,
            "Conv2DOptions",
            padding=padding,
            strideH=stride[0],
            strideW=stride[1],
            dilationHFactor=dilation[0],
            dilationWFactor=dilation[1],
            fusedActivationFunction=self._pick(*FUSED),
        )

    def _depthwise_conv_2d(self, x):
        padding, taps, stride, dilation = self._geometry(x, self._pick(True, False))
        fan = self._pick(1, 1, 2, 3)
        cout = x.shape[3] * fan
        weights, bias, scale = self._weights(x, (1, *taps, cout), cout, 3, taps[0] * taps[1])
        y = self._builder.tensor(
            (x.shape[0], *self._plane(x, padding, taps, stride, dilation), cout),
            scale,
            self._zero_point(),
        )
        return self._builder.operator(
            Operator.DEPTHWISE_CONV_2D,
            [x, weights, bias],
            y,
            "DepthwiseConv2DOptions",
            padding=padding,
            strideH=stride[0],
            strideW=stride[1],
            depthMultiplier=fan,
            dilationHFactor=dilation[0],
            dilationWFactor=dilation[1],
            fusedActivationFunction=self._pick(*FUSED),
        )

    def _transpose_conv(self, x):
        padding = self._pick(Padding.SAME, Padding.VALID)
        taps = self._number(1, 6), self._number(1, 6)
        stride = self._number(1, 4), self._number(1, 4)
        cin, cout = x.shape[3], self._number(1, 8)
        plane = tuple(
            x.shape[1 + axis] * stride[axis]
            if padding == Padding.SAME
            else (x.shape[1 + axis] - 1) * stride[axis] + taps[axis]
            for axis in (0, 1)
        )
        weights, bias, scale = self._weights(
            x, (cout, *taps, cin), cout, 0, max(1, taps[0] * taps[1] * cin // stride[0])
        )
        y = self._builder.tensor((x.shape[0], *plane, cout), scale, self._zero_point())
        return self._builder.operator(
            Operator.TRANSPOSE_CONV,
            [self._builder.constant(y.shape), weights, x, bias],
            y,
            "TransposeConvOptions",
            padding=padding,
            strideH=stride[0],
            strideW=stride[1],
            fusedActivationFunction=self._pick(*FUSED),
        )

    def _fully_connected(self, x):
        terms = int(np.prod(x.shape[1:]))
        cout = self._number(1, 20)
        weights, bias, scale = self._weights(x, (cout, terms), cout, 0, terms)
        y = self._builder.tensor((x.shape[0], cout), scale, self._zero_point())
        return self._builder.operator(
            Operator.FULLY_CONNECTED,
            [x, weights, bias],
            y,
            "FullyConnectedOptions",
            fusedActivationFunction=self._pick(*FUSED),
        )

    # The others -------------------------------------------------------------------------

    def _pool(self, x):
        padding, taps, stride, _ = self._geometry(x, dilate=False)
        y = self._builder.tensor(
            (x.shape[0], *self._plane(x, padding, taps, stride, (1, 1)), x.shape[3]),
            x.scale,
            x.zero_point,
        )
        return self._builder.operator(
            self._pick(Operator.MAX_POOL_2D, Operator.AVERAGE_POOL_2D),
            [x],
            y,
            "Pool2DOptions",
            padding=padding,
            strideH=stride[0],
            strideW=stride[1],
            filterHeight=taps[0],
            filterWidth=taps[1],
            fusedActivationFunction=self._pick(*FUSED),
        )

    def _resize(self, x):
        plane = self._number(1, 20), self._number(1, 20)
        y = self._builder.tensor((x.shape[0], *plane, x.shape[3]), x.scale, x.zero_point)
        align = self._pick(True, False)
        return self._builder.operator(
            Operator.RESIZE_NEAREST_NEIGHBOR,
            [x, self._builder.constant(plane)],
            y,
            "ResizeNearestNeighborOptions",
            alignCorners=align,
            halfPixelCenters=not align and self._pick(True, False),
        )

    def _mean(self, x):
        rank = len(x.shape)
        axes = [rank - 1]
        if rank == 4:
            axes = self._pick([1, 2], [1], [-1], [2, 1], [0, 3], [1, 3], [0, 2], [0, 1, 2, 3])
        gone = {axis % rank for axis in axes}
        keep = len(gone) == rank or self._pick(True, False)
        shape = [
            1 if axis in gone else size
            for axis, size in enumerate(x.shape)
            if keep or axis not in gone
        ]
        y = self._builder.tensor(
            shape, self._pick(x.scale, self._scale(x.scale / 2)), self._zero_point()
        )
        return self._builder.operator(
            Operator.MEAN, [x, self._builder.constant(axes)], y, "ReducerOptions", keepDims=keep
        )

    def _pair(self, x):
        """ADD, SUB or MUL with what can be broadcast."""
        builder = self._builder
        kind = self._pick("input", "itself", "constant", "channels", "scalar", "some", "turned")
        shape = x.shape
        if kind == "itself":
            other = x
        elif kind in {"input", "some", "turned"}:
            if kind == "some":
                shape = tuple(self._pick(size, 1) for size in shape)
            elif kind == "turned" and x.shape[-1] == 1:
                shape = (*x.shape[:-1], self._number(2, 5))
            other = self._input(shape)
        else:
            shape = {"constant": x.shape, "channels": x.shape[-1:], "scalar": (1,)}[kind]
            other = builder.tensor(
                shape, self._scale(x.scale), self._zero_point(), data=self._int8(shape)
            )
        code, options, scale = self._pick(
            (Operator.ADD, "AddOptions", 1.5 * max(x.scale, other.scale)),
            (Operator.SUB, "SubOptions", 1.5 * max(x.scale, other.scale)),
            (Operator.MUL, "MulOptions", 60 * x.scale * other.scale),
        )
        y = builder.tensor(
            np.broadcast_shapes(x.shape, other.shape), self._scale(scale), self._zero_point()
        )
        return builder.operator(
            code,
            [x, other] if self._pick(True, False) else [other, x],
            y,
            options,
            fusedActivationFunction=self._pick(*FUSED),
        )

    def _pad(self, x):
        widths = [
            [self._number(0, 3) * self._pick(0, 1), self._number(0, 3) * self._pick(0, 1)]
            for _ in x.shape
        ]
        last = max((axis for axis, more in enumerate(widths) if any(more)), default=0)
        if np.prod(x.shape[: max(0, last - 1)]) > MAX_PIECES:
            widths[1:] = [[0, 0] for _ in widths[1:]]
        shape = [size + sum(more) for size, more in zip(x.shape, widths, strict=True)]
        y = self._builder.tensor(shape, x.scale, x.zero_point)
        return self._builder.operator(
            Operator.PAD, [x, self._builder.constant(widths)], y, "PadOptions"
        )

    def _concatenate(self, x):
        builder = self._builder
        axis = self._number(0, len(x.shape))
        parts = [x]
        for _ in range(self._number(1, 4)):
            shape = list(x.shape)
            shape[axis] = self._number(1, 4)
            kind = self._pick("input", "constant", "itself")
            if kind == "itself":
                parts.append(x)
                continue
            data = self._int8(shape) if kind == "constant" else None
            part = builder.tensor(shape, x.scale, x.zero_point, data=data)
            if kind == "input":
                self._inputs.append(part)
            parts.insert(self._number(0, len(parts) + 1), part)
        shape = list(x.shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        y = builder.tensor(shape, x.scale, x.zero_point)
        return builder.operator(
            Operator.CONCATENATION,
            parts,
            y,
            "ConcatenationOptions",
            axis=axis - self._pick(0, len(shape)),
        )

    def _softmax(self, x):
        if x.shape[-1] > MAX_SOFTMAX:
            return x
        y = self._builder.tensor(x.shape, 1 / 256, -128)
        return self._builder.operator(
            Operator.SOFTMAX, [x], y, "SoftmaxOptions", beta=self._pick(1.0, 1.0, 0.3, 2.7)
        )

    def _squash(self, x):
        code, scale, zero_point = self._pick(
            (Operator.LOGISTIC, 1 / 256, -128), (Operator.TANH, 1 / 128, 0)
        )
        y = self._builder.tensor(x.shape, scale, zero_point)
        return self._builder.operator(code, [x], y)

    def _rescale(self, x):
        code = self._pick(Operator.RELU, Operator.QUANTIZE)
        y = self._builder.tensor(x.shape, self._scale(x.scale), self._zero_point())
        return self._builder.operator(code, [x], y)

    def _relu6(self, x):
        # TensorFlow Lite Micro clamps without rescaling, so both must be quantized alike.
        y = self._builder.tensor(x.shape, x.scale, x.zero_point)
        return self._builder.operator(Operator.RELU6, [x], y)

    def _reshape(self, x):
        rows, rest = x.shape[0], int(np.prod(x.shape[1:]))
        shape = self._pick((rows, rest), (rows, 1, rest, 1), (rows, rest, 1, 1))
        y = self._builder.tensor(shape, x.scale, x.zero_point)
        return self._builder.operator(
            Operator.RESHAPE,
            [x, self._builder.constant(shape)],
            y,
            "ReshapeOptions",
            newShape=list(shape),
        )

    def _expand_and_squeeze(self, x):
        builder = self._builder
        middle = builder.tensor((x.shape[0], 1, *x.shape[1:]), x.scale, x.zero_point)
        builder.operator(
            Operator.EXPAND_DIMS, [x, builder.constant([1])], middle, "ExpandDimsOptions"
        )
        y = builder.tensor(x.shape, x.scale, x.zero_point)
        return builder.operator(Operator.SQUEEZE, [middle], y, "SqueezeOptions", squeezeDims=[1])

    _ANY = (
        "_fully_connected",
        "_mean",
        "_pair",
        "_pair",
        "_pair",
        "_pad",
        "_concatenate",
        "_softmax",
        "_squash",
        "_rescale",
        "_relu6",
        "_reshape",
        "_expand_and_squeeze",
    )
    _PLANES = (
        "_conv_2d",
        "_conv_2d",
        "_conv_2d",
        "_depthwise_conv_2d",
        "_depthwise_conv_2d",
        "_pool",
        "_pool",
    )
    _GROWING = ("_transpose_conv", "_transpose_conv", "_resize")
