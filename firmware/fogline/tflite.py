"""Runs an unmodified full-int8 `.tflite` file: TensorFlow Lite Micro's results, bit for bit.

    model = Model(data)            # checks everything, allocates next to nothing
    model.allocate()               # one bytearray of model.arena_bytes
    outputs = model.invoke([x])    # bytes-like int8 in, bytearrays of int8 out
    unload()                       # the code that reads files is needed no more

An input that is quantized, or an output that is dequantized, by the model itself is binary32.

`data` (bytes-like, the whole file) must stay as it is until `allocate` has copied the weights. A
file that boards cannot run raises ModelError: see `tflite_plan`.
"""

import sys

from .errors import ModelError
from .modules import forget

MAX_ARENA_BYTES = 1 << 20
_INT8 = 9
# Loaded again for the next model, which keeps what it needs of them.
_PLANNERS = ("tflite_plan", "flatbuffer", "ops_", "kernels")
# On ESP32, what native code takes comes back only at a restart: there it stays loaded.
_NATIVE = (
    "kernels_pairs", "kernels_pick", "kernels_planes", "kernels_rows", "kernels_windows",
)  # fmt: skip
_KEEPS_NATIVE = sys.platform == "esp32"

# Name of the kernels that models take, None until one asks: see `kernels.use`.
kernel = None


def unload():
    """Forget the modules that only loading a model needs, which are most of the interpreter."""
    package = __name__.rpartition(".")[0]
    for name in list(sys.modules):
        parent, _, leaf = name.rpartition(".")
        stays = _KEEPS_NATIVE and leaf in _NATIVE
        if parent == package and leaf.startswith(_PLANNERS) and not stays:
            forget(leaf)


def supported():
    """Return the names of the operators that a model may use."""
    from .kernels_ops import OPERATORS

    return [name for name, _ in OPERATORS.values()]


class End:
    """An input or output of a model.

    Attributes:
        shape: tuple of sizes.
        kind: the schema's type number: 9 for int8, 0 for binary32.
        size, bytes: number of elements, and what they take.
        at: offset in the arena.
    """

    def __init__(self, tensor):
        self.shape = tensor.shape
        self.kind = tensor.kind
        self.size = tensor.size
        self.bytes = tensor.bytes
        self.at = tensor.at


class Model:
    """A checked model.

    Attributes:
        ops: names of the operators, in the order they run.
        inputs, outputs: lists of End.
        arena_bytes: what `allocate` takes at once; includes scratch and requantization tables.
        work: multiply-accumulates of one inference, and bytes handled by other operators.
    """

    def __init__(self, data):
        """Check the whole file `data` (bytes-like); raises ModelError."""
        from .tflite_plan import Plan

        self._arena = None
        self._program = []
        self._results = []
        self._plan = Plan(memoryview(data))
        self.ops = self._plan.ops
        self.inputs = [End(tensor) for tensor in self._plan.inputs]
        self.outputs = [End(tensor) for tensor in self._plan.outputs]
        self.arena_bytes = self._plan.arena_bytes
        self.work = self._plan.work

    def allocate(self):
        """Take the arena and what the operators keep, once; raises ModelError."""
        plan, self._plan = self._plan, None
        if plan is None:
            raise ModelError("model.allocate", "a model is allocated once")
        try:
            arena = bytearray(self.arena_bytes)
            self._program = plan.load(arena)
            self._results = [bytearray(tensor.bytes) for tensor in self.outputs]
        except MemoryError:
            self._program = []
            raise ModelError("model.memory", "%d bytes for the arena" % self.arena_bytes) from None
        self._arena = arena

    def invoke(self, inputs):
        """Run the model once.

        Args:
            inputs: one bytes-like for each of `self.inputs`, in row-major order: int8, or
                little-endian binary32.

        Returns:
            A list of bytearrays of the same kind, one for each of `self.outputs`; the next call
            overwrites them.
        """
        arena = self._arena
        if arena is None:
            raise ModelError("model.allocate", "call allocate() first")
        if len(inputs) != len(self.inputs):
            raise ModelError(
                "model.input", "%d inputs, must be %d" % (len(inputs), len(self.inputs))
            )
        for tensor, values in zip(self.inputs, inputs):
            if len(values) != tensor.bytes:
                raise ModelError(
                    "model.input", "%d bytes, must be %d" % (len(values), tensor.bytes)
                )
            _transfer(tensor, arena, values, tensor.at, 0)
        run_all(self._program)
        for tensor, result in zip(self.outputs, self._results):
            _transfer(tensor, result, arena, 0, tensor.at)
        return self._results


def run_all(calls):
    """Make calls (function, arguments) one after the other."""
    for function, arguments in calls:
        function(*arguments)


def _transfer(tensor, out, x, out_at, x_at):
    """Copy an input into the arena or an output from it; int8 lies there as q + 128."""
    if tensor.kind == _INT8:
        flip(out, x, out_at, x_at, tensor.bytes)
    else:
        out[out_at : out_at + tensor.bytes] = x[x_at : x_at + tensor.bytes]


@micropython.viper
def flip(out: ptr8, x: ptr8, out_at: int, x_at: int, length: int):
    """Copy `length` bytes, turning int8 into q + 128 or back."""
    out = ptr8(int(out) + out_at)
    x = ptr8(int(x) + x_at)
    while length > 3:
        out[0] = x[0] ^ 128
        out[1] = x[1] ^ 128
        out[2] = x[2] ^ 128
        out[3] = x[3] ^ 128
        out = ptr8(int(out) + 4)
        x = ptr8(int(x) + 4)
        length -= 4
    while length:
        out[0] = x[0] ^ 128
        out = ptr8(int(out) + 1)
        x = ptr8(int(x) + 1)
        length -= 1
