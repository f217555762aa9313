"""Connections to the other nodes: one per pair, mutual TLS, bounded in every direction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Protocol

from fog_node.errors import FogNodeError, NetworkError
from fog_node.protocol.errors import ProtocolError

from . import wire
from .certificates import SERVER_NAME, peer_member

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 5.0
STATUS_INTERVAL_S = 1.0
IDLE_TIMEOUT_S = 10.0
DIAL_TIMEOUT_S = 5.0
DIAL_BACKOFF_S = (0.1, 5.0)
# What may wait for a slow peer before it is cut off; it catches up when it is back.
MAX_OUTGOING_BYTES = 64 * 1024 * 1024
MAX_CONNECTIONS = 256
# A peer that breaks the protocol is not listened to for so long.
BAN_S = 30.0

Address = tuple[str, int]


class Handler(Protocol):
    """What a node does with its peers. Called from the event loop, one peer at a time."""

    def peer_joined(self, peer: Peer) -> None:
        """A connection is up and both sides have said hello."""

    def peer_left(self, peer: Peer) -> None:
        """The connection is gone."""

    async def peer_message(self, peer: Peer, message: wire.Message) -> None:
        """A parsed message; raising ProtocolError or NetworkError bans the peer for BAN_S."""


class Peer:
    """One live connection to another node.

    Attributes:
        kid: key id of the member at the far end, shown by its certificate.
        name: as it calls itself.
        status: where it last said it stands.
    """

    def __init__(
        self,
        kid: bytes,
        name: str,
        dialled: bool,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.kid = kid
        self.name = name
        self.dialled = dialled
        self.status: wire.Status | None = None
        self.reader, self._writer = streams
        self._closing = False
        self._offence: str | None = None

    def ban(self, reason: str) -> None:
        """Cut the connection for what the peer sent, and do not listen to it for BAN_S."""
        self._offence = reason
        self.close(reason)

    @property
    def offence(self) -> str | None:
        """What it was banned for."""
        return self._offence

    def send(self, message: wire.Message) -> None:
        """Queue a message; a peer that does not take what waits for it is cut off."""
        self.send_frame(wire.encode_message(message))

    def send_frame(self, frame: bytes) -> None:
        """Queue an encoded message."""
        if self._closing:
            return
        waiting = self._writer.transport.get_write_buffer_size()
        if waiting + len(frame) > MAX_OUTGOING_BYTES:
            self.close(f"does not take the {waiting} bytes that wait for it")
            return
        self._writer.write(frame)

    def close(self, reason: str) -> None:
        """Cut the connection, without waiting for what is queued."""
        if not self._closing:
            self._closing = True
            log.info("peer %s: closed: %s", self.name, reason)
            self._writer.transport.abort()


class PeerNetwork:
    """Listens, dials, and keeps one connection to each member that has a node.

    Where two nodes dial each other at once, both keep the connection that the lower key
    id dialled.
    """

    def __init__(
        self,
        own: bytes,
        hello: wire.Hello,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext],
        addresses: Mapping[bytes, Address],
        handler: Handler,
        authorise: Callable[[bytes], str | None],
        status: Callable[[], wire.Status],
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            own: this node's key id.
            hello: what it says first.
            contexts: TLS contexts for listening and for dialling.
            addresses: whom to dial, by key id.
            handler: gets what happens.
            authorise: a member's name, or None where it may not connect (any more).
            status: what to tell peers of where this node stands.
        """
        self._own = own
        self._hello = hello
        self._server_context, self._client_context = contexts
        self._addresses = dict(addresses)
        self._handler = handler
        self._authorise = authorise
        self._peers: dict[bytes, Peer] = {}
        self._banned: dict[bytes, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._status = status
        self.refused = 0

    @property
    def peers(self) -> list[Peer]:
        """Live connections."""
        return list(self._peers.values())

    @property
    def port(self) -> int:
        """Port that is listened on; the one chosen by the system where 0 was asked for."""
        if self._server is None:
            raise NetworkError("peer network: is not started")
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int) -> None:
        """Listen and begin to dial; raises NetworkError where the port cannot be had."""
        try:
            self._server = await asyncio.start_server(
                self._accept,
                host,
                port,
                ssl=self._server_context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                backlog=MAX_CONNECTIONS,
            )
        except OSError as error:
            raise NetworkError(
                f"[peer] listen {host}:{port}: {error.strerror or error}; free the port or "
                "choose another"
            ) from error
        for kid in self._addresses:
            self._spawn(self._dial_for_ever(kid))
        self._spawn(self._send_status())

    async def stop(self) -> None:
        """Close everything and wait until it is closed."""
        if self._server is not None:
            self._server.close()
        for peer in self.peers:
            peer.close("shutting down")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def announce(self) -> None:
        """Tell all peers at once where this node stands."""
        self.broadcast(self._status())

    def drop_unauthorised(self) -> None:
        """Cut off who may not connect any more; call after each block."""
        for peer in self.peers:
            if self._authorise(peer.kid) is None:
                peer.close("is revoked")

    def broadcast(self, message: wire.Message, but: Iterable[bytes] = ()) -> None:
        """Queue a message to every peer, except to those in `but`."""
        frame = wire.encode_message(message)
        for peer in self.peers:
            if peer.kid not in but:
                peer.send_frame(frame)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            self.announce()

    async def _dial_for_ever(self, kid: bytes) -> None:
        host, port = self._addresses[kid]
        delay = DIAL_BACKOFF_S[0]
        if self._own > kid:
            await asyncio.sleep(STATUS_INTERVAL_S)  # the other side dials first
        while True:
            if kid not in self._peers and not self._is_banned(kid):
                try:
                    async with asyncio.timeout(DIAL_TIMEOUT_S):
                        streams = await asyncio.open_connection(
                            host, port, ssl=self._client_context, server_hostname=SERVER_NAME
                        )
                except (OSError, TimeoutError) as error:
                    log.debug("peer %s:%d: not reached: %s", host, port, error)
                else:
                    delay = DIAL_BACKOFF_S[0]
                    await self._converse(streams, expected=kid)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads redials
            delay = min(delay * 2, DIAL_BACKOFF_S[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if len(self._peers) >= MAX_CONNECTIONS:
            self.refused += 1
            writer.transport.abort()
            return
        with contextlib.suppress(asyncio.CancelledError):  # stop() ends us; asyncio would log it
            await self._converse((reader, writer), expected=None)

    async def _converse(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        expected: bytes | None,
    ) -> None:
        """Greet, then read until the connection ends; never raises what the peer caused."""
        reader, writer = streams
        kid: bytes | None = None
        peer: Peer | None = None
        try:
            kid = peer_member(writer.get_extra_info("ssl_object"))
            self._check_identity(kid, expected)
            writer.write(wire.encode_message(self._hello))
            hello = self._check_hello(await self._read(reader))
            peer = Peer(kid, hello.name, expected is not None, streams)
            if not self._register(peer):
                return
            try:
                await self._listen(peer)
            finally:
                if peer.offence is not None:
                    self._ban(kid, peer.offence)
                if self._peers.get(kid) is peer:
                    del self._peers[kid]
                    self._handler.peer_left(peer)
        except (ProtocolError, NetworkError) as error:
            if kid is not None and peer is not None:
                self._ban(kid, str(error))
            else:
                self.refused += 1
                log.warning("peer %s: refused: %s", kid.hex() if kid else "unknown", error)
        except FogNodeError:
            # This node's own trouble, a full disk say, is no offence of the peer.
            log.exception("peer %s: its message failed here", kid.hex() if kid else "unknown")
        except (OSError, TimeoutError, EOFError) as error:
            log.info("peer %s: connection ended: %s", kid.hex() if kid else "unknown", error)
        finally:
            writer.transport.abort()

    async def _listen(self, peer: Peer) -> None:
        while True:
            message = await self._read(peer.reader)
            if isinstance(message, wire.Status):
                peer.status = message
            elif isinstance(message, wire.Hello):
                raise NetworkError("peer: said hello twice")
            await self._handler.peer_message(peer, message)

    async def _read(self, reader: asyncio.StreamReader) -> wire.Message:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            (length,) = wire.LENGTH.unpack(await reader.readexactly(wire.LENGTH.size))
            if length > wire.MAX_FRAME_BYTES:
                raise NetworkError(
                    f"peer: frame of {length} bytes, at most {wire.MAX_FRAME_BYTES} are allowed"
                )
            body = await reader.readexactly(length)
        return wire.parse_message(body)

    def _check_identity(self, kid: bytes, expected: bytes | None) -> None:
        if kid == self._own:
            raise NetworkError("peer: shows this node's own certificate; correct [peer] peers")
        if expected is not None and kid != expected:
            raise NetworkError(f"peer: is {kid.hex()}, {expected.hex()} is configured there")
        if self._authorise(kid) is None:
            raise NetworkError(f"peer: {kid.hex()} is no member of this consortium, or is revoked")
        if self._is_banned(kid):
            raise NetworkError(f"peer: {kid.hex()} broke the protocol a moment ago")

    def _check_hello(self, hello: wire.Message) -> wire.Hello:
        if not isinstance(hello, wire.Hello):
            raise NetworkError("peer: did not say hello first")
        if hello.version != wire.PROTOCOL_VERSION:
            raise NetworkError(
                f"peer: speaks version {hello.version}, this node {wire.PROTOCOL_VERSION}; "
                "update the older one"
            )
        if hello.chain_id != self._hello.chain_id:
            raise NetworkError(
                f"peer: follows ledger {hello.chain_id.hex()}, this node "
                f"{self._hello.chain_id.hex()}; both need the same founding file"
            )
        return hello

    def _register(self, peer: Peer) -> bool:
        existing = self._peers.get(peer.kid)
        if existing is not None:
            lower_dials = self._own < peer.kid
            if peer.dialled != lower_dials and existing.dialled == lower_dials:
                return False
            existing.close("replaced by a newer connection")
            self._handler.peer_left(existing)
        self._peers[peer.kid] = peer
        log.info("peer %s: connected", peer.name)
        peer.send(self._status())
        self._handler.peer_joined(peer)
        return True

    def _ban(self, kid: bytes, reason: str) -> None:
        self.refused += 1
        self._banned[kid] = asyncio.get_running_loop().time() + BAN_S
        log.warning("peer %s: refused for %d s: %s", kid.hex(), BAN_S, reason)

    def _is_banned(self, kid: bytes) -> bool:
        return self._banned.get(kid, 0.0) > asyncio.get_running_loop().time()
