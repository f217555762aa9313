"""The line to the boards over MQTT 3.1.1: keeps a connection to the broker, come what may."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import ssl
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiomqtt import Client, Message, MqttError

from fog_node.errors import ConfigurationError, GatewayError

from .topics import FromBoard, Topics

log = logging.getLogger(__name__)
# What the MQTT library says, of a lost connection as an error too: ours is the line that counts.
_library_log = log.getChild("library")
_library_log.addFilter(lambda _: log.isEnabledFor(logging.DEBUG))

KEEPALIVE_S = 20
ANSWER_TIMEOUT_S = 10.0
BACKOFF_S = (0.25, 15.0)
# Publications that wait for the broker; a further one is dropped, the boards ask again.
MAX_OUTGOING = 4096
PUBLISHERS = 4
# How long after a connect a copy may be the broker's: it keeps what it has not seen answered.
REDELIVERY_GRACE_S = 5.0
QOS = 1
_REFUSED_SUBSCRIPTION = 128


@dataclass(frozen=True)
class Broker:
    """Where the broker is and how to be let in; `context` None speaks without TLS."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def broker_context(ca: Path | None, authority: bytes) -> ssl.SSLContext:
    """TLS settings for the broker: its certificate must be valid for the configured host.

    Args:
        ca: PEM file of who signed the broker's certificate; None for the consortium's own
            authority.
        authority: DER certificate of that authority, from the founding file.

    Raises:
        ConfigurationError: the certificate cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca is None:
            context.load_verify_locations(cadata=authority)
        else:
            context.load_verify_locations(cafile=ca)
    except (OSError, ValueError) as error:
        name = f"ca {ca}" if ca else "ca: the founding file's authority"
        raise ConfigurationError(
            f"[mqtt] {name}: is no readable certificate ({error}); name the PEM file of the "
            "authority that signed the broker's certificate"
        ) from error
    return context


class Handler(Protocol):
    """What a gateway does with its line. Called from the event loop; must not raise."""

    def connected(self) -> None:
        """The broker takes and sends messages."""

    def disconnected(self) -> None:
        """The connection has ended; what was to be published is forgotten."""

    def received(
        self, kind: FromBoard, board: bytes | None, data: bytes, redelivered: bool
    ) -> None:
        """A message under the topic of `board`, or under one that names no board.

        `redelivered`: so soon after a connect that the broker may be repeating itself.
        """


class MqttLine:
    """Publishes and receives for one gateway; `run` it in a task of its own."""

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        name: str,
        handler: Handler,
        redelivery_grace_s: float = REDELIVERY_GRACE_S,
    ) -> None:
        """Prepare; nothing is opened before `run`.

        Args:
            broker: to connect to.
            topics: of this gateway.
            name: of this gateway; makes the client id under which the broker keeps the
                session, so that what arrives while we are away waits there.
            handler: gets what happens.
            redelivery_grace_s: see `Handler.received`.
        """
        self._broker = broker
        self._topics = topics
        self._name = name
        self._handler = handler
        self._grace_s = redelivery_grace_s
        self._grace_until = float("inf")
        self._outgoing: OrderedDict[tuple[str, int], tuple[bytes, bool]] = OrderedDict()
        self._wake = asyncio.Event()
        self._numbers = itertools.count(1)
        self._is_connected = False
        self._was_reached = True
        self.connections = 0
        self.dropped = 0

    @property
    def is_connected(self) -> bool:
        """Whether messages go to and fro."""
        return self._is_connected

    def publish(
        self, topic: str, data: bytes, *, retain: bool = False, latest: bool = True
    ) -> None:
        """Queue a message with QoS 1; without a connection it is dropped.

        Args:
            topic: where to.
            data: the payload.
            retain: whether the broker keeps it for those who subscribe later.
            latest: whether it replaces what still waits for the same topic.
        """
        if not self._is_connected:
            return
        key = (topic, 0 if latest else next(self._numbers))
        if key not in self._outgoing and len(self._outgoing) >= MAX_OUTGOING:
            self.dropped += 1
            return
        self._outgoing[key] = (data, retain)
        self._wake.set()

    async def run(self) -> None:
        """Connect, and connect again whenever the connection ends, until cancelled."""
        delay = BACKOFF_S[0]
        while True:
            try:
                await self._converse()
            except* (MqttError, GatewayError, OSError) as group:
                self._report_loss(group)
            _check_cancelled()
            if self._is_connected:
                delay = BACKOFF_S[0]
                self._close()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries
            delay = min(delay * 2, BACKOFF_S[1])

    async def _converse(self) -> None:
        """One connection, from its begin to its end."""
        broker = self._broker
        # The broker may send before we get to know that we are connected.
        self._grace_until = float("inf")
        client = _Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            tls_context=broker.context,
            identifier=f"fogline-gateway-{self._name}",
            clean_session=False,
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_TIMEOUT_S,
            logger=_library_log,
            queue_type=_handing_to(self),
        )
        try:
            async with client:
                await self._serve(client)
        finally:
            client.leave()

    async def _serve(self, client: Client) -> None:
        """Subscribe, then publish and receive until the connection ends."""
        broker = self._broker
        self._grace_until = time.monotonic() + self._grace_s
        codes = await client.subscribe([(topic, QOS) for topic in self._topics.filters])
        _check_cancelled()
        if any(_is_refusal(code) for code in codes):
            raise GatewayError(
                f"broker {broker.host}:{broker.port}: refuses our subscriptions; let this "
                f"user read {', '.join(self._topics.filters)}"
            )
        self._open()
        async with asyncio.TaskGroup() as group:
            for _ in range(PUBLISHERS):
                group.create_task(self._publish_for_ever(client))
            async for _ in client.messages:  # yields nothing, but raises at the end
                pass

    async def _publish_for_ever(self, client: Client) -> None:
        while True:
            while not self._outgoing:
                self._wake.clear()
                await self._wake.wait()
            (topic, _), (data, retain) = self._outgoing.popitem(last=False)
            await client.publish(topic, data, qos=QOS, retain=retain)
            _check_cancelled()

    def _open(self) -> None:
        self._is_connected = True
        self._was_reached = True
        self.connections += 1
        log.info("broker %s:%d: connected", self._broker.host, self._broker.port)
        self._handler.connected()

    def _close(self) -> None:
        self._is_connected = False
        self._outgoing.clear()
        self._handler.disconnected()

    def _report_loss(self, group: BaseExceptionGroup[Exception]) -> None:
        # Once, until it has been reached again: a broker may be away for long.
        level = logging.WARNING if self._was_reached else logging.DEBUG
        self._was_reached = False
        reason = "; ".join(dict.fromkeys(str(error) for error in group.exceptions))
        log.log(
            level,
            "broker %s:%d: %s; trying again until it answers. If it stays away, check that it "
            "runs and what [mqtt] says of it",
            self._broker.host,
            self._broker.port,
            reason,
        )

    def deliver(self, message: Message) -> None:
        """Hand a message on, as it comes in.

        Never raises: paho would end the connection before it acknowledges the message, and
        the broker would send the same one again for ever.
        """
        parsed = self._topics.parse(message.topic.value)
        if parsed is None:
            return
        kind, board = parsed
        is_early = time.monotonic() < self._grace_until
        try:
            self._handler.received(kind, board, message.payload, is_early)
        except Exception:
            log.exception("gateway: a message of %d bytes is dropped", len(message.payload))


class _Client(Client):
    """aiomqtt's client, where it is at odds with connections that end at any moment."""

    _is_left = False

    def _on_socket_register_write(self, client: Any, _userdata: Any, sock: Any) -> None:
        # aiomqtt 2.5 has the event loop watch the socket's number, in a moment: by then the
        # socket may be closed, and the number another one's.
        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - as there: it ends the connection
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def watch() -> None:
            if (number := sock.fileno()) >= 0:
                self._loop.add_writer(number, write)

        self._loop.call_soon_threadsafe(watch)

    def _client_connect(self) -> None:  # in a thread of its own
        super()._client_connect()
        if self._is_left:
            self._loop.call_soon_threadsafe(self._close_socket)

    def leave(self) -> None:
        """Close what is left of the connection, and take note of why it ended.

        aiomqtt leaves it open where the broker does not greet, where it is cancelled before that,
        and where what was read makes no sense; and nobody may have waited for its reason.
        """
        self._is_left = True
        # After what waits for its turn: it may be that the socket is to be watched.
        self._loop.call_soon(self._close_socket)
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()

    def _close_socket(self) -> None:
        self._client._sock_close()  # noqa: SLF001 - paho offers no way to hang up


def _handing_to(line: MqttLine) -> type[asyncio.Queue[Message]]:
    """A queue for aiomqtt that hands each message to `line` at once.

    aiomqtt's iterator starts a task per message, which would cost more than the signature
    check; its queue is unbounded or drops without telling us. The intake's is ours.
    """

    class HandOver(asyncio.Queue[Message]):
        def put_nowait(self, item: Message) -> None:
            line.deliver(item)

    return HandOver


def _check_cancelled() -> None:
    """Raise CancelledError where the task was asked to end; call after aiomqtt was awaited.

    It waits by asyncio.wait_for, which up to Python 3.11 loses a cancellation that comes
    together with the answer (python/cpython#86296). And leaving its client raises MqttError when
    the broker closes first, in place of the CancelledError that made us leave.
    """
    task = asyncio.current_task()
    assert task is not None
    if task.cancelling():
        raise asyncio.CancelledError


def _is_refusal(code: Any) -> bool:
    """Whether an answer to a subscription, an int or paho's ReasonCode, says no."""
    return bool(getattr(code, "value", code) >= _REFUSED_SUBSCRIPTION)
