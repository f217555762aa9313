"""Builds MicroPython for an emulated Pico, once: `make pico`, python -m tools.hil.build_pico.

Of the same MicroPython sources as the machines of QEMU (build.py), and of Debian's packages of the
Pico SDK and TinyUSB, which apt checks against Debian's signature. Kept in the cache, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import sys
from pathlib import Path

from tools.devices.uf2 import BLOCK_BYTES, PAYLOAD_BYTES, RP2040, read_uf2
from tools.errors import ToolError
from tools.hil import build

__all__ = ["INSTALL", "PACKAGES", "built", "fill", "image", "uf2"]

FROZEN = Path(__file__).resolve().parents[2] / "hardware" / "pico" / "manifest.py"
BOARD = "RPI_PICO"
INSTALL = "tools/system.sh pico"
# MicroPython 1.26 is made for version 2.1.1 of the SDK, which this suite has.
DEBIAN_SUITE = "trixie"
PACKAGES = {"pico-sdk-source": "pico-sdk", "tinyusb-source": "tinyusb"}
FLASH_START = 0x1000_0000
# What Debian leaves out of MicroPython's sources, taken out of what is built: (file, old, new).
WITHOUT_MBEDTLS = (
    ("CMakeLists.txt", "set(MICROPY_SSL_MBEDTLS ON)\n", ""),
    ("CMakeLists.txt", "    mbedtls/mbedtls_port.c\n", ""),
    ("CMakeLists.txt", "target_link_libraries(${MICROPY_TARGET} micropy_lib_mbedtls)\n", ""),
    *(
        ("mpconfigport.h", f"#define {name:<39} (1)\n", f"#define {name:<39} (0)\n")
        for name in ("MICROPY_SSL_MBEDTLS", "MICROPY_PY_CRYPTOLIB", "MICROPY_PY_HASHLIB_SHA1")
    ),
)


def built() -> Path | None:
    """Give the latest image that `make pico` has made, None where there is none."""
    images = sorted(_kept().glob("*/firmware.uf2"), key=lambda path: path.stat().st_mtime)
    return images[-1] if images else None


def image() -> Path:
    """Give the image, after building it if need be.

    Raises ToolError when sources or compilers are not to be had, or the build fails.
    """
    with build.lock():
        sources = build.micropython()
        digest = hashlib.sha256(repr((sources.name, DEBIAN_SUITE, WITHOUT_MBEDTLS)).encode())
        digest.update(FROZEN.read_bytes())
        version = sources.name.removeprefix("micropython-")
        made = _kept() / f"{version}-{digest.hexdigest()[:12]}" / "firmware.uf2"
        if not made.exists():
            _build(sources, made)
        return made


def _kept() -> Path:
    return build.cache_folder() / "pico"


def _packages(folder: Path) -> dict[str, Path]:
    """Fetch and unpack Debian's packages; gives where the sources of each lie."""
    kept = {name: folder / "usr" / "src" / source for name, source in PACKAGES.items()}
    if not all(path.is_dir() for path in kept.values()):
        fetch = folder / "fetching"
        shutil.rmtree(fetch, ignore_errors=True)
        fetch.mkdir(parents=True)
        build.say(f"fetching {', '.join(PACKAGES)} ({DEBIAN_SUITE})")
        options = build.apt_options(fetch, "deb", DEBIAN_SUITE)
        build.run(["apt-get", *options, "update"])
        build.run(["apt-get", *options, "download", *PACKAGES], cwd=fetch)
        for package in sorted(fetch.glob("*.deb")):
            build.run(["dpkg-deb", "-x", str(package), str(folder)])
        shutil.rmtree(fetch)
    missing = [name for name, path in kept.items() if not path.is_dir()]
    if missing:
        raise ToolError(f"Debian's {', '.join(missing)} holds no /usr/src; build it by hand")
    return kept


