"""A board's whole life on a target: it samples, signs and judges, and says what lives in its heap.

What a Pico W has is the measure: a third of its heap is to stay free, for what comes and goes.
"""

from __future__ import annotations

import hashlib
import json
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fog_node.protocol import cbor
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import Manifest, encode_bundle, sign_manifest
from tools.boards import load_board
from tools.hil.payload import firmware_for
from tools.hil.target import Target, TargetError
from tools.hil.targets import open_target

__all__ = ["BOARD", "HEAP_BYTES", "LIMIT_BYTES", "TARGETS", "Life", "Model", "run", "tiny_model"]

# Where a life can be led with a Pico W's heap and a look at it.
TARGETS = ("qemu-arm", "qemu-rv32")
# Whose heap the figures are held against.
BOARD = "pico-w"
HEAP_BYTES = load_board(BOARD).memory.heap_bytes
LIMIT_BYTES = HEAP_BYTES * 2 // 3

PACKS, PACK_ROWS = 6, 10
TIMEOUT_S = 180.0
CHAIN_ID = hashlib.sha256(b"a board's life").digest()
TRAINER = SigningKey.from_secret(1)
GATEWAY = SigningKey.from_secret(2)
TINY_WINDOW = 4
TINY_CHANNELS = ("flow", "pressure")

# The life, with a look at the heap whenever a pack is signed.
_LIFE = f"""
import gc
gc.threshold(16 * 1024)  # as boot.py and main.py
import launcher
launcher.select()
from fogline import update
update.preload()
del update
from fogline import console
say = console.say
held = []
def look(event, **fields):
    say(event, **fields)
    if event == "pack":
        gc.collect()
        held.append(gc.mem_alloc())
        if len(held) == {PACKS}:
            raise KeyboardInterrupt
console.say = look
from fogline import app
app.main()
print()
print("heap", len(held), held and max(held), gc.mem_alloc() + gc.mem_free())
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A model for the life: rows of these channels in a window, an output like its input.

    answers: pairs of an input and what must come of it.
    """

    data: bytes
    ops: tuple[str, ...]
    arena_bytes: int
    window: int
    channels: tuple[str, ...]
    answers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Life:
    """What was seen.

    Attributes:
        held_bytes: what lived in the heap at most, when a pack had been signed.
        heap_bytes: what the heap had.
        packs, verdicts: how many were signed and made.
    """

    target: str
    held_bytes: int
    heap_bytes: int
    packs: int
    verdicts: int

    @property
    def fits(self) -> bool:
        """Whether a Pico W has a third to spare."""
        return self.held_bytes <= LIMIT_BYTES

    def as_json(self) -> dict[str, Any]:
        """Everything, and what it is held against."""
        return {
            "held_bytes": self.held_bytes,
            "heap_bytes": self.heap_bytes,
            "packs": self.packs,
            "verdicts": self.verdicts,
            "board": BOARD,
            "board_heap_bytes": HEAP_BYTES,
            "limit_bytes": LIMIT_BYTES,
            "ratio": self.held_bytes / LIMIT_BYTES,
        }

    def line(self) -> str:
        """The same in words."""
        return (
            f"{self.held_bytes} bytes live at work, of a Pico W's {HEAP_BYTES}; "
            f"limit {LIMIT_BYTES} (two thirds)   ratio {self.held_bytes / LIMIT_BYTES:.2f}"
        )


def run(name: str, model: Model | None = None, heap_bytes: int = HEAP_BYTES) -> Life:
    """Let a QEMU target live until it has signed PACKS packs over its serial line.

    Args:
        name: qemu-arm or qemu-rv32.
        model: what judges; by default a tiny one.
        heap_bytes: the heap that it gets.

    Raises TargetError where it comes to another end: too small a heap, a defect.
    """
    target = open_target(name, heap_bytes=heap_bytes)
    try:
        target.put(_files(target, tiny_model() if model is None else model))
        lines = list(target.start(_LIFE).lines(TIMEOUT_S))
    finally:
        target.close()
    said = "\n".join(lines)
    last = next((line.split() for line in lines if line.startswith("heap ")), None)
    verdicts = said.count('"event": "verdict"')
    broken = last is None or int(last[1]) != PACKS or not verdicts
    if last is None or broken or "Traceback" in said.replace("KeyboardInterrupt", ""):
        raise TargetError(f"{name}: its life ended early: {said[-2000:]}")
    return Life(name, int(last[2]), int(last[3]), PACKS, verdicts)


