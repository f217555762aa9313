"""Opens a target by its name: mock, unix, qemu-arm, qemu-rv32, pico-emu, serial:PORT."""

from __future__ import annotations

from pathlib import Path

from tools.errors import UsageError
from tools.hil.target import Target

__all__ = ["NAMES", "open_target"]

NAMES = ("mock", "unix", "qemu-arm", "qemu-rv32", "pico-emu", "pico-emu:pico-w", "serial:PORT")


def open_target(
    name: str,
    *,
    count_instructions: bool = False,
    heap_bytes: int | None = None,
    folder: Path | None = None,
    firmware: Path | None = None,
) -> Target:
    """Open a target; close it when done. Raises UsageError, TargetError.

    count_instructions: on the QEMU targets, run by counted instructions. heap_bytes: another heap
    than the target's usual one, where that can be had.
    folder: what is kept of an emulated board's flash; a temporary one if none is given.
    firmware: the image that pico-emu runs.
    """
    if heap_bytes is not None and not name.startswith(("unix", "qemu-")):
        raise UsageError(f"{name}: its heap is what it is; leave the size out")
    if count_instructions and not name.startswith("qemu-"):
        raise UsageError(f"{name} cannot count instructions; qemu-arm and qemu-rv32 can")
    kind, _, rest = name.partition(":")
    if firmware is not None and kind != "pico-emu":
        raise UsageError(f"{name} takes no image; leave --firmware out, or ask for pico-emu")
    if name in ("pico-emu", "pico-emu:pico-w"):
        from tools.hil.pico_emulator import PicoEmulatorTarget

        return PicoEmulatorTarget(firmware, board=rest or "pico", folder=folder)
    if name == "mock":
        from tools.hil.mock import MockTarget

        return MockTarget(folder=folder)
    if kind == "unix" and not rest:
        from tools.hil.unix import UnixTarget

        return UnixTarget(heap_bytes=heap_bytes, folder=folder)
    if name in ("qemu-arm", "qemu-rv32"):
        from tools.hil.qemu import QemuTarget

        return QemuTarget(
            name.removeprefix("qemu-"),
            heap_bytes=heap_bytes,
            count_instructions=count_instructions,
            folder=folder,
        )
    if kind == "serial" and rest:
        from tools.hil.serial_port import SerialTarget

        return SerialTarget(rest)
    raise UsageError(f"no target {name}; there are {', '.join(NAMES)}")
