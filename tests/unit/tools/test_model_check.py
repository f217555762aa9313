"""What a model is to boards, looked at before it is released."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.releases import manifest_for, tiny_model

from cloud.board_cost import BoardKind, add_to_card, estimate
from cloud.errors import CloudError
from cloud.export import Interpreter
from cloud.model_card import CARD_FILE, MODEL_FILE, BoardEstimate, ModelCard
from fog_node.protocol.transactions import DatasetReference
from tools import model_check
from tools.boards import load_boards
from tools.errors import ToolError

MODEL = tiny_model(1)
REFERENCE = DatasetReference(bytes(32), 3, 2, 5)


@pytest.fixture
def card():
    return ModelCard.of_manifest(manifest_for(MODEL, 1), {"float_int8_agreement": 1.0}, REFERENCE)


@pytest.fixture
def directory(card, tmp_path):
    (tmp_path / MODEL_FILE).write_bytes(MODEL)
    card.save(tmp_path)
    return tmp_path


def check(directory, enrolled=()):
    return model_check.check(directory, load_boards(), enrolled)


def test_boards_compute_what_litert_does(directory, card):
    found = check(directory, ["pico-w", "a board of another maker"])
    assert found["windows_alike"] == len(card.selftest) + model_check.WINDOWS
    assert found["macs"] == 8 * 6
    costs = {row["board"]: row for row in found["boards"]}
    assert costs["pico-w"]["fits"]
    assert costs["pico-w"]["least_ms"] > 0
    assert costs["unix"]["least_ms"] is None


def test_a_self_test_that_is_of_another_model(directory, card):
    (given, answer), *others = card.selftest
    wrong = (given, bytes([answer[0] ^ 1]) + answer[1:])
    replace(card, selftest=(wrong, *others)).save(directory)
    with pytest.raises(ToolError, match="answers its self-tests otherwise"):
        check(directory)


def test_a_self_test_of_another_size(directory, card):
    replace(card, selftest=((b"12", b"34"),)).save(directory)
    with pytest.raises(ToolError, match="not as long as the input"):
        check(directory)


@pytest.mark.parametrize("change", [{"ops": ("ADD",)}, {"arena": 100}])
def test_a_card_that_is_not_the_models(directory, card, change):
    replace(card, **change).save(directory)
    with pytest.raises(ToolError, match="the card says"):
        check(directory)


def test_boards_that_are_enrolled_must_have_the_room(directory, card):
    replace(card, arena=60_000).save(directory)
    check(directory, ["pico-w"])
    with pytest.raises(ToolError, match="boards of the kind esp32-c3 are enrolled for test"):
        check(directory, ["esp32-c3", "pico-w"])


def test_an_interpreter_that_computes_something_else(directory, monkeypatch):
    true = model_check.run_on_board

    def other(model, inputs):
        answers = true(model, inputs)
        return [bytes(len(answers[0])), *answers[1:]]

    monkeypatch.setattr(model_check, "run_on_board", other)
    with pytest.raises(ToolError, match=r"gives other bytes than LiteRT for 1 of \d+ windows"):
        check(directory)


def test_without_micropython_it_is_not_released(directory, monkeypatch):
    monkeypatch.setenv("FOGLINE_MICROPYTHON", "/nothing/here")
    with pytest.raises(ToolError, match="before it is released"):
        check(directory)


def test_what_boards_refuse_is_told():
    with pytest.raises(ToolError, match=r"refuses the model: .*Model"):
        model_check.run_on_board(b"no model at all", [b"12"])


@pytest.mark.parametrize("data", [b"", b"no model"])
def test_what_is_no_model(directory, data):
    (directory / MODEL_FILE).write_bytes(data)
    with pytest.raises((ToolError, CloudError)):
        check(directory)


def test_the_cost_is_kept_in_the_card(directory, card):
    kinds = [
        BoardKind("small", 100, 1_000_000, 10.0),
        BoardKind("fast", 100_000, 10_000_000, 5.0),
        BoardKind("emulated", 100_000, None, None),
    ]
    complete = add_to_card(directory, kinds)
    assert complete == ModelCard.load(directory)
    assert complete.macs == 48
    assert complete.boards == (
        BoardEstimate("small", fits=False, least_ms=0.48),
        BoardEstimate("fast", fits=True, least_ms=0.024),
        BoardEstimate("emulated", fits=True, least_ms=None),
    )
    assert complete.manifest("a", 1, MODEL, 0) == card.manifest("a", 1, MODEL, 0)
    text = (directory / CARD_FILE).read_text()
    for wrong in ('"boards": []', '"boards": {"x": [1, 2]}', '"boards": {"x": true}'):
        start = text.index('"boards"')
        (directory / CARD_FILE).write_text(text[:start] + wrong + "}")
        with pytest.raises(CloudError, match="card"):
            ModelCard.load(directory)


def test_estimates_are_of_one_instruction_in_a_clock():
    (one,) = estimate(1_000_000, 10, [BoardKind("a", 10, 125_000_000, 10.0)])
    assert one == BoardEstimate("a", fits=True, least_ms=80.0)


def keras_model(layers, shape):
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("conv", 8 * 8 * 3 * 3 * 3 * 4),
        ("depthwise", 8 * 8 * 3 * 3 * 3),
        ("dense", 8 * 8 * 3 * 5),
        ("transpose", 8 * 8 * 3 * 2 * 2 * 4),
    ],
)
def test_multiply_accumulates_are_counted(name, macs):
    from keras import layers

    from cloud.export import to_int8_tflite

    made = {
        "conv": [layers.Conv2D(4, 3, padding="same")],
        "depthwise": [layers.DepthwiseConv2D(3, padding="same")],
        "dense": [layers.Flatten(), layers.Dense(5)],
        "transpose": [layers.Conv2DTranspose(4, 2, strides=2, padding="same")],
    }[name]
    samples = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
    converted = to_int8_tflite(keras_model(made, (8, 8, 3)), samples)
    assert Interpreter(converted.data).plan().macs == macs
