"""Child processes of the demo: started, watched line by line, ended by their id."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools.errors import ToolError

STOP_TIMEOUT_S = 10.0
# One console line; a longer one is cut by asyncio with an error, which ends the demo.
MAX_LINE_BYTES = 1024 * 1024
TAIL_LINES = 5


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
        if self.expected_to_run and not self.running:
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


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
