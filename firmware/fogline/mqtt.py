"""MQTT 3.1.1 client on asyncio: one connection that comes back by itself.

Publishing is QoS 1: a message stays in a bounded window until its PUBACK, and is sent again,
marked DUP, after a reconnect. A broker that owes an answer (to a ping, a publish, a
subscription, or just room in the socket) for longer than the keep-alive time is taken for
dead, and the connection is made anew with growing, jittered pauses.
"""

import asyncio
import errno
import gc
import os
import select
import socket
import time

import tls

from . import mqtt_codec as codec
from .errors import LinkError
from .tasks import first

MAX_PACKET_BYTES = 8192
MAX_IN_FLIGHT = 8
MAX_CONTROL_BYTES = 1024
READ_BYTES = 1024
CONNECT_TIMEOUT_MS = 10_000
BACKOFF_MIN_MS = 250
BACKOFF_MAX_MS = 30_000
# A connection that lasted this long was a good one: the next pause is short again.
BACKOFF_RESET_MS = 5_000
CLOSE_TIMEOUT_MS = 5_000
_POLL_MS = 10
_NETWORK_POLL_MS = 100

_REFUSALS = (
    None,
    "the broker does not speak MQTT 3.1.1",
    "the broker refuses the client id",
    "the broker is not available",
    "the broker refuses user or password: check mqtt.user and mqtt.password",
    "the broker does not authorise this board",
)


def tls_context(ca):
    """Make a TLS client context that trusts the certificate authority `ca` (DER) and no other."""
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined]  # the stubs lack it
    try:
        context.load_verify_locations(ca)
    except ValueError:
        raise LinkError("link.ca", "mqtt.ca is not a certificate in DER form") from None
    return context


class _Message:
    """A QoS 1 publish on its way to its PUBACK."""

    def __init__(self, packet_id, topic, payload, retain, token):
        self.packet_id = packet_id
        self.topic = topic
        self.payload = payload
        self.retain = retain
        self.token = token
        self.dup = False
        self.sent_ms = None  # on the present connection


