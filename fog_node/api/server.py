"""Serves the API over HTTP/1.1, inside the node's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from fog_node.errors import ConfigurationError

from .app import create_app
from .services import Services

MAX_CONNECTIONS = 256
MAX_HEADER_BYTES = 16 * 1024
KEEP_ALIVE_S = 20
SHUTDOWN_S = 3
BACKLOG = 128
# Linux ends a connection whose other side takes nothing for so long (tcp(7)): a follower that
# does not read would hold its place for ever.
STALLED_MS = 60_000


class ApiServer:
    """The API's listening socket and server; `run` it in a task of its own."""

    def __init__(self, services: Services, host: str, port: int) -> None:
        """Listen; requests are answered from `run` on.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        self._feed = services.feed
        self._socket = _listen(host, port)
        config = uvicorn.Config(
            create_app(services),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        self._server = _Server(config)

    @property
    def port(self) -> int:
        """The port that is listened on; the one chosen by the system where 0 was asked for."""
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Answer until cancelled; then let requests under way end, for SHUTDOWN_S at most."""
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        try:
            await asyncio.shield(serving)
        finally:
            self._feed.close()
            self._server.should_exit = True
            await serving
            self._socket.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the daemon."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"[api] listen {host}:{port}: {error.strerror or error}; free the port or choose "
            "another"
        ) from error
    return listener
