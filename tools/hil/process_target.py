"""A target that is a process of this machine: each run one process, its flash a folder."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.hil.target import BoardError, Outcome, TargetError

__all__ = ["ProcessConsole", "ProcessTarget"]

TRACEBACK = "Traceback (most recent call last):"


class ProcessConsole:
    """A process's standard output, line by line, and its standard input."""

    def __init__(self, process: subprocess.Popen[bytes], where: str) -> None:
        self._process = process
        self._where = where
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def lines(self, timeout_s: float) -> Iterator[str]:
        """As Console."""
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                raise TargetError(
                    f"{self._where}: silent for {timeout_s:g} s; end it or wait longer"
                ) from None
            if line is None:
                return
            yield line.decode("utf-8", "replace").rstrip("\r\n")

    def write(self, data: bytes) -> None:
        """As Console."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def stop(self) -> None:
        """As Console."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class ProcessTarget:
    """What the targets that are processes share; `command` runs code that follows it."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path | None,
    ) -> None:
        self.name = name
        self.capabilities: frozenset[str] = frozenset()
        self._command = command
        self._environment = {**os.environ, **environment}
        self._temporary = folder is None
        self.root = folder or Path(tempfile.mkdtemp(prefix=f"fogline-{name}-"))
        self.root.mkdir(parents=True, exist_ok=True)
        self._consoles: list[ProcessConsole] = []

    def _path(self, path: str) -> Path:
        return self.root / path.removeprefix("/")

    def put(self, files: Mapping[str, bytes]) -> int:
        """As Target."""
        written = 0
        for path, content in files.items():
            file = self._path(path)
            if file.is_file() and file.read_bytes() == content:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            other = {".py": ".mpy", ".mpy": ".py"}.get(file.suffix)
            if other:
                file.with_suffix(other).unlink(missing_ok=True)
            written += 1
        return written

    def get(self, path: str) -> bytes:
        """As Target."""
        try:
            return self._path(path).read_bytes()
        except OSError as error:
            raise BoardError(f"{self.name}: {path}: {error.strerror}") from error

    def run(self, code: str, *, timeout_s: float = 60) -> Outcome:
        """As Target."""
        try:
            done = subprocess.run(
                [*self._command, code],
                cwd=self.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                f"{self.name}: no end within {timeout_s:g} s; give it longer"
            ) from error
        output = done.stdout.decode("utf-8", "replace")
        if not done.returncode:
            return Outcome(output, None)
        said = done.stderr.decode("utf-8", "replace")
        if not said and TRACEBACK in output:  # MicroPython writes it to standard output
            output, _, said = output.rpartition(TRACEBACK)
            said = TRACEBACK + said
        return Outcome(output, said or f"ended with {done.returncode}")

    def start(self, code: str) -> ProcessConsole:
        """As Target."""
        process = subprocess.Popen(
            [*self._command, code],
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        console = ProcessConsole(process, self.name)
        self._consoles.append(console)
        return console

    def power_cut(self) -> None:
        """As Target: whatever runs is killed."""
        for console in self._consoles:
            console.stop()
        self._consoles.clear()

    def close(self) -> None:
        """As Target."""
        self.power_cut()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)
