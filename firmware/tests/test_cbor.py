"""CBOR: RFC 8949 appendix A, what strict decoders refuse, and that decoding inverts encoding."""

import math
import struct

from fogline import cbor
from support import Random, plain, raises, vectors

VECTORS = vectors("cbor_rfc8949")
MAX_BYTES = 4096
SEED = 20260701
DOUBLE = float(1 << 24) + 1.0 != float(1 << 24)


def same(one, other):
    """Equality that tells -0.0 from 0.0 and 1 from 1.0, and knows NaN."""
    if isinstance(one, list):
        return len(one) == len(other) and all(same(one[i], other[i]) for i in range(len(one)))
    if isinstance(one, float):
        return isinstance(other, float) and str(one) == str(other)
    return type(one) is type(other) and one == other


def held(data):
    """Whether this board's floats can hold the item."""
    return DOUBLE or data[0] != 0xFB


def test_published_values_decode_and_encode():
    for vector in VECTORS["values"]:
        data = bytes.fromhex(vector["hex"])
        if not held(data):
            raises("cbor.precision", cbor.decode, data, MAX_BYTES)
            continue
        value = plain(vector["value"])
        assert same(cbor.decode(data, MAX_BYTES), value), vector
        assert cbor.encode(value) == data, vector


def test_published_tags_are_kept():
    for vector in VECTORS["tagged"]:
        data = bytes.fromhex(vector["hex"])
        if not held(data[1:]):
            raises("cbor.precision", cbor.decode, data, MAX_BYTES)
            continue
        item = cbor.decode(data, MAX_BYTES)
        assert item.tag == vector["tag"]
        assert same(item.value, plain(vector["value"])), vector
        assert cbor.encode(item) == data, vector


def test_refuses_with_the_code():
    for vector in VECTORS["refused"]:
        raises(vector["code"], cbor.decode, bytes.fromhex(vector["hex"]), MAX_BYTES)
    for data in VECTORS["unsupported_on_boards"]:
        raises("cbor.simple", cbor.decode, bytes.fromhex(data), MAX_BYTES)


def test_every_half_and_single_border():
    for half in range(0x10000):
        item = struct.pack(">BH", 0xF9, half)
        if half & 0x7C00 == 0x7C00 and half & 0x3FF and half != 0x7E00:
            raises("cbor.minimal", cbor.decode, item, 3)
        else:
            assert cbor.encode(cbor.decode(item, 3)) == item, hex(half)


def test_random_singles_take_the_shortest_form():
    random = Random(SEED)
    for _ in range(3000):
        single = random.bytes(4)
        value = struct.unpack(">f", single)[0]
        if math.isnan(value):
            continue
        item = cbor.encode(value)
        assert item[1:] == single if item[0] == 0xFA else item[0] == 0xF9, single
        assert struct.pack(">f", cbor.decode(item, 9)) == single


def test_any_value_comes_back():
    random = Random(SEED)
    for _ in range(300):
        value = any_value(random, 3)
        data = cbor.encode(value)
        assert cbor.encode(cbor.decode(data, len(data))) == data, value


def any_value(random, depth):
    """A random value with arrays and maps up to `depth`."""
    kind = random.below(9 if depth else 7)
    if kind < 2:
        return int.from_bytes(random.bytes(1 + random.below(8)), "big") * (1 - 2 * kind)
    if kind == 2:
        return random.bytes(random.below(300))
    if kind == 3:
        return "".join([chr(random.below(0x700)) for _ in range(random.below(30))])
    if kind == 4:
        return struct.unpack(">f", bytes((0x42,)) + random.bytes(3))[0]
    if kind == 5:
        return (None, True, False)[random.below(3)]
    if kind == 6:
        return cbor.Tagged(random.below(1 << 20), random.below(1000))
    if kind == 7:
        return [any_value(random, depth - 1) for _ in range(random.below(8))]
    return {random.below(1 << 20): any_value(random, depth - 1) for _ in range(random.below(8))}


def test_damaged_bytes_are_refused_or_are_another_value():
    random = Random(SEED)
    data = cbor.encode({1: [b"abc", "text", 1.5, -7], "k": {2: None}, "l": [1000, 100000]})
    for at in range(len(data)):
        for _ in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 + random.below(255)
            try:
                value = cbor.decode(damaged, MAX_BYTES)
            except cbor.EncodingError:
                continue
            assert cbor.encode(value) == damaged


def test_keys_are_sorted_by_their_bytes():
    value = {"b": 1, "aa": 2, 100: 3, -1: 4, 24: 5, "a": 6, 0: 7}
    items = ("0007", "181805", "186403", "2004", "616106", "616201", "62616102")
    assert cbor.encode(value).hex() == "a7" + "".join(items)


def test_limits():
    data = cbor.encode(bytes(100))
    raises("cbor.size", cbor.decode, data, len(data) - 1)
    assert cbor.decode(data, len(data)) == bytes(100)
    assert len(cbor.decode(cbor.encode([0] * cbor.MAX_ITEMS), MAX_BYTES)) == cbor.MAX_ITEMS
    raises("cbor.items", cbor.decode, cbor.encode([0] * (cbor.MAX_ITEMS + 1)), MAX_BYTES)
    nested = 0
    for _ in range(cbor.MAX_DEPTH):
        nested = [nested]
    assert cbor.decode(cbor.encode(nested), MAX_BYTES) == nested
    raises("cbor.depth", cbor.encode, [nested])


def test_encode_refuses_what_cbor_has_no_place_for():
    raises("cbor.range", cbor.encode, 1 << 64)
    raises("cbor.range", cbor.encode, -(1 << 64) - 1)
    raises("cbor.type", cbor.encode, object())
    raises("cbor.key", cbor.encode, {True: 1})
    raises("cbor.key", cbor.encode, {b"a": 1})


def test_bytes_like_values_encode_alike():
    for value in (bytearray(b"ab"), memoryview(b"ab")):
        assert cbor.encode(value) == b"\x42ab"


def test_a_head_lets_a_reader_step_over_a_long_string():
    data = b"\x82\x01" + cbor.encode(bytes(1000))
    assert cbor.decode_head(data, 0) == (4, 2, 1)
    assert cbor.decode_head(data, 2) == (2, 1000, 5)
