"""A real board (MicroPython's unix port) on a pseudo-terminal, with a cable that a test can pull.

Between the board's terminal and the one that the gateway opens stands a relay: the cable. It can
be unplugged and plugged in again (the gateway's device then vanishes and comes back, as with
USB), it can change what passes, and it shows the console's lines that go by.
"""

import asyncio
import contextlib
import json
import os
import tty

from fog_node.gateway.serial_frame import CONSOLE, Decoder
from fog_node.protocol.transactions import Channel
from support.micropython import find_micropython

DEADLINE_S = 60
CHUNK_BYTES = 512
# What the cable holds for a reader that does not read; a terminal holds as much again.
MAX_HELD_BYTES = 4096
HEAP = "4m"
SERIAL = {"port": "stdio", "window_bytes": 240, "keepalive_s": 1, "interrupt": True}


def open_terminal():
    """A pseudo-terminal that passes bytes on as they are: (our end, the other end)."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    return ours, theirs


class SerialBoard:
    """One board in its directory; `tty` is the path of its device, while plugged in."""

    def __init__(self, directory, firmware, settings):
        directory.mkdir()
        self.directory = directory
        self.tty = directory / "tty"
        self.events = []
        self.fault = lambda piece, to_board: piece
        self.is_read = True
        self.is_written = True
        self.passed = [0, 0]  # bytes to the gateway, to the board
        self.process = None
        self._firmware = firmware
        self._arrived = asyncio.Event()
        self._board = None  # our end of the board's terminal
        self._hub = None  # our end of the gateway's, and its other end
        self._held = {True: b"", False: b""}
        (directory / "board.json").write_text(json.dumps(settings))

    async def start(self, program="main.py"):
        """Switch it on."""
        ours, theirs = open_terminal()
        self._board = ours
        self._decoder = Decoder()
        self._text = b""
        try:
            self.process = await asyncio.create_subprocess_exec(
                find_micropython(),
                "-X",
                f"heapsize={HEAP}",
                str(self._firmware / program),
                cwd=self.directory,
                env={**os.environ, "MICROPYPATH": f"{self._firmware}:.frozen"},
                stdin=theirs,
                stdout=theirs,
            )
        finally:
            os.close(theirs)
        asyncio.get_running_loop().add_reader(ours, self._from_board)

    async def kill(self):
        """Cut the power."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        await self._ended()

    async def wait(self):
        """Wait until it ends by itself; returns its exit status."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._ended()

    async def _ended(self):
        status = await self.process.wait() if self.process is not None else None
        if self._board is not None:
            asyncio.get_running_loop().remove_reader(self._board)
            self._from_board()
            os.close(self._board)
            self._board = None
        return status

    def plug(self):
        """Put the cable into the gateway."""
        ours, theirs = open_terminal()
        self._hub = (ours, theirs)
        asyncio.get_running_loop().add_reader(ours, self._from_hub)
        self.tty.symlink_to(os.ttyname(theirs))

    def unplug(self):
        """Pull it out, with what is in it."""
        if self._hub is None:
            return
        ours, theirs = self._hub
        self._hub = None
        self.tty.unlink()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(theirs)
        os.close(ours)
        self._held = {True: b"", False: b""}

    async def close(self):
        """Clean up."""
        await self.kill()
        self.unplug()

    async def wait_event(self, name, **fields):
        """The next event of this name on the console; those before it are passed over."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                while self.events:
                    event = self.events.pop(0)
                    if event.get("event") == name and fields.items() <= event.items():
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    # The cable

    def _from_board(self):
        data = _read(self._board) if self.is_read and not self._is_full(False) else b""
        for channel, body in self._decoder.feed(data):
            if channel in (CONSOLE, None):
                self._show(body)
        if self._hub is not None:
            self._pass(False, data)
        elif data:
            self.passed[0] += len(data)

    def _from_hub(self):
        if self._hub is not None and self.is_written and not self._is_full(True):
            self._pass(True, _read(self._hub[0]))

    def _is_full(self, to_board):
        return len(self._held[to_board]) > MAX_HELD_BYTES

    def _pass(self, to_board, data):
        if data:
            self.passed[to_board] += len(data)
            self._held[to_board] += self.fault(data, to_board)
        self.push(to_board)

    def push(self, to_board):
        """Write what is held and the terminal takes."""
        number = self._board if to_board else self._hub and self._hub[0]
        held = self._held[to_board]
        if number is None or not held:
            return
        with contextlib.suppress(BlockingIOError, OSError):
            self._held[to_board] = held[os.write(number, held) :]
        if self._held[to_board]:
            asyncio.get_running_loop().call_later(0.005, self.push, to_board)

    def _show(self, text):
        *lines, self._text = (self._text + text).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self.events.append(json.loads(line))
        self._arrived.set()


def _read(number):
    try:
        return os.read(number, CHUNK_BYTES)
    except OSError:  # nothing there, or nobody: as a cable sees it, the same
        return b""


def channels(boot):
    """What a board's `boot` event says that it measures, as an enrolment has it."""
    return tuple(Channel(*channel) for channel in boot["channels"])
