"""The MQTT topics between one gateway and its boards."""

from __future__ import annotations

from typing import Literal

from fog_node.protocol.keys import KID_BYTES, kid_hex

PREFIX = "fogline"
UP = "up"
GET = "get"
STATUS = "status"

FromBoard = Literal["up", "get", "status"]
_FROM_BOARD: dict[str, FromBoard] = {UP: "up", GET: "get", STATUS: "status"}


class Topics:
    """Topics of the gateway `name`, the member's name in the founding file."""

    def __init__(self, name: str) -> None:
        self._base = f"{PREFIX}/{name}"

    @property
    def filters(self) -> tuple[str, ...]:
        """What the gateway subscribes to: all that boards send to it."""
        return tuple(f"{self._base}/{kind}/+" for kind in _FROM_BOARD)

    def parse(self, topic: str) -> tuple[FromBoard, bytes | None] | None:
        """What a message is for and which key id its topic names; None for a foreign topic.

        The key id is None where the last level is not 16 lower-case hex digits.
        """
        base, _, last = topic.rpartition("/")
        base, _, level = base.rpartition("/")
        kind = _FROM_BOARD.get(level)
        if kind is None or base != self._base:
            return None
        try:
            kid = bytes.fromhex(last)
        except ValueError:
            return kind, None
        return kind, kid if len(kid) == KID_BYTES and kid_hex(kid) == last else None

    def receipt(self, kid: bytes) -> str:
        """Where a board's receipts go."""
        return f"{self._base}/receipt/{kid_hex(kid)}"

    def release(self, device_type: str) -> str:
        """Where the newest release for a device type is announced, retained."""
        return f"{self._base}/release/{device_type}"

    def offer(self, kid: bytes) -> str:
        """Where a board is told of a release that is not for all of its type."""
        return f"{self._base}/offer/{kid_hex(kid)}"

    def blob(self, kid: bytes) -> str:
        """Where the chunks that a board asked for go."""
        return f"{self._base}/blob/{kid_hex(kid)}"
