"""The comb that signing reads point by point from a file: whole, or built anew."""

# ruff: noqa: SLF001 - a test may look inside

import os

import vfs
from fogline import flash, p256
from fogline.errors import CryptoError
from power_cut import Flash, PowerCut
from support import raises

NEEDS = ("littlefs",)
MOUNT = "/comb"
FILE = MOUNT + "/p256.comb"
SECRET, DIGEST = bytes(range(1, 33)), bytes(range(32))
BLOCKS = 16


class Started:
    """A board's start: the flash is mounted at MOUNT, and no comb is open yet."""

    def __init__(self, chip):
        self._chip = chip

    def __enter__(self):
        self._chip.mount(MOUNT)
        self._before, p256._comb = p256._comb, None
        return flash.Flash(MOUNT)

    def __exit__(self, *_):
        if p256._comb is not None:
            p256._comb.close()
        p256._comb = self._before
        vfs.umount(MOUNT)


def read(path=FILE):
    with open(path, "rb") as file:
        return file.read()


def built():
    """The comb in memory, and a signature made with it."""
    signature = p256.sign(SECRET, DIGEST)
    p256._comb.seek(0)
    return p256._comb.read(), signature


def test_it_is_built_once_and_found_again():
    whole, signature = built()
    chip = Flash(vfs.VfsLfs2, blocks=BLOCKS)
    with Started(chip) as kept:
        p256.prepare(kept)
        assert p256.sign(SECRET, DIGEST) == signature
        assert read() == whole
    writes = chip.writes
    with Started(chip) as kept:
        p256.prepare(kept)
        assert p256.sign(SECRET, DIGEST) == signature
        assert p256.verify(p256.public_key(SECRET), DIGEST, signature)
    assert chip.writes == writes


def test_one_that_is_damaged_is_built_anew():
    whole, signature = built()
    for damage in (whole[:8192], whole[:-1] + b"?", whole + b"?"):
        chip = Flash(vfs.VfsLfs2, blocks=BLOCKS)
        with Started(chip) as kept:
            with open(FILE, "wb") as file:
                file.write(damage)
            p256.prepare(kept)
            assert p256.sign(SECRET, DIGEST) == signature
            assert read() == whole


def test_a_power_cut_while_it_is_written_leaves_none_or_all_of_it():
    whole, signature = built()
    for cut in (1, 9, 40):
        chip = Flash(vfs.VfsLfs2, blocks=BLOCKS)
        chip.cut = chip.writes + cut
        with Started(chip) as kept:
            try:
                p256.prepare(kept)
            except (PowerCut, CryptoError):
                pass  # littlefs calls a chip without power full
        assert chip.off
        chip = chip.restarted()
        with Started(chip) as kept:
            assert "p256.comb" not in os.listdir(MOUNT) or read() == whole
            p256.prepare(kept)
            assert p256.sign(SECRET, DIGEST) == signature
            assert read() == whole


def test_a_flash_that_fails_is_an_error_of_ours():
    built()
    chip = Flash(vfs.VfsLfs2, blocks=BLOCKS)
    with Started(chip) as kept:
        with open(MOUNT + "/much", "wb") as file:
            file.write(bytes((BLOCKS - 5) * 4096))
        raises("p256.table", p256.prepare, kept)  # no room
        os.remove(MOUNT + "/much")
        p256.prepare(kept)
        chip.broken = True
        try:
            raises("p256.table", p256.sign, SECRET, DIGEST)
        finally:
            chip.broken = False
        p256.sign(SECRET, DIGEST)
