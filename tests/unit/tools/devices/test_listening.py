"""What boards say is taken apart whatever the line does to it, and shown without harm."""

import json
import random

import pytest

from fog_node.gateway import serial_frame
from tools.devices import monitor
from tools.devices.listening import IDLE_READS, MAX_LINE_BYTES, Listener
from tools.devices.tapping import LinkTap


def heard(*pieces):
    listener = Listener()
    return [one for piece in pieces for one in listener.feed(piece)]


def idle(*pieces):
    return heard(*pieces, *[b""] * IDLE_READS)


EVENT = json.dumps({"event": "pack", "seq": 7, "rows": 10}).encode()


def test_plain_lines_are_heard_once_the_line_is_quiet() -> None:
    listener = Listener()
    assert list(listener.feed(EVENT + b"\r\n")) == []
    found = [one for _ in range(IDLE_READS) for one in listener.feed(b"")]
    assert [one.event["seq"] for one in found] == [7]
    assert list(monitor.describe(found[0], LinkTap())) == ["[pack] seq 7, rows 10"]


def test_lines_in_frames_are_heard_at_once_and_noise_beside_them() -> None:
    frame = serial_frame.encode(serial_frame.CONSOLE, EVENT + b"\n")
    found = heard(b"rst:0x1 (POWERON_RESET)\n", frame, frame)
    assert [one.text for one in found] == [
        "rst:0x1 (POWERON_RESET)",
        EVENT.decode(),
        EVENT.decode(),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_frames_in_any_pieces_with_pauses_of_a_read(seed) -> None:
    rng = random.Random(seed)
    bodies = [rng.randbytes(rng.randint(1, 300)) for _ in range(20)]
    stream = b"".join(serial_frame.encode(serial_frame.LINK, body) for body in bodies)
    pieces = []
    while stream:
        size = rng.randint(1, 40)
        pieces += [stream[:size]] + [b""] * rng.randrange(IDLE_READS)
        stream = stream[size:]
    assert [one.link for one in heard(*pieces)] == bodies


def test_control_characters_do_not_reach_the_terminal() -> None:
    (one,) = idle(b"\x1b]0;owned\x07\x1b[2Jhello \xff\n")
    assert "\x1b" not in one.text
    assert "hello" in one.text
    (event,) = idle(b'{"event": "re\\u001b[2Jfused", "error": "\\u0007x"}\n')
    assert all(
        "\x1b" not in line and "\x07" not in line for line in monitor.describe(event, LinkTap())
    )


def test_an_endless_line_is_bounded() -> None:
    listener = Listener()
    longest = 0
    for _ in range(100):
        for one in listener.feed(b"x" * 1000):
            longest = max(longest, len(one.text))
    assert 0 < longest <= MAX_LINE_BYTES + 4096
