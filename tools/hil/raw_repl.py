"""MicroPython's raw REPL, with its paste mode, on anything like a serial line.

Source: MicroPython documentation, "The MicroPython Interactive Interpreter Mode": raw
mode, raw-paste mode.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from tools.hil.target import Outcome, TargetError

__all__ = ["Line", "RawRepl"]

CTRL_A, CTRL_B, CTRL_C, CTRL_D, CTRL_E = (bytes([n]) for n in range(1, 6))
RAW_BANNER = b"raw REPL; CTRL-B to exit\r\n"
PROMPT = RAW_BANNER + b">"
PASTE = CTRL_E + b"A\x01"
ANSWER_S = 10.0
# A board may run a program that looks at its input seldom.
INTERRUPTS = 8
MAX_OUTPUT_BYTES = 4 << 20
FILE_CHUNK_BYTES = 960

# Run once per connection: what files are there with what content, and writing one.
_FILES_CODE = """
import binascii, hashlib, os
def _sum(path):
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            buffer = bytearray(256)
            while True:
                count = file.readinto(buffer)
                if not count:
                    return binascii.hexlify(digest.digest()).decode()
                digest.update(memoryview(buffer)[:count])
    except OSError:
        return "-"
def _open(path):
    global _file
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        try:
            os.mkdir("/".join(parts[:end]))
        except OSError:
            pass
    _file = open(path + ".part", "wb")
def _write(text):
    _file.write(binascii.a2b_base64(text))
def _close(path):
    _file.close()
    os.rename(path + ".part", path)
    stem, _, ending = path.rpartition(".")
    other = {"py": "mpy", "mpy": "py"}.get(ending)
    if other:
        try:
            os.remove(stem + "." + other)
        except OSError:
            pass
