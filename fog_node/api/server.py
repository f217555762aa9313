"""Serves the API over HTTP/1.1, inside the node's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn

from fog_node.errors import ConfigurationError

from .app import create_app
from .connections import Acceptor, listening_socket
from .services import Services

MAX_HEADER_BYTES = 16 * 1024
KEEP_ALIVE_S = 20
SHUTDOWN_S = 3
# A follower that does not read would hold its place for ever.
STALLED_MS = 60_000


class ApiServer:
    """The API's listening socket and server; `run` it in a task of its own."""

    def __init__(
        self, services: Services, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen; requests are answered from `run` on.

        Args:
            services: of the node.
            host, port: address to listen on; port 0 lets the system choose.
            tls: asks for a client's certificate; None serves a loopback address without TLS.

        Raises:
            ConfigurationError: the port cannot be had, or others could reach it without TLS.
        """
        self._feed = services.feed
        self._socket = _listen(host, port, tls is not None)
        config = uvicorn.Config(
            create_app(services, tls=tls is not None),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        self._server = _Server(config, self._socket, tls)

    @property
    def port(self) -> int:
        """The port that is listened on; the one chosen by the system where 0 was asked for."""
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Answer until cancelled; then let requests under way end, for SHUTDOWN_S at most."""
        serving = asyncio.create_task(self._server.serve())
        try:
            await asyncio.shield(serving)
        finally:
            self._feed.close()
            self._server.should_exit = True
            await serving
            self._socket.close()


class _Server(uvicorn.Server):
    """Uvicorn's server with our own way of taking in connections, and without signals."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._tls = tls
        self._acceptor: Acceptor | None = None

    async def startup(self, sockets: Any = None) -> None:  # noqa: ARG002 - uvicorn's parameter
        """Begin to accept."""
        self.servers = []
        self._acceptor = Acceptor(self._listener, self.config, self.server_state, self._tls)
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Go on, unless no connections are taken in any more."""
        assert self._acceptor is not None
        self._acceptor.check()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        """Accept no more, then end what is under way."""
        if self._acceptor is not None:
            await self._acceptor.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the daemon."""
        yield


def _listen(host: str, port: int, tls: bool) -> socket.socket:
    try:
        listener = listening_socket(host, port, STALLED_MS)
    except OSError as error:
        raise ConfigurationError(
            f"[api] listen {host}:{port}: {error.strerror or error}; free the port or choose "
            "another"
        ) from error
    if not tls and not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        listener.close()
        raise ConfigurationError(
            f"[api] listen {host}:{port}: without TLS anyone who can reach it would be the local "
            "operator; set tls = true in [api], or listen on 127.0.0.1"
        )
    return listener
