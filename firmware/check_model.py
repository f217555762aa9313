"""Runs `.tflite` files the way the board does and prints one JSON object for each.

    MICROPYPATH=firmware:.frozen micropython firmware/check_model.py MODEL ...

The inputs of MODEL are read from MODEL.in: for each run, the bytes of all its inputs one
behind the other; without that file the model is only checked. The object has `file` and either
`error` or `ops`, `arena` (bytes), `work`, `outputs` (per run, the hex of all outputs) and `us`
(per run, microseconds). Exits with 1 if a model was refused.
"""

import gc
import json
import sys
from time import ticks_diff, ticks_us

from fogline.errors import ModelError
from fogline.tflite import Model


def read(path):
    """Return a file's bytes, nothing if it is not there."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def split(data, sizes):
    """Return the parts of `data` of these sizes."""
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return parts


def check(path):
    """Return what is to be said about one model; raises ModelError."""
    model = Model(read(path))
    said = {
        "ops": model.ops,
        "arena": model.arena_bytes,
        "work": model.work,
        "outputs": [],
        "us": [],
    }
    inputs = memoryview(read(path + ".in"))
    sizes = [tensor.bytes for tensor in model.inputs]
    if inputs:
        model.allocate()
    while inputs:
        started = ticks_us()
        outputs = model.invoke(split(inputs, sizes))
        said["us"].append(ticks_diff(ticks_us(), started))
        said["outputs"].append(b"".join(outputs).hex())
        inputs = inputs[sum(sizes) :]
    return said


def main(paths):
    """Print a line for each of `paths`; returns the exit code."""
    code = 0
    for path in paths:
        gc.collect()
        try:
            said = check(path)
        except ModelError as error:
            said = {"error": str(error)}
            code = 1
        said["file"] = path
        print(json.dumps(said))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
