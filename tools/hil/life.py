"""A board's whole life on a target: it samples, signs and judges, and says what lives in its heap.

What a Pico W has is the measure: a third of its heap is to stay free, for what comes and goes. The
board has a real driver and a model of the kind and size that `fogline train anomaly` releases.
"""

from __future__ import annotations

import hashlib
import json
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud.train.anomaly import CUTTING
from fog_node.protocol import cbor
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import Manifest, encode_bundle, sign_manifest
from tools.bench.board_model import auto_encoder, reference
from tools.boards import load_board
from tools.hil.payload import firmware_for
from tools.hil.target import Target, TargetError
from tools.hil.targets import open_target

__all__ = [
    "BME280",
    "BOARD",
    "HEAP_BYTES",
    "LIMIT_BYTES",
    "TARGETS",
    "TESTBED",
    "Life",
    "Sensors",
    "run",
]

# Where a life can be led with a Pico W's heap and a look at it.
TARGETS = ("qemu-arm", "qemu-rv32")
# Whose heap the figures are held against.
BOARD = "pico-w"
HEAP_BYTES = load_board(BOARD).memory.heap_bytes
LIMIT_BYTES = HEAP_BYTES * 2 // 3
# The heap of a life: less than a Pico W's, so that it is seen to be enough.
GIVEN_BYTES = 160 * 1024

PACKS, PACK_ROWS = 6, 10
TIMEOUT_S = 180.0
CHAIN_ID = hashlib.sha256(b"a board's life").digest()
TRAINER = SigningKey.from_secret(1)
GATEWAY = SigningKey.from_secret(2)
WINDOW = CUTTING.window  # of what `fogline train anomaly` releases
ARENA_BYTES = 16 * 1024

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
judged = 0
def look(event, **fields):
    global judged
    say(event, **fields)
    judged += event == "verdict"
    if event == "pack":
        gc.collect()
        held.append(gc.mem_alloc())
        if judged and len(held) >= {PACKS}:
            raise KeyboardInterrupt
console.say = look
from fogline import app
app.main()
print()
print("heap", len(held), held and max(held), gc.mem_alloc() + gc.mem_free())
"""


# A chip on an I2C bus, in the place of the pins that QEMU's machines lack: the registers of a
# BME280 that has measured Bosch's example (firmware/tests/test_i2c_sensors.py).
_CHIP = """
import struct, sys
class machine:
    def Pin(id):
        return id
    class I2C:
        size = {
            0xD0: b"\\x60",
            0xF3: bytes(1),
            0x88: struct.pack(
                "<HhhHhhhhhhhhH", 27504, 26435, -1000,
                36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000, 75 << 8,
            ),
            0xE1: bytes((114, 1, 0, 19, 41, 3, 30)),
            0xF7: bytes((0x65, 0x5A, 0xC0, 0x7E, 0xED, 0x00, 0x75, 0x30)),
        }
        def __init__(self, id, **value):
            pass
        def readfrom_mem(self, id, at, size):
            return self.size[at]
        def writeto_mem(self, id, at, value):
            pass
