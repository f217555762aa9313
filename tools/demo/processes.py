"""Child processes of the demo: started, watched line by line, ended by their id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools.errors import ToolError

from .cable import Cable

STOP_TIMEOUT_S = 60.0
# One console line; a longer one is cut by asyncio with an error, which ends the demo.
MAX_LINE_BYTES = 1024 * 1024
TAIL_LINES = 5
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT = 16_384
# Ports that one process claims at a time: more than one network of daemons ever has.
_CLAIM = 256
_own_ports: deque[int] = deque()


class Child:
    """One process; its output goes to a log file and, line by line, to `on_line`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._cwd = cwd
        self._environment = {**os.environ, **(environment or {})}
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.expected_to_run = False

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Process id of the running process."""
        if self._process is None:
            raise ToolError(f"{self.name}: is not started")
        return self._process.pid

    async def start(self) -> None:
        """Start (again); the log is appended to."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._cwd,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=MAX_LINE_BYTES,
        )
        self.expected_to_run = True
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._read(self._process.stdout))

    async def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        assert self._process is not None
        assert self._reader is not None
        code = await self._process.wait()
        await self._reader
        return code

    async def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        if self.running:
            assert self._process is not None
            self.expected_to_run = False
            self._process.kill()
            await self.wait()

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """SIGTERM, then SIGKILL if it does not end; returns the exit code."""
        if self._process is None:
            return None
        self.expected_to_run = False
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(timeout_s):
                    return await self.wait()
            except TimeoutError:
                await self.kill()
        return self._process.returncode

    def check(self) -> None:
        """Raise ToolError where the process ended though nobody ended it."""
        # What it said last, its reason for ending, may still be on the way.
        has_said_all = self._reader is not None and self._reader.done()
        if self.expected_to_run and not self.running and has_said_all:
            assert self._process is not None
            raise ToolError(
                f"{self.name}: ended with code {self._process.returncode}; its last lines "
                f"({self._log}):\n{self.tail()}"
            )

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-TAIL_LINES:])

    async def _read(self, stream: asyncio.StreamReader) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            async for line in stream:
                log.write(line)
                log.flush()
                if self._on_line is not None:
                    self._on_line(line.decode(errors="replace").rstrip("\n"))


class TerminalChild(Child):
    """A process at the end of a serial cable; what it prints there is its output."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path,
        device: Path,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> None:
        """As `Child`; `device` is where the cable's other end is to be found."""
        super().__init__(name, command, log, cwd=cwd, environment=environment, on_line=on_line)
        self.cable = Cable(device, self._show)
        self._text = b""

    async def start(self) -> None:
        """Start (again), with the cable plugged in."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        terminal = self.cable.open_board()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._cwd,
                env=self._environment,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
            )
        finally:
            os.close(terminal)
        self.expected_to_run = True
        self._reader = asyncio.create_task(self._until_end(self._process))
        if not self.cable.is_plugged:
            self.cable.plug()

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """As `Child.stop`; pulls the cable out."""
        code = await super().stop(timeout_s)
        self.cable.unplug()
        return code

    async def _until_end(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self.cable.close_board()

    def _show(self, text: bytes) -> None:
        *lines, rest = (self._text + text).split(b"\n")
        self._text = rest[-MAX_LINE_BYTES:]
        with self._log.open("ab") as log:
            for line in lines:
                log.write(line + b"\n")
        if self._on_line is not None:
            for line in lines:
                self._on_line(line.decode(errors="replace"))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free, and stays so but for who asks for it by number.

    Below the range from which the system takes the ports of outgoing connections, one of
    which would else get in before the daemon that the port is meant for, and from a part of it
    that no other process takes ports from: test runs and demos may go on side by side.
    """
    while True:
        for _ in range(len(_own_ports)):
            port = _own_ports[0]
            _own_ports.rotate(-1)
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
        _own_ports.extendleft(reversed(_claim_ports()))


def _claim_ports() -> range:
    """Take ports that are this process's own until it ends."""
    low = int(_PORT_RANGE.read_text(encoding="ascii").split()[0])
    first = min(_FIRST_PORT, low // 2)
    for start in range(first, low - _CLAIM + 1, _CLAIM):
        # A name that one process can hold, with no file behind it; ports and names are both
        # those of the network namespace.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0fogline-ports-{start}")
        except OSError:
            claim.close()
            continue
        claim.detach()  # closed by the system when the process ends, and not before
        return range(start, start + _CLAIM)
    raise ToolError(f"ports {first} to {low - 1}: all are claimed; end what fogline runs there")
