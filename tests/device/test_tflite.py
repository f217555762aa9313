"""The board's interpreter, in MicroPython, against TensorFlow Lite Micro and LiteRT."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.reference import LITERT_DIFFERS, run_litert, run_tflite_micro
from support.tflite_models import RandomModel

from tools.bench.tflite_builder import Activation, Kind, ModelBuilder, Operator, Padding

FIRMWARE = Path(__file__).parents[2] / "firmware"
CHECK_MODEL = FIRMWARE / "check_model.py"
FUZZ = Path(__file__).with_name("tflite_fuzz.py")
KERAS = Path(__file__).with_name("keras_models.py")
MODELS = 200
FUZZED = 20
DAMAGES = 100
KERAS_TIMEOUT_S = 240
WINDOWS = 10


@pytest.fixture
def seed():
    """A new seed for each run; a failure replays with it."""
    value = random.SystemRandom().getrandbits(32)
    print("seed", value)
    return value


@pytest.fixture
def check_models(run_firmware, tmp_path):
    """Run models on the board's interpreter; returns its answer for each, in order."""

    def check(models, runs=()):
        paths = []
        for number, data in enumerate(models):
            path = tmp_path / f"{number}.tflite"
            path.write_bytes(data)
            if runs:
                inputs = [values.tobytes() for run in runs[number] for values in run]
                Path(f"{path}.in").write_bytes(b"".join(inputs))
            paths.append(str(path))
        done = run_firmware(CHECK_MODEL, *paths)
        assert not done.stderr, done.stderr
        said = [json.loads(line) for line in done.stdout.splitlines()]
        assert [item["file"] for item in said] == paths
        return said

    return check


def test_random_models(check_models, seed):
    models = [RandomModel(seed + number) for number in range(MODELS)]
    answers = check_models([model.data for model in models], [[model.inputs] for model in models])
    used = set()
    for number, (model, answer) in enumerate(zip(models, answers, strict=True)):
        where = f"RandomModel({seed + number}), {answer}"
        assert "error" not in answer, where
        output = bytes.fromhex(answer["outputs"][0])
        assert output == run_tflite_micro(model.data, model.inputs), where
        if LITERT_DIFFERS.isdisjoint(answer["ops"]):
            assert output == run_litert(model.data, model.inputs), where
        used.update(answer["ops"])
    listing = (FIRMWARE / "fogline" / "kernels_ops.py").read_text("utf-8")
    table = listing[listing.index("OPERATORS = {") : listing.index("OTHER_NAMES")]
    assert used == {line.split('"')[1] for line in table.splitlines() if '"' in line}


def test_litert_rounds_a_fully_connected_sum_once(check_models):
    """A known difference, so that whoever compares knows: never more than one step."""
    rng = np.random.default_rng(1)
    builder = ModelBuilder()
    x = builder.tensor((64, 4), 0.0373, -7)
    data = rng.integers(-127, 128, (32, 4)).astype(np.int8)
    weights = builder.tensor((32, 4), 0.0051, data=data)
    y = builder.tensor((64, 32), 0.0466, 3)
    builder.operator(Operator.FULLY_CONNECTED, [x, weights], y, "FullyConnectedOptions")
    model = builder.finish([x], [y])
    inputs = [rng.integers(-128, 128, x.shape).astype(np.int8)]
    (answer,) = check_models([model], [[inputs]])
    board = np.frombuffer(bytes.fromhex(answer["outputs"][0]), np.int8).astype(int)
    assert board.astype(np.int8).tobytes() == run_tflite_micro(model, inputs)
    steps = board - np.frombuffer(run_litert(model, inputs), np.int8)
    assert set(steps) == {-1, 0, 1} or set(steps) <= {0, 1} or set(steps) <= {-1, 0}
    assert 0 < np.count_nonzero(steps) < board.size / 100


