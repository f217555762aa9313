"""The cars' way to the broker: there is one only where a week has ended."""

from __future__ import annotations

import asyncio
import contextlib

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
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Let cars through."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Cut every connection, and take no other."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._pass(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the other end has gone, or the gate is shut: the car will come again
        finally:
            self._connections.discard(task)
            writer.close()

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
