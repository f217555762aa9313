"""Brings a network back to rest after its perturbations, and judges what is on its ledgers."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from fog_node.client import Client, ClientError
from fog_node.ledger import Ledger
from fog_node.protocol import parse_block, parse_certificate
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Incident, Transaction

from .load import Load
from .manifest import BROKER
from .net import MAX_RESIDENT_KIB, Net
from .steps import Steps

MAX_TRACEBACK_CHARS = 4000


@dataclass(frozen=True)
class Chain:
    """The final blocks of one node: hashes, and transactions in order."""

    hashes: list[bytes]
    transactions: list[Transaction]


async def settle(net: Net, load: Load, steps: Steps) -> None:
    """Undo all perturbations; wait until everything is sent, and a new transaction is final."""
    net.links.heal()
    for name in (*net.nodes, BROKER):
        if name != BROKER or net.broker.running:
            net.resume(name)
    if not net.broker.running:
        await net.broker.start()
    await net.start_nodes([name for name, node in net.nodes.items() if not node.active])
    net.say("healed")
    load.finish()
    probe = await load.enrol(SigningKey.generate().public)

    async def probe_is_final() -> bool:
        client = next(iter(net.nodes.values())).process.client
        try:
            return (await client.transaction(probe.id)).status == "final"
        except ClientError:
            return False  # it has not been passed on to this node yet

    await steps.until("a transaction sent after the healing is final", probe_is_final)
    net.say("live again")
    await steps.until("everything is sent and receipted", lambda: load.done and load.boards_done)
    net.say("all receipted")
    await steps.until("all nodes have the same head and nothing waits", lambda: at_rest(net))
    net.say("at rest")


async def at_rest(net: Net) -> bool:
    """Whether all nodes say the same and have nothing left to do."""
    statuses = [await net.status(name) for name in net.nodes]
    said = {(s.height, s.head, s.state_root, s.waiting) if s else None for s in statuses}
    return len(said) == 1 and (one := said.pop()) is not None and one[3] == 0


async def judge(net: Net, load: Load) -> None:
    """What every network must have kept; raises AssertionError."""
    status = await net.status(net.manifest.nodes[0])
    assert status is not None
    chains = {
        name: await read(net, node.process.client, status.height)
        for name, node in net.nodes.items()
    }
    first = chains[net.manifest.nodes[0]]
    for name, chain in chains.items():
        assert chain.hashes == first.hashes, f"fork: {name} has other blocks than the first node"
    _nothing_twice(first)
    _nothing_lost(first, load)
    told = Counter(t.body.cause for t in first.transactions if isinstance(t.body, Incident))
    assert told.keys() == set(net.manifest.expect.incidents), (
        f"incidents: {dict(told)}, expected are {list(net.manifest.expect.incidents)}: "
        f"{[t.body for t in first.transactions if isinstance(t.body, Incident)]}"
    )
    kinds = Counter(t.body.kind for t in first.transactions)
    net.say(f"{status.height} blocks, {dict(kinds)}, resent {sum(b.resent for b in load.boards)}")
    assert "evidence" not in kinds, "an honest validator is accused of voting twice"
    for board in load.boards:
        assert not board.ignored, f"{board.name}: ignored receipts: {board.ignored}"


def _nothing_twice(chain: Chain) -> None:
    numbers: dict[bytes, int] = {}
    for transaction in chain.transactions:
        expected = numbers.get(transaction.signer, 0) + 1
        assert transaction.sequence == expected, (
            f"{transaction.signer.hex()}: number {transaction.sequence} follows {expected - 1}"
        )
        numbers[transaction.signer] = expected


def _nothing_lost(chain: Chain, load: Load) -> None:
    final = {(t.signer, t.sequence): t for t in chain.transactions}
    for board in load.boards:
        assert board.receipted == board.last + 1, f"{board.name}: has no receipt for its last pack"
        for number, raw in board.signed.items():
            found = final.pop((board.public.kid, number), None)
            assert found is not None, f"{board.name}: pack {number} is receipted and not there"
            assert raw is None or found.raw == raw, f"{board.name}: pack {number} is another one"
    for transaction in load.enrolled:
        found = final.pop((transaction.signer, transaction.sequence), None)
        assert found is not None, f"enrolment {transaction.sequence} was accepted and is not there"
        assert found.raw == transaction.raw
    strange = [t for t in final.values() if not isinstance(t.body, Incident)]
    assert not strange, f"final, and sent by nobody: {strange}"


async def read(net: Net, client: Client, height: int) -> Chain:
    """All blocks of a node, each with its certificate checked."""
    keys = {member.kid: member.key for member in net.founding.validators}
    chain = Chain([], [])
    if height == 0:
        return chain
    async for sealed in client.stream(1):
        block = parse_block(sealed.block)
        certificate = parse_certificate(sealed.certificate)
        certificate.verify(keys, net.founding.quorum, net.founding.chain_id)
        assert certificate.block_hash == block.hash
        assert block.height == len(chain.hashes) + 1
        chain.hashes.append(block.hash)
        chain.transactions.extend(block.transactions)
        if block.height == height:
            break
    return chain


async def end_in_order(net: Net) -> None:
    """SIGTERM to all: each ends with 0, has told of no defect, and leaves a whole ledger."""
    await net.stop_watching()
    await asyncio.gather(*(net.stop_node(name) for name in net.nodes))
    roots = set()
    for name, node in net.nodes.items():
        _, traceback, what = node.process.log.partition("Traceback")
        assert not traceback, f"{name}: logged a traceback: {what[:MAX_TRACEBACK_CHARS]}"
        errors = [x for x in node.process.log.splitlines() if " ERROR " in x or " CRITICAL " in x]
        assert not errors, f"{name}: {errors}"
        assert 0 < node.resident_kib <= MAX_RESIDENT_KIB, (
            f"{name}: took {node.resident_kib} KiB, at most {MAX_RESIDENT_KIB} are allowed"
        )
        ledger = Ledger.open(node.process.data / "ledger", net.founding)
        roots.add((ledger.head.hash, ledger.state.root()))
        ledger.close()
    assert len(roots) == 1, f"heads and roots on the disks differ: {roots}"
    net.say(f"ended; {max(n.resident_kib for n in net.nodes.values()) // 1024} MiB at most")