def test_litert_makes_a_products_multiplier_in_single_precision(check_models):
    """Another: of all pairs of int8, few have a product so near the middle of two steps."""
    first, second, scale = 0.05689077079296112, 0.06967270374298096, 0.5333489179611206
    builder = ModelBuilder()
    every = (1, 256, 256)
    x, other = builder.tensor(every, first, -91), builder.tensor(every, second, 54)
    y = builder.tensor(every, scale, 0)
    builder.operator(Operator.MUL, [x, other], y, "MulOptions")
    model = builder.finish([x, other], [y])
    rows, columns = np.indices(every[1:]) - 128
    inputs = [values.reshape(every).astype(np.int8) for values in (rows, columns)]
    (answer,) = check_models([model], [[inputs]])
    board = np.frombuffer(bytes.fromhex(answer["outputs"][0]), np.int8)
    assert board.tobytes() == run_tflite_micro(model, inputs)
    litert = np.frombuffer(run_litert(model, inputs), np.int8)
    true = ((rows + 91) * (columns - 54)).reshape(-1) * (first * second / scale)
    differ = board != litert
    assert 0 < np.count_nonzero(differ) < board.size / 1000
    assert (np.round(true[differ]) == board[differ]).all()  # and so the board is right
    assert (np.abs(litert[differ].astype(int) - board[differ]) == 1).all()


def test_a_softmax_of_more_than_the_interpreters_can_add_up(check_models):
    """Where each share is below half a step: they abort, and the board gives nothing but zeros."""
    builder = ModelBuilder()
    x, y = builder.tensor((1, 600), 0.01), builder.tensor((1, 600), 1 / 256, -128)
    builder.operator(Operator.SOFTMAX, [x], y, "SoftmaxOptions", beta=1.0)
    model = builder.finish([x], [y])
    (answer,) = check_models([model], [[[np.zeros((1, 600), np.int8)]]])
    assert bytes.fromhex(answer["outputs"][0]) == b"\x80" * 600


def test_models_from_keras(check_models, tmp_path):
    """What the converter makes of Conv1D and the like."""
    subprocess.run(
        [sys.executable, KERAS, tmp_path], check=True, timeout=KERAS_TIMEOUT_S, capture_output=True
    )
    rng = np.random.default_rng(2)
    files = sorted(tmp_path.glob("*.keras.tflite"))
    models = [path.read_bytes() for path in files]
    shapes = [tuple(json.loads(path.with_suffix(".json").read_text())) for path in files]
    runs = [
        [[rng.integers(-128, 128, shape).astype(np.int8)] for _ in range(WINDOWS)]
        for shape in shapes
    ]
    answers = check_models(models, runs)
    assert len(answers) == 3
    for path, model, inputs, answer in zip(files, models, runs, answers, strict=True):
        outputs = [bytes.fromhex(output) for output in answer["outputs"]]
        assert outputs == [run_tflite_micro(model, run) for run in inputs], path
        assert len(set(outputs)) == WINDOWS
        if LITERT_DIFFERS.isdisjoint(answer["ops"]):
            assert outputs == [run_litert(model, run) for run in inputs], path


@pytest.mark.parametrize(
    ("maker", "error"),
    [
        ("unsupported", "model.unsupported: TRANSPOSE"),
        ("unnamed", "model.unsupported: operator 130"),
        ("whole_input", "model.type: tensor 0 is int32"),
        ("float_operator", "RELU: tensor 0 is not int8"),
        ("float_between", "RELU: tensor 2 is not int8"),
        ("per_channel_activation", "per channel"),
        ("weights_not_constant", "the weights must be a constant of int8"),
        ("asymmetric_weights", "zero point 3"),
        ("wrong_output_shape", "output of shape"),
        ("grouped", "grouped convolution"),
        ("no_options", "options are missing"),
        ("wrong_bias", "the bias must be a constant of 2 int32"),
        ("scales_apart", "model.scale"),
        ("tiny_activation", "model.scale: a scale is too small for a fused activation"),
        ("short_constant", "model.shape"),
        ("read_before_written", "is read before it is written"),
        ("written_twice", "is written twice"),
        ("too_large", "model.limit"),
        ("resize_of_another_scale", "differ in scale or zero point"),
        ("odd_broadcast", "ADD: shapes"),
        ("odd_join", "CONCATENATION: 5 joined to"),
        ("odd_padding", "PAD: from shape"),
        ("softmax_of_another_scale", "SOFTMAX: the output's scale must be 1/256"),
        ("in_too_many_pieces", "SUB: in 1200 pieces"),
    ],
)
def test_refusals(check_models, maker, error):
    (answer,) = check_models([getattr(Refused, maker)()])
    assert error in answer["error"]
    assert answer.keys() == {"file", "error"}


