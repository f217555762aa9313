"""Runs the board's Judge over rows (MicroPython), for test_preprocess.py.

Reads one JSON object: manifest, rows (binary32, big-endian, hex), times (ms). The model's part
is played by turning the window around. Prints [row, score, anomaly, window in hex], a line each.
"""

import json
import struct
import sys

from fogline.judge import Judge


class Tensor:
    def __init__(self, size):
        self.bytes = size


class Mirror:
    """A model whose output is its input, back to front."""

    def __init__(self, size):
        self.inputs = [Tensor(size)]
        self.outputs = [Tensor(size)]
        self.seen = b""

    def invoke(self, inputs):
        self.seen = bytes(inputs[0])
        return [bytes(reversed(self.seen))]


def main():
    case = json.loads(sys.stdin.read())
    manifest = case["manifest"]
    channels = manifest["channels"]
    model = Mirror(manifest["window"] * len(channels))
    judge = Judge(model, manifest, channels)
    values = bytes.fromhex(case["rows"])
    form = f">{len(channels)}f"
    for index, time in enumerate(case["times"]):
        row = struct.unpack_from(form, values, index * struct.calcsize(form))
        verdict = judge.push(row, time)
        if verdict:
            print(json.dumps([index, verdict.score, verdict.anomaly, model.seen.hex()]))


main()
