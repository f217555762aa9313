"""Firmware files as MicroPython's makers ship them, with made-up contents; and a drive for them."""

import struct
import threading
from pathlib import Path

from tools.devices.errors import ImageError
from tools.devices.uf2 import RP2040, RP2350_ABSOLUTE, RP2350_ARM_S, read_uf2

ESP_CHIP_IDS = {"esp32": 0, "esp32c3": 5, "esp32s3": 9}
FLASH_START = 0x10000000
PAYLOAD = 256


def uf2_block(payload, address, number, total, family, flags=0x2000):
    head = struct.pack(
        "<8I", 0x0A324655, 0x9E5D5157, flags, address, len(payload), number, total, family
    )
    return head + payload.ljust(476, b"\0") + struct.pack("<I", 0x0AB16F30)


def uf2_blocks(content, family=RP2040, start=FLASH_START):
    """The blocks of an image."""
    content += bytes(-len(content) % PAYLOAD)
    pieces = [content[at : at + PAYLOAD] for at in range(0, len(content), PAYLOAD)]
    return [
        uf2_block(piece, start + PAYLOAD * number, number, len(pieces), family)
        for number, piece in enumerate(pieces)
    ]


def uf2(content, family=RP2040):
    return b"".join(uf2_blocks(content, family))


def uf2_rp2350(content):
    """As pico-sdk makes them: one block before, for the erratum RP2350-E10."""
    return uf2_block(bytes(PAYLOAD), 0x10FFFF00, 0, 2, RP2350_ABSOLUTE) + uf2(content, RP2350_ARM_S)


def esp_image(chip, content):
    head = bytes([0xE9, 1, 2, 0x20]) + bytes(8) + ESP_CHIP_IDS[chip].to_bytes(2, "little")
    return head + bytes(10) + content


LABELS = {RP2040: "RPI-RP2", RP2350_ARM_S: "RP2350"}


class FakeDrive:
    """A Pico in BOOTSEL: takes blocks of its family, and restarts behind the last one.

    Attributes:
        flash: what it has been given, once it restarted.
    """

    def __init__(self, root, family=RP2040, *, deaf=False):
        self.root = Path(root)
        self.family = family
        self.flash = None
        self._deaf = deaf
        self._stop = threading.Event()
        self.appear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def appear(self):
        self.root.mkdir(parents=True, exist_ok=True)
        label = LABELS[self.family]
        text = f"UF2 Bootloader v3.0\r\nModel: Raspberry Pi RP2\r\nBoard-ID: {label}\r\n"
        (self.root / "INFO_UF2.TXT").write_bytes(text.encode())

    def close(self):
        self._stop.set()
        self._thread.join(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _run(self):
        while not self._stop.wait(0.02):
            for path in self.root.glob("*.UF2"):
                data = path.read_bytes()
                # It needs all blocks; those of other families it passes over.
                try:
                    image = read_uf2(data, path.name)
                except ImageError:  # not all of it yet
                    continue
                if image.family == self.family and not self._deaf:
                    self.flash = data
                    path.unlink()
                    (self.root / "INFO_UF2.TXT").unlink()
                    return
