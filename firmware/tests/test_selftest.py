"""The self-test passes on a good board and names each fault; without it there is no key."""

import hashlib
import io

from fogline import keystore, p256, selftest
from support import Random, raises

WINDOW = selftest.WINDOW_BYTES


def good():
    """An entropy source that is good and always the same."""
    return Random(90).bytes


def test_a_good_board_passes():
    selftest.run(good())


def test_wrong_hash():
    raises("selftest.sha256", selftest.run, good(), lambda data: hashlib.sha256(data + b"x"))


def test_wrong_table():
    raises("selftest.table", selftest.run, good(), hashlib.sha256, lambda: bytes(32))


def test_one_flipped_bit_of_the_table():
    p256.prepare()
    table = p256._comb  # noqa: SLF001 - flash or RAM that went bad
    table.seek(0)
    data = table.read()
    for at in (0, 8191, 8192, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 1
        p256._comb = io.BytesIO(damaged)  # noqa: SLF001 - as above
        try:
            raises("selftest.table", selftest.run, good())
        finally:
            p256._comb = table  # noqa: SLF001 - as above
    selftest.run(good())


def test_wrong_signature():
    def sign(secret, digest):
        return p256.sign_raw(secret, digest)

    raises("selftest.sign", selftest.run, good(), hashlib.sha256, p256.table_digest, sign)


def test_broken_entropy():
    def short(count):
        return bytes(count - 1)

    def stuck(count):
        return Random(1).bytes(count)

    def zeros(count):
        return bytes(count)

    def two_values(count):
        random = Random(count)
        return bytes(random.below(2) for _ in range(count))

    random = Random(3)

    def fails_later(count):
        return random.bytes(count - 6) + bytes(6)

    for source in (short, stuck, zeros, two_values, fails_later):
        raises("selftest.entropy", selftest.run, source)


def test_repetition_cutoff():
    data = bytearray(good()(WINDOW))
    data[100:106] = b"\x01\x02\x02\x02\x02\x02"
    data[106] = 1
    selftest.check_samples(data)
    data[106] = 2
    raises("selftest.entropy", selftest.check_samples, data)


def test_proportion_cutoff():
    data = bytearray(1 + index % 255 for index in range(WINDOW))
    data[0] = 0
    for index in range(1, selftest.PROPORTION_CUTOFF - 1):
        data[index * 2] = 0
    selftest.check_samples(data)
    data[-1] = 0
    raises("selftest.entropy", selftest.check_samples, data)


def test_no_key_without_a_passed_test():
    tested = []

    def fails(entropy):
        tested.append(entropy)
        raise selftest.SelfTestError("selftest.sign")

    source = good()
    raises("selftest.sign", keystore.load_or_create, "/nowhere", source, fails)
    assert tested == [source]
