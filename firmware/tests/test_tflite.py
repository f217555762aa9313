"""The model interpreter: TensorFlow Lite Micro's answers, and what it refuses."""

import binascii
import sys

from fogline import kernels
from fogline import kernels_math as fixed
from fogline import kernels_ops as ops
from fogline.errors import ModelError
from fogline.tflite import Model, flip, unload
from support import Random, raises, vectors

TEST_NEEDS = {
    "test_a_model_is_allocated_once_and_then_needs_no_file": ("viper",),
    "test_a_model_runs_without_the_code_that_loaded_it": ("viper",),
    "test_damage_is_refused_or_harmless": ("viper",),
    "test_every_kernel_of_this_board_gives_the_same_bytes": ("viper",),
    "test_flip": ("viper",),
    "test_inputs_must_fit": ("viper",),
    "test_models_answer_like_tensorflow_lite_micro": ("viper",),
}
VECTORS = vectors("tflite")["models"]
SEED = 20260714


def loaded(vector):
    """The file, its inputs and the expected output of a vector."""
    data = binascii.a2b_base64(vector["model"])
    return data, [bytes.fromhex(x) for x in vector["inputs"]], bytes.fromhex(vector["output"])


def test_models_answer_like_tensorflow_lite_micro():
    for vector in VECTORS:
        data, inputs, expected = loaded(vector)
        model = Model(data)
        model.allocate()
        for _ in range(2):  # nothing of the first run is left over
            assert model.invoke(inputs)[0] == expected, model.ops


def test_every_kernel_of_this_board_gives_the_same_bytes():
    names = kernels.available()
    assert names[-1] == "viper"
    try:
        for name in names:
            assert kernels.use(name) == name
            for vector in VECTORS:
                data, inputs, expected = loaded(vector)
                model = Model(data)
                model.allocate()
                assert model.invoke(inputs)[0] == expected, (name, model.ops)
    finally:
        assert kernels.use() == names[0]
    raises("model.kernel", kernels.use, "quantum")


def test_kernels_are_chosen_by_what_the_board_can_do():
    class Machine:
        def __init__(self, architecture):
            self.implementation = self
            self._mpy = architecture << 10 | 6  # as in an .mpy file's header

    def refuse(code, names):
        raise SyntaxError

    try:
        for architecture, assembler, expected in (
            (2, True, ["viper"]),  # x86-64
            (4, True, ["thumb", "viper"]),  # ARMv6-M: Pico
            (5, True, ["thumb2", "thumb", "viper"]),
            (7, True, ["thumb2", "thumb", "viper"]),  # Pico 2
            (7, False, ["viper"]),
            (10, True, ["viper"]),  # Xtensa: ESP32
            (11, True, ["rv32", "viper"]),
            (11, False, ["viper"]),  # ESP32-C3
        ):
            kernels.sys = Machine(architecture)
            kernels.exec = (lambda code, names: None) if assembler else refuse
            assert list(kernels.available()) == expected, architecture
    finally:
        kernels.sys = sys
        del kernels.exec


def test_vectors_use_every_operator():
    used = set()
    for vector in VECTORS:
        used.update(Model(loaded(vector)[0]).ops)
    assert used == {name for name, _ in ops.OPERATORS.values()}


def test_a_model_is_allocated_once_and_then_needs_no_file():
    for data, inputs, expected in map(loaded, VECTORS):
        file = bytearray(data)
        model = Model(file)
        raises("model.allocate", model.invoke, inputs)
        model.allocate()
        raises("model.allocate", model.allocate)
        for at in range(len(file)):
            file[at] = 0x55
        assert model.invoke(inputs)[0] == expected, model.ops


def test_a_model_runs_without_the_code_that_loaded_it():
    data, inputs, expected = loaded(VECTORS[0])
    model = Model(data)
    model.allocate()
    unload()
    assert not [name for name in sys.modules if "ops_" in name or "tflite_plan" in name]
    assert model.invoke(inputs)[0] == expected
    again = Model(data)
    again.allocate()
    assert again.invoke(inputs)[0] == expected


def test_inputs_must_fit():
    data, inputs, _ = loaded(VECTORS[0])
    model = Model(data)
    model.allocate()
    raises("model.input", model.invoke, [])
    raises("model.input", model.invoke, [inputs[0] + b"\x00"] + inputs[1:])


def test_no_file_at_all():
    for data in (b"", b"TFL3", bytes(100), b"\xff" * 64, b"\x10\x00\x00\x00TFL3" + bytes(64)):
        raises("model.file", Model, data)


def test_every_cut_is_refused():
    data = loaded(VECTORS[0])[0]
    for length in range(0, len(data), 7):
        try:
            Model(data[:length])
        except ModelError:
            continue
        raise AssertionError("cut at %d" % length)


def test_damage_is_refused_or_harmless():
    random = Random(SEED)
    refused = 0
    for vector in VECTORS[:6]:
        data, inputs, _ = loaded(vector)
        for _ in range(40):
            damaged = bytearray(data)
            for _ in range(1 + random.below(4)):
                damaged[random.below(len(damaged))] = random.below(256)
            try:
                model = Model(damaged)
                model.allocate()
                if [tensor.bytes for tensor in model.inputs] == [len(x) for x in inputs]:
                    model.invoke(inputs)
            except ModelError:
                refused += 1
    assert refused


def test_multipliers():
    # 0.5 is 2^30 * 2^(0 - 31); three significant bits of a third, then the rounding.
    assert fixed.multiplier((1 << 23, -23), (1 << 23, -22)) == (1 << 30, 0)
    assert fixed.multiplier((1 << 23, -23), (3 << 22, -22)) == (0x55555555, -1)
    raises("model.scale", fixed.multiplier, (1 << 23, -100), (1 << 23, 0))
    for bits in (0, 0x7F800000, 0x7FC00000, 0x80000000, 0xBF800000, 1):
        raises("model.scale", fixed.scale_of, bits)


def test_rounding_is_away_from_zero_at_halves():
    half = fixed.multiplier((1 << 23, -23), (1 << 23, -22))
    quarter = half[0], -1
    # x * 2^30 / 2^31 rounds first, x / 2 then: 3 -> 2 -> 1.
    assert [fixed.multiply(x, quarter) for x in (-6, -5, -3, -2, 1, 2, 3, 5, 6)] == [
        -2, -1, -1, -1, 1, 1, 1, 2, 2]  # fmt: skip
    assert [fixed.multiply(x, half) for x in (-3, -1, 1, 3)] == [-1, 0, 1, 2]


def test_activation_ranges():
    scale = fixed.scale_of(0x3D4CCCCD)  # 0.05
    assert fixed.activation_range(0, scale, 3) == (-128, 127)
    assert fixed.activation_range(1, scale, 3) == (3, 127)
    assert fixed.activation_range(2, scale, 3) == (-17, 23)
    assert fixed.activation_range(3, scale, 3) == (3, 123)
    raises("model.activation", fixed.activation_range, 4, scale, 3)
    tiny = fixed.scale_of(0x31000000)  # 2**-29
    assert fixed.activation_range(2, tiny, 3) == (-128, 127)
    assert fixed.activation_range(1, tiny, 3) == (3, 127)
    raises("model.scale", fixed.activation_range, 3, tiny, 3)


def test_flip():
    source = bytes(range(256))
    out = bytearray(258)
    flip(out, source, 1, 0, 256)
    assert out == b"\x00" + bytes(i ^ 128 for i in range(256)) + b"\x00"
