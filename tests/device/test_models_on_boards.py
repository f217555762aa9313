"""Inference on the boards that QEMU plays: TensorFlow Lite Micro's bytes, within the budget."""

import json
import random
from pathlib import Path

import pytest
from support.reference import run_tflite_micro
from support.tflite_models import RandomModel

from tools.bench import board
from tools.hil.payload import firmware_for
from tools.hil.targets import open_target

BATCH = Path(__file__).with_name("model_batch.py")
TARGETS = ("qemu-arm", "qemu-rv32")
KERNELS = {"qemu-arm": ["thumb2", "thumb", "viper"], "qemu-rv32": ["rv32", "viper"]}
MODELS = 24
HEAP_BYTES = 4 << 20
TIMEOUT_S = 120


def packed(models):
    """The file that model_batch.py reads."""
    parts = []
    for model in models:
        for data in (model.data, b"".join(values.tobytes() for values in model.inputs)):
            parts += [len(data).to_bytes(4, "little"), data]
    return b"".join(parts)


@pytest.fixture
def seed():
    """A new seed for each run; a failure replays with it."""
    value = random.SystemRandom().getrandbits(32)
    print("seed", value)
    return value


@pytest.mark.parametrize("name", TARGETS)
def test_random_models_on_every_kernel(name, seed):
    models = [RandomModel(seed + number) for number in range(MODELS)]
    expected = [run_tflite_micro(model.data, model.inputs).hex() for model in models]
    target = open_target(name, heap_bytes=HEAP_BYTES)
    try:
        target.put(firmware_for(target.about()))
        target.put({"model_batch.py": BATCH.read_bytes(), "models.bin": packed(models)})
        code = "import json\nfrom fogline import kernels\nprint(json.dumps(kernels.available()))"
        kernels = json.loads(target.run(code).checked())
        assert kernels == KERNELS[name]
        for kernel in kernels:
            call = f"import model_batch\nmodel_batch.main('models.bin', {kernel!r})"
            answers = target.run(call, timeout_s=TIMEOUT_S).checked().split()
            for number, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
                assert answer == wanted, f"RandomModel({seed + number}) on {kernel}"
    finally:
        target.close()


@pytest.mark.parametrize("name", TARGETS)
def test_signing_and_inference_stay_within_their_instructions(name, tmp_path):
    """Instructions are counted, not timed: the same on any machine."""
    path = tmp_path / "board.json"
    result = board.run(targets=(name,), signatures=1, json=path)
    assert json.loads(path.read_text("utf-8")) == result
    counted = result["targets"][name]
    assert counted["signing"]["ratio"] <= 1
    assert counted["signing"]["table_bytes"] <= 2048  # the table itself is in flash
    assert list(counted["inference"]) == KERNELS[name]
    for kernel, inference in counted["inference"].items():
        assert inference["equal_to_litert"], kernel
        assert inference["ratio"] <= 1, kernel
        layers = counted["small_layers"][kernel]
        assert layers["equal_to_litert"], kernel
        depthwise = layers["operators"][0]
        assert depthwise["name"] == "DEPTHWISE_CONV_2D"
        assert depthwise["per_mac"] <= inference["limit"], kernel
