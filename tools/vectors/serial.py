"""Makes the vectors of the serial line's frames, which board and hub both run.

`python -m tools.vectors.serial` writes `tests/vectors/serial_frames.json`; `--check` says whether
it is current. The COBS examples are written out by hand from the algorithm's paper (Cheshire and
Baker 1999); the check value of the CRC-32 is the one that every description of it gives.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

from fog_node.gateway import serial_frame
from fog_node.gateway.serial_frame import CONSOLE, LINK, MAX_BODY_BYTES

PATH = Path(__file__).resolve().parents[2] / "tests" / "vectors" / "serial_frames.json"
_RUN = bytes(range(1, 255))  # 254 bytes without a zero

# Plain bytes, and how they are encoded.
COBS = (
    (b"", b"\x01"),
    (b"\0", b"\x01\x01"),
    (b"\0\0", b"\x01\x01\x01"),
    (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33"),
    (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
    (b"\x11\0\0\0", b"\x02\x11\x01\x01\x01"),
    (_RUN, b"\xff" + _RUN),
    (b"\0" + _RUN, b"\x01\xff" + _RUN),
    (_RUN + b"\xff", b"\xff" + _RUN + b"\x02\xff"),
    (_RUN + b"\0", b"\xff" + _RUN + b"\x01\x01"),
    (_RUN[1:] + b"\xff\0", b"\xff" + _RUN[1:] + b"\xff\x01\x01"),
    (_RUN[2:] + b"\xff\0\x01", b"\xfe" + _RUN[2:] + b"\xff\x02\x01"),
)
# What no encoder makes.
BAD_COBS = (b"\x02", b"\x05\x11\x22", b"\xff\x01", b"\x01\x03\x01")

# Stuffed bytes, and how they are escaped.
ESCAPES = (
    (b"reading", b"reading"),
    (b"\x03", b"\x7d\x23"),
    (b"\x7d", b"\x7d\x5d"),
    (b"\x7d\x03\x7d\x7d\x03\x03", b"\x7d\x5d\x7d\x23\x7d\x5d\x7d\x5d\x7d\x23\x7d\x23"),
    (b"\x7d\x5d\x23\x03\x5d", b"\x7d\x5d\x5d\x23\x7d\x23\x5d"),
)
BAD_ESCAPES = (b"\x7d", b"\x7d\x7d\x23", b"read\x03ing", b"\x7d\x24", b"\x7d\x23\x7d")

BODIES = (
    (LINK, b""),
    (LINK, b"\0"),
    (LINK, bytes(300)),
    (LINK, bytes(range(256)) * 4),
    (CONSOLE, b'{"event": "connected", "gateway": "seoul"}\n'),
    (LINK, b"\x03\x7d" * (MAX_BODY_BYTES // 2)),
    (15, b"\xff" * MAX_BODY_BYTES),
)


def _no_frames() -> dict[str, bytes]:
    """What may stand between two zero bytes and is no frame, by what is wrong with it."""
    good = serial_frame.encode(LINK, b"reading")[1:-1]
    plain = serial_frame.unstuff(good)
    assert plain is not None
    return {
        "one bit turned over": bytes([*good[:4], good[4] ^ 1, *good[5:]]),
        "cut short": good[:-1],
        "begun late": good[1:],
        "two in one": good + good,
        "shorter than a check sum": serial_frame.stuff(plain[:4]),
        "check sum in the other order": serial_frame.stuff(plain[:-4] + plain[:-5:-1]),
        "channel 0": _summed(b"\0reading"),
        "channel 16": _summed(b"\x10reading"),
        "body too long": _summed(b"\x01" + b"r" * (MAX_BODY_BYTES + 1)),
        "an interrupt in it": good[:4] + b"\x03" + good[4:],
        "text": b'Traceback (most recent call last):\r\n  File "main.py", line 1\r\n',
    }


def _summed(plain: bytes) -> bytes:
    return serial_frame.escape(serial_frame.stuff(plain + crc32(plain).to_bytes(4, "little")))


def content() -> dict[str, Any]:
    """The vectors."""
    streams = _streams()
    return {
        "crc32": {"data": b"123456789".hex(), "value": 0xCBF43926},
        "cobs": [{"plain": plain.hex(), "encoded": encoded.hex()} for plain, encoded in COBS],
        "bad_cobs": [encoded.hex() for encoded in BAD_COBS],
        "escapes": [{"plain": plain.hex(), "escaped": text.hex()} for plain, text in ESCAPES],
        "bad_escapes": [escaped.hex() for escaped in BAD_ESCAPES],
        "frames": [
            {
                "channel": channel,
                "body": body.hex(),
                "frame": serial_frame.encode(channel, body).hex(),
            }
            for channel, body in BODIES
        ],
        "no_frames": {name: encoded.hex() for name, encoded in _no_frames().items()},
        "streams": streams,
    }


def _streams() -> list[dict[str, Any]]:
    """Whole streams, what a decoder must find in them, and how many bytes are noise by the end."""
    one, two = serial_frame.encode(LINK, b"one"), serial_frame.encode(CONSOLE, b"two\n")
    found = [[LINK, b"one".hex()], [CONSOLE, b"two\n".hex()]]
    text = b"MPY: soft reboot\r\n"
    cases = {
        "one behind the other": (one + two, found, 0),
        "zero bytes shared": (one[:-1] + two, found, 0),
        "text before, between and behind": (text + one + text + two + text, found, 2 * len(text)),
        "the first is cut": (one[:5] + two, found[1:], 4),
        "noise longer than any frame": (b"\x01" * 5000 + one, found[:1], 5000),
        "the same byte for ever": (b"\xff" * 100 + b"\0" * 100 + two, found[1:], 100),
    }
    return [
        {"name": name, "bytes": stream.hex(), "frames": frames, "noise": noise}
        for name, (stream, frames, noise) in cases.items()
    ]


def text() -> str:
    """The file's content."""
    return json.dumps(content(), indent=1) + "\n"


def main() -> int:
    """Write the file, or check that it is current."""
    parser = argparse.ArgumentParser(
        description="test vectors of the serial line's frames",
        epilog="example: python -m tools.vectors.serial --check",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    if not parser.parse_args().check:
        PATH.write_text(text(), "utf-8")
    elif not PATH.exists() or PATH.read_text("utf-8") != text():
        print(f"outdated: {PATH.name}; run: python -m tools.vectors.serial")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
