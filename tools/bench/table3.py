"""`fogline bench network --table3`: the operations of table 3 of the BCmfg paper, on this machine.

Li, Barenji, Huang: Toward a blockchain cloud manufacturing system as a peer to peer distributed
network platform, Robotics and Computer-Integrated Manufacturing 54 (2018), 133-144. What the table
names, and what it is here; each of the users is a member that runs a validating node:

wallet create          `fogline consortium create` with so many members: for each a signing key, a
                       TLS key and a certificate, on the disk
miners create          `fogline fog init` and `fog run` for each: configuration, data directory, and
                       a daemon whose API answers
network connect        until each node is connected to all others
block create           a request that carries the payload is signed and sent to one node, with the
                       payload where the chain does not carry it, and its block is final there
distribute to users    from then until every node has that block, and hands out the payload
network stop           SIGTERM, until the last daemon has closed its ledger and ended
delete                 the data directories are removed
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fog_node.client import Client, RefusedError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.requests import MAX_CONTENT_BYTES, Content, Request
from fog_node.protocol.transactions import sign_transaction
from fog_node.protocol.votes import MAX_VALIDATORS
from tools import consortium as consortiums
from tools.bench import machine
from tools.bench.daemons import PARAMETERS, Daemons
from tools.errors import ToolError, UsageError
from tools.outputs import write_json

USERS = (5, 10, 15)
PAYLOADS = (500, 10_000, 100_000, 1_000_000)
# Blocks per size of payload; the median counts.
ROUNDS = 3
FINAL_TIMEOUT_S = 120.0
POLL_S = 0.02
HOUR_MS = 3_600_000
# All of them: customers to send, providers to be the ones whom a request to anybody concerns.
ROLES = frozenset({"validator", "customer", "provider"})
BEFORE, AFTER = ("wallet create", "miners create", "network connect"), ("network stop", "delete")
# The paper's figures, by operation: none could be had in public text (see tools/bench/README.md),
# and none is made up.
PAPER: dict[str, float] = {}
PAPER_NOTE = "the paper's figures are not in any public text that could be searched"


def run(
    users: Sequence[int] = USERS, payloads: Sequence[int] = PAYLOADS, json_file: Path | None = None
) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    Args:
        users: numbers of users, one network each.
        payloads: sizes in bytes.
        json_file: where to write the result too.

    Raises:
        UsageError: a number of users or a size that cannot be.
        ToolError: a node does not do what it should, or the file cannot be written.
    """
    if not users or not all(1 <= count <= MAX_VALIDATORS for count in users):
        raise UsageError(f"--users: must be from 1 to {MAX_VALIDATORS}")
    if not payloads or not all(1 <= size <= MAX_CONTENT_BYTES for size in payloads):
        raise UsageError(f"--payload: must be from 1 to {MAX_CONTENT_BYTES} bytes")
    load = os.getloadavg()[0]
    networks = []
    for count in users:
        with tempfile.TemporaryDirectory(prefix="fogline-table3-") as directory:
            networks.append(asyncio.run(_Network(count, Path(directory)).measure(payloads)))
    result = {
        "machine": machine.describe(),
        "load": load,
        "networks": networks,
        "paper": PAPER,
        "paper_note": PAPER_NOTE,
        "ratio": None,
        "limit": None,
    }
    _show(result)
    if json_file is not None:
        write_json(json_file, result)
    return result


