"""Pre-processing, scores and verdicts, as the hub computes them."""

import struct

from fogline.judge import Judge
from fogline.preprocess import MAX_SCORE, fixed_point, score, to_int8
from support import raises, vectors

TEST_NEEDS = {
    "test_channels_are_found_by_name": ("viper",),
    "test_missing_values_stretch_no_gap": ("viper",),
    "test_score": ("viper",),
    "test_vectors": ("viper",),
}
CASES = vectors("judge")["cases"]
MANIFEST = {
    "window": 2, "stride": 1, "channels": ["b"], "max_gap_s": 10, "calibrate": 0,
    "input": [[0, 1 << 16, 0]], "score": {"zi": 0, "zo": 0, "mo": 256}, "threshold": 0, "of": 1,
    "need": 1,
}  # fmt: skip
NAN = float("nan")
INFINITY = float("inf")


class Tensor:
    def __init__(self, size):
        self.bytes = size


class Mirror:
    """A model whose output is its input, back to front."""

    def __init__(self, size):
        self.inputs = [Tensor(size)]
        self.outputs = [Tensor(size)]
        self.seen = []

    def invoke(self, inputs):
        self.seen.append(bytes(inputs[0]))
        return [bytes(reversed(self.seen[-1]))]


def test_vectors():
    for case in CASES:
        manifest = case["manifest"]
        width = len(manifest["channels"])
        model = Mirror(manifest["window"] * width)
        judge = Judge(model, manifest, manifest["channels"])
        values = bytes.fromhex(case["rows"])
        said = []
        for index, time_ms in enumerate(case["times"]):
            row = struct.unpack_from(">%df" % width, values, index * 4 * width)
            verdict = judge.push(row, time_ms)
            if verdict:
                said.append([index, verdict.score, verdict.anomaly, model.seen[-1].hex()])
        assert said == case["verdicts"]


def test_fixed_point_rounds_down_whatever_the_board_floats():
    for value, exponent, expected in (
        (1.5, 4, 24), (-3.7, 0, -4), (-0.0, 30, 0), (0.0, 30, 0), (1e30, 30, 1 << 30),
        (-1e30, 30, -(1 << 30)), (0.25, -30, 0), (-0.25, -30, -1), (3, 8, 768),
        (None, 0, None), (NAN, 0, None), (INFINITY, 0, None), (-INFINITY, 0, None),
    ):  # fmt: skip
        assert fixed_point(value, exponent) == expected, (value, exponent)


def test_to_int8_is_clamped():
    for fixed, expected in ((0, 0), (5, 5), (-1, 255), (127, 127), (128, 127), (-129, 128)):
        assert to_int8(fixed, 1 << 16, 0) == expected


def test_score():
    assert score(b"\x01\xff", b"\x01\xff", 0, 0, 256) == 0
    assert score(b"\x01", b"\xff", 0, 0, 256) == 4
    assert score(b"\x00", b"\x01", 0, 0, 255) == 0
    assert score(b"\x00", b"\xff", 0, 0, 255) == 1  # -255 >> 8 is -1
    assert score(b"\x80" * 16, b"\x7f" * 16, 127, -128, 1 << 14) == MAX_SCORE


def test_channels_are_found_by_name():
    model = Mirror(2)
    judge = Judge(model, MANIFEST, ["a", "b"])
    assert judge.push((7, 1), 0) is None
    assert judge.push((7, 2), 1).anomaly
    assert model.seen == [b"\x01\x02"]
    raises("model.channel", Judge, model, MANIFEST, ["a"])


def test_a_model_of_another_size_is_refused():
    raises("model.input", Judge, Mirror(3), MANIFEST, ["b"])


def test_missing_values_stretch_no_gap():
    judge = Judge(Mirror(2), MANIFEST, ["b"])
    judge.push((1,), 0)
    for time_ms in range(4000, 20_000, 4000):
        assert judge.push((None,), time_ms) is None
    # The last whole row is 20 s old: this one begins a segment.
    assert judge.push((1,), 20_000) is None
    assert judge.push((1,), 21_000)
