"""Peers over real mutual TLS: who gets in, what is not listened to, what survives it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.consortium import found

from fog_node.blobs import BlobError
from fog_node.network import certificates, peers, score, wire
from fog_node.network.peers import Peer, PeerNetwork
from fog_node.protocol.errors import FormatError
from fog_node.protocol.keys import SigningKey
from tools.consortium import Consortium, issue_certificate, load_key
from tools.demo.processes import free_port

HOST = "127.0.0.1"
DEADLINE_S = 60.0
NAMES = ("seoul", "busan", "daegu")
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(peers, "STATUS_INTERVAL_S", 0.05)
    monkeypatch.setattr(peers, "DIAL_BACKOFF_S", (0.02, 0.1))


class Endpoint:
    """A node's peer network, and what it told its handler."""

    def __init__(self, consortium: Consortium, name: str, *dials: Endpoint) -> None:
        self.name = name
        self.kid = consortium.signing_key(name).kid
        self.port = free_port()
        self.joined: list[str] = []
        self.left: list[str] = []
        self.messages: list[wire.Message] = []
        self.revoked: set[bytes] = set()
        self.failure: Exception | None = None
        self._founding = consortium.founding
        own = consortium.member_directory(name)
        files = (own / "tls.crt", own / "tls.key")
        authority = self._founding.authority
        self._contexts = (
            certificates.server_context(authority, *files),
            certificates.client_context(authority, *files),
        )
        self.network = self._make(dials)

    def _make(self, dials: tuple[Endpoint, ...]) -> PeerNetwork:
        return PeerNetwork(
            self.kid,
            hello(self._founding.chain_id, self.name),
            self._contexts,
            {other.name: (HOST, other.port) for other in dials},
            self,
            self,
            lambda: STATUS,
        )

    def dial(self, *others: Endpoint) -> None:
        """Say whom to dial; before `start`."""
        self.network = self._make(others)

    async def start(self) -> Endpoint:
        await self.network.start(HOST, self.port)
        return self

    def authorise(self, certificate: certificates.PeerCertificate, dialled: bool) -> str | None:
        member = self._founding.member(certificate.kid)
        return member.name if member and certificate.kid not in self.revoked else None

    def kid_of(self, name: str) -> bytes | None:
        return next((m.kid for m in self._founding.members if m.name == name), None)

    def peer_joined(self, peer: Peer) -> None:
        self.joined.append(peer.name)

    def peer_left(self, peer: Peer) -> None:
        self.left.append(peer.name)

    async def peer_message(self, peer: Peer, message: wire.Message) -> None:
        if isinstance(message, wire.Status):
            return
        if self.failure is not None:
            raise self.failure
        self.messages.append(message)


STATUS = wire.Status(1, bytes(32), 0, -1, False, [], [])


def hello(chain_id: bytes, name: str) -> wire.Hello:
    return wire.Hello(wire.PROTOCOL_VERSION, chain_id, name)


