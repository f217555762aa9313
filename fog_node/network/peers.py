"""Connections to the other nodes: one per pair, mutual TLS, bounded in every direction.

What a peer may cost and what is held against it is in `score`; here it is asked, and obeyed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Protocol

from fog_node.errors import FogNodeError, NetworkError
from fog_node.protocol.errors import ProtocolError

from . import score, wire
from .certificates import SERVER_NAME, PeerCertificate, peer_certificate
from .score import Ban, Gate, LogLimit, Offence, Scores

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 5.0
STATUS_INTERVAL_S = 1.0
IDLE_TIMEOUT_S = 10.0
DIAL_TIMEOUT_S = 5.0
DIAL_BACKOFF_S = (0.1, 5.0)
# What may wait for a slow peer before it is cut off; it catches up when it is back.
MAX_OUTGOING_BYTES = 64 * 1024 * 1024
MAX_CONNECTIONS = 256
BACKLOG = 128
# A frame may take IDLE_TIMEOUT_S, and so much longer as it is long: a slow line is no offence.
SLOWEST_BYTES_PER_S = 32 * 1024
# Nobody has shown yet that it follows this ledger: the first message is short.
MAX_HELLO_BYTES = 1024
# Where the system has no room for a connection, files say, it is tried again after so long.
ACCEPT_RETRY_S = 0.5
READ_BUFFER_BYTES = 64 * 1024
# A block that a peer asks for again and again is sent once in so long.
RESEND_S = 0.5
MAX_REMEMBERED_SENDS = 16

Address = tuple[str, int]


class Handler(Protocol):
    """What a node does with its peers. Called from the event loop, one peer at a time."""

    def peer_joined(self, peer: Peer) -> None:
        """A connection is up and both sides have said hello."""

    def peer_left(self, peer: Peer) -> None:
        """The connection is gone."""

    async def peer_message(self, peer: Peer, message: wire.Message) -> None:
        """A parsed message; raising ProtocolError or NetworkError bans the peer."""


class Directory(Protocol):
    """Who is a member, as this node knows it now."""

    def authorise(self, certificate: PeerCertificate, dialled: bool) -> str | None:
        """The name of the member who shows a certificate; None where it may not connect.

        `dialled`: whether this node called an address that its operator has configured.
        """

    def kid_of(self, name: str) -> bytes | None:
        """Key id of the member with this name; None where it is not known here (yet)."""


class Peer:
    """One live connection to another node.

    Attributes:
        certificate: of the member at the far end.
        kid: its key id, which the certificate names.
        name: as it calls itself.
        status: where it last said it stands.
        frame_bytes: size of the message that was read last.
        lowest: it keeps the bodies of blocks from this height on, as it said last.
    """

    def __init__(
        self,
        certificate: PeerCertificate,
        name: str,
        dialled: bool,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        scores: Scores | None = None,
    ) -> None:
        self.certificate = certificate
        self.kid = certificate.kid
        self.name = name
        self.dialled = dialled
        self.status: wire.Status | None = None
        self.frame_bytes = 0
        self.lowest = 1
        self.reader, self._writer = streams
        self._scores = scores or Scores()
        self._asked: Counter[str] = Counter()
        self._sent: OrderedDict[bytes, float] = OrderedDict()
        self._closing = False

    @property
    def misses(self) -> int:
        """How often in a row the member had no use as a source of blocks, over all connections."""
        return self._scores.misses[self.kid]

    @misses.setter
    def misses(self, times: int) -> None:
        self._scores.misses[self.kid] = times

    def ban(self, reason: str) -> None:
        """Hold against the peer that it broke the protocol: it is cut off and banned."""
        self.offend(Offence.PROTOCOL, reason)

    def offend(self, offence: Offence, reason: str) -> None:
        """Hold an offence against the peer; it may lead to a ban. Call in the event loop."""
        if self._closing:  # what was still queued when it was cut off
            return
        ban = self._scores.offend(self.kid, offence, reason, _now())
        if ban is None:
            log.warning("peer %s: %s: %s", self.name, offence.name.lower(), reason)
            return
        report_ban(self.name, ban)
        self.close(reason)

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended; what came before need not be looked at."""
        return self._closing or self._writer.transport.is_closing()

    def verified(self, signatures: int) -> None:
        """Count signatures that this node verified for the peer."""
        self._scores.verified(self.kid, signatures, _now())

    def useless(self, refused: int, stale: int) -> None:
        """Count transactions of it that were refused, or final here before."""
        self._scores.useless(self.kid, refused, stale, _now())

    def may_send_again(self, key: bytes) -> bool:
        """Whether what `key` stands for has not just been sent to this peer; notes that it is."""
        now = _now()
        if now - self._sent.get(key, float("-inf")) < RESEND_S:
            return False
        self._sent[key] = now
        if len(self._sent) > MAX_REMEMBERED_SENDS:
            self._sent.popitem(last=False)
        return True

    def was_asked(self, answer: wire.Message) -> bool:
        """Whether a message that only answers a question answers one; counts it."""
        if answer.KIND not in wire.ANSWERS.values():
            return True
        if not self._asked[answer.KIND]:
            return False
        self._asked[answer.KIND] -= 1
        return True

    def send(self, message: wire.Message) -> None:
        """Queue a message; a peer that does not take what waits for it is cut off."""
        if (answer := wire.ANSWERS.get(message.KIND)) is not None:
            self._asked[answer] += 1
        self.send_frame(wire.encode_message(message))

    def send_frame(self, frame: bytes) -> None:
        """Queue an encoded message."""
        if self.is_closed:
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
        addresses: Mapping[str, Address],
        handler: Handler,
        directory: Directory,
        status: Callable[[], wire.Status],
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            own: this node's key id.
            hello: what it says first.
            contexts: TLS contexts for listening and for dialling.
            addresses: whom to dial, by the members' names.
            handler: gets what happens.
            directory: who is a member.
            status: what to tell peers of where this node stands.
        """
        self._own = own
        self._hello = hello
        self._server_context, self._client_context = contexts
        self._addresses = dict(addresses)
        self._handler = handler
        self._directory = directory
        self._peers: dict[bytes, Peer] = {}
        self.scores = Scores()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[socket.socket] = []
        self._status = status
        self._gate: Gate | None = None
        self._refusals: LogLimit | None = None
        # By member: connections that have shown a certificate and not said hello yet.
        self._greeting: Counter[bytes] = Counter()
        self.refused = 0

    @property
    def peers(self) -> list[Peer]:
        """Live connections."""
        return list(self._peers.values())

    @property
    def port(self) -> int:
        """Port that is listened on; the one chosen by the system where 0 was asked for."""
        if not self._listeners:
            raise NetworkError("peer network: is not started")
        return int(self._listeners[0].getsockname()[1])

    async def start(self, host: str, port: int) -> None:
        """Listen and begin to dial; raises NetworkError where the port cannot be had."""
        self._gate = Gate(_now())
        self._refusals = LogLimit(_now())
        try:
            self._listeners = await _listen(host, port)
        except OSError as error:
            raise NetworkError(
                f"[peer] listen {host}:{port}: {error.strerror or error}; free the port or "
                "choose another"
            ) from error
        for listener in self._listeners:
            self._watch(listener, self._gate)
        for name in self._addresses:
            self._spawn(self._dial_for_ever(name))
        self._spawn(self._send_status())

    async def stop(self) -> None:
        """Close everything and wait until it is closed."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners = []
        for peer in self.peers:
            peer.close("shutting down")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def announce(self) -> None:
        """Tell all peers at once where this node stands."""
        self.broadcast(self._status())

    def drop_unauthorised(self) -> None:
        """Cut off who may not connect any more; call after each block."""
        for peer in self.peers:
            if self._directory.authorise(peer.certificate, peer.dialled) is None:
                peer.close("is no member any more, or its certificate is revoked")

    def broadcast(self, message: wire.Message, but: Iterable[bytes] = ()) -> None:
        """Queue a message to every peer, except to those in `but`."""
        frame = wire.encode_message(message)
        for peer in self.peers:
            if peer.kid not in but:
                peer.send_frame(frame)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            self.announce()

    async def _dial_for_ever(self, name: str) -> None:
        host, port = self._addresses[name]
        delay = DIAL_BACKOFF_S[0]
        if self._own > (self._directory.kid_of(name) or b""):
            await asyncio.sleep(STATUS_INTERVAL_S)  # the other side dials first

        def greeted() -> None:
            # Not at the handshake: who refuses us would be dialled again at once, for ever.
            nonlocal delay
            delay = DIAL_BACKOFF_S[0]

        while True:
            kid = self._directory.kid_of(name)  # it changes where the member's key is rotated
            if kid is None or (kid not in self._peers and not self._is_banned(kid)):
                try:
                    async with asyncio.timeout(DIAL_TIMEOUT_S):
                        streams = await asyncio.open_connection(
                            host, port, ssl=self._client_context, server_hostname=SERVER_NAME
                        )
                except (OSError, TimeoutError) as error:
                    log.debug("peer %s:%d: not reached: %s", host, port, error)
                else:
                    await self._converse(streams, name, greeted)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads redials
            delay = min(delay * 2, DIAL_BACKOFF_S[1])

    def _watch(self, listener: socket.socket, gate: Gate) -> None:
        if listener.fileno() >= 0:  # not stopped meanwhile
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, gate)

    def _accept(self, listener: socket.socket, gate: Gate) -> None:
        """Take one connection, or turn it away before anything is done for it."""
        try:
            connection, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("peers: no connection can be taken: %s", error.strerror or error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(ACCEPT_RETRY_S, self._watch, listener, gate)
            return
        host = str(address[0])
        refusal = gate.enter(host, _now())
        if refusal is not None:
            self._refuse(host, refusal)
            connection.close()
            return
        connection.setblocking(False)
        task = self._spawn(self._serve(connection, host, gate))
        task.add_done_callback(partial(_close, connection))

    async def _serve(self, connection: socket.socket, host: str, gate: Gate) -> None:
        """Shake hands with who connected, and hear it; never raises what the other side did."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as entered:
            entered.callback(gate.leave, host)
            reader = asyncio.StreamReader(limit=READ_BUFFER_BYTES)
            protocol = asyncio.StreamReaderProtocol(reader)
            try:
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol,
                    connection,
                    ssl=self._server_context,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                )
            except (OSError, EOFError) as error:
                self._refuse(host, f"TLS: {error}")
                return
            if len(self._peers) >= MAX_CONNECTIONS:
                self._refuse(host, f"{MAX_CONNECTIONS} are connected")
                transport.abort()
                return
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            # Whoever has said hello is counted as a peer, and no longer at the gate.
            await self._converse((reader, writer), None, entered.close)

    async def _converse(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        expected: str | None,
        greeted: Callable[[], None],
    ) -> None:
        """Greet, then read until the connection ends; never raises what the peer caused."""
        reader, writer = streams
        kid: bytes | None = None
        peer: Peer | None = None
        try:
            certificate = peer_certificate(writer.get_extra_info("ssl_object"))
            kid = certificate.kid
            self._check_identity(certificate, expected)
            hello = await self._greet(kid, reader, writer)
            greeted()
            peer = Peer(certificate, hello.name, expected is not None, streams, self.scores)
            if not self._register(peer):
                return
            try:
                await self._listen(peer)
            finally:
                if self._peers.get(kid) is peer:
                    del self._peers[kid]
                    self._handler.peer_left(peer)
        except (ProtocolError, NetworkError) as error:
            if peer is not None:
                self.refused += 1
                peer.ban(str(error))
            else:
                self._refuse(kid.hex() if kid else "unknown", str(error))
        except FogNodeError:
            # This node's own trouble, a full disk say, is no offence of the peer.
            log.exception("peer %s: its message failed here", kid.hex() if kid else "unknown")
        except (OSError, TimeoutError, EOFError) as error:
            log.info("peer %s: connection ended: %s", kid.hex() if kid else "unknown", error)
        except Exception:
            # A defect, of ours or of asyncio's TLS: it costs this connection and nothing else.
            log.exception("peer %s: its connection failed", kid.hex() if kid else "unknown")
        finally:
            writer.transport.abort()

    async def _greet(
        self, kid: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> wire.Hello:
        if self._greeting[kid] >= score.MAX_GREETING_PER_MEMBER:
            raise NetworkError(
                f"peer: {self._greeting[kid]} connections of {kid.hex()} have not said hello yet"
            )
        self._greeting[kid] += 1
        try:
            writer.write(wire.encode_message(self._hello))
            _, message = await _read(reader, MAX_HELLO_BYTES)
            return self._check_hello(message)
        finally:
            self._greeting[kid] -= 1
            if not self._greeting[kid]:
                del self._greeting[kid]

    async def _listen(self, peer: Peer) -> None:
        while True:
            peer.frame_bytes, message = await _read(peer.reader, wire.MAX_FRAME_BYTES)
            now = _now()
            if isinstance(message, wire.Hello):
                raise NetworkError("peer: said hello twice")
            look = self.scores.take(peer.kid, message.KIND, peer.frame_bytes, now)
            if not peer.was_asked(message):
                peer.offend(Offence.UNASKED, f"sends {message.KIND} that nobody asked for")
            elif look:
                if isinstance(message, wire.Status):
                    peer.status = message
                await self._handler.peer_message(peer, message)
            if (pause := self.scores.pause_s(peer.kid, now)) > 0:
                await asyncio.sleep(pause)

    def _refuse(self, who: str, reason: str) -> None:
        """Note that somebody was not let in."""
        self.refused += 1
        assert self._refusals is not None
        if (more := self._refusals.line(_now())) is not None:
            log.warning("peer %s: refused: %s%s", who, reason, more)

    def _check_identity(self, certificate: PeerCertificate, expected: str | None) -> None:
        kid = certificate.kid
        if kid == self._own:
            raise NetworkError("peer: shows this node's own certificate; correct [peer] peers")
        name = self._directory.authorise(certificate, expected is not None)
        if name is None:
            raise NetworkError(
                f"peer: {kid.hex()} is no member of this consortium, is removed or has a revoked "
                "certificate, or has no role that reads the whole chain"
            )
        if expected is not None and name != expected:
            raise NetworkError(f"peer: is {name}, {expected} is configured there")
        if self._is_banned(kid):
            raise NetworkError(f"peer: {kid.hex()} is banned for what it sent before")
        if expected is None and not self.scores.may_join(kid, _now()):
            raise NetworkError(f"peer: {kid.hex()} connects again and again")

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

    def _is_banned(self, kid: bytes) -> bool:
        return self.scores.is_banned(kid, _now())


def _close(connection: socket.socket, _: asyncio.Task[None]) -> None:
    connection.close()


def report_ban(name: str, ban: Ban) -> None:
    """Say in the log who is banned, why and for how long."""
    log.warning(
        "peer %s (%s): banned for %.0f s, ban number %d: %s",
        name,
        ban.kid.hex(),
        ban.until - _now(),
        ban.times,
        ban.reason,
    )


async def _read(reader: asyncio.StreamReader, most: int) -> tuple[int, wire.Message]:
    """The next message, at most `most` bytes, and its size."""
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        (length,) = wire.LENGTH.unpack(await reader.readexactly(wire.LENGTH.size))
    if length > most:
        raise NetworkError(f"peer: frame of {length} bytes, at most {most} are allowed")
    async with asyncio.timeout(IDLE_TIMEOUT_S + length / SLOWEST_BYTES_PER_S):
        body = await reader.readexactly(length)
    return length, wire.parse_message(body)


async def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of `host`; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _now() -> float:
    return asyncio.get_running_loop().time()
