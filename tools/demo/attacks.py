"""Four forgeries that a gateway must refuse, each sent as an attacker at the broker would."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import cbor2

from fog_node.protocol import senml
from fog_node.protocol.cose import TAG_SIGN1, sign1
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Transaction

QOS_AT_LEAST_ONCE = 1


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


async def send(broker: BrokerAddress, gateway: str, kid: bytes, message: bytes) -> None:
    """Publish a message as if it came from the board `kid`."""
    async with broker.client("attacker") as client:
        topic = f"fogline/{gateway}/up/{kid.hex()}"
        await client.publish(topic, message, qos=QOS_AT_LEAST_ONCE)


def _sign1(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    tag = cbor2.CBORTag(TAG_SIGN1, [protected, {}, payload, signature])
    return cbor2.dumps(tag, canonical=True)
