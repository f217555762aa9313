"""A board of the demo that is a microcontroller under QEMU, provisioned as on a bench."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fog_node.protocol.keys import PublicKey
from fog_node.protocol.transactions import Channel
from tools.boards import load_boards
from tools.devices.progress import whisper
from tools.devices.settings import Settings
from tools.devices.work import provisioning
from tools.errors import ToolError
from tools.hil.qemu import QemuTarget

from .processes import TerminalChild

# What the firmware takes with a model, its arena, and the link; measured.
HEAP_BYTES = 384 * 1024


class EmulatedBoard(TerminalChild):
    """QEMU's process, whose serial line is the board's end of a cable."""

    def __init__(
        self, name: str, target: str, log: Path, *, cwd: Path, device: Path,
        on_line: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Make the machine, with an empty flash; `target` is qemu-arm or qemu-rv32."""
        super().__init__(name, (), log, cwd=cwd, device=device, environment={}, on_line=on_line)
        self._kind = target
        self._target = QemuTarget(
            target.removeprefix("qemu-"), heap_bytes=HEAP_BYTES, folder=cwd / "machine"
        )
        self._is_on = False

    @property
    def running(self) -> bool:
        """Whether it is switched on."""
        return self._is_on

    def provision(self, settings: Mapping[str, Any]) -> tuple[PublicKey, tuple[Channel, ...]]:
        """Put firmware and settings onto it and let it make its key. Blocks for a while."""
        self._target.let_go()
        work = provisioning(Settings(settings, {}), load_boards(), self._kind, start=False)
        done = work(self._target.serial_url, 0, whisper)
        channels = tuple(Channel(*channel) for channel in done["channels"])
        return PublicKey(bytes.fromhex(done["public_key"])), channels

    async def start(self) -> None:
        """Switch it on (again), with the cable plugged in."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self.cable.close_board()
        await asyncio.to_thread(self._target.power_cut)
        self.cable.attach(self._target.line_number)
        self._is_on = True
        if not self.cable.is_plugged:
            self.cable.plug()

    async def stop(self, timeout_s: float = 0.0) -> int | None:
        """Switch it off, for good."""
        del timeout_s  # it needs none
        self._is_on = False
        self.cable.close_board()
        self.cable.unplug()
        await asyncio.to_thread(self._target.close)
        return None

    def check(self) -> None:
        """Raise ToolError where QEMU ended by itself."""
        if self._is_on and not self._target.is_on:
            raise ToolError(f"{self.name}: QEMU has ended; see {self._cwd / 'machine'}/qemu.log")
