"""A real board (MicroPython's unix port) at the end of a cable that a test can pull."""

import asyncio
import contextlib
import json
import os

from fog_node.protocol.transactions import Channel
from support.micropython import find_micropython
from tools.demo.cable import Cable

DEADLINE_S = 60
HEAP = "4m"
SERIAL = {"port": "stdio", "window_bytes": 240, "keepalive_s": 1, "interrupt": True}


class SerialBoard:
    """One board in its directory; `cable.device` is the gateway's end, while plugged in."""

    def __init__(self, directory, firmware, settings):
        directory.mkdir()
        self.directory = directory
        self.cable = Cable(directory / "tty", self._show)
        self.events = []
        self.process = None
        self._firmware = firmware
        self._arrived = asyncio.Event()
        self._text = b""
        (directory / "board.json").write_text(json.dumps(settings))

    async def start(self, program="main.py"):
        """Switch it on."""
        theirs = self.cable.open_board()
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
        self.cable.close_board()
        return status

    async def close(self):
        """Clean up."""
        await self.kill()
        self.cable.unplug()

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

    def _show(self, text):
        *lines, self._text = (self._text + text).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self.events.append(json.loads(line))
        self._arrived.set()


def channels(boot):
    """What a board's `boot` event says that it measures, as an enrolment has it."""
    return tuple(Channel(*channel) for channel in boot["channels"])
