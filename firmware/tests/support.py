"""What several tests of the board need."""

import json
import struct

VECTORS = __file__.rsplit("/", 1)[0] + "/../../tests/vectors/"


def vectors(name):
    """The content of tests/vectors/`name`.json."""
    with open(VECTORS + name + ".json") as file:
        return json.load(file)


def plain(value):
    """The value that a vector describes: floats as the hex of their binary64, and so on."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return struct.unpack(">d", bytes.fromhex(value["float"]))[0]
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    return {plain(key): plain(item) for key, item in value["map"]}


def raises(code, function, *arguments):
    """Check that the call raises the FoglineError of this code; returns the error."""
    from fogline.errors import FoglineError

    try:
        function(*arguments)
    except FoglineError as error:
        assert error.code == code, f"{error.code}, expected {code}"
        return error
    raise AssertionError("expected " + code)


class Random:
    """A small deterministic generator (xorshift), so that a failing case replays."""

    def __init__(self, seed):
        self._state = seed

    def below(self, limit):
        """An integer from 0 to limit - 1."""
        x = self._state
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        self._state = x
        return x % limit

    def bytes(self, count):
        """`count` bytes."""
        return bytes(self.below(256) for _ in range(count))
