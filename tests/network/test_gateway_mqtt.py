"""The gateway against a real Mosquitto, with a real ledger behind it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import random
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from support.half_open import HalfOpenWay
from support.processes import HOST, executable, mosquitto
from support.small_chain import DEVICE_TYPE, GATEWAY_NAME, SmallChain
from support.station import Station

from fog_node.errors import ConfigurationError
from fog_node.gateway import mqtt
from fog_node.gateway.mqtt import Broker, broker_context
from fog_node.gateway.topics import Topics
from fog_node.network.certificates import issue, make_authority
from fog_node.protocol import senml
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.cose import sign1
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.receipt import decode_receipt, receipt_key
from tools.demo.processes import free_port

DEADLINE_S = 60
PASSWORD = "correct horse"
BASE = f"fogline/{GATEWAY_NAME}"


class Board:
    """A board's side of MQTT, played by the test."""

    def __init__(self, key, chain, client):
        self.key = key
        self.client = client
        gateway = chain.gateway.public
        self._chain_id = chain.founding.chain_id
        self._agreed = receipt_key(key, gateway, gateway.kid, key.kid, self._chain_id)
        self.receipts = asyncio.Queue()
        self.chunks = asyncio.Queue()
        self.announcements = asyncio.Queue()

    async def listen(self):
        async for message in self.client.messages:
            topic = message.topic.value
            if topic == f"{BASE}/receipt/{self.key.kid.hex()}":
                receipt = decode_receipt(message.payload, self._agreed, self._chain_id)
                self.receipts.put_nowait(receipt)
            elif topic == f"{BASE}/blob/{self.key.kid.hex()}":
                self.chunks.put_nowait(decode(message.payload, 8192))
            elif topic == f"{BASE}/release/{DEVICE_TYPE}":
                self.announcements.put_nowait((decode(message.payload, 512), message.retain))

    async def send(self, data, topic=None):
        topic = topic or f"{BASE}/up/{self.key.kid.hex()}"
        await self.client.publish(topic, data, qos=1, timeout=DEADLINE_S)

    async def say(self, state):
        status = encode(
            {"state": state, "next": 1, "model": None, "firmware": "test", "nonce": bytes(8)}
        )
        await self.client.publish(f"{BASE}/status/{self.key.kid.hex()}", status, qos=1, retain=True)

    async def ask(self, sha256, offset, length):
        topic = f"{BASE}/get/{self.key.kid.hex()}"
        await self.client.publish(topic, encode([sha256, offset, length]), qos=1)

    async def receipt(self, next_):
        """Wait for a receipt up to `next_`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                receipt = await self.receipts.get()
                if receipt.next >= next_:
                    return receipt


@contextlib.asynccontextmanager
async def connected(key, chain, port):
    async with aiomqtt.Client(HOST, port, identifier=key.kid.hex(), timeout=DEADLINE_S) as client:
        board = Board(key, chain, client)
        kid = key.kid.hex()
        for topic in (f"receipt/{kid}", f"blob/{kid}", f"release/{DEVICE_TYPE}"):
            await client.subscribe(f"{BASE}/{topic}", qos=1)
        listening = asyncio.create_task(board.listen())
        try:
            yield board
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@pytest.fixture
def key():
    return SigningKey.from_secret(1000)


@pytest.fixture
def other_key():
    return SigningKey.from_secret(1001)


@pytest.fixture
def chain(tmp_path, key, other_key):
    chain = SmallChain(tmp_path / "ledger")
    chain.enrol(key, other_key)
    yield chain
    chain.ledger.close()


@pytest.fixture
async def broker(tmp_path):
    async with mosquitto(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
async def station(chain, tmp_path, broker):
    async with Station(chain, tmp_path, Broker(HOST, broker.port)) as station:
        await station.until_connected()
        yield station


@pytest.fixture
async def board(key, chain, station, broker):
    async with connected(key, chain, broker.port) as board:
        yield board


def altered(transaction, value):
    """The same envelope and signature over another reading."""
    device = transaction.signer
    readings = [(0, [("pressure", "bar", value)])]
    payload = senml.encode_pack(32473, device, 1_700_000_000, readings)
    protected, _, _, signature = cbor2.loads(transaction.raw).value
    return encode(cbor2.CBORTag(18, [protected, {}, payload, signature]))


async def test_packs_are_taken_passed_on_and_receipted(station, board, key, chain):
    await board.say("online")
    assert (await board.receipt(1)).next == 1
    packs = [chain.pack(key, n) for n in range(1, 21)]
    for pack in packs:
        await board.send(pack.raw)
    await station.until_admitted(20)
    assert {transaction.id for transaction in station.passed_on} == {pack.id for pack in packs}
    station.seal()
    receipt = await board.receipt(21)
    assert (receipt.next, receipt.height) == (21, chain.ledger.height)


async def test_a_repetition_is_answered_with_a_receipt(station, board, key, chain):
    pack = chain.pack(key, 1).raw
    await board.send(pack)
    await station.until_admitted(1)
    station.seal()
    await board.receipt(2)
    await board.send(pack)
    assert (await board.receipt(2)).next == 2
    assert station.incidents() == []


async def test_every_refusal_is_an_incident_that_names_its_cause(
    station, board, key, other_key, chain, broker
):
    stranger = SigningKey.from_secret(77)
    revoked = SigningKey.from_secret(78)
    chain.enrol(revoked)
    first, second = chain.pack(key, 1), chain.pack(key, 2, dropped=2)
    await board.send(first.raw)
    await board.send(second.raw)
    await station.until_admitted(2)
    station.seal()
    chain.revoke(revoked.kid)
    foreign = sign1(
        key, senml.CONTENT_TYPE, cbor2.loads(second.raw).value[2], bytes(32), sequence=3, dropped=2
    )
    own = f"{BASE}/up/{key.kid.hex()}"
    refused = {
        "bad_signature": (foreign, own),
        "tampered": (altered(first, 9.0), own),
        "replayed": (first.raw, own),
        "unknown_device": (chain.pack(stranger, 1).raw, f"{BASE}/up/{stranger.kid.hex()}"),
        "revoked_device": (chain.pack(revoked, 1).raw, f"{BASE}/up/{revoked.kid.hex()}"),
        "conflict": (chain.pack(key, 2, value=3.0).raw, own),
        "malformed": (b"no CBOR at all", own),
        "implausible": (chain.pack(key, 3, value=11.0).raw, own),
        "oversized": (bytes(24 * 1024 + 1), own),
        "wrong_topic": (chain.pack(key, 3).raw, f"{BASE}/up/{other_key.kid.hex()}"),
    }
    for data, topic in refused.values():
        await board.send(data, topic)
    await station.until(lambda counts: counts.quarantined == len(refused))
    told = {incident.cause: incident for incident in station.incidents()}
    assert told.keys() == refused.keys()
    ((one, other),) = station.cloned
    assert (one.raw, other.sequence) == (refused["conflict"][0], 2)
    for cause, (data, _) in refused.items():
        digest = hashlib.sha256(data).digest()
        assert told[cause].digest == digest, cause
        assert told[cause].size == len(data)
        assert told[cause].detail
        assert any(digest.hex() in file.name for file in station.quarantine.iterdir())
    assert told["tampered"].device == key.kid
    assert told["unknown_device"].device == stranger.kid
    counts = station.gateway.counts()
    assert counts.reported == dict.fromkeys(refused, 1)
    assert counts.messages["admitted"] == 2


async def test_ten_mebibytes_are_refused_and_the_next_pack_is_taken(station, board, key, chain):
    await board.send(bytes(10 * 1024 * 1024))
    await board.send(chain.pack(key, 1).raw)
    await station.until_admitted(1)
    await station.until(lambda counts: counts.quarantined == 1)
    (incident,) = station.incidents()
    assert (incident.cause, incident.size) == ("oversized", 10 * 1024 * 1024)
    assert "at most 24576" in incident.detail


async def test_a_flood_of_garbage_stops_nothing_and_fills_nothing(station, board, key, chain):
    seed = 20260103
    print(f"seed {seed}")
    generator = random.Random(seed)
    topics = Topics(GATEWAY_NAME).filters
    flood = 1500
    for _ in range(flood):
        level = generator.choice([key.kid.hex(), generator.randbytes(8).hex(), "x", ""])
        topic = generator.choice(topics).replace("+", level)
        await board.client.publish(topic, generator.randbytes(generator.randrange(200)), qos=0)
    await board.send(chain.pack(key, 1).raw)
    await station.until_admitted(1)
    counts = station.gateway.counts()
    handled = sum(counts.messages.values()) + counts.unreadable
    assert handled == flood + 1
    assert counts.messages["refused"] > 300
    assert len(station.incidents()) == sum(counts.reported.values()) < 50
    assert counts.suppressed["malformed"] > 300


async def test_a_broker_that_is_killed_and_comes_back_loses_nothing(
    station, key, chain, broker, caplog
):
    packs = [chain.pack(key, n).raw for n in range(1, 41)]
    async with connected(key, chain, broker.port) as board:
        await board.say("online")
        await board.receipt(1)
        for pack in packs[:20]:
            await board.send(pack)
        await station.until_admitted(20)
        await broker.kill()
        await station.until(lambda counts: not counts.connected)
        station.seal()  # the daemon goes on meanwhile; this receipt reaches nobody
        with pytest.raises(aiomqtt.MqttError):
            await board.send(packs[20])
    await broker.start()
    await station.until_connected()
    async with connected(key, chain, broker.port) as board:
        await board.say("online")
        assert (await board.receipt(21)).next == 21
        for pack in packs[10:]:  # a board sends again what it has no receipt for
            await board.send(pack)
        await station.until_admitted(40)
        station.seal()
        await board.receipt(41)
    assert station.incidents() == []
    assert "trying again" in caplog.text


async def test_a_way_that_goes_dead_without_a_word_loses_nothing(
    chain, tmp_path, broker, key, monkeypatch
):
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 2)
    packs = [chain.pack(key, n).raw for n in range(1, 31)]
    async with (
        HalfOpenWay(broker.port) as way,
        Station(chain, tmp_path, Broker(HOST, way.port)) as station,
        connected(key, chain, broker.port) as board,
    ):
        await station.until_connected()
        for number, pack in enumerate(packs):
            if number == 10:
                await station.until_admitted(number)
                way.go_dead()
            await board.send(pack)
        await station.until_admitted(30)
        await station.until_connected()  # what waited comes before the subscription is granted
        station.seal()
        assert (await board.receipt(31)).next == 31
        assert way.connections >= 2
        assert station.incidents() == []
        assert station.gateway.counts().messages["admitted"] == 30


async def test_what_arrives_while_the_gateway_is_away_waits_at_the_broker(
    chain, tmp_path, broker, key
):
    first, second = chain.pack(key, 1), chain.pack(key, 2, dropped=2)
    address = Broker(HOST, broker.port)
    async with Station(chain, tmp_path, address) as station:
        await station.until_connected()
        async with connected(key, chain, broker.port) as board:
            await board.send(first.raw)
            await station.until_admitted(1)
    async with connected(key, chain, broker.port) as board:
        await board.send(second.raw)
        await board.send(first.raw)  # as a broker that lost our acknowledgement repeats it
        async with Station(chain, tmp_path, address, grace_s=DEADLINE_S) as station:
            await station.until_admitted(1)
            await station.until(lambda counts: counts.messages.get("repeated") == 1)
            assert station.incidents() == []
            assert chain.ledger.state.devices[key.kid].next == 3


async def test_a_release_is_announced_and_fetched(station, board, chain, broker, other_key):
    release, data = chain.bundle()
    station.blobs.put(data)
    station.gateway.committed(chain.seal(release))
    async with asyncio.timeout(DEADLINE_S):
        told, _ = await board.announcements.get()
        received = b""
        while len(received) < told["size"]:
            await board.ask(told["bundle"], len(received), 4096)
            _, offset, total, chunk = await board.chunks.get()
            assert (offset, total) == (len(received), len(data))
            received += chunk
        assert received == data
        # A board that comes later finds the announcement at the broker.
        async with connected(other_key, chain, broker.port) as later:
            assert await later.announcements.get() == (told, True)


async def test_a_release_is_announced_again_to_a_broker_that_forgot(
    station, chain, broker, key, tmp_path
):
    release, data = chain.bundle()
    station.gateway.committed(chain.seal(release))
    await broker.kill()
    await station.until(lambda counts: not counts.connected)
    for file in (tmp_path / "broker").glob("*.db"):
        file.unlink()
    station.blobs.put(data)
    station.gateway.bundle_arrived()
    await broker.start()
    await station.until_connected()
    async with connected(key, chain, broker.port) as board, asyncio.timeout(DEADLINE_S):
        told, _ = await board.announcements.get()
        assert told["version"] == 1


async def test_a_defect_of_ours_costs_one_message_and_not_the_connection(
    station, board, key, chain, monkeypatch, caplog
):
    received = station.gateway.received

    def defective(kind, kid, data, redelivered):
        if data == b"trigger":
            raise RuntimeError("a defect of ours")
        received(kind, kid, data, redelivered)

    monkeypatch.setattr(station.gateway, "received", defective)
    await board.send(b"trigger")
    await board.send(chain.pack(key, 1).raw)
    await station.until_admitted(1)
    assert "a defect of ours" in caplog.text
    assert station.gateway.counts().connected


async def test_boards_are_counted_while_they_are_here(station, board):
    await board.say("online")
    await station.until(lambda counts: counts.boards == 1)
    await board.say("offline")
    await station.until(lambda counts: counts.boards == 0)


async def test_no_broker_at_all_stops_nothing(chain, tmp_path, caplog):
    async with Station(chain, tmp_path, Broker(HOST, free_port())) as station:
        await station.until(lambda _: "trying again" in caplog.text)
        station.gateway.committed(chain.seal())
        assert not station.gateway.counts().connected


@dataclass
class Tls:
    """Files of a broker's certificate, as the consortium's authority issues it."""

    ca_pem: Path
    pem: Path
    key: Path
    authority: bytes


@pytest.fixture
def tls(tmp_path):
    now = dt.datetime.now(dt.UTC)
    authority_key, broker_key = SigningKey.generate(), SigningKey.generate()
    authority = make_authority(authority_key, "test", now)
    certificate = issue(authority, authority_key, broker_key, "broker", now, hosts=[HOST])
    pem = serialization.Encoding.PEM
    files = Tls(
        tmp_path / "ca.pem",
        tmp_path / "broker.pem",
        tmp_path / "broker.key",
        authority.public_bytes(serialization.Encoding.DER),
    )
    files.ca_pem.write_bytes(authority.public_bytes(pem))
    files.pem.write_bytes(certificate.public_bytes(pem))
    files.key.write_bytes(broker_key.to_pem())
    return files


@pytest.fixture
async def secure_broker(tmp_path, tls):
    """Mosquitto that wants TLS and knows the user `gateway`."""
    directory = tmp_path / "secure"
    async with mosquitto(directory, tls) as broker:
        await broker.kill()
        users = _password_file(directory / "users")
        config = directory / "mosquitto.conf"
        text = config.read_text().replace("allow_anonymous true", "allow_anonymous false")
        config.write_text(f"{text}password_file {users}\n")
        await broker.start()
        yield broker


def _password_file(path):
    path.touch(mode=0o600)
    command = [executable("mosquitto_passwd"), "-b", str(path), "gateway", PASSWORD]
    subprocess.run(command, check=True, timeout=DEADLINE_S)
    return path


@pytest.mark.parametrize("by_file", [False, True])
async def test_tls_with_a_user_and_a_password(chain, tmp_path, tls, secure_broker, by_file):
    context = broker_context(tls.ca_pem if by_file else None, tls.authority)
    broker = Broker(HOST, secure_broker.port, context, "gateway", PASSWORD)
    async with Station(chain, tmp_path, broker) as station:
        await station.until_connected()


async def test_a_wrong_password_is_reported_and_tried_again(
    chain, tmp_path, tls, secure_broker, caplog
):
    context = broker_context(tls.ca_pem, b"")
    broker = Broker(HOST, secure_broker.port, context, "gateway", "wrong")
    async with Station(chain, tmp_path, broker) as station:
        await station.until(lambda _: "trying again" in caplog.text)
    assert "not authori" in caplog.text.lower() or "password" in caplog.text.lower()
    assert "wrong" not in repr(broker)


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_broker_of_another_authority_is_not_spoken_to(
    chain, tmp_path, secure_broker, caplog
):
    now = dt.datetime.now(dt.UTC)
    other = make_authority(SigningKey.generate(), "other", now)
    context = broker_context(None, other.public_bytes(serialization.Encoding.DER))
    broker = Broker(HOST, secure_broker.port, context, "gateway", PASSWORD)
    async with Station(chain, tmp_path, broker) as station:
        await station.until(lambda _: "trying again" in caplog.text)
        assert not station.gateway.counts().connected
    assert "certificate verify failed" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
@pytest.mark.parametrize("what", ["name", "date"])
async def test_a_broker_with_another_name_or_of_yesterday_is_not_spoken_to(
    chain, tmp_path, caplog, what
):
    now = dt.datetime.now(dt.UTC)
    authority_key, broker_key = SigningKey.generate(), SigningKey.generate()
    authority = make_authority(authority_key, "test", now)
    made = now - dt.timedelta(days=30) if what == "date" else now
    host = "elsewhere.test" if what == "name" else HOST
    days = 29 if what == "date" else 30
    certificate = issue(
        authority, authority_key, broker_key, "broker", made, hosts=[host], days=days
    )
    pem = serialization.Encoding.PEM
    der = authority.public_bytes(serialization.Encoding.DER)
    files = Tls(tmp_path / "ca.pem", tmp_path / "b.pem", tmp_path / "b.key", der)
    files.ca_pem.write_bytes(authority.public_bytes(pem))
    files.pem.write_bytes(certificate.public_bytes(pem))
    files.key.write_bytes(broker_key.to_pem())
    async with mosquitto(tmp_path / "other", files) as broker:
        address = Broker(HOST, broker.port, broker_context(None, der))
        async with Station(chain, tmp_path, address) as station:
            await station.until(lambda _: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
            assert not station.gateway.counts().connected
    assert ("mismatch" if what == "name" else "expired") in caplog.text


def test_a_certificate_authority_that_cannot_be_read_is_named(tmp_path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigurationError, match=r"\[mqtt\] ca .*missing.pem"):
        broker_context(missing, b"")
    with pytest.raises(ConfigurationError, match="authority"):
        broker_context(None, b"no certificate")


def test_a_context_checks_the_name_of_the_broker(tls):
    context = broker_context(tls.ca_pem, b"")
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
