"""Reads a `.tflite` file and plans how a board runs it; `tflite` runs the plan.

Needed while a model is loaded, and not afterwards: see `tflite.unload`. A file that is damaged,
hostile, too large or uses what `kernels_ops.OPERATORS` does not have raises ModelError; nothing a
file says can make a read or a loop run away.

The format is described by TensorFlow Lite's `schema.fbs`; numbers of fields are those there.
"""

from . import flatbuffer, kernels_ops
from .errors import ModelError
from .kernels_math import scale_of
from .tflite import MAX_ARENA_BYTES

MAX_TENSORS = 256
MAX_OPERATORS = 128
MAX_RANK = 6
MAX_CHANNELS = 4096
MAX_INPUTS = 8  # of one operator, and inputs or outputs of the model
MAX_TENSOR_BYTES = 1 << 20
MAX_WORK = 1 << 27  # multiply-accumulates of one inference: about half a minute on a Pico

_IDENTIFIER = b"TFL3"
_VERSION = 3
# By the schema's numbers. One text, since each word of a table would stay in memory as a name.
_KIND_NAMES = "float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64"
_KIND_BYTES = {0: 4, 2: 4, 9: 1}
_FLOWING = (kernels_ops.INT8, kernels_ops.FLOAT32)  # kinds of activations


def _kind_name(kind):
    names = _KIND_NAMES.split()
    return names[kind] if kind < len(names) else "type %d" % kind


