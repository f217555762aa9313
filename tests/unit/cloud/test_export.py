"""What is exported runs on boards: operators, limits, and the same bytes everywhere."""

import re
from pathlib import Path

import numpy as np
import pytest
from support.reference import run_litert, run_tflite_micro
from support.trained import load_manifest

from cloud import export
from cloud.errors import ExportError

ROOT = Path(__file__).parents[3]
SEED = 20_260_721
WINDOWS = 20


def test_boards_have_the_operators_that_export_allows():
    source = (ROOT / "firmware/fogline/kernels_ops.py").read_text()
    table = source.partition("\nOPERATORS = {")[2].partition("\n}")[0]
    assert set(re.findall(r'"([A-Z0-9_]+)"', table)) == export.BOARD_OPS


def test_the_architecture_needs_few_operators(trained):
    manifest, _ = load_manifest(trained)
    assert manifest.ops == ("ADD", "CONV_2D", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR")


def test_self_tests_equal_both_interpreters(trained):
    manifest, payload = load_manifest(trained)
    assert len(manifest.selftest) == 4
    for given, answer in manifest.selftest:
        window = as_input(np.frombuffer(given, np.int8), manifest)
        assert run_tflite_micro(payload, [window]) == answer
        assert run_litert(payload, [window]) == answer


def test_any_window_gives_the_same_bytes_everywhere(trained):
    print("seed", SEED)
    manifest, payload = load_manifest(trained)
    rng = np.random.default_rng(SEED)
    size = manifest.window * len(manifest.channels)
    windows = rng.integers(-128, 128, (WINDOWS, size), dtype=np.int8)
    windows[0], windows[1] = -128, 127
    outputs = export.Interpreter(payload).run(windows)
    for window, output in zip(windows, outputs, strict=True):
        assert run_tflite_micro(payload, [as_input(window, manifest)]) == output.tobytes()


def as_input(window, manifest):
    return window.reshape(1, manifest.window, 1, len(manifest.channels))


def test_an_operator_that_boards_lack_is_named():
    import keras

    given = keras.Input((8, 1, 2))
    model = keras.Model(given, keras.layers.LeakyReLU()(given))
    samples = np.random.default_rng(SEED).normal(size=(4, 8, 1, 2)).astype(np.float32)
    with pytest.raises(ExportError, match=r"uses LEAKY_RELU, which boards do not have; build it"):
        export.to_int8_tflite(model, samples)


@pytest.mark.parametrize(
    ("size", "arena", "message"),
    [
        (export.MAX_MODEL_BYTES + 1, 0, r"has 131073 bytes, boards take 131072"),
        (0, export.MAX_ARENA_BYTES + 1, r"has 65537 bytes of working memory, boards take 65536"),
    ],
)
def test_too_large_a_model_is_refused(size, arena, message):
    with pytest.raises(ExportError, match=message):
        export.check_limits(["ADD"], size, arena)


def test_a_model_at_the_limits_is_taken():
    export.check_limits(sorted(export.BOARD_OPS), export.MAX_MODEL_BYTES, export.MAX_ARENA_BYTES)


def test_self_tests_are_spread_over_the_windows(trained):
    manifest, payload = load_manifest(trained)
    size = manifest.window * len(manifest.channels)
    windows = np.repeat(np.arange(10, dtype=np.int8)[:, np.newaxis], size, axis=1)
    pairs = export.self_tests(payload, windows, 4)
    assert [given[0] for given, _ in pairs] == [0, 2, 4, 6]