class _Network:
    """So many users, each with a node."""

    def __init__(self, users: int, directory: Path) -> None:
        self._names = [f"user-{i}" for i in range(1, users + 1)]
        self._directory = directory
        self._seconds: dict[str, float] = {}

    async def measure(self, payloads: Sequence[int]) -> dict[str, Any]:
        """From the members' keys to the removal of the data; s for each operation."""
        began = time.perf_counter()
        consortium = await asyncio.to_thread(
            consortiums.create,
            self._directory / "consortium",
            "table 3",
            dict.fromkeys(self._names, ROLES),
            parameters=PARAMETERS,
        )
        self._seconds["wallet create"] = time.perf_counter() - began
        async with Daemons(consortium, self._names, self._directory / "nodes") as daemons:
            for name in self._names:
                daemons.init(name)
            await self._timed("miners create", *(daemons.start(n) for n in self._names))
            others = len(self._names) - 1
            await self._timed(
                "network connect", *(daemons.connected(n, others) for n in self._names)
            )
            blocks = await self._blocks(daemons, consortium, payloads)
            await self._timed("network stop", *(daemons.stop(name) for name in self._names))
        await self._timed("delete", asyncio.to_thread(shutil.rmtree, self._directory / "nodes"))
        return {"users": len(self._names), "seconds": self._seconds, "blocks": blocks}

    async def _timed(self, operation: str, *done: Awaitable[None]) -> None:
        began = time.perf_counter()
        await asyncio.gather(*done)
        self._seconds[operation] = time.perf_counter() - began

    async def _blocks(
        self, daemons: Daemons, consortium: consortiums.Consortium, payloads: Sequence[int]
    ) -> list[dict[str, Any]]:
        sender, *others = (daemons.client(name, name) for name in self._names)
        key = consortium.signing_key(self._names[0])
        try:
            rows = []
            for size in payloads:
                rounds = [
                    await _block(sender, others, key, consortium.founding, os.urandom(size))
                    for _ in range(ROUNDS)
                ]
                create, distribute = zip(*rounds, strict=True)
                rows.append(
                    {
                        "payload": size,
                        "block create": _median(create),
                        "distribute to users": _median(distribute),
                    }
                )
            return rows
        finally:
            for client in (sender, *others):
                await client.__aexit__(None, None, None)


async def _block(
    sender: Client, others: Sequence[Client], key: SigningKey, founding: Founding, data: bytes
) -> tuple[float, float]:
    """Make a block with this payload; s until it is final at the sender, and then at all."""
    began = time.perf_counter()
    now = time.time_ns() // 1_000_000
    content = Content.of(data)
    body = Request(None, "table 3", content, now + HOUR_MS, now)
    signer = await sender.signer(key.kid)
    transaction = sign_transaction(key, body, founding.chain_id, signer.next)
    await sender.submit(transaction.raw)
    if content.inline is None:
        await sender.put_content(transaction.id, data)
    deadline = time.monotonic() + FINAL_TIMEOUT_S
    await _until_final(sender, transaction.id, deadline)
    created = time.perf_counter()
    await asyncio.gather(
        *(_until_held(client, transaction.id, content.sha256, deadline) for client in others)
    )
    return created - began, time.perf_counter() - created


async def _until_final(client: Client, transaction_id: bytes, deadline: float) -> None:
    while True:
        try:
            if (await client.transaction(transaction_id)).status == "final":
                return
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        await _pause(deadline, f"{transaction_id.hex()}: is not final at every node")


async def _until_held(
    client: Client, transaction_id: bytes, sha256: bytes, deadline: float
) -> None:
    await _until_final(client, transaction_id, deadline)
    while True:
        try:
            await client.content(transaction_id, sha256)
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        else:
            return
        await _pause(deadline, f"{transaction_id.hex()}: its payload is not with every node")


async def _pause(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise ToolError(f"{what} after {FINAL_TIMEOUT_S:.0f} s")
    await asyncio.sleep(POLL_S)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _show(result: dict[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    print(f"{'load':10} {result['load']:.1f}")
    networks = result["networks"]
    heads = "".join(f"{network['users']:>6} users" for network in networks)
    print(f"\n{'s':34}{heads}{'paper':>12}")
    for operation in BEFORE:
        _row(operation, [n["seconds"][operation] for n in networks], operation)
    for operation in ("block create", "distribute to users"):
        for index, row in enumerate(networks[0]["blocks"]):
            values = [network["blocks"][index][operation] for network in networks]
            _row(f"{operation}, {row['payload'] / 1000:g} kB", values, operation)
    for operation in AFTER:
        _row(operation, [n["seconds"][operation] for n in networks], operation)
    if not PAPER:
        print(f"\npaper: {result['paper_note']}")


def _row(label: str, seconds: Sequence[float], operation: str) -> None:
    figures = "".join(f"{value:12.3f}" for value in seconds)
    paper = f"{PAPER[operation]:12.3f}" if operation in PAPER else f"{'-':>12}"
    print(f"{label:34}{figures}{paper}")
