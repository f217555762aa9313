"""Asks another node for blocks without running one: for repairs, from outside of the daemon."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self, TypeVar

from fog_node.errors import NetworkError
from fog_node.protocol.errors import ProtocolError

from . import wire
from .certificates import SERVER_NAME

VISIT_TIMEOUT_S = 15.0
# Messages of other kinds that may come before the answer.
MAX_PASSED_OVER = 10_000

Address = tuple[str, int]
M = TypeVar("M", bound=wire.Message)


class Visit:
    """A connection to one node; use it as an asynchronous context manager."""

    def __init__(
        self, name: str, address: Address, context: ssl.SSLContext, hello: wire.Hello
    ) -> None:
        """Prepare.

        Args:
            name: of the member whose node it is, for messages.
            address: where it listens for other nodes.
            context: TLS context for dialling.
            hello: of the member that asks.
        """
        self.name = name
        self._address = address
        self._context = context
        self._hello = hello
        self.head = 0

    async def __aenter__(self) -> Self:
        """Connect and learn how far the node is; raises NetworkError."""
        host, port = self._address
        try:
            async with asyncio.timeout(VISIT_TIMEOUT_S):
                self._reader, self._writer = await asyncio.open_connection(
                    host, port, ssl=self._context, server_hostname=SERVER_NAME
                )
                self._writer.write(wire.encode_message(self._hello))
                hello = await self._read()
                if not isinstance(hello, wire.Hello) or hello.chain_id != self._hello.chain_id:
                    raise NetworkError(f"peer {self.name}: follows another ledger")
                status = await self._next(wire.Status)
        except (OSError, TimeoutError, EOFError, ProtocolError) as error:
            raise NetworkError(f"peer {self.name}: cannot be asked: {error}") from error
        self.head = status.height - 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        self._writer.transport.abort()

    async def blocks(self, first: int) -> list[tuple[bytes, bytes]]:
        """Final blocks with their certificates from a height on; raises NetworkError."""
        try:
            async with asyncio.timeout(VISIT_TIMEOUT_S):
                self._writer.write(wire.encode_message(wire.GetBlocks(first)))
                while True:
                    answer = await self._next(wire.Blocks)
                    if answer.first == first:
                        return [(block, certificate) for block, certificate in answer.blocks]
        except (OSError, TimeoutError, EOFError, ProtocolError) as error:
            raise NetworkError(f"peer {self.name}: does not answer: {error}") from error

    async def _next(self, kind: type[M]) -> M:
        for _ in range(MAX_PASSED_OVER):
            message = await self._read()
            if isinstance(message, kind):
                return message
        raise NetworkError(f"peer {self.name}: does not answer")

    async def _read(self) -> wire.Message:
        (length,) = wire.LENGTH.unpack(await self._reader.readexactly(wire.LENGTH.size))
        if length > wire.MAX_FRAME_BYTES:
            raise NetworkError(f"peer {self.name}: sends a frame of {length} bytes")
        return wire.parse_message(await self._reader.readexactly(length))
