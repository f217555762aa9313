"""A node that lets go of old bodies by its configuration, and what can be had of them after."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.consortium import enrolment
from support.daemons import Daemon, found, stop_all, until
from support.long_chain import fill, founded_earlier
from typer.testing import CliRunner

from fog_node.client import RefusedError
from tools.cli import app
from tools.demo.processes import free_port

DAY_MS = 24 * 3600 * 1000
# Of these the latest hundred keep their bodies whatever their age.
BLOCKS = 130


async def fogline(*arguments: str) -> tuple[int, str]:
    """Run a command of its own event loop in a thread."""
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    return result.exit_code, result.output + str(result.exception or "")


async def test_by_configuration_with_an_archive_and_then_by_hand(tmp_path: Path) -> None:
    consortium = founded_earlier(found(tmp_path / "c", ("seoul",)), 10 * DAY_MS)
    sealed = fill(consortium, [tmp_path / "seoul" / "data" / "ledger"], BLOCKS)
    archive = tmp_path / "archive"
    node = Daemon(
        consortium, "seoul", tmp_path / "seoul", {"seoul": free_port()},
        storage={"keep_days": 7, "archive": str(archive)},
    )  # fmt: skip
    first, last = sealed[0].id, sealed[-1].id
    founding = ("--founding", str(consortium.founding_file))
    try:
        await node.start()
        kept_proof = await node.client.proof(last)

        async def pruned() -> bool:
            return (await node.client.status()).bodies_from > 1

        await until(pruned, "old bodies are gone")
        status = await node.client.status()
        assert status.bodies_from == BLOCKS - 100 + 1
        with pytest.raises(RefusedError) as refused:
            await node.client.block(1)
        assert refused.value.status == 410
        assert "archive" in refused.value.remedy
        # The node goes on, and a block that it kept is proved as before.
        await node.client.submit(enrolment(consortium, BLOCKS + 1).raw)

        async def is_final() -> bool:
            return (await node.client.status()).final.get("enrol") == BLOCKS + 1

        await until(is_final, "a further block is final")
        assert await node.client.proof(last) == kept_proof
        # An enrolment stays with its path; the archive proves it too, offline.
        proof = tmp_path / "first.proof"
        code, said = await fogline(
            "proof",
            "get",
            first.hex(),
            "--out",
            str(proof),
            "--archive",
            str(archive),
            *founding,
        )
        assert code == 0, said
        assert proof.read_bytes() == await node.client.proof(first)
        code, said = await fogline("proof", "verify", str(proof), *founding)
        assert code == 0, said

        config = ("--config", str(node.config))
        code, said = await fogline("fog", "prune", *config)
        assert "in use" in said
        await node.process.stop()
        code, said = await fogline("fog", "prune", *config, "--keep", "0d", "--discard")
        assert code == 0, said
        assert f"bodies below: {BLOCKS - 100 + 2}" in said
        code, said = await fogline("fog", "verify", *config)
        assert code == 0, said
    finally:
        await stop_all([node])