async def until(condition, what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - the network has no event to wait for
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited in vain until {what}") from None


@contextlib.asynccontextmanager
async def running(*endpoints: Endpoint):
    """Start them, and stop them however the test went."""
    try:
        await asyncio.gather(*(endpoint.start() for endpoint in endpoints))
        yield
    finally:
        await asyncio.gather(*(endpoint.network.stop() for endpoint in endpoints))


@pytest.fixture
def consortium(tmp_path):
    return found(tmp_path / "c", NAMES)


@pytest.fixture
async def target(consortium):
    """A node that only listens; when the test is done it must still take an honest peer."""
    endpoint = Endpoint(consortium, "seoul")
    async with running(endpoint):
        yield endpoint
        honest = Endpoint(consortium, "daegu", endpoint)
        async with running(honest):
            await until(
                lambda: honest.joined and "daegu" in endpoint.joined, "an honest peer is in"
            )
            message = wire.GetBlocks(7)
            honest.network.broadcast(message)
            await until(lambda: message in endpoint.messages, "it is listened to")


class Intruder:
    """A TLS connection of whoever has these files, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, target: Endpoint, authority: bytes, directory: Path | None) -> Intruder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority)
        if directory is not None:
            context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
        return cls(
            *await asyncio.open_connection(
                HOST, target.port, ssl=context, server_hostname=certificates.SERVER_NAME
            )
        )

    @classmethod
    async def member(cls, target: Endpoint, consortium: Consortium, name: str) -> Intruder:
        """Connect with a member's files and greet."""
        intruder = await cls.connect(
            target, consortium.founding.authority, consortium.member_directory(name)
        )
        intruder.send(hello(consortium.founding.chain_id, name))
        return intruder

    def send(self, message: wire.Message) -> None:
        self.writer.write(wire.encode_message(message))

    async def closed(self) -> bytes:
        """Wait until the other side has closed; returns what it sent."""
        received = b""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while piece := await self.reader.read(65536):
                    received += piece
        except OSError:  # a reset, or a TLS alert
            pass
        self.writer.transport.abort()
        return received


async def refused(target: Endpoint, authority: bytes, directory: Path | None) -> None:
    """Connect with these files, and see that nothing is said to who shows them."""
    intruder = await Intruder.connect(target, authority, directory)
    assert await intruder.closed() == b""
    assert target.network.peers == []


# One connection per pair


async def test_two_that_dial_at_once_keep_one_connection(consortium, monkeypatch) -> None:
    barrier = asyncio.Barrier(2)
    dialled: list[int] = []
    really = asyncio.open_connection

    async def at_once(host, port, **options):
        if len(dialled) < 2:
            dialled.append(port)
            await barrier.wait()
        return await really(host, port, **options)

    monkeypatch.setattr(peers.asyncio, "open_connection", at_once)
    one, two = Endpoint(consortium, "seoul"), Endpoint(consortium, "busan")
    one.dial(two)
    two.dial(one)
    async with running(one, two):

        def settled() -> bool:
            (ours, theirs) = (one.network.peers, two.network.peers)
            return (
                len(ours) == len(theirs) == 1
                and ours[0].dialled != theirs[0].dialled
                and all(len(e.joined) - len(e.left) == 1 for e in (one, two))
            )

        await until(lambda: len(dialled) == 2 and settled(), "one connection is left")
        assert sorted(dialled) == sorted((one.port, two.port))
        one.network.broadcast(wire.GetBlocks(1))
        two.network.broadcast(wire.GetBlocks(2))
        await until(lambda: two.messages == [wire.GetBlocks(1)], "the first is heard")
        await until(lambda: one.messages == [wire.GetBlocks(2)], "the second is heard")
        assert settled()
        assert one.network.refused == two.network.refused == 0


async def test_a_node_that_was_restarted_is_connected_again(consortium) -> None:
    one, two = Endpoint(consortium, "seoul"), Endpoint(consortium, "busan")
    one.dial(two)
    async with running(one):
        for times in (1, 2, 3):
            await two.start()
            await until(lambda n=times: len(one.joined) == n, "it is connected")
            await two.network.stop()
            await until(lambda n=times: len(one.left) == n, "it is gone")
            two.dial()


async def test_another_node_than_the_configured_one_is_not_talked_to(consortium) -> None:
    one, two, three = (Endpoint(consortium, name) for name in NAMES)
    two.port = three.port
    one.dial(two)
    async with running(one, three):
        await until(lambda: one.network.refused > 0, "it is refused")
        assert one.joined == three.joined == []


async def test_a_port_in_use_is_named(consortium) -> None:
    one, two = Endpoint(consortium, "seoul"), Endpoint(consortium, "busan")
    async with running(one):
        with pytest.raises(peers.NetworkError, match=rf"\[peer\] listen {HOST}:{one.port}: .*free"):
            await two.network.start(HOST, one.port)


# Who gets in


@pytest.mark.parametrize(
    "data", [random.Random(1).randbytes(4096), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""]
)
async def test_what_is_no_tls_is_refused(target, data, monkeypatch) -> None:
    with monkeypatch.context() as quick:
        quick.setattr(peers, "HANDSHAKE_TIMEOUT_S", 0.5)  # what says nothing is closed after it
        reader, writer = await asyncio.open_connection(HOST, target.port)
        writer.write(data)
        await Intruder(reader, writer).closed()
    assert target.joined == []


async def test_a_client_without_a_certificate_is_refused(target, consortium) -> None:
    await refused(target, consortium.founding.authority, None)


async def test_a_certificate_of_another_authority_is_refused(target, consortium, tmp_path) -> None:
    now = dt.datetime.now(dt.UTC)
    key = SigningKey.generate()
    authority = certificates.make_authority(key, "test", now)
    write_certificate(tmp_path, consortium, authority, key, now)
    await refused(target, consortium.founding.authority, tmp_path)


async def test_an_expired_certificate_is_refused(target, consortium, tmp_path) -> None:
    authority = x509.load_der_x509_certificate(consortium.founding.authority)
    key = load_key(consortium.directory / "authority" / "ca.key")
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    write_certificate(tmp_path, consortium, authority, key, begin, days=1)
    await refused(target, consortium.founding.authority, tmp_path)


def write_certificate(
    directory: Path,
    consortium: Consortium,
    authority: x509.Certificate,
    key: SigningKey,
    now: dt.datetime,
    days: int = 1,
) -> None:
    """Write a certificate that names the member busan, and its key."""
    tls_key = SigningKey.generate()
    kid = consortium.signing_key("busan").kid
    issued = certificates.issue(authority, key, tls_key, "busan", now, member=kid, days=days)
    (directory / "tls.key").write_bytes(tls_key.to_pem())
    (directory / "tls.crt").write_bytes(issued.public_bytes(serialization.Encoding.PEM))


async def test_a_certificate_that_names_no_member_is_refused(target, consortium, tmp_path) -> None:
    issue_certificate(consortium, "broker", tmp_path / "broker")
    await refused(target, consortium.founding.authority, tmp_path / "broker")
    assert target.network.refused == 1


async def test_a_certificate_of_the_node_itself_is_refused(target, consortium) -> None:
    own = consortium.member_directory("seoul")
    await refused(target, consortium.founding.authority, own)
    assert target.network.refused == 1


async def test_a_revoked_member_is_refused(target, consortium) -> None:
    target.revoked.add(consortium.signing_key("busan").kid)
    await refused(target, consortium.founding.authority, consortium.member_directory("busan"))
    assert target.network.refused == 1


class Pauses:
    """Stands in for `random`: short pauses, and a record of those that were asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def uniform(self, *_: float) -> Pauses:
        return self

    def __rmul__(self, pause_s: float) -> float:
        self.asked.append(pause_s)
        return 0.001


async def test_who_is_refused_again_and_again_dials_less_and_less(
    target, consortium, monkeypatch
) -> None:
    pauses = Pauses()
    monkeypatch.setattr(peers, "random", pauses)
    target.revoked.add(consortium.signing_key("busan").kid)
    outcast = await Endpoint(consortium, "busan", target).start()
    try:
        await until(lambda: len(pauses.asked) >= 5, "it has dialled some times")
        assert pauses.asked[:5] == [0.02, 0.04, 0.08, 0.1, 0.1]
        assert target.network.refused >= 4
    finally:
        await outcast.network.stop()


async def test_a_member_that_is_revoked_while_connected_is_cut_off(target, consortium) -> None:
    intruder = await Intruder.member(target, consortium, "busan")
    await until(lambda: target.joined == ["busan"], "it is connected")
    target.network.drop_unauthorised()
    assert len(target.network.peers) == 1
    target.revoked.add(consortium.signing_key("busan").kid)
    target.network.drop_unauthorised()
    await intruder.closed()
    await until(lambda: target.left == ["busan"], "it is gone")


@pytest.mark.parametrize(
    "first",
    [
        hello(bytes(32), "busan"),  # another founding file
        wire.Hello(wire.PROTOCOL_VERSION + 1, bytes(32), "busan"),
        wire.GetBlocks(1),
    ],
)
async def test_who_does_not_greet_properly_is_refused(target, consortium, first) -> None:
    directory = consortium.member_directory("busan")
    intruder = await Intruder.connect(target, consortium.founding.authority, directory)
    intruder.send(first)
    await intruder.closed()
    assert target.joined == []
    assert target.network.refused == 1


# What is not listened to

JUNK_FRAMES = {
    "too long": wire.LENGTH.pack(wire.MAX_FRAME_BYTES + 1),
    "longest number": b"\xff" * 4,
    "no CBOR": wire.LENGTH.pack(4) + b"\xff\x00\xff\x00",
    "empty": wire.LENGTH.pack(0),
    "no message": wire.LENGTH.pack(1) + b"\xf6",
    "unknown message": wire.LENGTH.pack(6) + b"\x81\x64what",
    "hello again": wire.encode_message(hello(bytes(32), "busan")),
}


@pytest.mark.parametrize("frame", JUNK_FRAMES.values(), ids=JUNK_FRAMES.keys())
async def test_who_sends_junk_is_not_listened_to_for_a_while(target, consortium, frame) -> None:
    intruder = await Intruder.member(target, consortium, "busan")
    await until(lambda: target.joined == ["busan"], "it is connected")
    intruder.writer.write(frame)
    await intruder.closed()
    await until(lambda: target.left == ["busan"], "it is gone")
    again = await Intruder.member(target, consortium, "busan")
    assert await again.closed() == b""
    assert target.joined == ["busan"]
    assert target.network.refused == 2


async def test_a_ban_ends(target, consortium, monkeypatch) -> None:
    monkeypatch.setattr(score, "BAN_S", 0.2)
    intruder = await Intruder.member(target, consortium, "busan")
    await until(lambda: target.joined == ["busan"], "it is connected")
    intruder.writer.write(JUNK_FRAMES["no CBOR"])
    await intruder.closed()
    honest = Endpoint(consortium, "busan", target)
    async with running(honest):
        await until(lambda: target.joined == ["busan", "busan"], "it is in again")


@pytest.mark.parametrize(
    ("failure", "banned"),
    [
        (FormatError("vote", "is none"), True),
        (peers.NetworkError("peer: does what is forbidden"), True),
        (BlobError("disk", "no space left"), False),
    ],
)
async def test_only_what_a_peer_did_is_held_against_it(target, consortium, failure, banned) -> None:
    intruder = await Intruder.member(target, consortium, "busan")
    target.failure = failure
    intruder.send(wire.GetBlocks(1))
    await intruder.closed()
    target.failure = None
    assert target.network._is_banned(consortium.signing_key("busan").kid) is banned


async def test_who_takes_nothing_is_cut_off_before_much_waits_for_it(
    target, consortium, monkeypatch
) -> None:
    monkeypatch.setattr(peers, "MAX_OUTGOING_BYTES", 8 * MIB)
    intruder = await Intruder.member(target, consortium, "busan")
    await until(lambda: target.joined == ["busan"], "it is connected")
    intruder.writer.transport.pause_reading()
    message = wire.Candidate(bytes(MIB))
    sent = 0
    async with asyncio.timeout(DEADLINE_S):
        while target.network.peers:
            target.network.broadcast(message)
            sent += 1
            waiting = sum(
                peer._writer.transport.get_write_buffer_size() for peer in target.network.peers
            )
            assert waiting <= 8 * MIB
            await asyncio.sleep(0)
    assert sent > 8
    assert target.left == ["busan"]
    intruder.writer.transport.abort()


async def test_who_falls_silent_is_dropped_but_may_come_again(
    target, consortium, monkeypatch
) -> None:
    intruder = await Intruder.member(target, consortium, "busan")
    await until(lambda: target.joined == ["busan"], "it is connected")
    with monkeypatch.context() as quick:
        quick.setattr(peers, "IDLE_TIMEOUT_S", 0.3)  # for what comes after the next message
        intruder.send(wire.GetBlocks(1))
        intruder.writer.write(wire.LENGTH.pack(100))  # announces, and sends no more
        await intruder.closed()
        await until(lambda: target.left == ["busan"], "it is gone")
    again = await Intruder.member(target, consortium, "busan")
    await until(lambda: target.joined == ["busan", "busan"], "it is in again")
    again.writer.transport.abort()


async def test_a_message_in_pieces_is_put_together(target, consortium) -> None:
    intruder = await Intruder.member(target, consortium, "busan")
    message = wire.Votes([b"vote"])
    for byte in wire.encode_message(message):
        intruder.writer.write(bytes([byte]))
        await intruder.writer.drain()
    await until(lambda: target.messages == [message], "it is read")
    intruder.writer.transport.abort()
