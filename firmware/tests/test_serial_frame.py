"""Frames of the serial line: the vectors, and that the decoder finds its way again."""

from fogline import serial_frame
from support import Random, raises, vectors

VECTORS = vectors("serial_frames")
SEED = 20261126
STREAMS = 200


def frames_in(stream, cut=1 << 30):
    decoder = serial_frame.Decoder()
    found = []
    for start in range(0, len(stream), cut):
        found += decoder.feed(stream[start : start + cut])
    return found, decoder.noise


def test_crc32_is_the_one_of_ieee_802_3():
    vector = VECTORS["crc32"]
    assert serial_frame.crc32(bytes.fromhex(vector["data"])) == vector["value"]


def test_cobs_examples():
    for vector in VECTORS["cobs"]:
        plain, encoded = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["encoded"])
        assert bytes(serial_frame.stuff(plain)) == encoded
        assert bytes(serial_frame.unstuff(encoded)) == plain


def test_what_no_encoder_makes_is_not_decoded():
    for encoded in VECTORS["bad_cobs"]:
        assert serial_frame.unstuff(bytes.fromhex(encoded)) is None


def test_escapes():
    for vector in VECTORS["escapes"]:
        plain, escaped = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["escaped"])
        assert serial_frame.escape(plain) == escaped
        assert serial_frame.unescape(escaped) == plain
    for escaped in VECTORS["bad_escapes"]:
        assert serial_frame.unescape(bytes.fromhex(escaped)) is None, escaped


def test_frames():
    for vector in VECTORS["frames"]:
        body, frame = bytes.fromhex(vector["body"]), bytes.fromhex(vector["frame"])
        assert serial_frame.encode(vector["channel"], body) == frame
        assert serial_frame.decode(frame[1:-1]) == (vector["channel"], body)
        assert b"\x03" not in frame
        assert len(frame) - 2 <= serial_frame.max_encoded_bytes(len(body))


def test_a_board_takes_no_longer_bodies_than_it_has_room_for():
    frame = serial_frame.encode(1, bytes(100))
    assert serial_frame.Decoder(100).feed(frame) == [(1, bytes(100))]
    decoder = serial_frame.Decoder(99)
    assert decoder.feed(frame + serial_frame.encode(1, bytes(99))) == [(1, bytes(99))]
    assert decoder.noise == len(frame) - 2


def test_what_is_no_frame():
    for name, encoded in VECTORS["no_frames"].items():
        assert serial_frame.decode(bytes.fromhex(encoded)) is None, name


def test_streams_however_they_are_cut():
    for vector in VECTORS["streams"]:
        stream = bytes.fromhex(vector["bytes"])
        expected = [(channel, bytes.fromhex(body)) for channel, body in vector["frames"]]
        for cut in (1, 7, 256, 1 << 30):
            found, noise = frames_in(stream, cut)
            assert found == expected, vector["name"]
            assert noise == vector["noise"], vector["name"]


def test_what_cannot_be_sent():
    for channel, size in ((0, 1), (16, 1), (1, serial_frame.MAX_BODY_BYTES + 1)):
        raises("link.frame", serial_frame.encode, channel, bytes(size))


def test_damage_costs_no_frame_but_those_it_hits():
    random = Random(SEED)
    for _ in range(STREAMS):
        bodies = [random.bytes(random.below(40)) for _ in range(5)]
        frames = [serial_frame.encode(1, body) for body in bodies]
        hit = random.below(5)
        frame = frames[hit]
        at = 1 + random.below(len(frame) - 2)
        what = random.below(3)
        if what == 0:  # lost
            frames[hit] = frame[:at] + frame[at + 1 :]
        elif what == 1:  # doubled
            frames[hit] = frame[:at] + frame[at : at + 1] + frame[at:]
        else:  # altered
            other = bytes((frame[at] ^ (1 + random.below(255)),))
            frames[hit] = frame[:at] + other + frame[at + 1 :]
        found, _ = frames_in(b"".join(frames), 1 + random.below(50))
        rest = [(1, body) for number, body in enumerate(bodies) if number != hit]
        assert found == rest, f"seed {SEED}"
