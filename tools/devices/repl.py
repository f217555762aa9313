"""MicroPython's raw REPL with raw paste, as a client of boards on a bench and of the rig's targets.

See "The raw REPL" and "Raw-paste mode" in MicroPython's documentation (reference/repl.html).
mpremote's transport does the same for its own command line: it prints, it waits without a limit
where a board falls silent (`read(2)` with no time-out), it reads byte by byte with pauses, and its
authors call its interface unstable. Here every wait has a deadline, everything that a board may
send is bounded, and an error says what to do.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tools.devices.errors import BoardError, SilentError
from tools.devices.line import Line

__all__ = ["PRESS_RESET", "RUN_TIMEOUT_S", "Ended", "Repl"]

# One for each try. A board that starts up, or is in the middle of writing flash, takes no Ctrl-C.
ENTER_TIMEOUTS_S = (0.5, 1.0, 2.0, 3.0, 3.0)
RUN_TIMEOUT_S = 15.0
FRESH_TIMEOUT_S = 10.0
MAX_OUTPUT_BYTES = 256 * 1024
PRESS_RESET = "press RESET (EN) on the board, or plug it out and in, and repeat the step"
_TAIL_CHARS = 300
_TAIL_BYTES = 200

_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D = b"\x01", b"\x02", b"\x03", b"\x04"
_PROMPT = b">>> "
_RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
_ENDED = _CTRL_D + b">"
_PASTE = b"\x05A\x01"
_PASTE_TAKEN = b"R\x01"


@dataclass(frozen=True)
class Ended:
    """How a script ended: what it printed, and the traceback it ended with; empty for none."""

    output: str
    trouble: str


class Repl:
    """A board whose REPL we have.

    Args:
        line: to it.
        name: of the port, for errors.
        remedy: what to do where it does not answer as it should.
        patience: how many times longer than a board's its answers may take.
    """

    def __init__(
        self, line: Line, name: str, *, remedy: str = PRESS_RESET, patience: float = 1.0
    ) -> None:
        self.line = line
        self.name = name
        self._remedy = remedy
        self._patience = patience
        self._held = bytearray()
        self._said = b""
        # Whether it waits for a script, with nothing of ours or its own under way.
        self._is_idle = False

    def enter(self) -> None:
        """Stop what runs, and enter the raw REPL; raises SilentError, CableError."""
        self._is_idle = False
        for timeout_s in ENTER_TIMEOUTS_S:
            self.line.write(b"\r" + _CTRL_C)
            self._drain()
            self.line.write(b"\r" + _CTRL_A)
            try:
                self._read_until((_RAW_PROMPT,), timeout_s, amid_words=True)
                self._meet(timeout_s)
            except (SilentError, BoardError):  # the latter: more words of a program than we hold
                continue
            self._is_idle = True
            return
        self._drain()
        # Without what steers a terminal.
        said = "".join(c for c in self._said.decode("utf-8", "replace") if c.isprintable()).strip()
        remedy = self._remedy
        if remedy == PRESS_RESET:
            remedy = (
                "press RESET (EN) on the board and try again; if it runs no MicroPython yet, "
                "`fogline device flash` it; a board that was locked answers only after a flash "
                "with --erase"
            )
        raise SilentError(
            f"{self.name}: MicroPython does not answer" + (f" (it says {said!r})" if said else ""),
            remedy,
        )

    def fresh(self) -> None:
        """Start the interpreter anew, with an empty heap and without main.py, in the raw REPL."""
        if not self._is_idle:
            self.enter()
        self._is_idle = False
        self.line.write(_CTRL_D)
        with contextlib.suppress(SilentError):
            # boot.py has run by then, and may have said something.
            said = self._read_until((_RAW_PROMPT, _PROMPT), FRESH_TIMEOUT_S, amid_words=True)
            if said.endswith(_RAW_PROMPT):
                self._is_idle = True
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
        self.begin(script)
        ended = self.finish(timeout_s)
        if ended.trouble:
            raise BoardError(
                f"{self.name}: the board says {_last_line(ended.trouble)}", _remedy(ended.trouble)
            )
        return ended.output

    def begin(self, script: str) -> None:
        """Bring a script over and start it; `finish` or `lines` follows. Raises as `run`."""
        self._is_idle = False
        self._paste(script.encode())

    def finish(self, timeout_s: float) -> Ended:
        """Wait for the end of what was begun. Raises SilentError, CableError, BoardError."""
        output = self._read_until((_CTRL_D,), timeout_s)[:-1]
        return Ended(_text(output), self._trouble())

    def lines(self, silence_s: float) -> Iterator[str]:
        """Lines of what was begun as they come, and then of its traceback.

        Raises SilentError where none comes for so long, CableError, BoardError.
        """
        ending = b"\n"
        while ending == b"\n":
            line = self._read_until((b"\n", _CTRL_D), silence_s)
            ending = line[-1:]
            if line != _CTRL_D:
                yield _text(line[:-1])
        yield from self._trouble().splitlines()

    def leave(self) -> None:
        """Give the friendly REPL back."""
        self._is_idle = False
        self.line.write(b"\r" + _CTRL_B)

    def restart(self) -> None:
        """Let the board start again, as after a reset, and do not wait for it."""
        self.leave()
        self.line.write(_CTRL_C + _CTRL_D)

    def _meet(self, timeout_s: float) -> None:
        """Have a word of ours said: whatever came before it belongs to what ran earlier."""
        word = secrets.token_hex(8)
        # In two halves, so that no echo of it is taken for the word.
        self.line.write(f"print('{word[:8]}''{word[8:]}')".encode() + _CTRL_D)
        self._read_until((word.encode(),), timeout_s, amid_words=True)
        self._read_until((_CTRL_D + _ENDED,), timeout_s, amid_words=True)

    def _trouble(self) -> str:
        trouble = self._read_until((_ENDED,), RUN_TIMEOUT_S)[: -len(_ENDED)]
        self._is_idle = True
        return _text(trouble)

    def _paste(self, data: bytes) -> None:
        self.line.write(_PASTE)
        answer = self._read(2)
        if answer != _PASTE_TAKEN:
            raise BoardError(
                f"{self.name}: its MicroPython knows no raw-paste mode",
                "`fogline device flash` it with MicroPython 1.24 or later",
            )
        window = int.from_bytes(self._read(2), "little")
        room, at = window, 0
        while at < len(data):
            # What has come without waiting may allow more, or end it.
            while room == 0 or self._held:
                signal = self._read(1)
                if signal == _CTRL_D:  # it takes no more: its error is what follows
                    self.line.write(_CTRL_D)
                    return
                if signal != _CTRL_A or window == 0:
                    raise SilentError(
                        f"{self.name}: {signal!r} amid a script: something else writes on the line",
                        self._remedy,
                    )
                room += window
            piece = data[at : at + room]
            self.line.write(piece)
            at += len(piece)
            room -= len(piece)
        self.line.write(_CTRL_D)
        # Windows granted meanwhile, no more of them than bytes were sent; then the transfer's end.
        for _ in range(len(data) + 2):
            if (signal := self._read(1)) != _CTRL_A:
                break
        if signal != _CTRL_D:
            raise SilentError(f"{self.name}: {signal!r} instead of a script's end", self._remedy)

    def _read(self, count: int) -> bytes:
        deadline = time.monotonic() + RUN_TIMEOUT_S * self._patience
        while len(self._held) < count:
            self._receive(deadline)
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def _read_until(
        self, endings: tuple[bytes, ...], timeout_s: float, *, amid_words: bool = False
    ) -> bytes:
        """Everything up to and with the first of these.

        Args:
            endings: of them.
            timeout_s: how long nothing may come; where that is no sign of life, as a program of
                the board's own may say anything at any time (`amid_words`), how long at all.
        """
        deadline = time.monotonic() + timeout_s * self._patience
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
            if amid_words and time.monotonic() > deadline:
                raise self._silent()
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
                self._remedy,
            )
        if not data and time.monotonic() > deadline:
            raise self._silent()

    def _silent(self) -> SilentError:
        return SilentError(f"{self.name}: the board has stopped answering", self._remedy)

    def _drain(self) -> None:
        """Put aside what is on its way, for as long as it keeps coming, within bounds."""
        deadline = time.monotonic() + max(ENTER_TIMEOUTS_S)
        while (data := self.line.read()) and time.monotonic() < deadline:
            self._held += data
            del self._held[:-MAX_OUTPUT_BYTES]
        self._said = bytes(self._said + self._held)[-_TAIL_BYTES:]
        self._held.clear()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\r")


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
