"""MQTT 3.1.1 packets: what is sent, what is taken, what is refused."""

from fogline import mqtt_codec as codec
from fogline.errors import LinkError

LIMIT = 64
PUBLISH_QOS_1 = b"\x32\x09\x00\x03a/b\x00\x07hi"


def parse(stream, piece=None):
    parser = codec.Parser(LIMIT)
    packets = []
    step = piece or len(stream)
    for at in range(0, len(stream), step):
        packets.extend(parser.feed(stream[at : at + step]))
    return packets


def refusal(stream):
    try:
        parse(stream)
    except LinkError as error:
        return error.code
    raise AssertionError("taken: " + stream.hex())


def test_connect_bytes():
    packet = codec.connect("ab", 60)
    assert packet == b"\x10\x0e\x00\x04MQTT\x04\x00\x00\x3c\x00\x02ab"


def test_connect_with_will_user_and_password():
    packet = codec.connect("c", 10, "u", "p", ("t", b"gone"))
    head = b"\x00\x04MQTT\x04\xec\x00\x0a"
    body = head + b"\x00\x01c\x00\x01t\x00\x04gone\x00\x01u\x00\x01p"
    assert packet == bytes((0x10, len(body))) + body


def test_publish_bytes():
    assert codec.publish("a/b", b"hi", 7) == PUBLISH_QOS_1
    assert codec.publish("a/b", b"hi", 7, dup=True)[0] == 0x3A
    assert codec.publish("a/b", b"hi", 7, retain=True)[0] == 0x33


def test_remaining_length_boundaries():
    # (3.1.1, table 2.4) one byte up to 127, two up to 16,383, three above.
    for size, length in ((127, b"\x7f"), (128, b"\x80\x01"), (16383, b"\xff\x7f")):
        packet = codec.publish("t", bytes(size - 5), 1)
        assert packet[1 : 1 + len(length)] == length
        assert len(packet) == 1 + len(length) + size
    assert codec.publish("t", bytes(16384 - 5), 1)[1:4] == b"\x80\x80\x01"


def test_subscribe_bytes():
    packet = codec.subscribe(5, [("a", 1), ("b/#", 0)])
    assert packet == b"\x82\x0c\x00\x05\x00\x01a\x01\x00\x03b/#\x00"


def test_a_text_field_has_a_limit():
    try:
        codec.publish("t" * 65536, b"", 1)
    except LinkError as error:
        assert error.code == "link.text"
        return
    raise AssertionError("taken")


def test_parses_all_that_a_broker_sends():
    stream = b"\x20\x02\x01\x00" + PUBLISH_QOS_1 + b"\x40\x02\x01\x02"
    stream += b"\x90\x04\x00\x05\x01\x80" + b"\xd0\x00" + b"\x31\x04\x00\x01tx"
    expected = [
        (codec.CONNACK, True, 0),
        (codec.PUBLISH, "a/b", b"hi", 1, 7),
        (codec.PUBACK, 0x102),
        (codec.SUBACK, 5, b"\x01\x80"),
        (codec.PINGRESP,),
        (codec.PUBLISH, "t", b"x", 0, 0),
    ]
    for piece in (None, 1, 2, 3, 7):
        assert parse(stream, piece) == expected


def test_takes_an_empty_payload_and_utf_8_topics():
    assert parse(codec.publish("é/ü", b"", 9)) == [(codec.PUBLISH, "é/ü", b"", 1, 9)]


def test_takes_a_packet_of_exactly_the_limit():
    packet = codec.publish("t", bytes(LIMIT - 5), 1)
    assert parse(packet)[0][2] == bytes(LIMIT - 5)
    assert refusal(codec.publish("t", bytes(LIMIT - 4), 1)) == "link.oversized"


def test_refuses_an_oversized_packet_by_its_header_alone():
    assert refusal(b"\x30\xff\xff\xff\x7f") == "link.oversized"


def test_refuses_what_no_broker_may_send():
    for kind in range(16):
        if kind not in (2, 3, 4, 9, 13):
            assert refusal(bytes((kind << 4, 0))) == "link.packet"


def test_refuses_malformed_packets():
    for stream in (
        b"\x21\x02\x00\x00",  # reserved flags
        b"\x41\x02\x00\x01",
        b"\xd1\x00",
        b"\x20\x03\x00\x00\x00",  # lengths that the standard fixes
        b"\x20\x00",
        b"\x40\x03\x00\x01\x00",
        b"\xd0\x01\x00",
        b"\x20\x02\x02\x00",  # reserved acknowledge flags
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x36\x05\x00\x01t\x00\x01",  # QoS 3
        b"\x34\x05\x00\x01t\x00\x01",  # QoS 2
        b"\x38\x03\x00\x01t",  # DUP with QoS 0
        b"\x30\x01\x00",  # no topic
        b"\x30\x02\x00\x00",
        b"\x30\x03\x00\x05t",  # a topic longer than the packet
        b"\x32\x04\x00\x01t\x00",  # half a packet identifier
        b"\x32\x05\x00\x01t\x00\x00",  # packet identifier 0
        b"\x40\x02\x00\x00",
        b"\x90\x03\x00\x00\x01",
        b"\x90\x02\x00\x01",  # SUBACK without codes
        b"\x90\x03\x00\x01\x02",  # SUBACK that grants QoS 2
        b"\x30\x03\x00\x01\xff",  # not UTF-8
        b"\x30\x03\x00\x01\x00",  # NUL, wildcards
        b"\x30\x03\x00\x01+",
        b"\x30\x03\x00\x01#",
    ):
        assert refusal(stream) == "link.packet", stream.hex()


def test_random_bytes_end_in_packets_or_link_errors():
    state = 1
    for _ in range(300):
        stream = bytearray()
        for _ in range(40):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            stream.append(state >> 16 & 0xFF)
        try:
            parse(bytes(stream))
        except LinkError:
            pass
