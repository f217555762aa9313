"""MQTT 3.1.1 packets (OASIS Standard, 29 October 2014): bytes in, tuples out, no socket.

Section numbers in comments are that standard's. Only what a board sends and may receive is
here: QoS 0 and 1, no QoS 2.
"""

import struct

from .errors import LinkError

CONNACK = 2
PUBLISH = 3
PUBACK = 4
SUBACK = 9
PINGRESP = 13

PINGREQ_PACKET = b"\xc0\x00"
DISCONNECT_PACKET = b"\xe0\x00"

MAX_LENGTH_BYTES = 4
SUBACK_FAILURE = 0x80

# Remaining length of the packets whose length the standard fixes.
_FIXED_LENGTH = {CONNACK: 2, PUBACK: 2, PINGRESP: 0}
_KINDS = (CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP)


def connect(client_id, keepalive_s, user=None, password=None, will=None):
    """Encode CONNECT of a lasting session (3.1); `will` is (topic, payload), retained, QoS 1."""
    flags = 0
    fields = [_text(client_id)]
    if will is not None:
        flags |= 0x2C  # will retain, will QoS 1, will flag (3.1.2.3)
        fields.append(_text(will[0]))
        fields.append(struct.pack("!H", len(will[1])) + will[1])
    if user is not None:
        flags |= 0x80
        fields.append(_text(user))
        if password is not None:
            flags |= 0x40
            fields.append(_text(password))
    head = struct.pack("!H4sBBH", 4, b"MQTT", 4, flags, keepalive_s)
    return _packet(0x10, head + b"".join(fields))


def publish(topic, payload, packet_id, retain=False, dup=False):
    """Encode PUBLISH with QoS 1 (3.3)."""
    head = 0x32 | (0x08 if dup else 0) | (0x01 if retain else 0)
    return _packet(head, _text(topic) + struct.pack("!H", packet_id), payload)


def puback(packet_id):
    """Encode PUBACK (3.4)."""
    return struct.pack("!BBH", 0x40, 2, packet_id)


def subscribe(packet_id, filters):
    """Encode SUBSCRIBE to [(topic filter, QoS)] (3.8)."""
    body = struct.pack("!H", packet_id)
    for topic_filter, qos in filters:
        body += _text(topic_filter) + bytes((qos,))
    return _packet(0x82, body)


class Parser:
    """Cuts a byte stream into packets, in a buffer that never grows.

    Feed it what the socket gives. A packet is one of
    (CONNACK, session_present, return_code), (PUBLISH, topic, payload, qos, packet_id),
    (PUBACK, packet_id), (SUBACK, packet_id, return codes), (PINGRESP,). Anything else raises
    LinkError, after which the connection is to be closed.
    """

    def __init__(self, max_bytes):
        self._body = bytearray(max_bytes)
        self._view = memoryview(self._body)
        self._start()

    def _start(self):
        self._head = -1
        self._length = 0
        self._length_bytes = 0
        self._length_known = False
        self._filled = 0

    def feed(self, data):
        """Take `data` (bytes-like); returns the list of packets it completed."""
        packets = []
        data = memoryview(data)
        at = 0
        while at < len(data):
            if not self._length_known:
                self._take_header_byte(data[at])
                at += 1
            else:
                count = min(self._length - self._filled, len(data) - at)
                self._view[self._filled : self._filled + count] = data[at : at + count]
                self._filled += count
                at += count
            if self._length_known and self._filled == self._length:
                packets.append(_decode(self._head, self._view[: self._length]))
                self._start()
        return packets

    def _take_header_byte(self, byte):
        if self._head < 0:
            kind = byte >> 4
            if kind not in _KINDS:
                raise LinkError("link.packet", f"packet type {kind} is not one a broker may send")
            if kind != PUBLISH and byte & 0x0F:
                raise LinkError("link.packet", f"reserved flags are set in a packet of type {kind}")
            self._head = byte
            return
        self._length |= (byte & 0x7F) << (7 * self._length_bytes)
        self._length_bytes += 1
        if byte & 0x80:
            if self._length_bytes == MAX_LENGTH_BYTES:
                raise LinkError("link.packet", "the remaining length has more than 4 bytes")
            return
        if self._length > len(self._body):
            raise LinkError(
                "link.oversized",
                f"a packet of {self._length} bytes, at most {len(self._body)} are taken",
            )
        kind = self._head >> 4
        if kind in _FIXED_LENGTH and self._length != _FIXED_LENGTH[kind]:
            raise LinkError("link.packet", f"a packet of type {kind} with {self._length} bytes")
        self._length_known = True


def _decode(head, body):
    kind = head >> 4
    if kind == PUBLISH:
        return _decode_publish(head & 0x0F, body)
    if kind == PINGRESP:
        return (PINGRESP,)
    if kind == CONNACK:
        if body[0] > 1:
            raise LinkError("link.packet", "reserved flags are set in CONNACK")
        return (CONNACK, body[0] == 1, body[1])
    if kind == SUBACK:
        if len(body) < 3:
            raise LinkError("link.packet", "a SUBACK without return codes")
        codes = bytes(body[2:])
        for code in codes:
            if code > 1 and code != SUBACK_FAILURE:
                raise LinkError(
                    "link.packet", f"SUBACK grants 0x{code:02x}, QoS 0 or 1 was asked for"
                )
        return (SUBACK, _packet_id(body, 0), codes)
    return (kind, _packet_id(body, 0))


def _decode_publish(flags, body):
    qos = flags >> 1 & 3
    if qos > 1:
        raise LinkError("link.packet", f"a PUBLISH with QoS {qos}, at most 1 was asked for")
    if qos == 0 and flags & 0x08:
        raise LinkError("link.packet", "a PUBLISH with DUP and QoS 0")  # 3.3.1-2
    if len(body) < 2:
        raise LinkError("link.packet", "a PUBLISH without a topic")
    end = 2 + struct.unpack_from("!H", body)[0]
    payload_at = end + (2 if qos else 0)
    if end == 2 or payload_at > len(body):
        raise LinkError("link.packet", "a PUBLISH shorter than its topic says")
    try:
        topic = str(body[2:end], "utf-8")
    except UnicodeError:
        raise LinkError("link.packet", "a topic that is not UTF-8") from None
    if "\0" in topic or "+" in topic or "#" in topic:
        raise LinkError("link.packet", "a topic with a character that no topic may have")
    packet_id = _packet_id(body, end) if qos else 0
    return (PUBLISH, topic, bytes(body[payload_at:]), qos, packet_id)


def _packet_id(body, at):
    packet_id = struct.unpack_from("!H", body, at)[0]
    if packet_id == 0:
        raise LinkError("link.packet", "packet identifier 0")  # 2.3.1-1
    return packet_id


def _text(text):
    data = text.encode()
    if len(data) > 65535:
        raise LinkError("link.text", f"{len(data)} bytes, a text field of MQTT holds 65535")
    return struct.pack("!H", len(data)) + data


def _packet(head, body, payload=b""):
    remaining = len(body) + len(payload)
    out = bytearray((head,))
    while True:
        byte = remaining & 0x7F
        remaining >>= 7
        out.append(byte | (0x80 if remaining else 0))
        if not remaining:
            break
    return bytes(out) + body + payload
