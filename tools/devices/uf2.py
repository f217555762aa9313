r"""UF2 files, as the boot loaders of the RP2040 and RP2350 take them.

A file is a row of 512-byte blocks, each with up to 476 bytes for one address in flash
(https://github.com/microsoft/uf2, README.md). Boot loaders pass over blocks of other families
without a word, so that a file for the wrong chip looks like one that was written: whoever writes
one reads it here first.

| offset | field | validation |
| --- | --- | --- |
| 0 | magic `UF2\n` | both, and the third one at 508 |
| 8 | flags | family id present; no block that is not for flash |
| 12 | address | a multiple of the payload's size; blocks of a family lie one behind the other |
| 16 | payload bytes | 256 (what both boot loaders take) |
| 20, 24 | number of the block, blocks in all | 0, 1, 2, ... within a family; the same total |
| 28 | family id | see FAMILIES |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from tools.devices.errors import ImageError

__all__ = ["BLOCK_BYTES", "FAMILIES", "Uf2", "read_uf2"]

BLOCK_BYTES = 512
PAYLOAD_BYTES = 256
MAX_FILE_BYTES = 64 * 1024 * 1024
# Family ids: RP2040 datasheet 2.8.4.2 and RP2350 datasheet 5.5.3.
RP2040 = 0xE48BFF56
RP2350_ABSOLUTE = 0xE48BFF57
RP2350_ARM_S = 0xE48BFF59
RP2350_RISCV = 0xE48BFF5A
FAMILIES = {
    RP2040: "RP2040",
    RP2350_ABSOLUTE: "absolute",
    RP2350_ARM_S: "RP2350 (Arm)",
    RP2350_RISCV: "RP2350 (RISC-V)",
}

_HEADER = struct.Struct("<8I")
_MAGICS = (0x0A324655, 0x9E5D5157)
_MAGIC_END = 0x0AB16F30
_NOT_FOR_FLASH = 0x00000001
_HAS_FAMILY = 0x00002000


@dataclass(frozen=True)
class Uf2:
    """A file that is whole.

    Attributes:
        family: of its blocks, but for the single `absolute` one with which pico-sdk begins files
            for the RP2350 (erratum RP2350-E10).
        address: of its first byte in flash.
        size: bytes that it writes.
    """

    family: int
    address: int
    size: int

    @property
    def family_name(self) -> str:
        """What chip the file is for."""
        return FAMILIES.get(self.family, f"family {self.family:#010x}")


def read_uf2(data: bytes, name: str) -> Uf2:
    """Check a file; raises ImageError naming the block at fault."""
    if not data or len(data) % BLOCK_BYTES or len(data) > MAX_FILE_BYTES:
        raise _bad(name, f"{len(data)} bytes are no whole number of 512-byte blocks")
    families: dict[int, list[_Block]] = {}
    for index in range(len(data) // BLOCK_BYTES):
        block = _read_block(data, name, index)
        families.setdefault(block.family, []).append(block)
    # Erratum RP2350-E10: a single block that the chip ignores stands before the others.
    if len(families) > 1 and len(families.get(RP2350_ABSOLUTE, ())) == 1:
        del families[RP2350_ABSOLUTE]
    if len(families) > 1:
        raise _bad(name, f"holds images for {len(families)} families of chips")
    ((family, blocks),) = families.items()
    return _joined(family, blocks, name)


class _Block(NamedTuple):
    place: int
    family: int
    address: int
    number: int
    total: int


def _read_block(data: bytes, name: str, index: int) -> _Block:
    at = index * BLOCK_BYTES
    magic0, magic1, flags, address, size, number, total, family = _HEADER.unpack_from(data, at)
    (end,) = struct.unpack_from("<I", data, at + BLOCK_BYTES - 4)
    if (magic0, magic1) != _MAGICS or end != _MAGIC_END:
        raise _bad(name, f"block {index}: is no UF2 block")
    if flags & _NOT_FOR_FLASH or not flags & _HAS_FAMILY:
        raise _bad(name, f"block {index}: is not for the flash of a named family of chips")
    if size != PAYLOAD_BYTES or address % PAYLOAD_BYTES:
        raise _bad(name, f"block {index}: {size} bytes at {address:#010x}, not {PAYLOAD_BYTES}")
    return _Block(index, family, address, number, total)


def _joined(family: int, blocks: list[_Block], name: str) -> Uf2:
    first = blocks[0].address
    for count, block in enumerate(blocks):
        if block.number != count or block.total != len(blocks):
            raise _bad(
                name,
                f"block {block.place}: is number {block.number} of {block.total}, "
                f"expected {count} of {len(blocks)}: a part is missing",
            )
        if block.address != first + count * PAYLOAD_BYTES:
            raise _bad(name, f"block {block.place}: leaves a gap before {block.address:#010x}")
    return Uf2(family, first, len(blocks) * PAYLOAD_BYTES)


def _bad(name: str, problem: str) -> ImageError:
    return ImageError(f"{name}: {problem}", "download it again")
