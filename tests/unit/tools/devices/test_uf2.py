"""UF2 files: what is whole is read, whatever is not is refused before it reaches a board."""

import random

import pytest
from support.firmware_images import FLASH_START, uf2, uf2_block, uf2_blocks, uf2_rp2350

from tools.devices.errors import ImageError
from tools.devices.uf2 import RP2040, RP2350_ARM_S, read_uf2

CONTENT = random.Random(1).randbytes(5000)


def test_an_image_is_read() -> None:
    image = read_uf2(uf2(CONTENT), "a.uf2")
    assert (image.family, image.address, image.size) == (RP2040, FLASH_START, 5120)
    assert image.family_name == "RP2040"


def test_the_block_before_an_image_for_the_rp2350_is_passed_over() -> None:
    image = read_uf2(uf2_rp2350(CONTENT), "a.uf2")
    assert (image.family, image.size) == (RP2350_ARM_S, 5120)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: b[:-1], "expected 0 of 19: a part is missing"),
        (lambda b: b[1:], "a part is missing"),
        (lambda b: [*b[:5], *b[6:]], "a part is missing"),
        (lambda b: [*b[:5], b[6], b[5], *b[7:]], "a part is missing"),
        (lambda b: [*b[:3], b[3][:100], *b[4:]], "no whole number of 512-byte blocks"),
        (lambda b: [*b[:3], bytes(512), *b[4:]], "block 3: is no UF2 block"),
        (lambda b: [*b[:3], b[3][:-4] + bytes(4), *b[4:]], "block 3: is no UF2 block"),
        (lambda b: [uf2_block(CONTENT[:256], FLASH_START, 0, 1, RP2040, flags=0)], "named family"),
        (lambda b: [uf2_block(CONTENT[:256], FLASH_START, 0, 1, RP2040, flags=0x2001)], "flash"),
        (lambda b: [uf2_block(CONTENT[:128], FLASH_START, 0, 1, RP2040)], "128 bytes"),
        (lambda b: [uf2_block(CONTENT[:256], FLASH_START + 4, 0, 1, RP2040)], "block 0"),
        (lambda b: [*b, *uf2_blocks(CONTENT, RP2350_ARM_S)], "images for 2 families"),
        (lambda b: [], "0 bytes"),
    ],
)
def test_what_is_not_whole_is_refused(damage, words) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        read_uf2(b"".join(damage(uf2_blocks(CONTENT))), "a.uf2")
    assert str(caught.value).startswith("a.uf2: ")
    assert caught.value.remedy == "download it again"


def test_a_gap_in_the_addresses_is_refused() -> None:
    first, second = CONTENT[:256], CONTENT[256:512]
    blocks = [
        uf2_block(first, FLASH_START, 0, 2, RP2040),
        uf2_block(second, FLASH_START + 512, 1, 2, RP2040),
    ]
    with pytest.raises(ImageError, match="leaves a gap"):
        read_uf2(b"".join(blocks), "a.uf2")


def test_random_damage_is_refused_or_harmless() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    good = uf2(CONTENT)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            read_uf2(bytes(bad), "a.uf2")
        except ImageError:
            continue
