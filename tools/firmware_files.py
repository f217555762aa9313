"""Which files of the firmware go on a board."""

from __future__ import annotations

from pathlib import Path

FIRMWARE = Path(__file__).resolve().parents[1] / "firmware"

# Written in assembler: for these of mpy-cross's architectures, and for no others. The rest of the
# firmware is for all, and imports these only where `fogline.kernels.available` says so.
_THUMB = ("armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp")
ASSEMBLER = {
    "kernels_rv32.py": ("rv32imc",),
    "kernels_rv32_planes.py": ("rv32imc",),
    "kernels_thumb.py": _THUMB,
    "kernels_thumb_planes.py": _THUMB,
}


def is_for(name: str, arch: str) -> bool:
    """Whether the file of this name is for boards that mpy-cross calls `arch`."""
    return name not in ASSEMBLER or arch in ASSEMBLER[name]