class Client:
    """One MQTT connection; `run` keeps it up until `close`.

    Args:
        host, port: of the broker.
        client_id: at most 23 letters and digits, which every broker must take (3.1.3.1).
        keepalive_s: 1 to 65535; also how long the broker may owe an answer.
        will: function that returns the (topic, payload) which the broker is to publish,
            retained, when this connection ends without DISCONNECT.
        filters: [(topic filter, QoS)] to be subscribed to on every connection.
        handler: object with `message(topic, payload)`, `connected()` and
            `disconnected(reason)`; plain functions, called in the client's task.
        context: from `tls_context`, or None for a plain connection.
        server_name: name the broker's certificate must carry; needed with `context`.
        network: object with `up`, without which no attempt is made; None: always up.
    """

    def __init__(
        self,
        *,
        host,
        port,
        client_id,
        keepalive_s,
        will,
        filters,
        handler,
        context=None,
        server_name=None,
        user=None,
        password=None,
        network=None,
    ):
        if context is not None and not server_name:
            raise LinkError("link.server_name", "TLS needs the name the certificate must carry")
        self._network = network
        self._host = host
        self._port = port
        self._attempts = 0
        self._identity = (client_id, keepalive_s, user, password)
        self._will = will
        self._keepalive_ms = keepalive_s * 1000
        self._handler = handler
        self._context = context
        self._server_name = server_name
        self._filters = filters
        self._window = []
        self._last_id = 0
        self._control = b""
        self._wake = asyncio.Event()  # the writer has something to do
        self._room = asyncio.Event()  # the window or the control buffer has shrunk
        self._stop = asyncio.Event()
        self._owed = {}  # packet id of the subscription, or _PING: since when, ms
        self._sent_ms = 0
        self._writing_since = None
        self._transport = None
        self._connected = False
        self._closing = False
        self._leaving = None  # why `reconnect` ends the present connection
        self._ended = asyncio.Event()

    # The caller's side ----------------------------------------------------------------

    @property
    def connected(self):
        """Whether the broker has accepted us and granted every subscription."""
        return self._connected

    async def publish(self, topic, payload, retain=False, token=None):
        """Publish with QoS 1; returns as soon as the window has taken the message.

        `token` is what `pending` and `forget` know the message by.
        """
        while len(self._window) >= MAX_IN_FLIGHT:
            self._room.clear()
            await self._room.wait()
        self._window.append(_Message(self._next_id(), topic, payload, retain, token))
        self._wake.set()

    def pending(self, token):
        """Whether a message with this token waits for its PUBACK."""
        return any(message.token == token for message in self._window)

    def forget(self, unwanted):
        """Never send again the messages whose token `unwanted(token)` says so of."""
        self._window = [message for message in self._window if not unwanted(message.token)]
        self._room.set()

    async def flush(self):
        """Wait until every published message has its PUBACK."""
        while self._window:
            self._room.clear()
            await self._room.wait()

    async def close(self):
        """Flush, say DISCONNECT (so that the will is not published) and wait for `run`'s end."""
        try:
            await asyncio.wait_for_ms(self.flush(), CLOSE_TIMEOUT_MS)
        except asyncio.TimeoutError:
            pass  # the broker is away; what it owes us is lost with the connection
        self._closing = True
        self._wake.set()
        self._stop.set()
        await self._ended.wait()

    def reconnect(self, reason):
        """Drop the connection without DISCONNECT, so that its will is published; connect anew."""
        self._connected = False
        self._leaving = reason
        self._wake.set()

    # The connection ---------------------------------------------------------------------

    async def run(self):
        """Connect, serve, reconnect; returns after `close`."""
        pause_ms = BACKOFF_MIN_MS
        while not self._closing:
            if self._network is not None and not self._network.up:
                await asyncio.sleep_ms(_NETWORK_POLL_MS)
                continue
            started_ms = time.ticks_ms()
            try:
                reason = await self._connection()
            except (LinkError, OSError, MemoryError) as error:
                reason = _explain(error)
            lasted_ms = time.ticks_diff(time.ticks_ms(), started_ms)
            if self._leaving or (self._connected and lasted_ms > BACKOFF_RESET_MS):
                pause_ms = BACKOFF_MIN_MS
            self._connected = False
            self._leaving = None
            self._attempts += 1
            if self._closing:
                break
            self._handler.disconnected(reason)
            gc.collect()  # a TLS connection's buffers are the largest blocks a board has
            await self._pause(pause_ms)
            pause_ms = min(2 * pause_ms, BACKOFF_MAX_MS)
        self._ended.set()

    async def _pause(self, pause_ms):
        """Half of `pause_ms` and up to as much again, so that boards do not come in step."""
        half = pause_ms // 2
        jitter = half * os.urandom(1)[0] // 255
        try:
            await asyncio.wait_for_ms(self._stop.wait(), half + jitter)
        except asyncio.TimeoutError:
            pass

    async def _connection(self):
        """One connection from dialling to its end; returns or raises the reason."""
        # Name resolution blocks on MicroPython; a numeric address does not.
        found = socket.getaddrinfo(self._host, self._port, 0, socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[self._attempts % len(found)]
        sock = socket.socket(family, kind, protocol)
        self._transport = sock
        try:
            return await self._serve(address)
        finally:
            # A TLS transport whose handshake failed does not close the socket under it;
            # closing a closed one does nothing.
            self._transport.close()
            sock.close()

    async def _serve(self, address):
        parser = codec.Parser(MAX_PACKET_BYTES)
        try:
            stream, packets = await asyncio.wait_for_ms(
                self._dial(address, parser), CONNECT_TIMEOUT_MS
            )
        except asyncio.TimeoutError:
            raise LinkError("link.timeout", "no answer to CONNECT") from None
        self._begin()
        await first(self._read(stream, parser, packets), self._write(stream), self._watch())
        return "closed by this board"

    async def _dial(self, address, parser):
        """Open the socket and the session; returns (stream, packets behind the CONNACK)."""
        await _connect_socket(self._transport, address)
        if self._context is not None:
            self._transport = self._context.wrap_socket(
                self._transport, server_hostname=self._server_name, do_handshake_on_connect=False
            )
            self._transport.setblocking(False)
        stream = asyncio.StreamReader(self._transport)
        try:
            stream.write(codec.connect(*self._identity, will=self._will()))  # type: ignore[attr-defined]  # both ways
            await stream.drain()  # type: ignore[attr-defined]  # both ways
        except ValueError as error:  # mbedTLS on a certificate it does not trust
            raise LinkError("link.tls", str(error).strip()) from None
        packets = []
        while not packets:
            packets = parser.feed(await _receive(stream))
        answer = packets.pop(0)
        if answer[0] != codec.CONNACK:
            raise LinkError("link.packet", "the broker's first packet is not CONNACK")
        if answer[2]:
            known = answer[2] < len(_REFUSALS)
            reason = _REFUSALS[answer[2]] if known else f"return code {answer[2]}"
            raise LinkError("link.refused", reason)
        return stream, packets

    def _begin(self):
        """Bring the client's state onto a fresh connection."""
        now = time.ticks_ms()
        self._sent_ms = now
        self._writing_since = None
        self._control = b""
        self._owed = {}
        self._leaving = None
        for message in self._window:
            message.sent_ms = None
        if self._filters:
            packet_id = self._next_id()
            self._owed[packet_id] = now
            self._control = codec.subscribe(packet_id, self._filters)
        else:
            self._established()
        self._wake.set()

    def _established(self):
        self._connected = True
        self._handler.connected()

    # Reading ----------------------------------------------------------------------------

    async def _read(self, stream, parser, packets):
        while True:
            for packet in packets:
                self._handle(packet)
            while len(self._control) > MAX_CONTROL_BYTES:
                # The broker sends faster than it reads our acknowledgements: let it wait.
                self._room.clear()
                await self._room.wait()
            packets = parser.feed(await _receive(stream))

    def _handle(self, packet):
        kind = packet[0]
        if kind == codec.PUBLISH:
            _, topic, payload, qos, packet_id = packet
            self._handler.message(topic, payload)
            if qos:
                self._send(codec.puback(packet_id))
        elif kind == codec.PUBACK:
            # One that is unknown belongs to a message we were told to forget.
            self._window = [m for m in self._window if m.packet_id != packet[1]]
            self._room.set()
        elif kind == codec.PINGRESP:
            self._owed.pop(_PING, None)
        elif kind == codec.SUBACK:
            if packet[1] not in self._owed or len(packet[2]) != len(self._filters):
                raise LinkError("link.packet", "a SUBACK that answers no subscription")
            if codec.SUBACK_FAILURE in packet[2]:
                raise LinkError("link.refused", "a subscription: check the access list")
            del self._owed[packet[1]]
            self._established()
        else:
            raise LinkError("link.packet", "a second CONNACK")

    # Writing ----------------------------------------------------------------------------

    def _send(self, packet):
        self._control += packet
        self._wake.set()

    async def _write(self, stream):
        """Write, as the only task that does, so that packets never mix."""
        while self._leaving is None:
            packet = self._next_packet()
            if packet is None:
                if self._closing:
                    packet = codec.DISCONNECT_PACKET
                else:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
            self._writing_since = time.ticks_ms()
            stream.write(packet)
            await stream.drain()
            self._writing_since = None
            self._sent_ms = time.ticks_ms()
            if packet is codec.DISCONNECT_PACKET:
                return
        raise LinkError("link.left", self._leaving)

    def _next_packet(self):
        if self._control:
            packet, self._control = self._control, b""
            self._room.set()
            return packet
        for message in self._window:
            if message.sent_ms is None:
                packet = codec.publish(
                    message.topic, message.payload, message.packet_id, message.retain, message.dup
                )
                message.sent_ms = time.ticks_ms()
                message.dup = True
                return packet
        return None

    # Watching ---------------------------------------------------------------------------

    async def _watch(self):
        """Ping when quiet; end the connection when the broker owes an answer too long."""
        late_before = None
        while True:
            await asyncio.sleep_ms(min(1000, self._keepalive_ms // 4))
            now = time.ticks_ms()
            late = self._late(now)
            # Twice in a row: after a long stall of our own (a model loading, a flash erase)
            # the answer may lie in the socket, unread.
            if late and late == late_before:
                raise LinkError("link.silent", late)
            late_before = late
            quiet_ms = time.ticks_diff(now, self._sent_ms)
            if quiet_ms >= self._keepalive_ms // 2 and _PING not in self._owed:
                self._owed[_PING] = now
                self._send(codec.PINGREQ_PACKET)

    def _late(self, now):
        """Name what the broker has owed for longer than the keep-alive time; None if nothing."""

        def overdue(since_ms):
            return since_ms is not None and time.ticks_diff(now, since_ms) > self._keepalive_ms

        if overdue(self._writing_since):
            return "it does not read"
        if any(overdue(message.sent_ms) for message in self._window):
            return "no PUBACK"
        if any(overdue(since_ms) for since_ms in self._owed.values()):
            return "no answer to a ping or subscription"
        return None

    def _next_id(self):
        while True:
            self._last_id = self._last_id % 65535 + 1
            taken = any(m.packet_id == self._last_id for m in self._window)
            if not taken and self._last_id not in self._owed:
                return self._last_id


_PING = 0  # no packet identifier is 0


async def _connect_socket(sock, address):
    sock.setblocking(False)
    try:
        sock.connect(address)
    except OSError as error:
        if error.errno != errno.EINPROGRESS:
            raise
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while not poller.poll(0):
        await asyncio.sleep_ms(_POLL_MS)


async def _receive(stream):
    data = await stream.read(READ_BYTES)
    if not data:
        raise LinkError("link.closed", "by the broker")
    return data


def _explain(error):
    if isinstance(error, OSError) and error.errno is not None:
        name = errno.errorcode.get(error.errno)
        return name if name else str(error)
    return str(error) or error.__class__.__name__
