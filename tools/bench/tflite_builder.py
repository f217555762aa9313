"""Writes small full-int8 `.tflite` files straight through TensorFlow Lite's own schema.

No TensorFlow is imported, so a hundred models take a moment, and shapes and scales that no
converter would choose can be asked for too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

Operator: Any = schema.BuiltinOperator
Kind: Any = schema.TensorType
Padding: Any = schema.Padding
Activation: Any = schema.ActivationFunctionType


@dataclass(frozen=True)
class Tensor:
    """What the builder remembers of a tensor; scale and zero point of the first channel."""

    index: int
    shape: tuple[int, ...]
    scale: float
    zero_point: int


@dataclass
class ModelBuilder:
    """Collects the tensors and operators of one graph and writes the file."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int],
        scale: float | Sequence[float] | None = None,
        zero_point: int = 0,
        *,
        kind: int = Kind.INT8,
        data: Any = None,
        axis: int = 0,
    ) -> Tensor:
        """Add a tensor; `scale` is a list for quantization per channel along `axis`."""
        made = schema.TensorT()
        made.shape = [int(size) for size in shape]
        made.type = kind
        made.name = f"t{len(self.tensors)}".encode()
        made.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(self.buffers)
            self.buffers.append(buffer)
        scales = np.atleast_1d(np.array([] if scale is None else scale, np.float32))
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = scales
            made.quantization.zeroPoint = np.full(len(scales), zero_point, np.int64)
            made.quantization.quantizedDimension = axis
        self.tensors.append(made)
        first = 0.0 if scale is None else float(scales[0])
        return Tensor(len(self.tensors) - 1, tuple(made.shape), first, zero_point)

    def constant(self, values: Any) -> Tensor:
        """Add a constant of int32, such as axes or a shape."""
        data = np.array(values, np.int32)
        return self.tensor(data.shape, kind=Kind.INT32, data=data)

    def operator(
        self,
        code: int,
        inputs: Sequence[Tensor | None],
        output: Tensor,
        options: str | None = None,
        **fields: Any,
    ) -> Tensor:
        """Add an operator; `options` names its options table, `fields` are set in it."""
        if code not in self.codes:
            self.codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = self.codes.index(code)
        made.inputs = [item.index for item in inputs if item is not None]
        made.outputs = [output.index]
        if options is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, options + "T")()
            for name, value in fields.items():
                if not hasattr(made.builtinOptions, name):
                    raise AttributeError(f"{options} has no {name}")
                setattr(made.builtinOptions, name, value)
        self.operators.append(made)
        return output

    def finish(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bytes:
        """Return the file's bytes."""
        model = schema.ModelT()
        model.version = 3
        model.buffers = self.buffers
        model.operatorCodes = []
        for code in self.codes:
            made = schema.OperatorCodeT()
            made.builtinCode = code
            made.deprecatedBuiltinCode = min(code, 127)
            made.version = 1
            model.operatorCodes.append(made)
        graph = schema.SubGraphT()
        graph.tensors = self.tensors
        graph.operators = self.operators
        graph.inputs = [item.index for item in inputs]
        graph.outputs = [item.index for item in outputs]
        model.subgraphs = [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