def _build(sources: Path, made: Path) -> None:
    compiler = build.run(["arm-none-eabi-gcc", "-dumpfullversion"]).strip()
    packages = _packages(_kept() / f"packages-{DEBIAN_SUITE}")
    build.say(f"building {BOARD}, {sources.name}, arm-none-eabi-gcc {compiler}")
    jobs = f"-j{os.cpu_count() or 1}"
    work = _kept() / "building"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(
        sources, work, symlinks=True,
        ignore=lambda _, names: {name for name in names if name.startswith("build-")},
    )  # fmt: skip
    fill(work, packages)
    if not (work / "mpy-cross" / "build" / "mpy-cross").exists():
        build.run(["make", "-C", str(work / "mpy-cross"), jobs])
    # Nothing here is C++ but the SDK's `new` and `delete`; Debian's C++ library would be 400 MB.
    (work / "no-c++").mkdir()
    build.run(["arm-none-eabi-ar", "rcs", str(work / "no-c++" / "libstdc++.a")])
    port = work / "ports" / "rp2"
    settings = {
        "MICROPY_BOARD": BOARD,
        "MICROPY_BOARD_DIR": port / "boards" / BOARD,
        "MICROPY_FROZEN_MANIFEST": FROZEN,
        "PICO_BUILD_DOCS": 0,
        # It would be fetched, to make a UF2 file of the image: `uf2` does that.
        "PICO_NO_PICOTOOL": 1,
    }
    build.run(
        ["cmake", "-S", str(port), "-B", str(port / "build"), "-G", "Unix Makefiles",
         *(f"-D{name}={value}" for name, value in settings.items())],
        environment={
            "CXXFLAGS": "-DPICO_CXX_DISABLE_ALLOCATION_OVERRIDES=1",
            "LDFLAGS": f"-L{work / 'no-c++'}",
        },
    )  # fmt: skip
    build.run(["make", "-C", str(port / "build"), jobs])
    data = uf2((port / "build" / "firmware.bin").read_bytes())
    made.parent.mkdir(parents=True, exist_ok=True)
    made.with_suffix(".part").write_bytes(data)
    made.with_suffix(".part").rename(made)
    shutil.rmtree(work)


def fill(work: Path, packages: dict[str, Path]) -> None:
    """Put what Debian's source package leaves out into a copy of it, or do without."""
    for name, source in PACKAGES.items():
        place = work / "lib" / source
        if not any(place.glob("*")):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(packages[name], place, symlinks=True, ignore_dangling_symlinks=True)
    library = work / "lib" / "micropython-lib"
    library.mkdir(parents=True, exist_ok=True)
    (library / "README.md").touch()  # by which the build knows it
    if any((work / "lib" / "mbedtls").glob("*")):
        return
    port = work / "ports" / "rp2"
    for name, old, new in WITHOUT_MBEDTLS:
        text = (port / name).read_text("utf-8")
        if old not in text:
            raise ToolError(
                f"{name} of this MicroPython's ports/rp2 has no line {old.strip()!r}; build it by "
                "hand and name its image with --firmware"
            )
        (port / name).write_text(text.replace(old, new), "utf-8")


def uf2(data: bytes) -> bytes:
    """An image for the start of an RP2040's flash as a UF2 file."""
    data += bytes(-len(data) % PAYLOAD_BYTES)
    total = len(data) // PAYLOAD_BYTES
    blocks = bytearray()
    for number in range(total):
        at = number * PAYLOAD_BYTES
        blocks += struct.pack(
            "<8I", 0x0A32_4655, 0x9E5D_5157, 0x2000, FLASH_START + at, PAYLOAD_BYTES, number, total,
            RP2040,
        )  # fmt: skip
        blocks += data[at : at + PAYLOAD_BYTES]
        blocks += bytes(-(len(blocks) + 4) % BLOCK_BYTES)
        blocks += struct.pack("<I", 0x0AB1_6F30)
    read_uf2(bytes(blocks), "the image that was built")
    return bytes(blocks)


def main() -> int:
    """Build the image and print where it is."""
    print(f"pico: {image()}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolError as problem:
        print(f"refused: {problem}", file=sys.stderr)
        sys.exit(1)
