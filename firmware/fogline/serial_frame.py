"""Frames on a serial line: COBS between zero bytes, with a channel and a CRC-32.

The format is specified in fog_node/gateway/SERIAL.md. COBS is Cheshire and Baker, "Consistent
Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7(2), 1999; the CRC-32 is that of
IEEE 802.3. Pure functions of bytes; the line itself is somebody else's.
"""

from binascii import crc32

from .errors import LinkError

LINK = 1
CONSOLE = 2
MAX_CHANNEL = 15
MAX_BODY_BYTES = 1024
CRC_BYTES = 4
# Channel, body and check sum, and one byte of COBS for each 254 that it may stand in front of.
_MAX_PLAIN_BYTES = 1 + MAX_BODY_BYTES + CRC_BYTES
_RUN_BYTES = 254
MAX_ENCODED_BYTES = _MAX_PLAIN_BYTES + 1 + _MAX_PLAIN_BYTES // _RUN_BYTES


def encode(channel, body):
    """Return one frame with the zero bytes before and behind it.

    The one before ends whatever else was printed on the line.
    """
    if not 1 <= channel <= MAX_CHANNEL or len(body) > MAX_BODY_BYTES:
        raise LinkError("link.frame", "no such channel, or too long a body")
    plain = bytearray((channel,))
    plain += body
    plain += crc32(plain).to_bytes(CRC_BYTES, "little")
    return b"\0" + stuff(bytes(plain)) + b"\0"


def decode(encoded):
    """Return (channel, body) of what stood between two zero bytes, or None if it is no frame."""
    if len(encoded) > MAX_ENCODED_BYTES:
        return None
    plain = unstuff(encoded)
    if plain is None or len(plain) < 1 + CRC_BYTES:
        return None
    end = len(plain) - CRC_BYTES
    if crc32(plain[:end]) != int.from_bytes(plain[end:], "little"):
        return None
    if not 1 <= plain[0] <= MAX_CHANNEL:
        return None
    return plain[0], bytes(plain[1:end])


def stuff(data):
    """COBS-encode: no zero byte is left in the result."""
    out = bytearray()
    start = 0
    while True:
        zero = data.find(b"\0", start, start + _RUN_BYTES)
        end = zero if zero >= 0 else min(len(data), start + _RUN_BYTES)
        out.append(end - start + 1)
        out += data[start:end]
        if zero < 0 and end == len(data):
            return out
        start = end + 1 if zero >= 0 else end


def unstuff(encoded):
    """Undo `stuff`; None for what it cannot have made."""
    out = bytearray()
    at = 0
    size = len(encoded)
    while at < size:
        code = encoded[at]
        end = at + code
        if code == 0 or end > size:
            return None
        out += encoded[at + 1 : end]
        at = end
        if code <= _RUN_BYTES and at < size:
            out.append(0)
    return out


class Decoder:
    """Finds frames in what comes off the line; holds at most MAX_ENCODED_BYTES.

    `noise` counts the bytes that belonged to no frame: other output, lost or altered bytes.
    """

    def __init__(self):
        self._held = bytearray()
        self._overrun = False
        self.noise = 0

    def feed(self, data):
        """Take bytes; returns the frames that they complete as a list of (channel, body)."""
        frames = []
        start = 0
        while True:
            zero = data.find(b"\0", start)
            self._hold(data[start:] if zero < 0 else data[start:zero])
            if zero < 0:
                return frames
            start = zero + 1
            frame = None if self._overrun else decode(self._held)
            if frame is not None:
                frames.append(frame)
            else:
                self.noise += len(self._held)
            self._held = bytearray()
            self._overrun = False

    def _hold(self, part):
        if self._overrun or len(self._held) + len(part) > MAX_ENCODED_BYTES:
            self.noise += len(self._held) + len(part)
            self._held = bytearray()
            self._overrun = True
        else:
            self._held += part
