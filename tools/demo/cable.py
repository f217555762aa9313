"""A serial cable between a board's process and a gateway: two pseudo-terminals and what is between.

It can be pulled and put back (the gateway's device then vanishes and returns, as with USB), and it
shows the text that goes by: the board's console, in frames or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from fog_node.gateway.serial_frame import CONSOLE, Decoder

CHUNK_BYTES = 512
# What the cable holds for a reader that does not read; a terminal holds as much again.
MAX_HELD_BYTES = 4096
RETRY_S = 0.005


def open_terminal() -> tuple[int, int]:
    """A pseudo-terminal that passes bytes on as they are: (our end, the other end)."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    return ours, theirs


@contextlib.contextmanager
def plugged(device: Path) -> Iterator[int]:
    """Something at a gateway's port `device`, for as long as this is entered: its file number."""
    ours, theirs = open_terminal()
    device.parent.mkdir(parents=True, exist_ok=True)
    device.symlink_to(os.ttyname(theirs))
    try:
        yield ours
    finally:
        device.unlink()
        os.close(theirs)
        os.close(ours)


class Cable:
    """One cable.

    Attributes:
        device: path of the gateway's device; there only while the cable is plugged in.
        fault: gets each piece that passes, and whether it goes to the board; gives what arrives.
        is_read, is_written: whether bytes from, and to, the board pass at all.
    """

    def __init__(self, device: Path, on_text: Callable[[bytes], None]) -> None:
        """Prepare; `on_text` gets the board's console, in pieces."""
        self.device = device
        self.fault: Callable[[bytes, bool], bytes] = lambda piece, _: piece
        self.is_read = True
        self.is_written = True
        self._on_text = on_text
        self._decoder = Decoder()
        self._board: int | None = None
        self._is_attached = False
        self._hub: tuple[int, int] | None = None
        self._held = {True: b"", False: b""}

    @property
    def is_plugged(self) -> bool:
        """Whether the gateway can see it."""
        return self._hub is not None

    def open_board(self) -> int:
        """Make the board's terminal; gives the end for its process, to be closed by the caller."""
        self.close_board()
        self._board, theirs = open_terminal()
        self._decoder = Decoder()
        asyncio.get_running_loop().add_reader(self._board, self._from_board)
        return theirs

    def attach(self, number: int) -> None:
        """Take the line of a board that is no process here: a file number, not ours to close."""
        self.close_board()
        os.set_blocking(number, False)
        self._board = number
        self._is_attached = True
        self._decoder = Decoder()
        asyncio.get_running_loop().add_reader(number, self._from_board)

    def close_board(self) -> None:
        """Take what the board has said last, and let its terminal go."""
        if self._board is None:
            return
        while data := _read(self._board):
            self._take(data)
        asyncio.get_running_loop().remove_reader(self._board)
        if not self._is_attached:
            os.close(self._board)
        self._board = None
        self._is_attached = False
        self._held[True] = b""

    def plug(self) -> None:
        """Put the cable into the gateway."""
        self._hub = open_terminal()
        asyncio.get_running_loop().add_reader(self._hub[0], self._from_hub)
        self.device.parent.mkdir(parents=True, exist_ok=True)
        self.device.symlink_to(os.ttyname(self._hub[1]))

    def unplug(self) -> None:
        """Pull it out, with what is in it."""
        if self._hub is None:
            return
        ours, theirs = self._hub
        self._hub = None
        self.device.unlink()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(theirs)
        os.close(ours)
        self._held = {True: b"", False: b""}

    def type(self, data: bytes) -> None:
        """Send bytes to the board, as somebody at a terminal does."""
        self._pass(data, to_board=True)

    def _from_board(self) -> None:
        if self._board is not None and self.is_read and not self._is_full(to_board=False):
            self._take(_read(self._board))

    def _take(self, data: bytes) -> None:
        for channel, body in self._decoder.feed(data):
            if channel in (CONSOLE, None):
                self._on_text(body)
        if self._hub is not None and data:
            self._pass(self.fault(data, False), to_board=False)

    def _from_hub(self) -> None:
        if self._hub is not None and self.is_written and not self._is_full(to_board=True):
            data = _read(self._hub[0])
            if data:
                self._pass(self.fault(data, True), to_board=True)

    def _is_full(self, *, to_board: bool) -> bool:
        return len(self._held[to_board]) > MAX_HELD_BYTES

    def _pass(self, data: bytes, *, to_board: bool) -> None:
        self._held[to_board] += data
        self._push(to_board=to_board)

    def _push(self, *, to_board: bool) -> None:
        """Write what is held and the terminal takes; later the rest."""
        number = self._board if to_board else self._hub and self._hub[0]
        held = self._held[to_board]
        if number is None or not held:
            return
        with contextlib.suppress(OSError):  # full, or nobody there
            self._held[to_board] = held[os.write(number, held) :]
        if self._held[to_board]:
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_S, lambda: self._push(to_board=to_board))


def _read(number: int) -> bytes:
    try:
        return os.read(number, CHUNK_BYTES)
    except OSError:  # nothing there, or nobody: to a cable it is the same
        return b""
