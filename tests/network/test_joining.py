"""A node that comes late, and begins with a checkpoint: of a file, or of another node's API."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.consortium import enrolment
from support.daemons import Daemon, found, make_daemons, stop_all, until
from typer.testing import CliRunner

from tools.cli import app

NAMES = ("seoul", "busan", "daegu", "jeju")


async def fogline(*arguments: str) -> tuple[int, str]:
    """Run a command of its own event loop in a thread."""
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    return result.exit_code, result.output + str(result.exception or "")


async def all_at(daemons: list[Daemon], consortium, number: int) -> None:
    """Seal an enrolment, and wait until all have it."""
    await daemons[0].client.submit(enrolment(consortium, number).raw)

    async def done() -> bool:
        statuses = await asyncio.gather(*(daemon.client.status() for daemon in daemons))
        roots = {status.state_root for status in statuses}
        return len(roots) == 1 and all(status.devices == number for status in statuses)

    await until(done, f"{number} devices are enrolled on all")


async def test_a_validator_joins_late_with_a_checkpoint(tmp_path: Path) -> None:
    consortium = found(tmp_path / "c", NAMES)
    daemons = make_daemons(consortium, tmp_path)
    *early, late = daemons
    try:
        await asyncio.gather(*(daemon.start() for daemon in early))
        for number in range(1, 4):
            await all_at(early, consortium, number)
        file = tmp_path / "plant.checkpoint"
        code, said = await fogline(
            "fog", "checkpoint", "--config", str(early[0].config), "--out", str(file)
        )
        assert code == 0, said
        damaged = bytearray(file.read_bytes())
        damaged[-20] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)
        config = ("--config", str(late.config))
        code, said = await fogline(
            "fog", "join", *config, "--checkpoint", str(tmp_path / "damaged")
        )
        assert code != 0
        assert "hold" in said
        code, said = await fogline("fog", "join", *config, "--checkpoint", early[1].url)
        assert code == 0, said
        assert "agreed by: 3" in said
        code, said = await fogline("fog", "join", *config, "--checkpoint", str(file))
        assert code != 0
        assert "holds a ledger" in said

        await late.start()
        status = await late.client.status()
        assert status.abstains_until is not None
        number = 4
        while status.asks_before_voting or status.abstains_until is not None:
            await all_at(daemons, consortium, number)
            number += 1
            status = await late.client.status()
        # Three of four are the quorum: without one of the others the late one must vote.
        await early[2].process.stop()
        await all_at([*early[:2], late], consortium, number)
        code, said = await fogline("fog", "verify", *config)
        assert code == 0, said
    finally:
        await stop_all(daemons)
