"""Runs on the board: builds the packs that the lines of its input describe, and prints them in hex.

A line is JSON: {"sensors": [...], "channels": count, "rows": [[ms, [value or null, ...], [[label,
code], ...]], ...], "clock": [boot, ms, giver (hex, number or null)] or null}.
"""

import json
import sys

from fogline.pack import PackBuilder

KID = bytes.fromhex("a6b22b49b399d871")

for line in sys.stdin:
    case = json.loads(line)
    channels = [(f"c{index}", "V") for index in range(case["channels"])]
    builder = PackBuilder(KID, channels, 32473, sensors=case["sensors"])
    for time_ms, values, faults in case["rows"]:
        assert builder.fits(time_ms)
        for label, code in faults:
            builder.add_fault(time_ms, label, code)
        builder.add_row(time_ms, values)
    clock = case["clock"]
    if clock is not None:
        boot, ms, giver = clock
        clock = (boot, ms, bytes.fromhex(giver) if isinstance(giver, str) else giver)
    print("" if builder.empty else builder.take(clock).hex())
