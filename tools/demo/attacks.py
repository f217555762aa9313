"""Four forgeries that a gateway must refuse, each sent as an attacker at the line would."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import cbor2

from fog_node.gateway.serial_frame import LINK, Decoder
from fog_node.gateway.serial_frame import encode as encode_frame
from fog_node.gateway.serial_port import Kind
from fog_node.gateway.serial_session import Session
from fog_node.protocol import senml
from fog_node.protocol.cbor import encode
from fog_node.protocol.cose import TAG_SIGN1, sign1
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Transaction
from tools.errors import ToolError

from .cable import plugged

QOS_AT_LEAST_ONCE = 1
ATTACK_TIMEOUT_S = 30.0
TURN_S = 0.005
HELLO_TURNS = 50
READ_BYTES = 4096


@dataclass(frozen=True)
class BrokerAddress:
    """How to reach the broker; without `ca` it is spoken to without TLS."""

    host: str
    port: int
    ca: Path | None
    username: str | None = None
    password_file: Path | None = None

    def client(self, identifier: str) -> aiomqtt.Client:
        """An MQTT client for it."""
        context = None
        if self.ca is not None:
            context = ssl.create_default_context(cafile=str(self.ca))
        password = self.password_file.read_text().strip() if self.password_file else None
        return aiomqtt.Client(
            self.host,
            self.port,
            identifier=identifier,
            tls_context=context,
            username=self.username,
            password=password,
        )


def forge(old: Transaction, chain_id: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Make the forgeries from a final pack that its board has dropped.

    Returns:
        By the cause that the gateway must name: key id of the topic, and the message.
    """
    message = old.message
    stranger = SigningKey.generate()
    unsigned = _sign1(message.protected, message.payload, stranger.sign(b"not this message"))
    records = cbor2.loads(message.payload)
    records[0][senml.VALUE] += 1.0
    altered = cbor2.dumps(records, canonical=True)
    records[0][senml.BASE_NAME] = senml.base_name(32473, stranger.kid)
    foreign = sign1(
        stranger,
        senml.CONTENT_TYPE,
        cbor2.dumps(records, canonical=True),
        chain_id,
        sequence=1,
        dropped=0,
    )
    return {
        "bad_signature": (message.kid, unsigned),
        "tampered": (message.kid, _sign1(message.protected, altered, message.signature)),
        "replayed": (message.kid, message.raw),
        "unknown_device": (stranger.kid, foreign),
    }


async def plug_in(device: Path, device_type: str, kid: bytes, message: bytes) -> None:
    """Plug something into a gateway's serial port that says it is the board `kid`, and speaks.

    Raises:
        ToolError: the gateway does not take it.
    """
    session = Session(
        window_bytes=4096, segment_bytes=500, max_message_bytes=65536, keepalive_ms=5000
    )
    try:
        with plugged(device) as number:
            async with asyncio.timeout(ATTACK_TIMEOUT_S):
                await _say(session, number, device_type, kid, message)
    except TimeoutError as error:
        raise ToolError(f"{device}: the gateway does not take what is sent there") from error


async def _say(session: Session, number: int, device_type: str, kid: bytes, message: bytes) -> None:
    """Begin a session, send the message and wait until it was acknowledged."""
    decoder = Decoder()
    has_sent = False
    for turn in itertools.count():
        if not session.is_up and turn % HELLO_TURNS == 0:
            session.begin()
        now = time.monotonic_ns() // 1_000_000
        with contextlib.suppress(BlockingIOError):
            for channel, body in decoder.feed(os.read(number, READ_BYTES)):
                if channel == LINK:
                    session.receive(body, now)
        if has_sent and not session.is_up:
            raise ToolError("the gateway has ended the session; see its log")
        if session.is_up and not has_sent:
            hello = {"kid": kid, "type": device_type, "firmware": device_type}
            session.send(bytes([Kind.BOARD]) + encode(hello))
            session.send(bytes([Kind.UP]) + message)
            has_sent = True
        while (packet := session.next_packet(now)) is not None:
            os.write(number, encode_frame(LINK, packet))
        if has_sent and not session.queued:
            return
        await asyncio.sleep(TURN_S)


async def send(broker: BrokerAddress, gateway: str, kid: bytes, message: bytes) -> None:
    """Publish a message as if it came from the board `kid`."""
    async with broker.client("attacker") as client:
        topic = f"fogline/{gateway}/up/{kid.hex()}"
        await client.publish(topic, message, qos=QOS_AT_LEAST_ONCE)


def _sign1(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    tag = cbor2.CBORTag(TAG_SIGN1, [protected, {}, payload, signature])
    return cbor2.dumps(tag, canonical=True)
