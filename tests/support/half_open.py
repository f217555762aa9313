"""A way to a TCP service that can go dead without a word: no FIN, no RST, and nothing passes."""

import asyncio
import contextlib

HOST = "127.0.0.1"
CHUNK_BYTES = 4096


class HalfOpenWay:
    """Passes connections on to `port`, from a port of its own, while entered."""

    def __init__(self, port):
        self._target = port
        self._tasks = set()
        self._dead = set()
        self.connections = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def go_dead(self):
        """Nothing passes any more on the connections that there are; new ones are good."""
        self._dead |= self._tasks

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
            ways = (
                self._pass(task, reader, far_writer),
                self._pass(task, far_reader, writer),
            )
            try:
                await asyncio.gather(*ways)
            finally:
                far_writer.transport.abort()
        writer.transport.abort()

    async def _pass(self, connection, reader, writer):
        while data := await reader.read(CHUNK_BYTES):
            if connection in self._dead:
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        if connection in self._dead:
            await asyncio.Event().wait()
        raise ConnectionResetError
