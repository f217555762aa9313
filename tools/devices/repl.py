"""MicroPython's raw REPL with raw paste, as a client.

See "The raw REPL" and "Raw-paste mode" in MicroPython's documentation (reference/repl.html).
mpremote's transport does the same for its own command line: it prints, it waits without a limit
where a board falls silent (`read(2)` with no time-out), it reads byte by byte with pauses, and its
authors call its interface unstable. Here every wait has a deadline, everything that a board may
send is bounded, and an error says what to do.
"""

from __future__ import annotations

import contextlib
import time

from tools.devices.errors import BoardError, SilentError
from tools.devices.line import Line

__all__ = ["RUN_TIMEOUT_S", "Repl"]

ENTER_TRIES = 3
# A board that starts up, or is in the middle of writing flash, takes no Ctrl-C.
ENTER_TIMEOUT_S = 3.0
RUN_TIMEOUT_S = 15.0
MAX_OUTPUT_BYTES = 256 * 1024
_TAIL_CHARS = 300
_TAIL_BYTES = 200

_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D = b"\x01", b"\x02", b"\x03", b"\x04"
_PROMPT = b">>> "
_RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
_PASTE = b"\x05A\x01"
_PASTE_TAKEN = b"R\x01"


class Repl:
    """A board whose REPL we have.

    Attributes:
        line: to it.
        name: of the port, for errors.
    """

    def __init__(self, line: Line, name: str) -> None:
        self.line = line
        self.name = name
        self._held = bytearray()
        self._said = b""

    def enter(self) -> None:
        """Stop what runs, and enter the raw REPL; raises SilentError, CableError."""
        for _ in range(ENTER_TRIES):
            self.line.write(b"\r" + _CTRL_C)
            self._drain()
            self.line.write(b"\r" + _CTRL_A)
            try:
                self._read_until((_RAW_PROMPT,), ENTER_TIMEOUT_S)
            except (SilentError, BoardError):  # the latter: more words of a program than we hold
                continue
            self._drain()
            return
        self._drain()
        # Without what steers a terminal.
        said = "".join(c for c in self._said.decode("utf-8", "replace") if c.isprintable()).strip()
        raise SilentError(
            f"{self.name}: MicroPython does not answer" + (f" (it says {said!r})" if said else ""),
            "press RESET (EN) on the board and try again; if it runs no MicroPython yet, "
            "`fogline device flash` it; a board that was locked answers only after a flash "
            "with --erase",
        )

    def fresh(self) -> None:
        """Start the interpreter anew, with an empty heap and without main.py, in the raw REPL."""
        self.line.write(_CTRL_D)
        with contextlib.suppress(SilentError):
            if self._read_until((_RAW_PROMPT, _PROMPT), ENTER_TIMEOUT_S).endswith(_RAW_PROMPT):
                self._drain()
                return
        # MicroPython under an operating system comes back with its programs and its other prompt.
        self.enter()

    def run(self, script: str, timeout_s: float = RUN_TIMEOUT_S) -> str:
        """Run a script to its end; returns what it printed.

        Raises:
            BoardError: the script ended with an exception; its last lines are in the error.
            SilentError: the board did not answer in time.
            CableError: the line broke.
        """
        self._paste(script.encode(), timeout_s)
        output = self._read_until((_CTRL_D,), timeout_s)[:-1].decode("utf-8", "replace")
        trouble = self._read_until((_CTRL_D,), timeout_s)[:-1].decode("utf-8", "replace")
        self._read_until((b">",), timeout_s)
        if trouble:
            raise BoardError(f"{self.name}: the board says {_last_line(trouble)}", _remedy(trouble))
        return output.replace("\r\n", "\n")

    def leave(self) -> None:
        """Give the friendly REPL back."""
        self.line.write(b"\r" + _CTRL_B)

    def restart(self) -> None:
        """Let the board start again, as after a reset, and do not wait for it."""
        self.leave()
        self.line.write(_CTRL_C + _CTRL_D)

    def _paste(self, data: bytes, timeout_s: float) -> None:
        self.line.write(_PASTE)
        answer = self._read(2, timeout_s)
        if answer != _PASTE_TAKEN:
            raise BoardError(
                f"{self.name}: its MicroPython knows no raw-paste mode",
                "`fogline device flash` it with MicroPython 1.24 or later",
            )
        window = int.from_bytes(self._read(2, timeout_s), "little")
        room, at = window, 0
        while at < len(data):
            # What has come without waiting may allow more, or end it.
            while room == 0 or self._held:
                signal = self._read(1, timeout_s)
                if signal == _CTRL_D:  # it takes no more: its error is what follows
                    self.line.write(_CTRL_D)
                    return
                if signal != _CTRL_A:
                    raise SilentError(
                        f"{self.name}: {signal!r} amid a script: something else writes on the line",
                        "press RESET (EN) on the board and repeat the step",
                    )
                room += window
            piece = data[at : at + room]
            self.line.write(piece)
            at += len(piece)
            room -= len(piece)
        self.line.write(_CTRL_D)
        # Windows granted meanwhile, then the end of the transfer.
        while (signal := self._read(1, timeout_s)) == _CTRL_A:
            pass
        if signal != _CTRL_D:
            raise SilentError(
                f"{self.name}: {signal!r} instead of the end of a script",
                "press RESET (EN) on the board and repeat the step",
            )

    def _read(self, count: int, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while len(self._held) < count:
            self._receive(deadline)
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def _read_until(self, endings: tuple[bytes, ...], timeout_s: float) -> bytes:
        """Everything up to and with the first of these."""
        deadline = time.monotonic() + timeout_s
        searched = 0
        longest = max(map(len, endings))
        while True:
            found = [
                (at, len(ending))
                for ending in endings
                if (at := self._held.find(ending, searched)) >= 0
            ]
            if found:
                break
            searched = max(0, len(self._held) - longest + 1)
            self._receive(deadline)
        end = sum(min(found))
        data = bytes(self._held[:end])
        del self._held[:end]
        return data

    def _receive(self, deadline: float) -> None:
        data = self.line.read()
        self._held += data
        if len(self._held) > MAX_OUTPUT_BYTES:
            del self._held[:-_TAIL_CHARS]
            raise BoardError(
                f"{self.name}: sends more than {MAX_OUTPUT_BYTES} bytes without an end",
                "press RESET (EN) on the board and repeat the step",
            )
        if not data and time.monotonic() > deadline:
            raise SilentError(
                f"{self.name}: the board has stopped answering",
                "press RESET (EN) on the board, or plug it out and in, and repeat the step",
            )

    def _drain(self) -> None:
        """Put aside what is on its way, for as long as it keeps coming, within bounds."""
        deadline = time.monotonic() + ENTER_TIMEOUT_S
        while (data := self.line.read()) and time.monotonic() < deadline:
            self._held += data
            del self._held[:-MAX_OUTPUT_BYTES]
        self._said = bytes(self._said + self._held)[-_TAIL_BYTES:]
        self._held.clear()


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:_TAIL_CHARS] if lines else "nothing"


def _remedy(trouble: str) -> str:
    last = _last_line(trouble)
    if "MemoryError" in last:
        return "press RESET (EN) so that its memory is free again, and repeat the step"
    if "ENOSPC" in last or "OSError: 28" in last:
        return "make room in its flash, or flash it with --erase (which deletes its key)"
    if "ImportError" in last or "native" in last or "invalid" in last:
        return "`fogline device flash` it with MicroPython 1.24 or later of its own build"
    return "repeat the step; if it happens again, flash the board anew"
