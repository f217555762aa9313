"""A consortium of nodes in one process: real ledgers, real TLS, no gateway and no API."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from fog_node.agreement import Agreement
from fog_node.ledger.ledger import Ledger
from fog_node.miner import Miner
from fog_node.network import certificates, wire
from fog_node.network.peers import Peer, PeerNetwork
from fog_node.protocol.founding import Parameters
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Channel, Enrol, Transaction, sign_transaction
from tools.consortium import Consortium, create
from tools.demo.processes import free_port

PARAMETERS = Parameters(
    block_interval_ms=300, heartbeat_ms=0, bits=0x200FFFFF, retarget_blocks=0, rest_ms=50,
    stagger_ms=60,
)  # fmt: skip
VALIDATORS = ("seoul", "busan", "daegu", "jeju", "city")


def found(directory: Path, names: tuple[str, ...] = VALIDATORS) -> Consortium:
    """Validators `names` and an operator."""
    members = {name: frozenset({"validator", "gateway"}) for name in names}
    members["operator"] = frozenset({"operator"})
    return create(directory, "test", members, parameters=PARAMETERS)


class Node:
    """Ledger, agreement and peers of one validator."""

    def __init__(self, consortium: Consortium, name: str, ports: dict[str, int]) -> None:
        self.name = name
        self.founding = consortium.founding
        self.key = consortium.signing_key(name)
        own = consortium.member_directory(name)
        self.ledger = Ledger.open(own / "data", self.founding)
        self.miner = Miner("python", 1)
        self.agreement = Agreement(
            self.ledger, self.key, self.miner, lambda block, certificate: None, self._submit
        )
        authority = self.founding.authority
        files = (own / "tls.crt", own / "tls.key")
        self.network = PeerNetwork(
            self.key.kid,
            wire.Hello(wire.PROTOCOL_VERSION, self.founding.chain_id, name),
            (
                certificates.server_context(authority, *files),
                certificates.client_context(authority, *files),
            ),
            {
                member.name: ("127.0.0.1", ports[member.name])
                for member in self.founding.validators
                if member.name != name
            },
            self,
            self,
            self.agreement.status,
        )
        self.agreement.connect(self.network)
        self._port = ports[name]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.network.start("127.0.0.1", self._port)
        self._task = asyncio.create_task(self.agreement.run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.network.stop()
        self.miner.close()
        self.ledger.close()

    def check(self) -> None:
        """Raise what ended the agreement, if anything did."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def admit(self, transaction: Transaction) -> None:
        (result,) = await asyncio.to_thread(self.ledger.admit, [transaction])
        assert result.status == "admitted", result.error
        self.network.broadcast(wire.Transactions([transaction.raw]))
        self.agreement.work_changed()

    def _submit(self, body: object) -> None:
        raise AssertionError(f"nobody voted twice here, yet: {body}")

    def authorise(self, certificate: certificates.PeerCertificate, dialled: bool) -> str | None:
        member = self.founding.member(certificate.kid)
        return member.name if member else None

    def kid_of(self, name: str) -> bytes | None:
        return next((m.kid for m in self.founding.members if m.name == name), None)

    def peer_joined(self, peer: Peer) -> None: ...

    def peer_left(self, peer: Peer) -> None: ...

    async def peer_message(self, peer: Peer, message: wire.Message) -> None:
        if isinstance(message, wire.Transactions):
            from fog_node.protocol.transactions import parse_transaction

            self.ledger.admit([parse_transaction(raw) for raw in message.raw], durable=False)
            self.agreement.work_changed()
        else:
            await self.agreement.take(peer, message)


def start_all(consortium: Consortium) -> list[Node]:
    """One node per validator, not started yet."""
    names = [member.name for member in consortium.founding.validators]
    ports = {name: free_port() for name in names}
    return [Node(consortium, name, ports) for name in names]


def enrolment(consortium: Consortium, number: int) -> Transaction:
    """The operator's transaction `number`: enrols a new board."""
    return stranger_enrolment(consortium, consortium.signing_key("operator"), number)


def stranger_enrolment(consortium: Consortium, key: SigningKey, number: int) -> Transaction:
    """An enrolment that `key` signs, whoever holds it."""
    body = Enrol(
        SigningKey.generate().public, "operator", "water-circulation", "unix",
        (Channel("flow", "L/min", 0.0, 200.0),), time.time_ns() // 1_000_000,
    )  # fmt: skip
    return sign_transaction(key, body, consortium.founding.chain_id, number)


async def until(condition: object, nodes: list[Node], timeout_s: float = 60.0) -> None:
    """Wait for a condition, looking after the nodes meanwhile."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            for node in nodes:
                node.check()
            await asyncio.sleep(0.02)
