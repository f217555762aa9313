"""Takes in connections, so many at once at most, over TLS where asked for.

Further ones wait in the system's queue instead of being turned away: a thousand clients that
come at once are served one after the other. Whoever holds a place must use it: the handshake
and the head of a request have their time, and where all places are taken, a connection that
is idle is closed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .access import Certificate

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
# Connections that wait to be taken in; the system may allow fewer (net.core.somaxconn).
BACKLOG = 1024
HANDSHAKE_TIMEOUT_S = 10.0
# For the other side to take note that a connection ends; its place is taken as long.
FAREWELL_TIMEOUT_S = 1.0
# For a handshake while all places are taken, and how often that is looked at.
CROWDED_HANDSHAKE_S = 2.0
MAKE_ROOM_S = 0.25
# Of the places, for one member: no one of them can take all.
MAX_MEMBER_CONNECTIONS = 32
# For the head of a request, from the connection or from the head's first byte.
HEAD_TIMEOUT_S = 10.0
# How long to pause where the system has no descriptor or memory left for one more.
EXHAUSTED_S = 0.5


class Acceptor:
    """Accepts connections from a listening socket, from its making until it is closed."""

    def __init__(
        self,
        listener: socket.socket,
        config: uvicorn.Config,
        state: ServerState,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Begin; `config` and `state` are the server's, `tls` its context or None."""
        self._listener = listener
        self._config = config
        self._state = state
        self._tls = tls
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        # Handshakes under way, and when they began; in this order.
        self._greeting: dict[asyncio.Task[None], float] = {}
        self.of_members: Counter[bytes] = Counter()
        self._task = asyncio.create_task(self._accept())

    @property
    def is_full(self) -> bool:
        """Whether all places are taken."""
        return self._places.locked()

    def check(self) -> None:
        """Raise what ended the acceptor, if anything did."""
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Take in no more, and give up the handshakes under way."""
        tasks = [self._task, *self._greeting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._take_place()
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                self._places.release()
                log.warning("api: cannot take in a connection: %s", error)
                await asyncio.sleep(EXHAUSTED_S)
                continue
            task = asyncio.create_task(self._greet(connection))
            self._greeting[task] = loop.time()
            task.add_done_callback(self._greeting.pop)

    async def _take_place(self) -> None:
        while True:
            if self.is_full:
                self._make_room()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._places.acquire(), MAKE_ROOM_S)
                return

    async def _greet(self, connection: socket.socket) -> None:
        """Shake hands; the place is free again when the connection ends, or does not begin."""
        place = _Place(self._places)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self, place, self._config, self._state),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if self._tls else None,
                ssl_shutdown_timeout=FAREWELL_TIMEOUT_S if self._tls else None,
            )
        except OSError as error:  # TLS's errors and time-outs among them
            place.leave()
            log.debug("api: a connection does not begin: %s", error)
        except BaseException:
            place.leave()
            raise

    def _make_room(self) -> None:
        """End what is idle, and handshakes that others could have finished by now."""
        late = asyncio.get_running_loop().time() - CROWDED_HANDSHAKE_S
        for task, began in list(self._greeting.items()):
            if self._tls is not None and began < late:
                task.cancel()
        for connection in list(self._state.connections):
            if isinstance(connection, Connection):
                connection.close_if_idle()


class _Place:
    """One of the places for connections; left once, however often it is told."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def leave(self) -> None:
        if self._places is not None:
            self._places.release()
            self._places = None


class Connection(H11Protocol):
    """An HTTP connection that holds a place, and knows whose certificate it came with.

    Requests find the certificate in their scope: `scope["state"]["certificate"]`.
    """

    def __init__(
        self, acceptor: Acceptor, place: _Place, config: uvicorn.Config, state: ServerState
    ) -> None:
        super().__init__(config, state, {})
        self._acceptor = acceptor
        self._place = place
        self._member: bytes | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and read the certificate once for all requests."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            certificate = Certificate.of_peer(tls)
            self.app_state = {"certificate": certificate}
            self._member = certificate.member if certificate else None
        if self._member is not None:
            self._acceptor.of_members[self._member] += 1
            if self._acceptor.of_members[self._member] > MAX_MEMBER_CONNECTIONS:
                transport.abort()
                return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Go on, and give a head that has begun its time."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_head()
        else:
            self._end_timer()

    def on_response_complete(self) -> None:
        """Close the connection where others wait for its place."""
        super().on_response_complete()
        if self._acceptor.is_full:
            self.close_if_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and leave the place."""
        self._end_timer()
        super().connection_lost(exc)
        self._place.leave()
        if self._member is not None:
            self._acceptor.of_members[self._member] -= 1
            if not self._acceptor.of_members[self._member]:
                del self._acceptor.of_members[self._member]

    def close_if_idle(self) -> None:
        """Close unless a request is under way, or its head still has time to come."""
        if self._head_timer is None and self.cycle is not None and self.cycle.response_complete:
            self.shutdown()

    def _await_head(self) -> None:
        if self._head_timer is None:
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        self.transport.abort()

    def _end_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def listening_socket(host: str, port: int, stalled_ms: int) -> socket.socket:
    """Listen.

    Args:
        host, port: address; port 0 lets the system choose.
        stalled_ms: the system ends a connection whose other side takes nothing for so long
            (tcp(7), TCP_USER_TIMEOUT).

    Raises:
        OSError: the address cannot be had.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled_ms)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