sys.modules["machine"] = machine
"""


@dataclass(frozen=True, slots=True)
class Sensors:
    """What a life measures.

    Attributes:
        name: of the driver or sensor.
        board: whose pins it has; None: the target's own.
        settings: board.json's `driver` section.
        rate_hz: rows in a second; 0: as fast as it goes.
        channels: what the driver calls them, all of which the model judges.
        wires: code that stands for what hangs on the board.
    """

    name: str
    board: str | None
    settings: Mapping[str, Any]
    rate_hz: int
    channels: tuple[str, ...]
    wires: str = ""


BME280 = Sensors(
    name="bme280",
    board=BOARD,
    settings={"name": "sensors", "sensors": [{"name": "bme280", "label": "air", "bus": "i2c0"}]},
    rate_hz=100,
    channels=("air/temperature", "air/humidity", "air/pressure"),
    wires=_CHIP,
)
TESTBED = Sensors(
    name="testbed",
    board=None,
    settings={
        "name": "testbed", "seed": 1, "script": [{"rows": PACKS * PACK_ROWS, "fault": None}],
    },
    rate_hz=0,
    channels=(
        "accelerometer1", "accelerometer2", "current", "pressure", "temperature", "thermocouple",
        "voltage", "flow",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Life:
    """What was seen.

    Attributes:
        held_bytes: what lived in the heap at most, when a pack had been signed.
        heap_bytes: what the heap had.
        packs, verdicts: how many were signed and made.
        driver, model_bytes: what it measured with, and the size of the model's file.
    """

    target: str
    driver: str
    model_bytes: int
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
            "driver": self.driver,
            "model_bytes": self.model_bytes,
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
            f"{self.held_bytes} bytes live at work, with {self.driver} and a model of "
            f"{self.model_bytes} bytes, of a Pico W's {HEAP_BYTES}; "
            f"limit {LIMIT_BYTES} (two thirds)   ratio {self.held_bytes / LIMIT_BYTES:.2f}"
        )


def run(name: str, sensors: Sensors = BME280, heap_bytes: int = GIVEN_BYTES) -> Life:
    """Let a QEMU target live until it has signed PACKS packs, and verdicts among them.

    Args:
        name: qemu-arm or qemu-rv32.
        sensors: what it measures.
        heap_bytes: the heap that it gets.

    Raises TargetError where it comes to another end: too small a heap, a defect.
    """
    model = auto_encoder(WINDOW, len(sensors.channels))
    target = open_target(name, heap_bytes=heap_bytes)
    try:
        target.put(_files(target, sensors, model))
        # From its first line on: the bytecode of a script that begins with an empty one has `01 20`
        # in its first word, which the collector takes for an address in a heap at 0x2001....
        script = (sensors.wires + _LIFE).lstrip()
        lines = list(target.start(script).lines(TIMEOUT_S))
    finally:
        target.close()
    said = "\n".join(lines)
    last = next((line.split() for line in lines if line.startswith("heap ")), None)
    verdicts = said.count('"event": "verdict"')
    broken = last is None or int(last[1]) < PACKS or not verdicts
    if last is None or broken or "Traceback" in said.replace("KeyboardInterrupt", ""):
        raise TargetError(f"{name}: its life ended early: {said[-2000:]}")
    return Life(name, sensors.name, len(model), int(last[2]), int(last[3]), int(last[1]), verdicts)


def _files(target: Target, sensors: Sensors, model: bytes) -> Mapping[str, bytes]:
    bundle = _bundle(sensors, model)
    # As firmware/fogline/update.py keeps it: format, slot, bundle, none before, not on trial.
    state = cbor.encode([1, 0, hashlib.sha256(bundle).digest(), None, False, 0, None, []])
    return {
        **firmware_for(target.about()),
        "board.json": json.dumps(_settings(target.name, sensors)).encode(),
        "slot_a.bin": bundle,
        "models.state": state + crc32(state).to_bytes(4, "big"),
    }


def _settings(target: str, sensors: Sensors) -> dict[str, Any]:
    """A board.json for the serial line."""
    return {
        "chain_id": CHAIN_ID.hex(),
        "device_type": "test",
        "board": sensors.board or target,
        "enterprise_number": 32473,
        "gateways": [{"name": "here", "key": GATEWAY.public.xy.hex()}],
        "serial": {"port": "stdio", "window_bytes": 256, "keepalive_s": 10, "interrupt": True},
        "release_keys": [TRAINER.public.xy.hex()],
        "driver": sensors.settings,
        "pack_rows": PACK_ROWS,
        "rate_hz": sensors.rate_hz,
        "outbox_bytes": 262144,
        "gateway_timeout_s": 10,
    }


def _bundle(sensors: Sensors, model: bytes) -> bytes:
    given, wanted = reference(model)
    manifest = Manifest(
        name="life",
        version=1,
        min_version=0,
        device_type="test",
        payload_sha256=hashlib.sha256(model).digest(),
        payload_size=len(model),
        ops=("CONV_2D", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "ADD"),
        arena=ARENA_BYTES,
        window=WINDOW,
        stride=1,
        channels=sensors.channels,
        max_gap_s=10,
        calibrate=0,
        input=((8, 3000, 5),) * len(sensors.channels),
        score=(0, 0, 256),
        threshold=1 << 30,
        of=1,
        need=1,
        selftest=((given, wanted),),
        time=0,
    )
    return encode_bundle([sign_manifest(TRAINER, manifest, CHAIN_ID)], model)
