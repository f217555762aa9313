"""What a board says: console lines, plain or in frames, and packs on their way to a gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fog_node.gateway import serial_frame

__all__ = ["Heard", "Listener"]

MAX_LINE_BYTES = 4096
# Reads without a byte (50 ms each) behind which what is held is no frame in the making.
IDLE_READS = 2


@dataclass(frozen=True)
class Heard:
    """One thing that a board said.

    Attributes:
        text: a line of its console, without what could steer a terminal; empty for a link frame.
        event: the line as an object, where it is one of our console's.
        link: body of a frame of the link to its gateway; empty for a line.
    """

    text: str = ""
    event: dict[str, Any] = field(default_factory=dict)
    link: bytes = b""


class Listener:
    """Takes the bytes of a line apart. What it holds of an unfinished line is bounded."""

    def __init__(self) -> None:
        self._decoder = serial_frame.Decoder()
        self._line = bytearray()
        self._idle = 0

    def feed(self, data: bytes) -> Iterator[Heard]:
        """Take bytes, none if there were none; gives what they complete."""
        for frame in self._decoder.feed(data):
            if frame.channel == serial_frame.LINK:
                yield Heard(link=frame.body)
            elif frame.channel in (serial_frame.CONSOLE, None):
                yield from self._text(frame.body)
        # A board that speaks without frames ends none, and its lines must not wait for that; half
        # a frame is followed by its other half at once.
        self._idle = 0 if data else self._idle + 1
        if self._idle == IDLE_READS:
            yield from self._text(self._decoder.flush())

    def _text(self, data: bytes) -> Iterator[Heard]:
        self._line += data
        *lines, rest = self._line.split(b"\n")
        for line in lines:
            if heard := _heard(bytes(line)):
                yield heard
        self._line = bytearray(rest)
        if len(self._line) > MAX_LINE_BYTES:
            if heard := _heard(bytes(self._line)):
                yield heard
            self._line.clear()


def _heard(line: bytes) -> Heard | None:
    decoded = line[:MAX_LINE_BYTES].decode("utf-8", "replace")
    text = "".join(char for char in decoded if char.isprintable()).strip()
    if not text:
        return None
    event: dict[str, Any] = {}
    # Behind a prompt that was not ended the object still is one.
    if (start := text.find('{"')) >= 0:
        try:
            value = json.loads(text[start:])
        except ValueError:
            value = None
        if isinstance(value, dict) and isinstance(value.get("event"), str):
            event = value
    return Heard(text, event)