"""


class Line(Protocol):
    """A serial line: a pyserial port, or what acts like one. Reads end early after `timeout` s."""

    timeout: float | None

    def read(self, size: int = 1, /) -> bytes:
        """Up to `size` bytes."""

    def write(self, data: bytes, /) -> int | None:
        """Send all of it."""


class RawRepl:
    """The raw REPL at the end of a line; `where` names it in errors, `remedy` says what to try.

    patience: how many times longer than a board's its answers may take.
    """

    def __init__(self, line: Line, where: str, remedy: str, patience: float = 1.0) -> None:
        self._line = line
        self._where = where
        self._remedy = remedy
        self._answer_s = ANSWER_S * patience
        self._patience = patience
        self._rest = b""

    def fail(self, what: str) -> TargetError:
        """Give the error for a line that does not do as it should."""
        return TargetError(f"{self._where}: {what}; {self._remedy}")

    # Bytes

    def _more(self, until: float) -> bool:
        self._line.timeout = max(0.0, min(0.5, until - time.monotonic()))
        data = self._line.read(1)
        if data:
            self._line.timeout = 0
            data += self._line.read(4096)
        self._rest += data
        return time.monotonic() < until or bool(data)

    def _read_until(self, ending: bytes, timeout_s: float) -> bytes:
        until = time.monotonic() + timeout_s
        while ending not in self._rest:
            if not self._more(until):
                raise self.fail(f"no {ending!r} within {timeout_s:g} s, but {self._rest[-200:]!r}")
            if len(self._rest) > MAX_OUTPUT_BYTES:
                raise self.fail(f"more than {MAX_OUTPUT_BYTES} bytes of output")
        data, _, self._rest = self._rest.partition(ending)
        return data

    def _take(self, count: int) -> bytes:
        until = time.monotonic() + self._answer_s
        while len(self._rest) < count:
            if not self._more(until):
                raise self.fail(f"no answer within {self._answer_s:g} s")
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    # The REPL

    def enter(self) -> None:
        """Interrupt whatever runs and enter raw mode. Raises TargetError."""
        for attempt in range(INTERRUPTS):
            self._rest = b""
            self._line.write(b"\r" + CTRL_C + CTRL_C + CTRL_A)
            try:
                self._read_until(PROMPT, (0.5 + attempt / 2) * self._patience)
            except TargetError:
                continue
            return
        raise self.fail("no raw REPL")

    def soft_reset(self) -> None:
        """Give the board a fresh interpreter, without running its main.py. Raises TargetError."""
        self.enter()
        self._line.write(CTRL_D)
        self._read_until(b"soft reboot\r\n", self._answer_s)
        # boot.py has run by then; a prompt of our own tells where what it printed ends.
        self._read_until(PROMPT, self._answer_s)

    def begin(self, code: str) -> None:
        """Send code and start it; its output is what comes next. Raises TargetError."""
        data = code.encode()
        self._line.write(PASTE)
        answer = self._take(2)
        if answer == b"R\x01":
            window = int.from_bytes(self._take(2), "little")
            self._paste(data + CTRL_D, window)
            self._read_until(CTRL_D, self._answer_s)
            return
        # An older or smaller MicroPython: plain raw mode, slowly, for it has no flow control.
        if answer != b"R\x00":
            self._read_until(b">", self._answer_s)
        for start in range(0, len(data), 128):
            self._line.write(data[start : start + 128])
            time.sleep(0.01)
        self._line.write(CTRL_D)
        if self._take(2) != b"OK":
            raise self.fail("the raw REPL took no code")

    def _paste(self, data: bytes, window: int) -> None:
        room = window
        sent = 0
        while sent < len(data):
            while room == 0 or self._rest:
                byte = self._take(1)
                if byte == CTRL_A:
                    room += window
                elif byte == CTRL_D:  # the board has had enough: it was interrupted
                    self._rest = byte + self._rest
                    return
                else:
                    raise self.fail(f"unexpected {byte!r} while pasting")
            part = data[sent : sent + room]
            self._line.write(part)
            sent += len(part)
            room -= len(part)

    def finish(self, timeout_s: float) -> Outcome:
        """Wait for the end of what was begun. Raises TargetError."""
        output = self._read_until(CTRL_D, timeout_s)
        error = self._read_until(CTRL_D + b">", self._answer_s)
        return Outcome(_text(output), _text(error) if error else None)

    def lines(self, timeout_s: float) -> Iterator[str]:
        """Lines of what was begun, as they come, and then of its traceback. Raises TargetError."""
        ended = False
        while not ended:
            until = time.monotonic() + timeout_s
            while b"\n" not in self._rest and CTRL_D not in self._rest:
                if not self._more(until):
                    raise self.fail(f"silent for {timeout_s:g} s")
            line, end, rest = self._rest.partition(b"\n")
            if CTRL_D in line:
                line, _, self._rest = self._rest.partition(CTRL_D)
                ended = True
            elif end:
                self._rest = rest
            if line:
                yield _text(line)
        error = self._read_until(CTRL_D + b">", self._answer_s)
        yield from _text(error).splitlines()

    def execute(self, code: str, timeout_s: float | None = None) -> str:
        """Run code to its end and give what it printed. Raises TargetError, BoardError."""
        self.begin(code)
        return self.finish(timeout_s or self._answer_s).checked()

    def write(self, data: bytes) -> None:
        """Give the running program bytes."""
        self._line.write(data)

    # Files

    def put(self, files: Mapping[str, bytes], write: Callable[[bytes], None] | None = None) -> int:
        """Write the files that are not there with this content; gives how many.

        write: fills the open `_file` on the board with a content by another way than this line.
        """
        self.soft_reset()
        self.execute(_FILES_CODE)
        paths = list(files)
        sums: list[str] = []
        for start in range(0, len(paths), 8):
            part = paths[start : start + 8]
            sums += self.execute(f"for p in {part!r}: print(_sum(p))", 60 * self._patience).split()
        wrong = [
            path
            for path, digest in zip(paths, sums, strict=True)
            if digest != hashlib.sha256(files[path]).hexdigest()
        ]
        for path in wrong:
            self.execute(f"_open({path!r})")
            (write or self._write_file)(files[path])
            digest = self.execute(
                f"_close({path!r});print(_sum({path!r}))", 60 * self._patience
            ).strip()
            if digest != hashlib.sha256(files[path]).hexdigest():
                raise self.fail(f"{path} does not hold what was written")
        return len(wrong)

    def _write_file(self, content: bytes) -> None:
        for start in range(0, len(content), FILE_CHUNK_BYTES):
            text = base64.b64encode(content[start : start + FILE_CHUNK_BYTES]).decode()
            self.execute(f"_write({text!r})", 30 * self._patience)

    def get(self, path: str) -> bytes:
        """Read a file. Raises BoardError where there is none."""
        self.soft_reset()
        text = self.execute(
            "import binascii\n"
            f"with open({path!r}, 'rb') as f:\n"
            " while True:\n"
            f"  d = f.read({FILE_CHUNK_BYTES})\n"
            "  if not d: break\n"
            "  print(binascii.b2a_base64(d).decode(), end='')\n",
            120 * self._patience,
        )
        return b"".join(base64.b64decode(line) for line in text.split())


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n").rstrip("\r")
