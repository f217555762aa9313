"""Runs many models on a board (MicroPython), for test_models_on_boards.py.

The file holds for each model its length (4 bytes, little-endian), the model, and the same of its
inputs. Prints for each the hex of its outputs, or the error.
"""

import gc

from fogline import kernels
from fogline.errors import ModelError
from fogline.tflite import Model


def read(file):
    """The next piece of the file, nothing at its end."""
    return file.read(int.from_bytes(file.read(4), "little"))


def run(data, inputs):
    """What one model makes of its inputs."""
    model = Model(data)
    model.allocate()
    parts = []
    for tensor in model.inputs:
        parts.append(inputs[: tensor.bytes])
        inputs = inputs[tensor.bytes :]
    return b"".join(bytes(output) for output in model.invoke(parts)).hex()


def main(path, kernel):
    kernels.use(kernel)
    with open(path, "rb") as file:  # noqa: PTH123 - MicroPython has no pathlib
        while True:
            data = read(file)
            if not data:
                return
            inputs = read(file)
            try:
                print(run(data, inputs))
            except ModelError as error:
                print(error)
            gc.collect()
