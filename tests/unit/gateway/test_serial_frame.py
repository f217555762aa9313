"""Frames of the serial line: the shared vectors, a second opinion on COBS, and any noise."""

import json
from zlib import crc32

import cobs.cobs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fog_node.gateway import serial_frame
from fog_node.gateway.serial_frame import CONSOLE, LINK, MAX_BODY_BYTES, Decoder, Frame
from tools.vectors import serial

VECTORS = json.loads(serial.PATH.read_text())


def frames_in(stream, cut=1 << 30):
    decoder = Decoder()
    found = [
        frame
        for start in range(0, len(stream), cut)
        for frame in decoder.feed(stream[start : start + cut])
    ]
    return found, decoder


def test_the_vectors_are_current():
    assert serial.PATH.read_text() == serial.text(), "run: python -m tools.vectors.serial"


def test_crc32_is_the_one_of_ieee_802_3():
    vector = VECTORS["crc32"]
    assert crc32(bytes.fromhex(vector["data"])) == vector["value"]


def test_cobs_examples():
    for vector in VECTORS["cobs"]:
        plain, encoded = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["encoded"])
        assert serial_frame.stuff(plain) == encoded
        assert serial_frame.unstuff(encoded) == plain
    for encoded in VECTORS["bad_cobs"]:
        assert serial_frame.unstuff(bytes.fromhex(encoded)) is None


def test_escapes():
    for vector in VECTORS["escapes"]:
        plain, escaped = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["escaped"])
        assert serial_frame.escape(plain) == escaped
        assert serial_frame.unescape(escaped) == plain
    for escaped in VECTORS["bad_escapes"]:
        assert serial_frame.unescape(bytes.fromhex(escaped)) is None, escaped


@given(st.binary(max_size=MAX_BODY_BYTES))
def test_no_interrupt_stands_in_a_frame(body):
    frame = serial_frame.encode(LINK, body)
    assert b"\x03" not in frame
    assert frame[0] == frame[-1] == 0
    assert b"\0" not in frame[1:-1]
    assert len(frame) - 2 <= serial_frame.MAX_ENCODED_BYTES
    assert serial_frame.decode(frame[1:-1]) == (LINK, body)


def test_frames():
    for vector in VECTORS["frames"]:
        body, frame = bytes.fromhex(vector["body"]), bytes.fromhex(vector["frame"])
        assert serial_frame.encode(vector["channel"], body) == frame
        assert serial_frame.decode(frame[1:-1]) == (vector["channel"], body)
    for name, encoded in VECTORS["no_frames"].items():
        assert serial_frame.decode(bytes.fromhex(encoded)) is None, name


@pytest.mark.parametrize("cut", [1, 7, 256, 1 << 30])
@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda vector: vector["name"])
def test_streams_however_they_are_cut(vector, cut):
    stream = bytes.fromhex(vector["bytes"])
    found, decoder = frames_in(stream, cut)
    framed = [[frame.channel, frame.body.hex()] for frame in found if frame.channel]
    assert framed == vector["frames"]
    assert decoder.noise == vector["noise"]
    other = b"".join(frame.body for frame in found if frame.channel is None)
    assert len(other) == vector["noise"]


@given(st.binary(max_size=1200))
def test_cobs_as_another_library_has_it(data):
    assert serial_frame.stuff(data) == cobs.cobs.encode(data)
    assert serial_frame.unstuff(serial_frame.stuff(data)) == data


@given(st.binary(max_size=300).map(lambda data: data.replace(b"\0", b"")))
def test_refuses_the_cobs_that_another_library_refuses(encoded):
    try:
        expected = cobs.cobs.decode(encoded)
    except cobs.cobs.DecodeError:
        expected = None
    assert serial_frame.unstuff(encoded) == expected


@given(st.lists(st.binary(max_size=64), max_size=8), st.integers(1, 40))
def test_noise_never_raises_never_grows_and_costs_no_whole_frame(parts, cut):
    frame = Frame(LINK, b"reading")
    stream = b"".join(part + serial_frame.encode(*frame) for part in parts)
    found, decoder = frames_in(stream, cut)
    assert found.count(frame) >= len(parts)
    assert decoder.flush() == b""


def test_what_is_not_ended_can_be_had_as_it_stands():
    decoder = Decoder()
    assert list(decoder.feed(b"MicroPython v1.28\r\n>>> ")) == []
    assert decoder.flush() == b"MicroPython v1.28\r\n>>> "
    rest = list(decoder.feed(b"ok" + serial_frame.encode(CONSOLE, b"line\n")))
    assert rest == [Frame(None, b"ok"), Frame(CONSOLE, b"line\n")]
    assert decoder.noise == 25


@pytest.mark.parametrize(("channel", "size"), [(0, 1), (16, 1), (1, 1025)])
def test_what_cannot_be_sent(channel, size):
    with pytest.raises(ValueError, match="a frame has"):
        serial_frame.encode(channel, bytes(size))
