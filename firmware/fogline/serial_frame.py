"""Frames on a serial line: COBS between zero bytes, with a channel and a CRC-32.

The format is specified in fog_node/gateway/SERIAL.md. COBS is Cheshire and Baker, "Consistent
Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7(2), 1999; the CRC-32 is that of
IEEE 802.3. Byte 03 never stands in a frame (escaped as in RFC 1662): it is the Ctrl-C that ends
a MicroPython program. Pure functions of bytes; the line itself is somebody else's.
"""

from binascii import crc32

from .errors import LinkError

LINK = 1
CONSOLE = 2
MAX_CHANNEL = 15
MAX_BODY_BYTES = 1024
CRC_BYTES = 4
_RUN_BYTES = 254  # at most so many bytes without a zero does one COBS code stand for
_BREAK = b"\x03"
_ESCAPE = b"\x7d"
_ESCAPED_BREAK = b"\x7d\x23"
_ESCAPED_ESCAPE = b"\x7d\x5d"


def encode(channel, body):
    """Return one frame with the zero bytes before and behind it.

    The one before ends whatever else was printed on the line.
    """
    if not 1 <= channel <= MAX_CHANNEL or len(body) > MAX_BODY_BYTES:
        raise LinkError("link.frame", "no such channel, or too long a body")
    plain = bytearray((channel,))
    plain += body
    plain += crc32(plain).to_bytes(CRC_BYTES, "little")
    return b"\0" + escape(bytes(stuff(bytes(plain)))) + b"\0"


def max_encoded_bytes(max_body_bytes):
    """Return how long what stands between two zero bytes may be."""
    plain = 1 + max_body_bytes + CRC_BYTES
    return 2 * (plain + 1 + plain // _RUN_BYTES)


def decode(encoded, max_body_bytes=MAX_BODY_BYTES):
    """Return (channel, body) of what stood between two zero bytes, or None if it is no frame."""
    stuffed = unescape(encoded)
    plain = None if stuffed is None else unstuff(stuffed)
    if plain is None or not 1 + CRC_BYTES <= len(plain) <= 1 + max_body_bytes + CRC_BYTES:
        return None
    end = len(plain) - CRC_BYTES
    if crc32(plain[:end]) != int.from_bytes(plain[end:], "little"):
        return None
    if not 1 <= plain[0] <= MAX_CHANNEL:
        return None
    return plain[0], bytes(plain[1:end])


def escape(data):
    """Leave no byte 03 in the data."""
    return data.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_BREAK, _ESCAPED_BREAK)


def unescape(escaped):
    """Undo `escape`; None for what it cannot have made."""
    escapes = escaped.count(_ESCAPED_BREAK) + escaped.count(_ESCAPED_ESCAPE)
    if _BREAK in escaped or escaped.count(_ESCAPE) != escapes:
        return None
    return escaped.replace(_ESCAPED_BREAK, _BREAK).replace(_ESCAPED_ESCAPE, _ESCAPE)


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
    """Finds frames in what comes off the line; holds no more than the longest one.

    `noise` counts the bytes that belonged to no frame: other output, lost or altered bytes.
    """

    def __init__(self, max_body_bytes=MAX_BODY_BYTES):
        self._max_body = max_body_bytes
        self._most = max_encoded_bytes(max_body_bytes)
        self._overrun = False
        self.held = b""  # since the last zero byte
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
            frame = None if self._overrun else decode(self.held, self._max_body)
            if frame is not None:
                frames.append(frame)
            else:
                self.noise += len(self.held)
            self.held = b""
            self._overrun = False

    def drop(self):
        """Let go of what has come of a frame."""
        self.noise += len(self.held)
        self.held = b""

    def _hold(self, part):
        if self._overrun or len(self.held) + len(part) > self._most:
            self.noise += len(self.held) + len(part)
            self.held = b""
            self._overrun = True
        else:
            self.held += part
