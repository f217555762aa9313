"""Damages `.tflite` files and runs what is still accepted (MicroPython), for test_tflite.py.

Arguments: a seed, how often to damage each file, files. Prints, for each file, how many were
refused and how many ran. Ends with an error for any exception but ModelError, and if a kernel
wrote behind the arena.
"""

import gc
import random
import sys

from fogline.errors import ModelError
from fogline.tflite import Model

GUARD_BYTES = 64
WORDS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 65535, 1 << 16, 1 << 31, (1 << 32) - 1)


class GuardedModel(Model):
    """A model whose arena is followed by bytes that nobody may write."""

    def allocate(self):
        self.arena_bytes += GUARD_BYTES
        super().allocate()

    def check(self):
        assert not any(self._arena[-GUARD_BYTES:]), "written behind the arena"


def damage(data):
    """Return a damaged copy."""
    copy = bytearray(data)
    kind = random.randrange(4)
    if kind == 0:
        return copy[: random.randrange(len(copy))]
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(len(copy) - 4)
        if kind == 1:
            copy[at] = random.randrange(256)
        elif kind == 2:
            copy[at & ~3 : (at & ~3) + 4] = random.choice(WORDS).to_bytes(4, "little")
        else:
            other = random.randrange(len(copy) - 4)
            copy[at : at + 4] = copy[other : other + 4]
    return copy


def main(seed, times, *paths):
    random.seed(int(seed))
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123 - MicroPython has no pathlib
            data = file.read()
        refused = 0
        for _ in range(int(times)):
            gc.collect()
            try:
                model = GuardedModel(damage(data))
                model.allocate()
                model.invoke([bytes(tensor.bytes) for tensor in model.inputs])
                model.check()
            except ModelError:
                refused += 1
        print(refused, int(times) - refused)


main(*sys.argv[1:])