def _files(target: Target, model: Model) -> Mapping[str, bytes]:
    bundle = _bundle(model)
    # As firmware/fogline/update.py keeps it: format, slot, bundle, none before, not on trial.
    state = cbor.encode([1, 0, hashlib.sha256(bundle).digest(), None, False, 0, None, []])
    return {
        **firmware_for(target.about()),
        "board.json": json.dumps(_settings(target.name)).encode(),
        "slot_a.bin": bundle,
        "models.state": state + crc32(state).to_bytes(4, "big"),
    }


def _settings(board: str) -> dict[str, Any]:
    """A board.json for the serial line, with the test bed for sensors."""
    script = [{"rows": PACKS * PACK_ROWS, "fault": None}]
    return {
        "chain_id": CHAIN_ID.hex(),
        "device_type": "test",
        "board": board,
        "enterprise_number": 32473,
        "gateways": [{"name": "here", "key": GATEWAY.public.xy.hex()}],
        "serial": {"port": "stdio", "window_bytes": 256, "keepalive_s": 10, "interrupt": True},
        "release_keys": [TRAINER.public.xy.hex()],
        "driver": {"name": "testbed", "seed": 1, "script": script},
        "pack_rows": PACK_ROWS,
        "rate_hz": 0,
        "outbox_bytes": 262144,
        "gateway_timeout_s": 10,
    }


def _bundle(model: Model) -> bytes:
    width = len(model.channels)
    manifest = Manifest(
        name="life",
        version=1,
        min_version=0,
        device_type="test",
        payload_sha256=hashlib.sha256(model.data).digest(),
        payload_size=len(model.data),
        ops=model.ops,
        arena=model.arena_bytes,
        window=model.window,
        stride=1,
        channels=model.channels,
        max_gap_s=10,
        calibrate=0,
        input=((8, 3000, 5),) * width,
        score=(0, 0, 256),
        threshold=1 << 30,
        of=1,
        need=1,
        selftest=model.answers,
        time=0,
    )
    return encode_bundle([sign_manifest(TRAINER, manifest, CHAIN_ID)], model.data)


def tiny_model() -> Model:
    """A convolution over a window of four rows of two channels that gives back what it gets."""
    import numpy as np

    from tools.bench.tflite_builder import Activation, Kind, ModelBuilder, Operator, Padding

    builder = ModelBuilder()
    shape = (1, 1, TINY_WINDOW, len(TINY_CHANNELS))
    x = builder.tensor(shape, 0.05, 0)
    data = np.zeros((2, 1, 1, 2), np.int8)
    data[0, 0, 0, 0] = data[1, 0, 0, 1] = 100
    weights = builder.tensor(data.shape, 0.01, data=data)
    bias = builder.tensor((2,), 0.05 * 0.01, kind=Kind.INT32, data=np.zeros(2, np.int32))
    y = builder.tensor(shape, 0.05, 0)
    builder.operator(
        Operator.CONV_2D, [x, weights, bias], y, "Conv2DOptions", padding=Padding.SAME,
        strideH=1, strideW=1, fusedActivationFunction=Activation.NONE,
    )  # fmt: skip
    rows = [np.full(shape, fill, np.int8).tobytes() for fill in (-128, 0, 77)]
    return Model(
        builder.finish([x], [y]), ("CONV_2D",), 4096, TINY_WINDOW, TINY_CHANNELS,
        tuple((row, row) for row in rows),
    )  # fmt: skip
