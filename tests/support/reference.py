"""The interpreters whose answers the board's must equal.

TensorFlow Lite Micro's reference kernels are the definition. LiteRT gives the same bytes where
it is told to use its reference kernels (`BUILTIN_REF`), but for four operators: it rounds a
FULLY_CONNECTED sum once, where TensorFlow Lite Micro rounds twice, so some values differ by
one; it makes MUL's multiplier of the scales in single precision, not in double, so that one
product in a million or so differs by one; LOGISTIC and TANH differ by one where the true value
lies between two, as happens with input scales that are powers of two, and for scales above 4.
LiteRT's default, XNNPACK, rounds differently in most operators.
"""

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_micro import runtime

ARENA_BYTES = 1 << 20
LITERT_DIFFERS = {"FULLY_CONNECTED", "LOGISTIC", "MUL", "TANH"}


def run_tflite_micro(data, inputs):
    """Return the bytes of a model's first output under TensorFlow Lite Micro."""
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=ARENA_BYTES)
    for index, values in enumerate(inputs):
        interpreter.set_input(values, index)
    interpreter.invoke()
    return np.asarray(interpreter.get_output(0)).tobytes()


def run_litert(data, inputs):
    """Return the bytes of a model's first output under LiteRT's reference kernels."""
    interpreter = Interpreter(
        model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    for details, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tobytes()
