"""Whether a model is to boards what its card says, looked at before it is released.

The boards' own interpreter, in MicroPython's unix port, must give LiteRT's bytes for self-tests
and for windows of any value. And each kind of board that is enrolled for it must have the room.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cloud.board_cost import BoardKind, estimate
from cloud.export import Interpreter, check_limits
from cloud.model_card import MODEL_FILE, ModelCard, read_model_file
from fog_node.protocol.manifest import MAX_PAYLOAD_BYTES
from tools.boards import Board
from tools.errors import ToolError
from tools.firmware_files import FIRMWARE
from tools.hil.target import TargetError
from tools.hil.unix import find_micropython

# Windows beside the self-tests: random ones by this seed, and the ends of the range.
WINDOWS = 32
SEED = 1
HEAP_BYTES = 16 << 20
TIMEOUT_S = 120.0
# Model, then windows, each behind its length; a line of hex for each output.
_PROGRAM = """\
import sys
from fogline.tflite import Model

def piece(file):
    return file.read(int.from_bytes(file.read(4), "little"))

with open(sys.argv[1], "rb") as file:
    model = Model(piece(file))
    model.allocate()
    while True:
        given = piece(file)
        if not given:
            break
        print(bytes(model.invoke([given])[0]).hex())
"""


def kinds(boards: Mapping[str, Board]) -> tuple[BoardKind, ...]:
    """The kinds of boards that there are, as the cost of a model takes them."""
    return tuple(
        BoardKind(
            name,
            board.inference.arena_bytes,
            board.inference.clock_hz,
            board.inference.instructions_per_mac,
        )
        for name, board in sorted(boards.items())
    )


def check(
    directory: Path, boards: Mapping[str, Board], enrolled: Collection[str]
) -> dict[str, Any]:
    """Hold a model against its card and against what boards make of it.

    Args:
        directory: holds `model.tflite` and its card.
        boards: the kinds that there are, by their ids.
        enrolled: ids of the kinds that are on the chain for its device type; unknown ones are
            passed over.

    Returns:
        What was compared, and what it costs boards.

    Raises:
        ToolError: it is not what its card says, boards compute something else, or it does not fit.
        CloudError: it cannot be read, or has what boards lack.
    """
    card = ModelCard.load(directory)
    data = read_model_file(directory / MODEL_FILE, MAX_PAYLOAD_BYTES)
    try:
        interpreter = Interpreter(data)
    except (RuntimeError, ValueError) as error:
        raise ToolError(f"{directory / MODEL_FILE}: LiteRT cannot run it: {error}") from error
    ops, needs = interpreter.ops(), interpreter.plan()
    arena, macs = needs.arena, needs.macs
    check_limits(ops, len(data), arena)
    if set(ops) != set(card.ops) or arena > card.arena:
        raise ToolError(
            f"{directory}: the card says {', '.join(card.ops)} and {card.arena} bytes of working "
            f"memory, the model has {', '.join(ops)} and {arena}; train again, which writes both"
        )
    costs = {one.name: one for one in estimate(macs, card.arena, kinds(boards))}
    if small := sorted(name for name in enrolled if name in costs and not costs[name].fits):
        raise ToolError(
            f"{directory}: needs {card.arena} bytes of working memory, and boards of the kind "
            f"{', '.join(small)} are enrolled for {card.device_type}, which have less; make the "
            "network smaller, or enrol those boards under another type"
        )
    inputs = [given for given, _ in card.selftest]
    shape = interpreter.input["shape"]
    random = np.random.default_rng(SEED)
    windows = random.integers(-128, 128, (WINDOWS, int(np.prod(shape))), dtype=np.int8)
    windows[0], windows[1] = -128, 127
    inputs += [window.tobytes() for window in windows]
    if any(len(given) != windows.shape[1] for given in inputs):
        raise ToolError(f"{directory}: a self-test is not as long as the input; train again")
    tensors = np.array([np.frombuffer(given, np.int8) for given in inputs])
    expected = [output.tobytes() for output in interpreter.run(tensors)]
    if expected[: len(card.selftest)] != [answer for _, answer in card.selftest]:
        raise ToolError(f"{directory}: LiteRT answers its self-tests otherwise; train again")
    on_board = run_on_board(data, inputs)
    differing = sum(one != other for one, other in zip(on_board, expected, strict=True))
    if differing:
        raise ToolError(
            f"{directory}: the boards' interpreter gives other bytes than LiteRT for {differing} "
            f"of {len(inputs)} windows; report it with {MODEL_FILE}, and do not release the model"
        )
    return {
        "windows_alike": len(inputs),
        "arena": card.arena,
        "macs": macs,
        "boards": [
            {"board": one.name, "fits": one.fits, "least_ms": one.least_ms}
            for one in costs.values()
        ],
    }


def run_on_board(model: bytes, inputs: list[bytes]) -> list[bytes]:
    """What the boards' interpreter makes of each input; raises ToolError."""
    try:
        program = find_micropython()
    except TargetError as error:
        raise ToolError(f"the model is to run on boards before it is released: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        script, file = Path(folder, "infer.py"), Path(folder, "windows")
        script.write_text(_PROGRAM, encoding="utf-8")
        file.write_bytes(b"".join(len(p).to_bytes(4, "little") + p for p in [model, *inputs]))
        try:
            run = subprocess.run(
                [program, "-X", f"heapsize={HEAP_BYTES}", str(script), str(file)],
                env={**os.environ, "MICROPYPATH": f"{FIRMWARE}:.frozen"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolError(f"{program}: does not run the model: {error}") from error
    lines = run.stdout.split()
    if run.returncode or len(lines) != len(inputs):
        last = (run.stderr or run.stdout).strip().splitlines()[-1:] or ["nothing said"]
        raise ToolError(f"the boards' interpreter refuses the model: {last[0][:200]}")
    return [bytes.fromhex(line) for line in lines]


__all__ = ["check", "kinds", "run_on_board"]
