"""The key: made once, durable before use, refused when damaged, gone from no message."""

import binascii
import os

import vfs
from fogline import cose, p256
from fogline.errors import KeyStoreError
from fogline.keystore import load_or_create
from power_cut import Flash, PowerCut
from support import Random, raises

NEEDS = ("littlefs",)
MOUNT = "/flash"
DIGEST = bytes(range(32))
KEY = MOUNT + "/key.bin"
SEED = MOUNT + "/seed.bin"


class Mounted:
    """A fresh or restarted flash at MOUNT for one `with` block."""

    def __init__(self, flash=None):
        self._flash = flash or Flash(vfs.VfsLfs2)

    def __enter__(self):
        self._flash.mount(MOUNT)

    def __exit__(self, *_):
        vfs.umount(MOUNT)


def no_test(entropy):
    """In place of the self-test, which has its own tests."""


def key_of(seed, test=no_test):
    return load_or_create(MOUNT, Random(seed).bytes, test)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def stored(secret):
    body = b"FGK1" + secret
    return body + binascii.crc32(body).to_bytes(4, "big")


def test_a_key_is_made_once():
    with Mounted():
        first = load_or_create(MOUNT)
        again = load_or_create(MOUNT)
    assert (first.new, again.new) == (True, False)
    assert first.public == again.public
    assert first.kid == again.kid == cose.key_id(first.public)
    assert p256.verify(first.public, DIGEST, again.sign(DIGEST))


def test_two_boards_have_two_keys():
    with Mounted():
        first = load_or_create(MOUNT)
    with Mounted():
        assert load_or_create(MOUNT).public != first.public


def test_the_hosts_seed_is_mixed_in_and_deleted():
    publics = []
    for seed in (None, b"\x01" * 32, b"\x02" * 32):
        with Mounted():
            if seed:
                write(SEED, seed)
            publics.append(key_of(7).public)
            assert "seed.bin" not in os.listdir(MOUNT)
    assert publics[0] != publics[1] != publics[2] != publics[0]


def test_a_seed_that_was_left_behind_goes():
    with Mounted():
        made = key_of(7)
        write(SEED, bytes(32))
        assert key_of(8).public == made.public
        assert "seed.bin" not in os.listdir(MOUNT)


def test_a_seed_of_the_wrong_size_is_refused_and_kept():
    for size in (0, 31, 33, 1000):
        with Mounted():
            write(SEED, bytes(size))
            raises("key.seed", key_of, 7)
            assert os.listdir(MOUNT) == ["seed.bin"]


def test_both_sides_of_an_agreement():
    with Mounted():
        one = key_of(1)
    with Mounted():
        other = key_of(2)
    assert one.agree(other.public) == other.agree(one.public)


def test_damaged_files_are_refused_not_replaced():
    with Mounted():
        key_of(7)
        good = read(KEY)
        for damaged in (b"", good[:-1], good + b"\x00", b"\x00" * 40, b"X" + good[1:]):
            write(KEY, damaged)
            raises("key.damaged", key_of, 8)
            assert read(KEY) == damaged
        for bit in range(0, 320, 7):
            damaged = bytearray(good)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            write(KEY, damaged)
            raises("key.damaged", key_of, 8)


def test_keys_out_of_range_are_refused():
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    with Mounted():
        for secret in (0, order, (1 << 256) - 1):
            write(KEY, stored(secret.to_bytes(32, "big")))
            raises("key.range", key_of, 7)
        write(KEY, stored((order - 1).to_bytes(32, "big")))
        assert key_of(7).public == p256.public_key((order - 1).to_bytes(32, "big"))


def test_a_source_that_gives_too_little_makes_no_key():
    with Mounted():
        raises("key.entropy", load_or_create, MOUNT, lambda count: bytes(count - 1), no_test)
        assert os.listdir(MOUNT) == []


def test_the_secret_is_in_no_text():
    with Mounted():
        key = key_of(7)
        secret = read(KEY)[4:36]
        for text in (repr(key), str(key), str(KeyStoreError("key.damaged", "x"))):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


def test_power_cut_at_every_write_leaves_no_key_or_a_whole_one():
    blank = Flash(vfs.VfsLfs2)
    with Mounted(blank):
        write(SEED, b"\x05" * 32)
    cut = 0
    while True:
        cut += 1
        flash = Flash(vfs.VfsLfs2, blank.data)
        flash.cut = cut
        used = None
        with Mounted(flash):
            try:
                used = key_of(7)
            except (PowerCut, KeyStoreError):
                assert flash.off
        with Mounted(flash.restarted()):
            after = key_of(8)
            assert used is None or after.public == used.public
            assert "seed.bin" not in os.listdir(MOUNT)
            assert key_of(9).public == after.public
        if not flash.off:
            break
    assert cut > 3, cut
