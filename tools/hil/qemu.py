"""MicroPython under QEMU: a Cortex-M3 and a 32-bit RISC-V, whose serial line is a TCP port."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tools.devices.errors import PortError
from tools.devices.line import SerialLine
from tools.hil import build
from tools.hil.repl_target import LARGE_HEAP_BYTES, ReplTarget
from tools.hil.target import Capability, TargetError

__all__ = ["NS_PER_INSTRUCTION_SHIFT", "QemuTarget"]

# With -icount each instruction takes 2**shift ns of virtual time. The machines' counters tick every
# 40 and 100 ns, so at 128 ns every single instruction shows; how many are counted does not depend
# on it. hil_counter.py in the image has the same number.
NS_PER_INSTRUCTION_SHIFT = 7
START_S = 30.0
HOST = "127.0.0.1"
WINDOW_BYTES = 16 << 20
# Offset in the file of what hardware/qemu/virtual_machine.h calls `struct kept`.
KEPT_OFFSET = {"arm": 0, "rv32": 8 << 20}
_KEPT = struct.Struct("<II8s")  # cause of the last reset, heap bytes, unique id
PROGRAMS = {"arm": "qemu-system-arm", "rv32": "qemu-system-riscv32"}
ARGUMENTS = {
    "arm": ("-machine", "mps2-an385,memory-backend=ram"),
    "rv32": ("-machine", "virt,memory-backend=ram", "-m", "16M", "-bios", "none"),
}
REMEDY = "end this run and start it again; `make qemu` builds what it runs"


class QemuTarget(ReplTarget):
    """A board under QEMU. Its flash is a file in `folder`, a temporary one if none is named.

    heap_bytes: None for the 140 KiB of MicroPython's own port. count_instructions: run by
    `-icount`, where virtual time is a count of instructions and not the host's time.
    Raises TargetError, ToolError.
    """

    def __init__(
        self,
        machine: str,
        *,
        heap_bytes: int | None = None,
        count_instructions: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._machine = machine
        self._heap_bytes = heap_bytes
        self._count = count_instructions
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="fogline-qemu-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.serial_url = ""
        # The file number of its line, for who talks to the program on it; ours to close.
        self.line_number = -1
        name = f"qemu-{machine}"
        if shutil.which(PROGRAMS[machine]) is None:
            raise TargetError(f"{name}: {PROGRAMS[machine]} is missing; run {build.INSTALL}")
        self._image = build.elf(machine)
        self._make_flash()
        try:
            super().__init__(name, self._power_on(), REMEDY)
            known = {Capability.POWER, Capability.LARGE_HEAP}
            if count_instructions:
                known.add(Capability.INSTRUCTIONS)
            self.probe(*known)
        except BaseException:
            self.close()
            raise

    @property
    def flash_file(self) -> Path:
        """The file behind the machine's RAM window."""
        return self._folder / "ram"

    @property
    def is_on(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    def let_go(self) -> None:
        """Leave the serial line to another, at `serial_url`; until the next power cut."""
        self._line.close()

    def _make_flash(self) -> None:
        """Make the file where there is none, and write the heap's size into it."""
        if not self.flash_file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.flash_file.open("xb") as file:
                file.truncate(WINDOW_BYTES)
                file.seek(KEPT_OFFSET[self._machine])
                file.write(_KEPT.pack(0, 0, os.urandom(8)))
        with self.flash_file.open("r+b") as file:
            file.seek(KEPT_OFFSET[self._machine] + 4)
            file.write(struct.pack("<I", self._heap_bytes or 0))

    def _power_on(self) -> SerialLine:
        with socket.create_server((HOST, 0)) as listener:
            # QEMU takes the listening socket over, so that nobody else can have the port first.
            port = listener.getsockname()[1]
            ram = f"memory-backend-file,id=ram,size={WINDOW_BYTES},share=on"
            ram += f",mem-path={self.flash_file}"
            listening = "server=on,wait=off,nodelay=on"
            command = [
                PROGRAMS[self._machine], *ARGUMENTS[self._machine],
                "-object", ram,
                "-kernel", str(self._image), "-nographic", "-monitor", "none", "-semihosting",
                "-chardev", f"socket,id=line,fd={listener.fileno()},{listening}",
                "-serial", "chardev:line",
            ]  # fmt: skip
            if self._count:
                command += ["-icount", f"shift={NS_PER_INSTRUCTION_SHIFT}"]
            with (self._folder / "qemu.log").open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[listener.fileno()],
                )
        self.serial_url = f"socket://{HOST}:{port}"
        until = time.monotonic() + START_S
        while True:
            try:
                line = SerialLine(self.serial_url)
            except PortError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = (self._folder / "qemu.log").read_text("utf-8", "replace")
                    raise TargetError(f"QEMU did not start: {said[-500:]}") from error
                time.sleep(0.05)
            else:
                self.line_number = line.fileno()
                return line

    def _power_off(self) -> None:
        line = getattr(self, "_line", None)
        if line is not None:
            line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def put(self, files: Mapping[str, bytes]) -> int:
        """As Target, by semihosting: the serial line of these machines takes byte after byte."""
        return self._put(files, self._write_by_host)

    def put_by_line(self, files: Mapping[str, bytes]) -> int:
        """As put, over the serial line, which is how real boards get theirs."""
        return super().put(files)

    def _write_by_host(self, content: bytes) -> None:
        file = self._folder / "put"
        file.write_bytes(content)
        self._repl.run(
            "import qemu\nb = bytearray(1024)\na = 0\n"
            "while True:\n"
            f" n = qemu.host_read({str(file)!r}, a, b)\n"
            " if not n: break\n"
            " _f.write(memoryview(b)[:n])\n"
            " a += n\n",
            60,
        )

    def power_cut(self) -> None:
        """As Target: QEMU is killed, and started on the same flash."""
        self._power_off()
        super().__init__(self.name, self._power_on(), REMEDY)

    def with_heap(self, heap_bytes: int | None) -> None:
        """Give the board another heap, by a power cut; None: the usual one."""
        self._heap_bytes = heap_bytes
        self._power_off()
        self._make_flash()
        self._about = None
        known = self.capabilities
        super().__init__(self.name, self._power_on(), REMEDY)
        self.capabilities = known

    def large_heap(self) -> None:
        """Give it the heap that a board with the capability large_heap has."""
        self.with_heap(8 * LARGE_HEAP_BYTES)

    def close(self) -> None:
        """As Target."""
        self._power_off()
        if self._temporary:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
