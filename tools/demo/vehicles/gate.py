"""The cars' way to the broker: there is one only where a week has ended."""

from __future__ import annotations

import asyncio
import contextlib

from tools.listener import Listener

CHUNK_BYTES = 16 * 1024


class Gate:
    """Passes TCP connections on while it is open; refuses them, and cuts those it has, otherwise.

    Attributes:
        port: on 127.0.0.1; nobody listens there while the gate is shut.
        passed: bytes from cars to the broker.
    """

    def __init__(self, port: int, broker_host: str, broker_port: int) -> None:
        self.port = port
        self.passed = 0
        self._broker = (broker_host, broker_port)
        self._listener = Listener(self._pass)

    async def open(self) -> None:
        """Let cars through."""
        if not self._listener.is_open:
            await self._listener.open(self.port)

    async def shut(self) -> None:
        """Cut every connection, and take no other."""
        await self._listener.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(*self._broker)
        try:
            ways = [
                asyncio.create_task(self._copy(reader, to_broker, count=True)),
                asyncio.create_task(self._copy(from_broker, writer, count=False)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            to_broker.close()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                self.passed += len(data) if count else 0
                writer.write(data)
                await writer.drain()
