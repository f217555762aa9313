"""A node that is hundreds of blocks behind: headers first, then bodies from whoever keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.consortium import enrolment
from support.daemons import Daemon, found, make_daemons, stop_all, until
from support.long_chain import fill

from fog_node.ledger import Ledger, pruning
from fog_node.ledger.schema import DATABASE
from tools.consortium import Consortium

NAMES = ("seoul", "busan", "daegu", "jeju")
BLOCKS = 160
KEPT = 60


@pytest.fixture
async def four(tmp_path: Path, monkeypatch) -> AsyncIterator[tuple[Consortium, list[Daemon]]]:
    """Three nodes with a long chain, the second one pruned, and a late one; none is started."""
    consortium = found(tmp_path / "c", NAMES)
    directories = [tmp_path / name / "data" / "ledger" for name in NAMES[:3]]
    fill(consortium, directories, BLOCKS)
    monkeypatch.setattr(pruning, "MIN_KEPT_BLOCKS", KEPT)
    pruned = Ledger.open(directories[1], consortium.founding)
    pruned.prune(2**62, None)
    assert pruned.pruned > BLOCKS - KEPT
    pruned.close()
    daemons = make_daemons(consortium, tmp_path)
    assert [daemon.data / "ledger" for daemon in daemons[:3]] == directories
    yield consortium, daemons
    await stop_all(daemons)


async def height_of(daemon: Daemon) -> int:
    return (await daemon.client.status()).height


async def test_through_a_kill_and_from_two_that_keep_different_parts(four) -> None:
    consortium, daemons = four
    *early, late = daemons
    await asyncio.gather(*(daemon.start() for daemon in early))
    await late.start()

    async def begun() -> bool:
        return await height_of(late) > 0

    await until(begun, "the late node has its first blocks")
    await late.process.kill()
    between = Ledger.open(late.data / "ledger", consortium.founding)
    reached, known = between.height, between.light_chain().height
    between.close()
    assert 0 < reached <= known
    await late.start()

    async def there() -> bool:
        return await height_of(late) >= BLOCKS

    await until(there, "the late node is where the others are")
    log = late.log
    assert "catching up: at block 0, headers known to 0" in log
    if reached < BLOCKS - 32:  # else it was nearly there when it was killed
        assert f"catching up: at block {reached}, headers known to {known}" in log
    # It takes part once the others have gone beyond where it can have voted before.
    number = BLOCKS

    async def sealed() -> bool:
        statuses = [await daemon.client.status() for daemon in (early[0], early[1], late)]
        return {status.devices for status in statuses} == {number}

    async def seal() -> None:
        nonlocal number
        number += 1
        await early[0].client.submit(enrolment(consortium, number).raw)
        await until(sealed, f"{number} boards are enrolled on all")

    status = await late.client.status()
    while status.asks_before_voting or status.abstains_until is not None:
        await seal()
        status = await late.client.status()
    # Three of four are the quorum: now it has to vote.
    await early[2].process.stop()
    await seal()
    assert (late.data / "ledger" / DATABASE).exists()


async def test_only_a_pruned_node_cannot_help(four) -> None:
    """It says so, and the late node waits for one that keeps all."""
    _, daemons = four
    full, pruned, _, late = daemons
    await asyncio.gather(pruned.start(), late.start())

    async def headers_known() -> bool:
        return "catching up" in late.log

    await until(headers_known, "the late node asks")
    await asyncio.sleep(2)
    assert await height_of(late) == 0
    await full.start()

    async def there() -> bool:
        return await height_of(late) >= BLOCKS

    await until(there, "the late node is where the others are")
