"""A board's whole life in the heap of a small one: it samples, signs and judges all at once."""

import hashlib
import json
from binascii import crc32

import cbor2
import pytest
from support import releases, summary

from tools.boards import load_board
from tools.hil.payload import firmware_for
from tools.hil.qemu import QemuTarget

PICO_W_BYTES = load_board("pico-w").memory.heap_bytes
# What a life with a serial line and a model may hold at once. Bytes, not time: the same every run,
# but for some hundred. Lower it when the firmware takes less.
MOST_HELD_BYTES = 143_000
ROWS, PACK_ROWS = 60, 10
MODEL_CHANNELS = ("flow", "pressure")
# The life, with a look at the heap whenever a pack is signed.
LIFE = """
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
        if len(held) == PACKS:
            raise KeyboardInterrupt
console.say = look
from fogline import app
app.main()
print()
print("heap", len(held), held and max(held), gc.mem_alloc() + gc.mem_free())
"""


def settings():
    """A board.json for the serial line, with the testbed for sensors."""
    return {
        "chain_id": releases.CHAIN_ID.hex(),
        "device_type": "test",
        "board": "unix",
        "enterprise_number": 32473,
        "gateways": [{"name": "here", "key": releases.STRANGER.public.xy.hex()}],
        "serial": {"port": "stdio", "window_bytes": 256, "keepalive_s": 10, "interrupt": True},
        "release_keys": [releases.TRAINER.public.xy.hex()],
        "driver": {"name": "testbed", "seed": 1, "script": [{"rows": ROWS, "fault": None}]},
        "pack_rows": PACK_ROWS,
        "rate_hz": 0,
        "outbox_bytes": 262144,
        "gateway_timeout_s": 10,
    }


@pytest.mark.parametrize("machine", ["arm", "rv32"])
def test_a_life_fits_its_heap(machine, request):
    bundle = releases.bundle(releases.tiny_model(1), 1, channels=MODEL_CHANNELS)
    # As firmware/fogline/update.py keeps it: format, slot, bundle, none before, not on trial.
    state = cbor2.dumps([1, 0, hashlib.sha256(bundle).digest(), None, False, 0, None, []])
    state += crc32(state).to_bytes(4, "big")
    target = QemuTarget(machine, heap_bytes=PICO_W_BYTES)
    try:
        target.put(
            {
                **firmware_for(target.about()),
                "board.json": json.dumps({**settings(), "board": target.name}).encode(),
                "slot_a.bin": bundle,
                "models.state": state,
            }
        )
        packs = ROWS // PACK_ROWS
        lines = list(target.start(f"PACKS = {packs}\n{LIFE}").lines(120))
    finally:
        target.close()
    said = "\n".join(lines)
    assert "Traceback" not in said.replace("KeyboardInterrupt", ""), said[-3000:]
    signed, held, heap = map(int, next(x for x in lines if x.startswith("heap ")).split()[1:])
    assert signed == packs, said[-3000:]
    assert said.count('"event": "pack"') == packs
    assert said.count('"event": "verdict"') > 0, repr(said)
    assert held <= MOST_HELD_BYTES
    assert heap <= PICO_W_BYTES
    line = (
        f"{target.name}, heap at work: {held} bytes live at most, "
        f"{held / PICO_W_BYTES:.0%} of a Pico W's {PICO_W_BYTES}"
    )
    summary.say(request.config, f"a board's life on {target.name}", [line])
