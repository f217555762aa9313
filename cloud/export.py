"""From a Keras model to an int8 `.tflite` that boards run, with proof that they run it alike.

Or that fog nodes run, which have LiteRT itself and more room.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .board_plan import BoardPlan, plan
from .errors import ExportError

# What the firmware's interpreter has (firmware/fogline/tflite.py).
BOARD_OPS = frozenset(
    {
        "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D",
        "DEQUANTIZE", "EXPAND_DIMS", "FULLY_CONNECTED", "LOGISTIC", "MAX_POOL_2D", "MEAN",
        "MUL", "PAD", "QUANTIZE", "RELU", "RELU6", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR",
        "SOFTMAX", "SQUEEZE", "SUB", "TANH", "TRANSPOSE_CONV",
    }
)  # fmt: skip
MAX_MODEL_BYTES = 128 * 1024
# A Pico W has 264 KiB of RAM in all; the firmware's heap must hold more than the arena.
MAX_ARENA_BYTES = 64 * 1024
# A fog node runs several models and a ledger beside them, in a gigabyte or more.
MAX_FOG_MODEL_BYTES = 16 * 1024 * 1024
MAX_FOG_ARENA_BYTES = 128 * 1024 * 1024
REPRESENTATIVE_WINDOWS = 200


@dataclass(frozen=True)
class Target:
    """Where a model is to run, and what there is for it.

    Attributes:
        name: several of them, for errors.
        ops: builtin operators; None where all of LiteRT's are.
        max_bytes: of the file.
        max_arena: bytes of working memory.
    """

    name: str
    ops: frozenset[str] | None
    max_bytes: int
    max_arena: int


BOARD = Target("boards", BOARD_OPS, MAX_MODEL_BYTES, MAX_ARENA_BYTES)
FOG_NODE = Target("fog nodes", None, MAX_FOG_MODEL_BYTES, MAX_FOG_ARENA_BYTES)


@dataclass(frozen=True)
class TfliteModel:
    """A converted model and what must be known to feed it.

    Attributes:
        data: the `.tflite` file.
        ops: builtin operators, sorted.
        plan: what one inference takes on a board.
        input_scale, input_zero, output_scale, output_zero: int8 quantization.
    """

    data: bytes = field(repr=False)
    ops: tuple[str, ...]
    plan: BoardPlan
    input_scale: float
    input_zero: int
    output_scale: float
    output_zero: int

    @property
    def arena(self) -> int:
        """Working memory that a board needs, in bytes; see `BoardPlan`."""
        return self.plan.arena


class Interpreter:
    """LiteRT with the reference kernels, whose results boards must match bit by bit."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter as LiteRt
        from ai_edge_litert.interpreter import OpResolverType

        self._model = LiteRt(
            model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
        )
        self._model.allocate_tensors()
        self._data = data
        self.input = self._model.get_input_details()[0]
        self.output = self._model.get_output_details()[0]

    def run(self, windows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run each window, [count, ...]; returns the outputs, [count, elements]."""
        shape, kind = self.input["shape"], self.input["dtype"]
        outputs = []
        for window in windows:
            self._model.set_tensor(self.input["index"], window.reshape(shape).astype(kind))
            self._model.invoke()
            outputs.append(self._model.get_tensor(self.output["index"]).reshape(-1).copy())
        size = int(np.prod(self.output["shape"]))
        return np.array(outputs, self.output["dtype"]).reshape(-1, size)

    def ops(self) -> tuple[str, ...]:
        """Names of the operators used, sorted."""
        details = self._model._get_ops_details()  # noqa: SLF001 - there is no public way
        return tuple(sorted({str(op["op_name"]) for op in details} - {"DELEGATE"}))

    def plan(self) -> BoardPlan:
        """What one inference takes on a board."""
        details = self._model._get_ops_details()  # noqa: SLF001 - there is no public way
        steps = _steps(self._data)
        return plan(
            [op | {"steps": steps[op["index"]]} for op in details if op["op_name"] != "DELEGATE"],
            {int(tensor["index"]): tensor for tensor in self._model.get_tensor_details()},
            [int(end["index"]) for end in self._model.get_input_details()],
            [int(end["index"]) for end in self._model.get_output_details()],
        )


def _steps(data: bytes) -> list[tuple[int, ...]]:
    """Strides down and right, and dilations, of each depthwise operator.

    LiteRT does not tell; () for other operators.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data)).subgraphs[0]
    found: list[tuple[int, ...]] = []
    for operator in graph.operators:
        options = operator.builtinOptions
        is_depthwise = isinstance(options, schema.DepthwiseConv2DOptionsT)
        found.append(
            (
                options.strideH, options.strideW,
                options.dilationHFactor, options.dilationWFactor,
            ) if is_depthwise else ()
        )  # fmt: skip
    return found


