"""Pins that a rig has wired together: what goes out at one comes in at the other.

Whoever says that there are such wires has written into `hil_place.json` which board this is.
"""

import json
from time import sleep_ms

from fogline import board
from support import Random

TEST_NEEDS = {
    "test_a_level_goes_through": ("loopback:d0-d1",),
    "test_every_rising_edge_is_seen_once": ("loopback:d0-d1",),
    "test_bytes_go_through_the_uart_in_order": ("loopback:uart1 tx-uart1 rx",),
}
SETTLE_MS = 2
EDGES = 50
BYTES = 200
BAUDRATE = 9600
PATIENCE_MS = 1000


def select():
    with open("hil_place.json") as file:
        board.select(json.load(file)["board"])


def test_a_level_goes_through():
    select()
    out, into = board.get("output", "d0", 1), board.get("pin", "d1")
    for level in (1, 0, 0, 1, 0):
        out.value(level)
        sleep_ms(SETTLE_MS)
        assert into.value() == level


def test_every_rising_edge_is_seen_once():
    from machine import Pin

    select()
    out, into = board.get("output", "d0"), board.get("pin", "d1")
    seen = [0]

    def count(_):
        seen[0] += 1

    into.irq(count, trigger=Pin.IRQ_RISING)
    try:
        for _ in range(EDGES):
            out.value(1)
            sleep_ms(SETTLE_MS)
            out.value(0)
            sleep_ms(SETTLE_MS)
    finally:
        into.irq(None)
    assert seen[0] == EDGES


def test_bytes_go_through_the_uart_in_order():
    select()
    port = board.get("uart", "uart1", BAUDRATE, 2 * BYTES)
    while port.read(BYTES):
        sleep_ms(SETTLE_MS)
    sent = Random(20261126).bytes(BYTES)
    port.write(sent)
    found = b""
    for _ in range(PATIENCE_MS):
        found += port.read(BYTES) or b""
        if len(found) >= BYTES:
            break
        sleep_ms(1)
    assert found == sent
