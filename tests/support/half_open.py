"""A way to a TCP service that can go dead without a word: no FIN, no RST, and nothing passes."""

import asyncio

from tools.listener import Listener

HOST = "127.0.0.1"
CHUNK_BYTES = 4096


class HalfOpenWay:
    """Passes connections on to `port`, from a port of its own, while entered."""

    def __init__(self, port):
        self._target = port
        self._listener = Listener(self._carry)
        self._dead = set()
        self.connections = 0

    async def __aenter__(self):
        await self._listener.open()
        self.port = self._listener.port
        return self

    async def __aexit__(self, *_):
        await self._listener.close()

    def go_dead(self):
        """Nothing passes any more on the connections that there are; new ones are good."""
        self._dead |= self._listener.conversations

    async def _carry(self, reader, writer):
        task = asyncio.current_task()
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        try:
            await asyncio.gather(
                self._pass(task, reader, far_writer), self._pass(task, far_reader, writer)
            )
        finally:
            far_writer.transport.abort()

    async def _pass(self, connection, reader, writer):
        while data := await reader.read(CHUNK_BYTES):
            if connection in self._dead:
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        if connection in self._dead:
            await asyncio.Event().wait()
        raise ConnectionResetError
