"""What the cloud says that a model takes on a board, against what the firmware takes."""

import os

from support.tflite_models import RandomModel

from cloud.board_plan import POOLS
from cloud.export import Interpreter

MODELS = 60

SCRIPT = """
import sys
from fogline.tflite import Model

for path in sys.argv[1:]:
    with open(path, "rb") as file:
        model = Model(file.read())
    print(model.arena_bytes, model.work)
"""


def test_a_plan_is_what_the_firmware_takes(run_firmware, tmp_path):
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    script = tmp_path / "plan.py"
    script.write_text(SCRIPT)
    models = [RandomModel(seed + number) for number in range(MODELS)]
    paths = [tmp_path / f"{number}.tflite" for number in range(MODELS)]
    for path, model in zip(paths, models, strict=True):
        path.write_bytes(model.data)
    done = run_firmware(script, *map(str, paths))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    taken = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(taken) == MODELS
    told = 0
    for number, (model, arena) in enumerate(zip(models, taken, strict=True)):
        network = Interpreter(model.data)
        if POOLS.isdisjoint(network.ops()):  # LiteRT does not tell their windows
            assert network.plan().arena == arena, f"RandomModel({seed + number})"
            told += 1
    assert told >= MODELS // 3
