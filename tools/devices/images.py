"""Firmware files for boards: a file of the user's, checked against a checksum and the board.

Nothing is downloaded. `known_images.toml` names files of micropython.org whose SHA-256 we carry, so
that a download can be checked; for any other the user gives the SHA-256.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.boards import Board, EsptoolFlash, Uf2Flash
from tools.devices.errors import ImageError
from tools.devices.uf2 import BLOCK_BYTES, FAMILIES, PAYLOAD_BYTES, read_uf2
from tools.errors import ToolError, UsageError

__all__ = ["Image", "fitting", "known_images", "load_image", "wrong_for"]

KNOWN = Path(__file__).with_name("known_images.toml")
MAX_IMAGE_BYTES = 64 * 1024 * 1024
SHA256_HEX = 64
# An ESP image begins with this byte; its chip id is at 12 (esptool: firmware image format).
_ESP_MAGIC = 0xE9
_ESP_CHIP_ID_AT = 12
_ESP_CHIPS = {0: "esp32", 5: "esp32c3", 9: "esp32s3", 2: "esp32s2", 13: "esp32c6", 16: "esp32h2"}


@dataclass(frozen=True)
class Image:
    """A firmware file.

    Attributes:
        name: of the file.
        sha256: hex.
        chip: that it is for: `esp32s3`, `RP2040`, ...
        payload: what will lie in flash; the file itself, but for UF2.
    """

    name: str
    data: bytes
    sha256: str
    chip: str
    payload: bytes


@cache
def known_images(path: Path = KNOWN) -> Mapping[str, str]:
    """SHA-256 (hex) by name of file; raises ToolError where our own list is damaged."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["image"]
        return {str(entry["file"]): str(entry["sha256"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolError(
            f"{path}: is not as it should be ({error}); install Fogline anew"
        ) from error


def load_image(path: Path, sha256s: Collection[str] = ()) -> Image:
    """Read a firmware file and check it.

    Args:
        path: of a `.bin` for an ESP32, or a `.uf2` for a Pico.
        sha256s: those that it may have, hex, beside the one that we carry for a file of its name.

    Raises:
        UsageError: one of `sha256s` is none.
        ImageError: the file is damaged, or has another SHA-256.
        ToolError: it cannot be read.
    """
    for sha256 in sha256s:
        if len(sha256) != SHA256_HEX or not set(sha256.lower()) <= set("0123456789abcdef"):
            raise UsageError(f"--sha256 {sha256}: is not 64 hex digits")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise ToolError(
            f"{path}: cannot be read: {error.strerror}; download it from micropython.org/download"
        ) from error
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageError(f"{path}: is larger than {MAX_IMAGE_BYTES} bytes", "give an image")
    chip, payload = _chip(path, data)
    found = hashlib.sha256(data).hexdigest()
    known = known_images().get(path.name)
    if found not in {known, *(sha256.lower() for sha256 in sha256s)}:
        raise ImageError(
            f"{path}: has SHA-256 {found}, which is "
            + (f"not {known} of the file of that name" if known else "unknown here"),
            "download it again and do not flash this one"
            if known
            else "compare it with one from another network, then give it with --sha256",
        )
    return Image(path.name, data, found, chip, payload)


def _chip(path: Path, data: bytes) -> tuple[str, bytes]:
    if data[:4] == b"UF2\n":
        uf2 = read_uf2(data, str(path))
        start = len(data) - uf2.size // PAYLOAD_BYTES * BLOCK_BYTES
        blocks = range(start + 32, len(data), BLOCK_BYTES)
        return uf2.family_name, b"".join(data[at : at + PAYLOAD_BYTES] for at in blocks)
    if len(data) > _ESP_CHIP_ID_AT + 2 and data[0] == _ESP_MAGIC:
        number = int.from_bytes(data[_ESP_CHIP_ID_AT : _ESP_CHIP_ID_AT + 2], "little")
        return _ESP_CHIPS.get(number, f"ESP chip {number}"), data
    raise ImageError(
        f"{path}: is neither an ESP32 image nor a UF2 file",
        "give the .bin (ESP32) or .uf2 (Pico) of micropython.org/download, not an .elf or a page",
    )


def wrong_for(image: Image, board: Board, boards: Mapping[str, Board]) -> str | None:
    """Why this file is not for this board, naming the right one; None if it may be."""
    flash = board.flash
    if flash is None:
        return f"{board.id} is no board that is flashed"
    wanted = _chip_of(flash)
    right = f"take {flash.firmware}-DATE-VERSION.{'uf2' if flash.method == 'uf2' else 'bin'}"
    if image.chip != wanted:
        return f"{image.name} is for {image.chip}, a {board.id} has {wanted}; {right}"
    # Boards with the same chip differ in what MicroPython calls the machine.
    for other in boards.values():
        if other.id != board.id and _says(image, other) and not _says(image, board):
            return f"{image.name} is for {other.name}, this is a {board.id}; {right}"
    return None


def fitting(images: Sequence[Image], board: Board, boards: Mapping[str, Board], port: str) -> Image:
    """The first image that is for this board; raises ImageError naming the right one."""
    problems = []
    for image in images:
        problem = wrong_for(image, board, boards)
        if problem is None:
            return image
        problems.append(problem)
    raise ImageError(
        f"{port}: no image is for this board ({'; '.join(problems)})",
        "give the right file with --firmware; it may be given several times",
    )


def _says(image: Image, board: Board) -> bool:
    return board.machine is not None and board.machine.encode() + b"\0" in image.payload


def _chip_of(flash: EsptoolFlash | Uf2Flash) -> str:
    if isinstance(flash, Uf2Flash):
        return FAMILIES.get(flash.family, f"family {flash.family:#010x}")
    return flash.chip
