"""Runs on the board: the driver `sensors` on fake chips, through the pack builder.

Prints the channels as JSON, then a line for each pack: its SenML in hex. Rows are a second apart;
the supply's meter is unplugged from row 4 to 9, and everything from row 12 to 15.
"""

import json

import fakes
from fakes import I2C, clock
from fogline.pack import PackBuilder
from test_sensors import AIR, LIGHT, SUPPLY, driver, plug_in

START_MS = 1_767_225_600_000
KID = bytes.fromhex("a6b22b49b399d871")
ROWS, PACK_ROWS = 24, 4

fakes.reset()
plug_in()
chips = dict(I2C.chips)
made = driver(AIR, SUPPLY, LIGHT)
print(json.dumps([list(channel) for channel in made.channels]))
builder = PackBuilder(KID, made.channels, 32473, PACK_ROWS, made.sensors)
for row in range(ROWS):
    clock.sleep_ms(1000)
    I2C.chips.clear()
    if not 12 <= row < 16:
        I2C.chips.update(chips)
    if 4 <= row < 10:
        I2C.chips.pop(0x40, None)
    _, values = made.sample()
    for label, code in made.faults:
        builder.add_fault(START_MS + 1000 * row, label, code)
    builder.add_row(START_MS + 1000 * row, values)
    if row % PACK_ROWS == PACK_ROWS - 1:
        print(builder.take().hex())