class Tensor:
    """A tensor of the model.

    Attributes:
        label: for messages, such as "tensor 3".
        shape: tuple of sizes.
        size: number of elements.
        bytes: that they take; 0 for a kind that no operator of ours has.
        kind: the schema's type number, 9 for int8.
        zero_point: of int8 quantization.
        data: memoryview of a constant's bytes in the file, else None.
        first, last: the steps between which an activation is alive; -1 is before the first,
            None that nothing has written it yet.
    """

    def __init__(self, index, table, buffers):
        self.label = "tensor %d" % index
        self.shape = table.integers(0, MAX_RANK)
        self.kind = table.unsigned(1, 1)
        self.zero_point = 0
        self.axis = 0
        self._scales = b""
        self.first = None
        self.last = -1
        self.place = 0
        self._root = None
        self._read_quantization(table.table(4))
        size = 1
        for length in self.shape:
            if length < 1:
                raise ModelError("model.shape", "%s has shape %s" % (self.label, self.shape))
            size *= length
        self.size = size
        self.bytes = size * _KIND_BYTES.get(self.kind, 0)
        buffer = table.unsigned(2, 4)
        if buffer >= len(buffers):
            raise ModelError("model.file", "%s names buffer %d" % (self.label, buffer))
        data = buffers[buffer].vector(0, 1)
        if table.unsigned(5, 1) or table.table(6) or buffers[buffer].unsigned(1, 8):
            raise ModelError("model.tensor", "%s is variable, sparse or external" % self.label)
        expected = self.bytes
        if max(size, expected) > MAX_TENSOR_BYTES or (data and expected and len(data) != expected):
            raise ModelError(
                "model.shape", "%s: shape %s, %d bytes" % (self.label, self.shape, len(data))
            )
        self.data = data if data else None

    def _read_quantization(self, table):
        if table is None:
            return
        self._scales = table.vector(2, 4)
        self.axis = table.signed(6, 4)
        points = table.vector(3, 8)
        if max(len(self._scales) // 4, len(points) // 8) > MAX_CHANNELS:
            raise ModelError("model.limit", "channels of " + self.label)
        if points:
            self.zero_point = flatbuffer.signed(points, 0, 8)
        # One for all channels, or for each the same.
        same = bytes(points[:8]) * (len(points) // 8) == points
        if not same or (self.kind == kernels_ops.INT8 and not -128 <= self.zero_point <= 127):
            raise ModelError("model.tensor", "the zero points of " + self.label)

    def channels(self):
        """Return how many scales the tensor has: 1, or one per channel."""
        return len(self._scales) // 4

    def scale(self, channel=0):
        """Return a scale as the (m, e) of `kernels_math`."""
        if channel >= self.channels():
            raise ModelError("model.tensor", "%s is not quantized" % self.label)
        return scale_of(int.from_bytes(self._scales[4 * channel : 4 * channel + 4], "little"))

    def forget(self):
        """Let go of the file."""
        self.data = None
        self._scales = b""

    def lies_in(self, other):
        """Make this tensor another view of `other`'s bytes."""
        self._root = other.root()

    def root(self):
        """Return the tensor whose memory this one uses."""
        return self if self._root is None else self._root

    @property
    def at(self):
        """Offset in the arena, once the model is planned."""
        return self.root().place


class _Operator:
    """One operator of the file, as the plan functions of `kernels_ops` see it."""

    def __init__(self, name, table, tensors):
        self.name = name
        self.inputs = _named(table.integers(1, MAX_INPUTS), tensors)
        self.outputs = _named(table.integers(2, MAX_INPUTS), tensors)
        if None in self.outputs:
            raise ModelError("model.operator", name + ": an output is missing")
        self._table = table

    def options(self, kind):
        """Return the options table, which must be of the schema's union member `kind`."""
        table = self._table.table(4)
        if table is None or self._table.unsigned(3, 1) != kind:
            raise ModelError("model.operator", self.name + ": options are missing")
        return table


def _named(indices, tensors):
    """Return the tensors of these numbers; -1 stands for None, an optional one left out."""
    for index in indices:
        if not -1 <= index < len(tensors):
            raise ModelError("model.file", "there is no tensor %d" % index)
    return [None if index < 0 else tensors[index] for index in indices]


class _Block:
    """A stretch of the arena: `size` bytes for `owner`, alive from step `first` to `last`."""

    def __init__(self, size, first, last, owner, attribute):
        self.size = (size + 3) & ~3
        self.first = first
        self.last = last
        self.at = 0
        self._owner = owner
        self._attribute = attribute

    def settle(self):
        setattr(self._owner, self._attribute, self.at)


def _place(blocks):
    """Give every block its offset, the largest first at the lowest free place; returns the end."""
    placed = []
    end = 0
    # By number where sizes are alike: the same file has the same plan on every board.
    for number in sorted(range(len(blocks)), key=lambda at: (-blocks[at].size, at)):
        block = blocks[number]
        for other in placed:  # in order of their offsets
            if other.first <= block.last and block.first <= other.last:
                if block.at + block.size <= other.at:
                    break
                block.at = max(block.at, other.at + other.size)
        place = 0
        while place < len(placed) and placed[place].at <= block.at:
            place += 1
        placed.insert(place, block)
        block.settle()
        end = max(end, block.at + block.size)
    return end


class Plan:
    """A checked and planned model.

    Attributes:
        ops: names of the operators, in the order they run.
        inputs, outputs: lists of Tensor, int8 or float32.
        arena_bytes: what the model takes at once; includes scratch and requantization tables.
        work: multiply-accumulates of one inference, and bytes handled by other operators.
        costs: (name, work) of each operator that does something.
    """

    def __init__(self, data):
        """Check the whole file `data` (memoryview); raises ModelError."""
        self._data = data
        self._tensors = []
        self._all = []
        try:
            self._read()
            self._plan()
        except MemoryError:
            raise ModelError("model.memory", "too many tensors for this board") from None

    def _read(self):
        file = flatbuffer.root(self._data, _IDENTIFIER)
        if file.unsigned(0, 4) != _VERSION:
            raise ModelError("model.file", "schema version %d" % file.unsigned(0, 4))
        graphs = file.tables(2, 1)
        if not graphs:
            raise ModelError("model.file", "no subgraph")
        buffers = file.tables(4, 2 * MAX_TENSORS)
        tensors = [
            Tensor(index, table, buffers)
            for index, table in enumerate(graphs[0].tables(0, MAX_TENSORS))
        ]
        self._all = tensors
        codes = file.tables(1, MAX_OPERATORS)
        operators = []
        for table in graphs[0].tables(3, MAX_OPERATORS):
            index = table.unsigned(0, 4)
            if index >= len(codes):
                raise ModelError("model.file", "there is no operator code %d" % index)
            operators.append((_code(codes[index]), table))
        # All names first, so that an unsupported operator is what is reported.
        self.ops = [_name(code) for code, _ in operators]
        self.inputs = _named(graphs[0].integers(1, MAX_INPUTS), tensors)
        self.outputs = _named(graphs[0].integers(2, MAX_INPUTS), tensors)
        self._check_ends()
        self._steps = []
        for (code, table), name in zip(operators, self.ops):
            operator = _Operator(name, table, tensors)
            self._connect(operator, len(self._steps))
            self._steps.append(kernels_ops.plan(code, operator))
        for tensor in self.outputs:
            if tensor.first is None:
                raise ModelError("model.graph", "nothing writes the output " + tensor.label)

    def _check_ends(self):
        if not self.inputs or not self.outputs:
            raise ModelError("model.graph", "no inputs or no outputs")
        for tensor in self.inputs + self.outputs:
            if tensor is None or tensor.data is not None:
                raise ModelError("model.graph", "an input or output is missing or a constant")
            if tensor.kind not in _FLOWING:
                raise ModelError(
                    "model.type",
                    "%s is %s, must be int8 or float32: quantize inputs and outputs"
                    % (tensor.label, _kind_name(tensor.kind)),
                )
        for tensor in self.inputs:
            tensor.first = -1

    def _connect(self, operator, number):
        """Check that the operator's inputs exist by now and that its outputs are new."""
        for tensor in operator.inputs:
            if tensor is not None and tensor.data is None:
                if tensor.first is None:
                    raise ModelError(
                        "model.graph", "%s is read before it is written" % tensor.label
                    )
                tensor.last = number
        for tensor in operator.outputs:
            if tensor.first is not None or tensor.data is not None:
                raise ModelError("model.graph", tensor.label + " is written twice")
            tensor.first = tensor.last = number
            self._tensors.append(tensor)

    def _plan(self):
        lives = {}
        blocks = []  # in the order of the file: a dict here has none
        for tensor in self.outputs:
            tensor.last = len(self._steps)
        for tensor in self.inputs + self._tensors:
            root = tensor.root()
            block = lives.get(id(root))
            if block is None:
                block = lives[id(root)] = _Block(root.bytes, root.first, root.last, root, "place")
                blocks.append(block)
            block.last = max(block.last, tensor.last)
        self._steps = [(number, step) for number, step in enumerate(self._steps) if step]
        self.work = 0
        self.costs = []
        for number, step in self._steps:
            if step.constant_bytes:
                blocks.append(_Block(step.constant_bytes, -1, len(self.ops), step, "constant_at"))
            if step.scratch_bytes:
                blocks.append(_Block(step.scratch_bytes, number, number, step, "scratch_at"))
            self.work += step.work
            self.costs.append((self.ops[number], step.work))
        self.arena_bytes = _place(blocks)
        if self.arena_bytes > MAX_ARENA_BYTES or self.work > MAX_WORK:
            raise ModelError(
                "model.limit",
                "an arena of %d bytes, %d multiplications" % (self.arena_bytes, self.work),
            )

    def load(self, arena):
        """Fill what the operators keep in the arena; returns [(function, arguments)].

        Once only: nothing of the file is needed any more after that.
        """
        program = [step.load(arena, step) for _, step in self._steps]
        for tensor in self._all:
            tensor.forget()
        return program


def _code(table):
    # Files from before the schema had more than 127 operators fill in the old field alone.
    return max(table.signed(3, 4), table.signed(0, 1))


def _name(code):
    """Return the name of a supported operator; refuses any other by its name."""
    if code in kernels_ops.OPERATORS:
        return kernels_ops.OPERATORS[code][0]
    raise ModelError("model.unsupported", kernels_ops.other_name(code))
