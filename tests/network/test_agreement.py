"""Five validators agree over real TLS, with real ledgers and real proof of work."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.consortium import Node, enrolment, found, start_all, until


def final(node: Node, count: int) -> bool:
    return node.ledger.counts().get("enrol", 0) >= count


async def test_what_one_node_admits_becomes_final_on_all(tmp_path: Path) -> None:
    consortium = found(tmp_path / "c")
    nodes = start_all(consortium)
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        for number in range(1, 6):
            await nodes[number % 5].admit(enrolment(consortium, number))
            await until(lambda n=number: all(final(node, n) for node in nodes), nodes)
        # Counts come from the disk, which is a moment ahead of the state.
        await until(lambda: len({node.ledger.head.hash for node in nodes}) == 1, nodes)
        await until(lambda: len({node.ledger.state.root() for node in nodes}) == 1, nodes)
    finally:
        for node in nodes:
            await node.stop()


async def test_a_node_that_was_away_catches_up(tmp_path: Path) -> None:
    consortium = found(tmp_path / "c")
    nodes = start_all(consortium)
    late = nodes.pop()
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        for number in range(1, 6):
            await nodes[0].admit(enrolment(consortium, number))
            await until(lambda n=number: all(final(node, n) for node in nodes), nodes)
        nodes.append(late)
        await late.start()
        await until(lambda: final(late, 5), nodes)
        # Counts come from the disk, which is a moment ahead of the state.
        await until(lambda: late.ledger.state.root() == nodes[0].ledger.state.root(), nodes)
        # A validator whose ledger is new votes for neither of the next two blocks.
        for number in (6, 7):
            await nodes[0].admit(enrolment(consortium, number))
            await until(lambda n=number: all(final(node, n) for node in nodes), nodes)
        # It takes part again: one of the first four may stop, and agreement goes on.
        stopped = nodes.pop(0)
        await stopped.stop()
        await nodes[-1].admit(enrolment(consortium, 8))
        await until(lambda: all(final(node, 8) for node in nodes), nodes)
    finally:
        for node in nodes:
            await node.stop()
