"""A TCP port whose conversations are over when it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Leaves every connection to `serve`, and closes it when that returns.

    asyncio's own server forgets a conversation that is cancelled before its first step: its
    connection stays open until it is collected.

    Attributes:
        conversations: the tasks of the connections that there are.
    """

    def __init__(self, serve: Serve) -> None:
        self.conversations: set[asyncio.Task[None]] = set()
        self._serve = serve
        self._server: asyncio.Server | None = None

    @property
    def is_open(self) -> bool:
        """Whether connections are taken."""
        return self._server is not None

    @property
    def port(self) -> int:
        """Where it listens, while it is open."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def open(self, port: int = 0, *, door: socket.socket | None = None) -> None:
        """Listen on 127.0.0.1: on `port`, or on one that is free; or on a socket that is bound.

        Raises:
            OSError: the port is taken.
        """
        if door is None:
            door = socket.create_server(("127.0.0.1", port))
        self._server = await asyncio.start_server(self._accept, sock=door, start_serving=False)
        await self._server.start_serving()

    async def close(self) -> None:
        """Take no other connection, and cut those that there are."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        conversations = list(self.conversations)
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
        await server.wait_closed()
        # A transport that was aborted gives up its socket in the loop's next turn.
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:  # taken before it was closed, greeted after
            writer.transport.abort()
            return
        conversation = asyncio.create_task(self._converse(reader, writer))
        self.conversations.add(conversation)
        conversation.add_done_callback(self.conversations.discard)
        conversation.add_done_callback(lambda _: writer.transport.abort())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever has gone needs no answer.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
            writer.close()
            await writer.wait_closed()