class Refused:
    """Models that no board must run."""

    @staticmethod
    def _convolution(
        shape=(1, 4, 4, 2), weights=(2, 3, 3, 2), out=(1, 4, 4, 2), *, scale=0.01, zero_point=0,
        data=True, options="Conv2DOptions", bias=(2,), x_scale=0.05,
    ):  # fmt: skip
        builder = ModelBuilder()
        x = builder.tensor(shape, x_scale, 0)
        values = np.ones(weights, np.int8) if data else None
        w = builder.tensor(weights, scale, zero_point, data=values)
        inputs = [x] if data else [x, w]
        b = builder.tensor(bias, scale, kind=Kind.INT32, data=np.zeros(bias, np.int32))
        y = builder.tensor(out, 0.1, 0)
        fields = {"padding": Padding.SAME, "strideH": 1, "strideW": 1} if options else {}
        builder.operator(Operator.CONV_2D, [x, w, b], y, options, **fields)
        return builder.finish(inputs, [y])

    @staticmethod
    def _one(code, shape, out, options=None, **quantization):
        builder = ModelBuilder()
        x = builder.tensor(shape, **(quantization or {"scale": 0.1}))
        y = builder.tensor(out, 0.1, 0)
        builder.operator(code, [x], y, options)
        return builder.finish([x], [y])

    @classmethod
    def unsupported(cls):
        return cls._one(Operator.TRANSPOSE, (1, 4), (1, 4), "TransposeOptions")

    @classmethod
    def unnamed(cls):
        return cls._one(Operator.BROADCAST_TO, (1, 4), (1, 4))

    @classmethod
    def whole_input(cls):
        return cls._one(Operator.RELU, (1, 4), (1, 4), kind=Kind.INT32)

    @classmethod
    def float_operator(cls):
        return cls._one(Operator.RELU, (1, 4), (1, 4), kind=Kind.FLOAT32)

    @classmethod
    def float_between(cls):
        builder = ModelBuilder()
        x, z = builder.tensor((1, 4), 0.1), builder.tensor((1, 4), 0.1)
        y = builder.tensor((1, 4), kind=Kind.FLOAT32)
        builder.operator(Operator.DEQUANTIZE, [x], y, "DequantizeOptions")
        builder.operator(Operator.RELU, [y], z)
        return builder.finish([x], [z])

    @classmethod
    def per_channel_activation(cls):
        return cls._one(Operator.RELU, (1, 4), (1, 4), scale=[0.1, 0.1, 0.1, 0.2], axis=1)

    @classmethod
    def weights_not_constant(cls):
        return cls._convolution(data=False)

    @classmethod
    def asymmetric_weights(cls):
        return cls._convolution(zero_point=3)

    @classmethod
    def wrong_output_shape(cls):
        return cls._convolution(out=(1, 4, 5, 2))

    @classmethod
    def grouped(cls):
        return cls._convolution(shape=(1, 4, 4, 4))

    @classmethod
    def no_options(cls):
        return cls._convolution(options=None)

    @classmethod
    def wrong_bias(cls):
        return cls._convolution(bias=(3,))

    @classmethod
    def scales_apart(cls):
        return cls._convolution(x_scale=1e-20)

    @staticmethod
    def tiny_activation():
        builder = ModelBuilder()
        x, y = builder.tensor((1, 4), 1e-9), builder.tensor((1, 4), 2e-9)
        builder.operator(
            Operator.ADD, [x, x], y, "AddOptions", fusedActivationFunction=Activation.RELU6
        )
        return builder.finish([x], [y])

    @classmethod
    def short_constant(cls):
        data = bytearray(cls._convolution())
        # The weights' buffer: 36 ones behind their length.
        at = data.index(bytes([36, 0, 0, 0]) + b"\x01" * 36)
        data[at] = 35
        return bytes(data)

    @classmethod
    def read_before_written(cls):
        builder = ModelBuilder()
        x, y, z = (builder.tensor((1, 4), 0.1) for _ in range(3))
        builder.operator(Operator.RELU, [z], y)
        return builder.finish([x], [y])

    @classmethod
    def written_twice(cls):
        builder = ModelBuilder()
        x, y = (builder.tensor((1, 4), 0.1) for _ in range(2))
        builder.operator(Operator.RELU, [x], y)
        builder.operator(Operator.RELU, [x], y)
        return builder.finish([x], [y])

    @classmethod
    def too_large(cls):
        return cls._one(Operator.RELU, (1, 600_000), (1, 600_000))

    @classmethod
    def resize_of_another_scale(cls):
        builder = ModelBuilder()
        x, y = builder.tensor((1, 2, 2, 1), 0.1), builder.tensor((1, 4, 4, 1), 0.2)
        builder.operator(
            Operator.RESIZE_NEAREST_NEIGHBOR, [x, builder.constant([4, 4])], y,
            "ResizeNearestNeighborOptions",
        )  # fmt: skip
        return builder.finish([x], [y])

    @classmethod
    def odd_broadcast(cls):
        builder = ModelBuilder()
        x, other = builder.tensor((1, 4, 2, 3), 0.1), builder.tensor((1, 1, 5, 3), 0.1)
        y = builder.tensor((1, 4, 5, 3), 0.1)
        builder.operator(Operator.ADD, [x, other], y, "AddOptions")
        return builder.finish([x, other], [y])

    @staticmethod
    def odd_join():
        builder = ModelBuilder()
        x, other = builder.tensor((1, 4, 2), 0.1), builder.tensor((1, 4, 3), 0.1)
        y = builder.tensor((1, 4, 6), 0.1)
        builder.operator(Operator.CONCATENATION, [x, other], y, "ConcatenationOptions", axis=2)
        return builder.finish([x, other], [y])

    @staticmethod
    def odd_padding():
        builder = ModelBuilder()
        x, y = builder.tensor((1, 4), 0.1), builder.tensor((1, 7), 0.1)
        widths = builder.constant([[0, 0], [1, 1]])
        builder.operator(Operator.PAD, [x, widths], y, "PadOptions")
        return builder.finish([x], [y])

    @classmethod
    def softmax_of_another_scale(cls):
        return cls._one(Operator.SOFTMAX, (1, 4), (1, 4), "SoftmaxOptions")

    @staticmethod
    def in_too_many_pieces():
        builder = ModelBuilder()
        x, other = builder.tensor((600, 1, 30, 2), 0.1), builder.tensor((1, 2, 30, 1), 0.1)
        y = builder.tensor((600, 2, 30, 2), 0.1)
        builder.operator(Operator.SUB, [x, other], y, "SubOptions")
        return builder.finish([x, other], [y])


def test_damaged_files_are_refused_or_harmless(run_firmware, tmp_path, seed):
    paths = []
    for number in range(FUZZED):
        paths.append(tmp_path / f"{number}.tflite")
        paths[-1].write_bytes(RandomModel(seed + number).data)
    done = run_firmware(FUZZ, str(seed), str(DAMAGES), *map(str, paths))
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(counts) == FUZZED
    assert all(refused > 0 for refused, _ in counts)
    assert sum(ran for _, ran in counts) > FUZZED
