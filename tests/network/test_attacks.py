"""Four validators that run as daemons, and those who attack one of them over its peer port.

After each attack the network still makes blocks with what all of them are sent, no honest node is
banned anywhere, and the victim has not grown beyond a generous bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cbor2
import pytest
from support.attacker import (
    ELSEWHERE,
    Attacker,
    is_closed_by_peer,
    open_tls,
    raw_connections,
    resident_bytes,
)
from support.consortium import enrolment, stranger_enrolment
from support.daemons import DEADLINE_S, PARAMETERS, Daemon, stop_all, until

from fog_node.network import score, wire
from fog_node.protocol.block import Block, Header, block_leaves, parse_hash, sign_coinbase
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.merkle import root
from fog_node.protocol.votes import NO_ROUND, PREVOTE, sign_proposal, sign_vote
from tools.consortium import Consortium, create
from tools.demo.processes import free_port

HONEST = ("seoul", "busan", "daegu", "jeju")
# A validator whose key and certificate an attacker holds; the honest four are a quorum.
TRAITOR = "traitor"
FLOOD_S = 1.0
FLOOD_MESSAGES = 30_000
# One connected flooder can make a node hold: its inbox share (8 MiB and a frame), a frame being
# read, what waits for it (64 MiB), and what the interpreter makes of all that. Twelve in turn, and
# what malloc keeps, stay within this.
MAX_GROWTH_BYTES = 256 * 1024 * 1024
MAX_LOG_BYTES = 512 * 1024


@dataclass
class Front:
    """The consortium under attack.

    Attributes:
        victim: the daemon that is attacked.
        daemons: all honest ones.
        enrolled: the operator's transactions so far.
    """

    consortium: Consortium
    daemons: list[Daemon]
    enrolled: int = 0
    guests: list[str] = field(default_factory=list)

    @property
    def victim(self) -> Daemon:
        return self.daemons[0]

    @property
    def chain_id(self) -> bytes:
        return self.consortium.founding.chain_id

    def key(self, name: str) -> SigningKey:
        return self.consortium.signing_key(name)

    async def enter(self, name: str, *, reads: bool = True, at: Daemon | None = None) -> Attacker:
        return await Attacker.connect(
            (at or self.victim).peer_port,
            self.consortium.founding,
            self.consortium.member_directory(name),
            reads=reads,
        )

    async def commits(self) -> None:
        """What is sent to the victim becomes final on every honest node."""
        self.enrolled += 1
        await self.victim.client.submit(enrolment(self.consortium, self.enrolled).raw)

        async def everywhere() -> bool:
            statuses = await asyncio.gather(*(d.client.status() for d in self.daemons))
            return all(status.final.get("enrol", 0) == self.enrolled for status in statuses)

        await until(everywhere, f"enrolment {self.enrolled} is final on all")

    async def is_banned(self, name: str) -> bool:
        kid = self.key(name).kid.hex()
        return kid in {ban.kid for ban in (await self.victim.client.status()).banned}

    async def shed(self, name: str) -> int:
        kid = self.key(name).kid.hex()
        peers = (await self.victim.client.status()).peers
        return next((peer.shed for peer in peers if peer.kid == kid), 0)


Attack = Callable[[Front, str], Awaitable[None]]


async def must_be_banned(front: Front, name: str, attacker: Attacker) -> None:
    assert await attacker.cut_off()
    attacker.close()
    await until(lambda: front.is_banned(name), f"{name} is banned")
    with pytest.raises(ConnectionError):
        await front.enter(name)


# Whoever holds a member's certificate


async def junk(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    attacker.writer.write(wire.LENGTH.pack(40) + os.urandom(40))
    await must_be_banned(front, name, attacker)


async def oversized_frame(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    attacker.writer.write(wire.LENGTH.pack(2**32 - 1))
    await must_be_banned(front, name, attacker)


async def costly_cbor(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    body = cbor2.dumps(["get-blocks", cbor2.CBORTag(4, [0, 1 << 8_000_000])])
    attacker.writer.write(wire.LENGTH.pack(len(body)) + body)
    await must_be_banned(front, name, attacker)


async def forged_votes(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    vote = sign_vote(front.key(TRAITOR), 1, 0, PREVOTE, None, front.chain_id)
    height = (await front.victim.client.status()).height + 1
    true = sign_vote(front.key(TRAITOR), height, 0, PREVOTE, None, front.chain_id)
    attacker.send(wire.Votes([true.raw[:-64] + vote.raw[-64:]]))
    for ahead in range(1, 20):  # the height may be over before it is read
        true = sign_vote(front.key(TRAITOR), height + ahead, 0, PREVOTE, None, front.chain_id)
        attacker.send(wire.Votes([true.raw[:-64] + vote.raw[-64:]]))
    await must_be_banned(front, name, attacker)


async def votes_of_no_validator(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    own = front.key(name)
    votes = [sign_vote(own, 2**40, r, PREVOTE, None, front.chain_id).raw for r in range(8)]
    frame = wire.encode_message(wire.Votes(votes * (wire.MAX_VOTES // 8)))
    await attacker.flood(frame, FLOOD_S, FLOOD_MESSAGES)
    assert not await front.is_banned(name)
    attacker.close()


async def forged_transactions(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    good = enrolment(front.consortium, front.enrolled + 1).raw
    forged = [good[:-64] + os.urandom(32) + bytes(31) + b"\x01" for _ in range(200)]
    attacker.send(wire.Transactions(forged))
    await must_be_banned(front, name, attacker)


async def transactions_of_nobody(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    stranger = SigningKey.generate()
    raw = [stranger_enrolment(front.consortium, stranger, n).raw for n in range(1, 65)]
    frame = wire.encode_message(wire.Transactions(raw * 8))
    await attacker.flood(frame, FLOOD_S, FLOOD_MESSAGES)

    async def is_shed() -> bool:
        return await front.shed(name) > 0

    await until(is_shed, "its transactions are not looked at any more")
    assert not await front.is_banned(name)
    attacker.close()


async def blocks_unasked(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    frame = wire.encode_message(wire.Blocks(1, [[bytes(2**16), bytes(1000)]]))
    await attacker.flood(frame, FLOOD_S, 100)
    await must_be_banned(front, name, attacker)


async def status_lies(front: Front, name: str) -> None:
    attacker = await front.enter(name)
    status = await front.victim.client.status()
    wanted = [parse_hash(status.head)] + [os.urandom(32) for _ in range(wire.MAX_WANTED - 1)]
    tags = [[status.height + 1, 0, [b"x"] * 5, [b"x"] * 5]] * wire.MAX_STATUS_ROUNDS
    lie = wire.Status(
        status.height + 1, parse_hash(status.head), 2**31 - 1, -1, False, tags, wanted
    )
    frames = b"".join(
        wire.encode_message(message)
        for message in (
            lie,
            replace(lie, round=0),
            replace(lie, height=status.height, parent=os.urandom(32)),
            replace(lie, height=2**62),
        )
    )
    await attacker.flood(frames, FLOOD_S, FLOOD_MESSAGES)

    async def is_seen_through() -> bool:
        return await front.shed(name) > 0 or await front.is_banned(name)

    await until(is_seen_through, "it is not listened to any more")
    attacker.close()


async def never_reads(front: Front, name: str) -> None:
    attacker = await front.enter(name, reads=False)
    attacker.writer.transport.pause_reading()
    frames = b"".join(
        wire.encode_message(message)
        for message in (wire.GetBlocks(1), wire.GetBlob(bytes(32), 0), wire.GetBlocks(2))
    )
    await attacker.flood(frames, FLOOD_S, FLOOD_MESSAGES)
    attacker.close()


async def comes_again_and_again(front: Front, name: str) -> None:
    entered, began = 0, time.monotonic()
    for _ in range(100):
        try:
            attacker = await front.enter(name)
        except (ConnectionError, OSError):
            continue
        entered += 1
        attacker.close()
    rate, burst = score.JOINS
    assert burst <= entered <= burst + rate * (time.monotonic() - began)
    assert not await front.is_banned(name)


# Whoever holds a validator's key


async def votes_of_the_far_future(front: Front, name: str) -> None:
    traitor = front.key(TRAITOR)
    attacker = await front.enter(TRAITOR)
    height = (await front.victim.client.status()).height + 1
    for batch in range(12):
        votes = [
            sign_vote(
                traitor, height + batch * (n % 2) * 10**9, 2**30 + batch * 512 + n, PREVOTE, None,
                front.chain_id,
            ).raw
            for n in range(256)
        ]  # fmt: skip
        attacker.send(wire.Votes(votes))
        await attacker.writer.drain()
    assert not await front.is_banned(TRAITOR)
    attacker.close()


async def invalid_blocks(front: Front, name: str) -> None:
    """Blocks with proof of work, signed by a validator, whose state is a lie."""
    traitor = front.key(TRAITOR)
    attacker = await front.enter(TRAITOR)
    validators = front.consortium.founding.validator_set.hash
    ends = time.monotonic() + DEADLINE_S
    while not attacker.is_cut_off and time.monotonic() < ends:
        status = await front.victim.client.status()
        height, round_ = status.height + 1, status.round
        coinbase = sign_coinbase(
            traitor, height, round_, os.urandom(32), (validators, validators),
            time.time_ns() // 1_000_000, front.chain_id,
        )  # fmt: skip
        header = Header(
            parse_hash(status.head), root(block_leaves(coinbase, ())), coinbase.time // 1000,
            PARAMETERS.bits, 0,
        )  # fmt: skip
        block = Block(mined(header), coinbase, ())
        proposal = sign_proposal(traitor, height, round_, NO_ROUND, block.hash, front.chain_id)
        attacker.send(wire.Proposal(proposal.raw, block.raw, []))
        await asyncio.sleep(0.05)
    await must_be_banned(front, TRAITOR, attacker)


def mined(header: Header) -> Header:
    for nonce in range(2**32):
        tried = replace(header, nonce=nonce)
        with contextlib.suppress(ValueError):
            tried.check_work()
            return tried
    raise AssertionError("no nonce meets the target")


# Whoever holds nothing


async def silent_connections(front: Front, name: str) -> None:
    port = front.victim.peer_port
    connections = await asyncio.to_thread(raw_connections, port, 60)

    async def are_few() -> bool:
        held = [each for each in connections if not is_closed_by_peer(each)]
        return len(held) <= score.MAX_GREETING_PER_ADDRESS

    try:
        await until(are_few, "no more than may have not said hello are held")
    finally:
        for connection in connections:
            connection.close()


async def connection_storm(front: Front, name: str) -> None:
    for _ in range(4):
        for connection in await asyncio.to_thread(raw_connections, front.victim.peer_port, 100):
            connection.close()
    assert (await front.victim.client.status()).refused_connections > 100


async def no_certificate(front: Front, name: str) -> None:
    founding = front.consortium.founding
    for _ in range(10):
        with contextlib.suppress(OSError):  # refused in the handshake, or right behind it
            reader, writer = await open_tls(front.victim.peer_port, founding, None, ELSEWHERE)
            assert await reader.read(1) == b""
            writer.transport.abort()


BY_MEMBER: tuple[Attack, ...] = (
    junk, oversized_frame, costly_cbor, forged_votes, votes_of_no_validator, forged_transactions,
    transactions_of_nobody, blocks_unasked, status_lies, never_reads, comes_again_and_again,
)  # fmt: skip
BY_VALIDATOR: tuple[Attack, ...] = (votes_of_the_far_future, invalid_blocks)
BY_NOBODY: tuple[Attack, ...] = (silent_connections, connection_storm, no_certificate)


@pytest.fixture
async def front(tmp_path: Path):
    """Four honest daemons that run, an idle traitor, and a member for each attack."""
    validator = frozenset({"validator", "gateway"})
    members = dict.fromkeys((*HONEST, TRAITOR), validator)
    members["operator"] = frozenset({"operator"})
    members |= {guest_of(attack): frozenset({"regulator"}) for attack in BY_MEMBER}
    consortium = create(tmp_path / "c", "test", members, parameters=PARAMETERS)
    ports = {name: free_port() for name in HONEST}
    daemons = [Daemon(consortium, name, tmp_path / name, ports) for name in HONEST]
    try:
        await asyncio.gather(*(daemon.start() for daemon in daemons))
        yield Front(consortium, daemons)
    finally:
        await stop_all(daemons)


def guest_of(attack: Attack) -> str:
    return attack.__name__.replace("_", "-")


async def test_no_attack_stops_the_network_or_fills_the_victim(front: Front) -> None:
    await front.commits()
    before = resident_bytes(front.victim.process.pid)
    grown = 0
    for attack in (*BY_MEMBER, *BY_VALIDATOR, *BY_NOBODY):
        began = time.monotonic()
        await attack(front, guest_of(attack))
        grown = max(grown, resident_bytes(front.victim.process.pid) - before)
        await front.commits()
        print(f"{attack.__name__}: {time.monotonic() - began:.1f} s, {grown / 2**20:.0f} MiB")
        assert grown < MAX_GROWTH_BYTES, attack.__name__
    honest = {front.key(name).kid.hex() for name in HONEST}
    for daemon in front.daemons:
        status = await daemon.client.status()
        assert not honest & {ban.kid for ban in status.banned}, daemon.name
        assert {peer.kid for peer in status.peers} >= honest - {front.key(daemon.name).kid.hex()}
        assert all(peer.points == 0 for peer in status.peers if peer.kid in honest)
        assert "exception was never retrieved" not in daemon.log
        assert "failed here" not in daemon.log
    assert "banned for 30 s, ban number 1: " in front.victim.log
    assert len(front.victim.log) < MAX_LOG_BYTES


async def test_a_node_catches_up_though_one_peer_lies_and_one_stalls(front: Front) -> None:
    late = front.daemons.pop()
    await front.commits()
    await late.process.kill()
    for _ in range(4):
        await front.commits()
    await late.start()
    liar = await front.enter("status-lies", at=late)
    # A frame that is begun and never ended, a byte at a time.
    slow = await front.enter("never-reads", at=late)
    slow.writer.write(wire.LENGTH.pack(wire.MAX_FRAME_BYTES))
    front.daemons.append(late)
    lie = wire.encode_message(wire.Status(2**62, bytes(32), 0, -1, False, [], []))

    async def keep_lying() -> None:
        while not liar.is_cut_off:
            liar.writer.write(lie)
            slow.writer.write(b"\0")
            await asyncio.sleep(0.1)

    lying = asyncio.create_task(keep_lying())
    try:
        for _ in range(3):
            await front.commits()
        statuses = await asyncio.gather(*(d.client.status() for d in front.daemons))
        assert all(not status.banned for status in statuses)
    finally:
        lying.cancel()
        liar.close()
        slow.close()
