"""Messages of a link that others hold, heard from the side: the pieces that a board sends, joined.

See fog_node/gateway/SERIAL.md. Nothing is acknowledged, so nothing is sent for us again: what we
miss is missing, and a message without one of its pieces is passed over.
"""

from __future__ import annotations

from fog_node.gateway.serial_session import DATA_HEADER_BYTES, NONCE_BYTES, Kind

__all__ = ["UP", "LinkTap"]

# The message's first byte: a pack or an alert.
UP = 3
MAX_MESSAGE_BYTES = 64 * 1024
_NUMBERS = 1 << 16


class LinkTap:
    """Joins the pieces of one direction of a line."""

    def __init__(self) -> None:
        self._to = b""
        self._next: int | None = None
        self._message: bytearray | None = bytearray()

    def feed(self, packet: bytes) -> bytes | None:
        """Take a packet; returns the message that it ends, if all of it was heard."""
        if len(packet) < DATA_HEADER_BYTES or packet[0] not in (Kind.DATA, Kind.LAST):
            return None
        to = packet[1 : 1 + NONCE_BYTES]
        number = int.from_bytes(packet[DATA_HEADER_BYTES - 2 : DATA_HEADER_BYTES], "big")
        if to != self._to:
            # Another session. Its first piece has number 0; behind any other we wait for an end.
            self._to, self._next = to, number
            self._message = bytearray() if number == 0 else None
        if number != self._next:
            ahead = (number - (self._next or 0)) % _NUMBERS
            if ahead >= _NUMBERS // 2:
                return None  # sent again
            self._message = None
        self._next = (number + 1) % _NUMBERS
        if self._message is not None:
            self._message += packet[DATA_HEADER_BYTES:]
            if len(self._message) > MAX_MESSAGE_BYTES:
                self._message = None
        if packet[0] != Kind.LAST:
            return None
        message, self._message = self._message, bytearray()
        return None if message is None else bytes(message)
