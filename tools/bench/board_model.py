"""Models for `fogline bench board` where none is named."""

from __future__ import annotations

import numpy as np

from cloud.train.architecture import COARSE, CODE, FILTERS, KERNEL, STRIDES
from tools.bench.tflite_builder import Activation, ModelBuilder, Operator, Padding, Tensor
from tools.errors import ToolError

WINDOW = 32
CHANNELS = 8
PLANE = 12
PLANE_CHANNELS = 16
SEED = 1
INPUT_SEED = 37


def auto_encoder(window: int = WINDOW, channels: int = CHANNELS) -> bytes:
    """The network of `cloud.train.architecture`, quantized, with weights at random."""
    rng = np.random.default_rng(SEED)
    builder = ModelBuilder()

    def convolve(x: Tensor, taps: int, stride: int, filters: int, activation: int) -> Tensor:
        scales = rng.uniform(0.002, 0.006, filters)
        data = rng.integers(-127, 128, (filters, taps, 1, x.shape[3])).astype(np.int8)
        weights = builder.tensor(data.shape, list(scales), data=data)
        values = rng.integers(-3000, 3000, filters).astype(np.int32)
        bias = builder.tensor((filters,), list(scales * x.scale), kind=2, data=values)
        same = stride > 1
        height = -(-x.shape[1] // stride) if same else x.shape[1] - taps + 1
        y = builder.tensor((1, height, 1, filters), 0.05, -128 if activation else 3)
        return builder.operator(
            Operator.CONV_2D,
            [x, weights, bias],
            y,
            "Conv2DOptions",
            padding=Padding.SAME if same else Padding.VALID,
            strideH=stride,
            strideW=1,
            fusedActivationFunction=activation,
        )

    given = hidden = builder.tensor((1, window, 1, channels), 0.05, 0)
    for filters, stride in zip(FILTERS, STRIDES, strict=True):
        hidden = convolve(hidden, KERNEL, stride, filters, Activation.RELU)
    hidden = convolve(hidden, hidden.shape[1], 1, CODE, Activation.RELU)
    hidden = convolve(hidden, 1, 1, COARSE * channels, Activation.NONE)
    shape = (1, COARSE, 1, channels)
    coarse = builder.tensor(shape, hidden.scale, hidden.zero_point)
    builder.operator(
        Operator.RESHAPE, [hidden, builder.constant(shape)], coarse, "ReshapeOptions",
        newShape=list(shape),
    )  # fmt: skip
    fine = builder.tensor(given.shape, coarse.scale, coarse.zero_point)
    builder.operator(
        Operator.RESIZE_NEAREST_NEIGHBOR, [coarse, builder.constant([window, 1])], fine,
        "ResizeNearestNeighborOptions", halfPixelCenters=True,
    )  # fmt: skip
    y = builder.tensor(given.shape, 0.07, -2)
    builder.operator(Operator.ADD, [given, fine], y, "AddOptions")
    return builder.finish([given], [y])


def small_layers(size: int = PLANE, channels: int = PLANE_CHANNELS) -> bytes:
    """A network of layers with few multiply-accumulates per output, with weights at random."""
    rng = np.random.default_rng(SEED)
    builder = ModelBuilder()

    def weights(shape: tuple[int, ...], filters: int, axis: int, scale: float) -> list[Tensor]:
        scales = rng.uniform(0.002, 0.006, filters)
        data = rng.integers(-127, 128, shape).astype(np.int8)
        values = rng.integers(-3000, 3000, filters).astype(np.int32)
        return [
            builder.tensor(shape, list(scales), data=data, axis=axis),
            builder.tensor((filters,), list(scales * scale), kind=2, data=values),
        ]

    given = builder.tensor((1, size, size, channels), 0.05, 0)
    taps = (1, 3, 3, channels)
    y = builder.tensor(given.shape, 0.05, -128)
    hidden = builder.operator(
        Operator.DEPTHWISE_CONV_2D, [given, *weights(taps, channels, 3, 0.05)], y,
        "DepthwiseConv2DOptions", padding=Padding.SAME, strideH=1, strideW=1, depthMultiplier=1,
        fusedActivationFunction=Activation.RELU,
    )  # fmt: skip
    half = channels // 2
    y = builder.tensor((1, size, size, half), 0.05, 3)
    hidden = builder.operator(
        Operator.CONV_2D, [hidden, *weights((half, 1, 1, channels), half, 0, 0.05)], y,
        "Conv2DOptions", padding=Padding.VALID, strideH=1, strideW=1,
    )  # fmt: skip
    y = builder.tensor((1, size // 2, size // 2, half), 0.05, 3)
    hidden = builder.operator(
        Operator.MAX_POOL_2D, [hidden], y, "Pool2DOptions",
        padding=Padding.VALID, strideH=2, strideW=2, filterHeight=2, filterWidth=2,
    )  # fmt: skip
    for width in (4 * half, half):
        x = hidden.shape[1] * hidden.shape[2] * half if len(hidden.shape) == 4 else hidden.shape[1]
        y = builder.tensor((1, width), 0.2, -128 if width > half else 0)
        hidden = builder.operator(
            Operator.FULLY_CONNECTED, [hidden, *weights((width, x), width, 0, hidden.scale)], y,
            "FullyConnectedOptions",
            fusedActivationFunction=Activation.RELU if width > half else Activation.NONE,
        )  # fmt: skip
    y = builder.tensor(hidden.shape, 1 / 256, -128)
    builder.operator(Operator.LOGISTIC, [hidden], y)
    return builder.finish([given], [y])


def reference(data: bytes) -> tuple[bytes, bytes]:
    """Give inputs, and what LiteRT's reference kernels make of them.

    Byte i of the inputs is (i * INPUT_SEED) & 255.

    Raises ToolError for a model that LiteRT refuses.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        litert = Interpreter(
            model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
        )
        litert.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ToolError(f"LiteRT refuses the model: {error}; name a .tflite file") from error
    given = b""
    for details in litert.get_input_details():
        empty = np.zeros(details["shape"], details["dtype"])
        numbers = np.arange(len(given), len(given) + empty.nbytes)
        values = (numbers * INPUT_SEED & 255).astype(np.uint8)
        litert.set_tensor(details["index"], values.view(details["dtype"]).reshape(empty.shape))
        given += values.tobytes()
    litert.invoke()
    outputs = [litert.get_tensor(details["index"]) for details in litert.get_output_details()]
    return given, b"".join(np.asarray(output).tobytes() for output in outputs)
