"""Firmware files: their checksum; the wrong board's is refused, with the right one's name."""

import hashlib
import re

import pytest
from support.firmware_images import esp_image, uf2, uf2_rp2350

from tools.boards import load_boards
from tools.devices import images
from tools.devices.errors import ImageError
from tools.errors import ToolError, UsageError

BOARDS = load_boards()


@pytest.fixture
def image(tmp_path):
    """An Image of these bytes, whose SHA-256 was given."""

    def make(data, name="image.bin"):
        path = tmp_path / name
        path.write_bytes(data)
        return images.load_image(path, [hashlib.sha256(data).hexdigest().upper()])

    return make


def machine(board):
    return b"text\0" + BOARDS[board].machine.encode() + b"\0more"


@pytest.mark.parametrize(
    ("data", "chip"),
    [
        (esp_image("esp32", b"x"), "esp32"),
        (esp_image("esp32c3", b"x"), "esp32c3"),
        (esp_image("esp32s3", b"x"), "esp32s3"),
        (uf2(b"x"), "RP2040"),
        (uf2_rp2350(b"x"), "RP2350 (Arm)"),
    ],
)
def test_an_image_says_what_chip_it_is_for(image, data, chip) -> None:
    assert image(data).chip == chip


def test_what_is_no_image_is_refused(image) -> None:
    for data in (b"<html>Not found</html>", b"\x7fELF" + bytes(100), b"", b"\xe9"):
        with pytest.raises(ImageError, match="neither an ESP32 image nor a UF2 file"):
            image(data)


def test_a_file_that_is_no_image_is_told_before_its_checksum(tmp_path) -> None:
    path = tmp_path / "ESP32_GENERIC-1.bin"
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ImageError, match="neither an ESP32 image nor a UF2 file"):
        images.load_image(path)


def test_a_file_is_flashed_only_with_a_known_checksum(tmp_path, monkeypatch) -> None:
    data = esp_image("esp32", b"content")
    right = hashlib.sha256(data).hexdigest()
    path = tmp_path / "ESP32_GENERIC-1.bin"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"SHA-256 {right}, which is unknown here; .*--sha256"):
        images.load_image(path)
    with pytest.raises(ImageError, match="unknown here"):
        images.load_image(path, ["00" * 32])
    assert images.load_image(path, ["00" * 32, right]).sha256 == right
    monkeypatch.setattr(images, "known_images", lambda: {path.name: right})
    assert images.load_image(path).sha256 == right
    monkeypatch.setattr(images, "known_images", lambda: {path.name: "11" * 32})
    with pytest.raises(ImageError, match=r"not 1111.* of the file of that name; download it again"):
        images.load_image(path)


def test_what_is_no_checksum_is_named(tmp_path) -> None:
    for text in ("", "12", "zz" * 32):
        with pytest.raises(UsageError, match="--sha256"):
            images.load_image(tmp_path / "a.bin", [text])
    with pytest.raises(ToolError, match=r"a\.bin: cannot be read: No such file"):
        images.load_image(tmp_path / "a.bin")


def test_our_own_list_is_whole() -> None:
    known = images.known_images()
    firmware = [board.flash.firmware for board in BOARDS.values() if board.flash]
    assert known
    for name, sha256 in known.items():
        assert any(name.startswith(f"{one}-2") for one in firmware), name
        assert len(bytes.fromhex(sha256)) == 32


@pytest.mark.parametrize(
    ("data", "board", "words"),
    [
        (esp_image("esp32c3", b""), "esp32-s3",
         "is for esp32c3, a esp32-s3 has esp32s3; take ESP32_GENERIC_S3-DATE-VERSION.bin"),
        (uf2(b"x"), "esp32-devkit", "is for RP2040, .* take ESP32_GENERIC-DATE-VERSION.bin"),
        (uf2(b"x"), "pico2-w", r"is for RP2040, a pico2-w has RP2350 \(Arm\); take RPI_PICO2_W-"),
        (uf2(machine("pico")), "pico-w", "is for .*this is a pico-w; take RPI_PICO_W-"),
        (uf2(machine("pico-w")), "pico", "is for .*this is a pico; take RPI_PICO-"),
        (uf2(b"x"), "unix", "unix is no board that is flashed"),
    ],
)  # fmt: skip
def test_the_wrong_image_is_refused_and_the_right_one_named(image, data, board, words) -> None:
    assert re.search(words, images.wrong_for(image(data), BOARDS[board], BOARDS))
    with pytest.raises(ImageError, match=words):
        images.fitting([image(data)], BOARDS[board], BOARDS, "port")


def test_of_several_images_a_board_takes_its_own(image) -> None:
    files = [
        image(esp_image("esp32", b""), "a"),
        image(uf2(machine("pico")), "b"),
        image(uf2(machine("pico-w")), "c"),
        image(uf2_rp2350(machine("pico2-w")), "d"),
    ]
    for board, name in (("esp32-devkit", "a"), ("pico", "b"), ("pico-w", "c"), ("pico2-w", "d")):
        assert images.fitting(files, BOARDS[board], BOARDS, "port").name == name
