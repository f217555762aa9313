"""What a model takes on a board: working memory, multiplications, and about how long.

Plans as the firmware does (`tflite_plan`), to the byte: tensors and what operators need share one
arena, placed by when they are needed, the largest first. The windows of pools are guessed, since
LiteRT does not tell them: with one, a plan is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

# Of the firmware's kernels: a requantization table takes so much for each output channel,
CHANNEL_BYTES = 16
# operators keep tables of an operand's values,
TABLE_BYTES = {
    "ADD": 2048 + CHANNEL_BYTES, "SUB": 2048 + CHANNEL_BYTES, "MUL": CHANNEL_BYTES,
    "MEAN": CHANNEL_BYTES, "SOFTMAX": 1024, "DEQUANTIZE": 1024, "QUANTIZE": 256,
    "LOGISTIC": 256, "RELU": 256, "RELU6": 256, "TANH": 256,
}  # fmt: skip
# or give a tensor another name.
_RENAMING = frozenset({"EXPAND_DIMS", "RESHAPE", "SQUEEZE"})
_WEIGHTED = frozenset({"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
POOLS = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D"})
_WINDOWED = POOLS | {"DEPTHWISE_CONV_2D"}
# Instructions of the viper kernels (firmware/README.md): a multiply-accumulate, an output.
INSTRUCTIONS_PER_MAC = 14
INSTRUCTIONS_PER_OUTPUT = 250


@dataclass(frozen=True)
class BoardPlan:
    """What one inference takes.

    Attributes:
        arena: bytes that the firmware takes at once; with a pool a little more or less. `model
            release` asks the firmware's own interpreter.
        macs: multiply-accumulates.
        outputs: bytes that operators write.
    """

    arena: int
    macs: int
    outputs: int

    def seconds(self, clock_hz: float) -> float:
        """About how long it takes at one instruction per clock: boards are no faster."""
        return (
            self.macs * INSTRUCTIONS_PER_MAC + self.outputs * INSTRUCTIONS_PER_OUTPUT
        ) / clock_hz


@dataclass
class _Block:
    """A stretch of the arena, alive from step `first` to `last`."""

    size: int
    first: int
    last: int
    at: int = 0

    def __post_init__(self) -> None:
        """Blocks are of whole words."""
        self.size = (self.size + 3) & ~3


def plan(
    ops: Sequence[Mapping[str, Any]], tensors: Mapping[int, Mapping[str, Any]],
    inputs: Sequence[int], outputs: Sequence[int],
) -> BoardPlan:  # fmt: skip
    """Plan a model.

    Args:
        ops: operators in the order they run: `op_name`, numbers of tensors as `inputs` and
            `outputs`, and of depthwise ones `steps`: strides down and right, and dilations.
        tensors: `shape` and `dtype` of each by its number.
        inputs, outputs: numbers of the model's own.
    """
    alive: dict[int, _Block] = {at: _Block(_bytes(tensors[at]), -1, -1) for at in inputs}
    others: list[_Block] = []
    macs = written = 0
    for step, op in enumerate(ops):
        name = str(op["op_name"])
        given = [int(at) for at in op["inputs"] if int(at) >= 0]
        made = [int(at) for at in op["outputs"]]
        for at in given:
            if at in alive:
                alive[at].last = max(alive[at].last, step)
        if name in _RENAMING and given[0] in alive:
            alive[made[0]] = alive[given[0]]
            continue
        for at in made:
            alive[at] = _Block(_bytes(tensors[at]), step, step)
            written += prod(map(int, tensors[at]["shape"]))
        shapes = [_shape(tensors, at) for at in (*given, *made)]
        kept, scratch, multiplied = _needs(name, shapes, op["steps"])
        if name == "QUANTIZE" and tensors[given[0]]["dtype"] == np.float32:
            kept = 0  # it computes; between two scales of int8 it looks up
        macs += multiplied
        others += [_Block(kept, -1, len(ops)), _Block(scratch, step, step)]
    for at in outputs:
        alive[at].last = len(ops)
    # Tensors that share a place share a block.
    blocks = {id(block): block for block in alive.values()}
    return BoardPlan(_place([*blocks.values(), *others]), macs, written)


def _needs(
    name: str, shapes: Sequence[tuple[int, ...]], steps: tuple[int, ...]
) -> tuple[int, int, int]:
    """Bytes kept and bytes of scratch of an operator, and its multiply-accumulates.

    Args:
        name: of the operator.
        shapes: of its inputs, and last of its output.
        steps: see `plan`.
    """
    x, y = shapes[0], shapes[-1]
    if name == "FULLY_CONNECTED":
        cout, cin = shapes[1]
        count = prod(y) // cout
        # A convolution of one tap over so many columns.
        return CHANNEL_BYTES * cout + 2 * (1 + count), 4 * (cin + 9), count * cin * cout
    if name in _WEIGHTED:
        weights = shapes[1]
        if name == "TRANSPOSE_CONV":  # its first input is the output's shape
            x = shapes[2]
        taps = weights[1], weights[2]
        runs = (prod(taps) + 1) // 2
        kept = CHANNEL_BYTES * weights[0] + _map_bytes(y, taps)
        laid = prod(x[:3]) if name == "TRANSPOSE_CONV" else prod(y[:3])
        return kept, 4 * (prod(taps) * weights[3] + 9 * runs), laid * prod(weights)
    if name in _WINDOWED:
        if name in POOLS:
            # LiteRT does not tell the window: it is no larger than what it slides over.
            return _map_bytes(y, (x[1], x[2])), 4 * y[3] if name == "AVERAGE_POOL_2D" else 0, 0
        taps = shapes[1][1], shapes[1][2]
        kept = CHANNEL_BYTES * y[3] + _map_bytes(y, taps)
        strip, outside = _strip_words(x, y, taps, steps), -(-x[3] // 4)
        return kept, 4 * (max(strip, 2 * prod(taps)) + outside), prod(y) * prod(taps)
    if name == "RESIZE_NEAREST_NEIGHBOR":
        return _map_bytes(y, (1, 1)), 0, 0
    return TABLE_BYTES.get(name, 0), 4 * prod(y) if name == "MEAN" else 0, 0


def _strip_words(
    x: tuple[int, ...], y: tuple[int, ...], taps: tuple[int, int], steps: tuple[int, ...]
) -> int:
    """A row's windows, of four channels, laid side by side: what two share is there once."""
    height, width = taps
    down, right, apart_down, apart_right = steps
    columns, stride, apart = y[2], right, apart_right
    if x[0] == x[2] == y[2] == width == 1:  # one column is one row, too
        height, width, columns, stride, apart = width, height, y[1], down, apart_down
    fresh = width if apart > 1 else min(stride, width)
    return (width + (columns - 1) * fresh) * height


def _map_bytes(y: tuple[int, ...], taps: tuple[int, int]) -> int:
    """Where windows lie on the input: two bytes for each row of each, and each column."""
    return 2 * (y[0] * y[1] * taps[0] + y[2] * taps[1])


def _shape(tensors: Mapping[int, Mapping[str, Any]], at: int) -> tuple[int, ...]:
    return tuple(int(size) for size in tensors[at]["shape"])


def _bytes(tensor: Mapping[str, Any]) -> int:
    return prod(map(int, tensor["shape"])) * int(np.dtype(tensor["dtype"]).itemsize)


def _place(blocks: Sequence[_Block]) -> int:
    """Give each block its place, the largest first at the lowest that is free; returns the end."""
    placed: list[_Block] = []
    # Sorting is stable: blocks of one size keep the order of the file.
    for block in sorted((block for block in blocks if block.size), key=lambda item: -item.size):
        for other in placed:  # in order of their places
            if other.first <= block.last and block.first <= other.last:
                if block.at + block.size <= other.at:
                    break
                block.at = max(block.at, other.at + other.size)
        placed.insert(sum(other.at <= block.at for other in placed), block)
    return max((block.at + block.size for block in placed), default=0)
