"""A damaged node among others that run: it refuses, is repaired from them, and takes part again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.consortium import enrolment
from support.daemons import Daemon, found, make_daemons, stop_all, until
from typer.testing import CliRunner

from fog_node.ledger.schema import DATABASE
from tools.cli import app

NAMES = ("seoul", "busan", "daegu", "jeju")
ENROLMENTS = 3


async def fogline(*arguments: str) -> tuple[int, str]:
    """Run a command of its own event loop in a thread."""
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    return result.exit_code, result.output + str(result.exception or "")


async def all_connected(daemons: list[Daemon]) -> bool:
    statuses = await asyncio.gather(*(daemon.client.status() for daemon in daemons))
    return all(len(status.peers) == len(daemons) - 1 for status in statuses)


async def all_have(daemons: list[Daemon], count: int) -> None:
    async def done() -> bool:
        statuses = await asyncio.gather(*(daemon.client.status() for daemon in daemons))
        return all(status.final.get("enrol") == count for status in statuses)

    await until(done, f"{count} enrolments are final on all")


@pytest.mark.parametrize("way", ["peers", "url"])
async def test_a_node_is_repaired_from_the_others(tmp_path: Path, way: str) -> None:
    consortium = found(tmp_path / "c", NAMES)
    daemons = make_daemons(consortium, tmp_path)
    victim, *others = daemons
    try:
        await asyncio.gather(*(daemon.start() for daemon in daemons))
        # A founder that comes when block 1 is final abstains for some blocks, and with the damaged
        # one, which does as well, the others would be too few.
        await until(lambda: all_connected(daemons), "all know each other")
        for number in range(1, ENROLMENTS):
            await others[0].client.submit(enrolment(consortium, number).raw)
            await all_have(daemons, number)
        first = await victim.client.block(1)
        raw = await victim.client.raw_transaction(bytes.fromhex(first.contents[0].id))
        await victim.process.stop()
        database = victim.data / "ledger" / DATABASE
        content = bytearray(database.read_bytes())
        content[content.index(raw) + len(raw) // 2] ^= 1
        database.write_bytes(content)
        (victim.data / "ledger" / "witness").write_bytes(b"")

        code, log = await victim.run_to_end()
        assert code == 1
        assert "fogline fog repair" in log
        config = ("--config", str(victim.config))
        code, said = await fogline("fog", "verify", *config)
        assert code == 1
        assert "block 1" in said
        assert "witness" in said

        head = (await others[0].client.status()).height
        chosen = ("--from", others[1].url) if way == "url" else ()
        code, said = await fogline("fog", "repair", *config, *chosen)
        assert code == 0, said
        assert "fetched: 1" in said
        assert "votes kept: False" in said
        code, said = await fogline("fog", "verify", *config)
        assert code == 0, said

        await victim.start()
        status = await victim.client.status()
        assert status.abstains_until is not None
        assert status.abstains_until > head
        # The others go beyond it without this one, which then votes again.
        number = ENROLMENTS
        while (await victim.client.status()).abstains_until is not None:
            await victim.client.submit(enrolment(consortium, number).raw)
            await all_have(daemons, number)
            number += 1
        assert "does not vote up to height" in victim.log
        # Three of four are the quorum: without one of the others this one must vote.
        await others[2].process.stop()
        await others[0].client.submit(enrolment(consortium, number).raw)
        await all_have(daemons[:3], number)
    finally:
        await stop_all(daemons)