def to_float_tflite(model: Any) -> bytes:
    """Convert without quantizing, to compare with."""
    converted: bytes = _converter(model).convert()
    return converted


def to_int8_tflite(
    model: Any, representative: npt.NDArray[np.float32], target: Target = BOARD
) -> TfliteModel:
    """Quantize to int8 throughout and check that the target can run the result.

    Args:
        model: a Keras model with one input and one output.
        representative: float32 windows that show the range of each tensor.
        target: where it is to run.

    Raises:
        ExportError: an operator that the target lacks, or over its limits.
    """
    import tensorflow as tf

    step = max(1, len(representative) // REPRESENTATIVE_WINDOWS)
    chosen = representative[::step]

    def samples() -> Iterator[list[npt.NDArray[np.float32]]]:
        for window in chosen:
            yield [window[np.newaxis]]

    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # It asks for ranges of inputs, which the samples give.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        data: bytes = converter.convert()
    interpreter = Interpreter(data)
    ops, needs = interpreter.ops(), interpreter.plan()
    check_limits(ops, len(data), needs.arena, target)
    input_scale, input_zero = interpreter.input["quantization"]
    output_scale, output_zero = interpreter.output["quantization"]
    return TfliteModel(
        data=data,
        ops=ops,
        plan=needs,
        input_scale=float(input_scale),
        input_zero=int(input_zero),
        output_scale=float(output_scale),
        output_zero=int(output_zero),
    )


def _converter(model: Any) -> Any:
    """A converter for one window at a time: an open batch size would need SHAPE and PACK."""
    import keras
    import tensorflow as tf

    # Else Keras lists what it has converted on standard output, where the report goes.
    keras.config.disable_interactive_logging()
    given = keras.Input(batch_shape=(1, *model.input_shape[1:]))
    fixed = keras.models.clone_model(model, input_tensors=given)
    fixed.set_weights(model.get_weights())
    return tf.lite.TFLiteConverter.from_keras_model(fixed)


def check_limits(ops: Sequence[str], size: int, arena: int, target: Target = BOARD) -> None:
    """Raise ExportError where a target cannot hold or run a model."""
    if target.ops is not None and (missing := sorted(set(ops) - target.ops)):
        raise ExportError(
            f"model: uses {', '.join(missing)}, which {target.name} do not have",
            f"build it from layers that become {', '.join(sorted(target.ops))}",
        )
    for what, value, most in (
        ("bytes", size, target.max_bytes),
        ("bytes of working memory", arena, target.max_arena),
    ):
        if value > most:
            raise ExportError(
                f"model: has {value} {what}, {target.name} take {most}", "make the network smaller"
            )


def self_tests(
    data: bytes, windows: npt.NDArray[np.int8], count: int
) -> tuple[tuple[bytes, bytes], ...]:
    """Input and output tensors of `count` windows, for boards to check themselves by."""
    chosen = windows[:: max(1, len(windows) // count)][:count]
    outputs = Interpreter(data).run(chosen)
    return tuple((i.tobytes(), o.tobytes()) for i, o in zip(chosen, outputs, strict=True))
