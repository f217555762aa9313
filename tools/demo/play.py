"""What every demo does: runs a fleet, follows its chain, waits, runs commands, proves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from fog_node.api.models import Status
from fog_node.client import Client, ClientError
from fog_node.protocol.transactions import Transaction
from tools.errors import ToolError

from .chain_watch import ChainWatch
from .fleet import Fleet
from .processes import Child
from .view import View

SETTLE_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0
POLL_HEADS_S = 1.0


@contextlib.contextmanager
def work_directory(named: Path | None) -> Iterator[Path]:
    """The folder for a demo's files: as it was named, else one that goes with the demo.

    Raises:
        ToolError: there is something in it.
    """
    if named is None:
        with tempfile.TemporaryDirectory(prefix="fogline-") as made:
            yield Path(made)
        return
    if named.exists() and any(named.iterdir()):
        raise ToolError(f"--dir {named}: is not empty; name a new folder")
    yield named


class Play:
    """A running fleet, and what the demos do with it."""

    def __init__(self, directory: Path, view: View, fleet: Fleet) -> None:
        """Prepare; proofs and API calls go to the fleet's last validator."""
        self._directory = directory
        self._view = view
        self._fleet = fleet
        self._steady = fleet.validators[-1]
        self._watch = ChainWatch(fleet.founding)
        self._heads: dict[str, int] = {}
        self._follower: asyncio.Task[None] | None = None
        self._began = time.monotonic()

    def _figures(self) -> Mapping[str, str]:
        """What the view shows."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[Client]:
        """Start everything, follow the chain, and end it all whatever happens."""
        fleet = self._fleet
        self._view.watch(self._figures)
        tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._poll_heads())]
        try:
            broker = "a broker and " if fleet.broker_child else ""
            self._view.step(f"starting {broker}{len(fleet.validators)} fog nodes")
            await fleet.start()
            async with Client([fleet.apis[name] for name in fleet.validators[:-3:-1]]) as client:
                self._follower = asyncio.create_task(self._watch.follow(client))
                tasks.append(self._follower)
                yield client
        finally:
            for task in tasks:
                task.cancel()
            await fleet.stop()

    async def _wait(self, what: str, condition: Any, timeout_s: float) -> None:
        def checked() -> Any:
            if self._follower is not None and self._follower.done():
                self._follower.result()
            problems = [p for board in self._fleet.boards for p in board.problems]
            if problems:
                raise ToolError("; ".join(problems))
            return condition()

        await self._fleet.wait_for(what, checked, timeout_s)

    async def _settle(self) -> list[Status]:
        """Wait until the nodes are equal, have nothing left, and all was counted."""
        statuses: list[Status] = []

        async def settled() -> bool:
            statuses[:] = [await self._status(name) for name in self._fleet.validators]
            heads = {status.head for status in statuses}
            waiting = sum(status.waiting for status in statuses)
            return len(heads) == 1 and not waiting

        with contextlib.suppress(ToolError):  # the summary says what is not equal
            await self._wait("all heads are equal", settled, SETTLE_TIMEOUT_S)
        height = max((status.height for status in statuses), default=0)
        await self._wait(
            "all blocks were counted", lambda: self._watch.height >= height, SETTLE_TIMEOUT_S
        )
        return statuses

    async def _status(self, name: str) -> Status:
        async with Client([self._fleet.apis[name]]) as client:
            return await client.status()

    async def _prove(self, chosen: Transaction) -> dict[str, Any]:
        """Get and check a proof by the commands, the check with the two files alone."""
        folder = self._directory / "proof"
        folder.mkdir()
        proof = folder / "reading.proof"
        command = ["proof", "get", chosen.id.hex(), "--api", self._fleet.apis[self._steady]]
        await self._command("proof", [*command, "--out", str(proof)], COMMAND_TIMEOUT_S)
        (folder / "founding.cbor").write_bytes(self._fleet.founding.raw)
        verify = ["proof", "verify", "reading.proof", "--founding", "founding.cbor"]
        verified = await self._exit_code("proof", verify, folder) == 0
        data = bytearray(proof.read_bytes())
        position = secrets.randbelow(len(data) * 8)
        data[position // 8] ^= 1 << position % 8
        (folder / "flipped.proof").write_bytes(data)
        verify[2] = "flipped.proof"
        refused = await self._exit_code("proof", verify, folder) == 1
        return {
            "transaction": chosen.id.hex(),
            "bytes": len(data),
            "flipped_bit": position,
            "verified": verified,
            "tampered_refused": refused,
        }

    async def _command(self, name: str, arguments: list[str], timeout_s: float) -> None:
        child = self._child(name, arguments, self._directory)
        await child.start()
        try:
            async with asyncio.timeout(timeout_s):
                code = await child.wait()
        except TimeoutError as error:
            await child.kill()
            raise ToolError(f"fogline {name}: took more than {timeout_s:.0f} s") from error
        if code != 0:
            raise ToolError(f"fogline {' '.join(arguments)}: exit {code}:\n{child.tail()}")

    async def _exit_code(self, name: str, arguments: list[str], cwd: Path) -> int:
        child = self._child(name, arguments, cwd)
        await child.start()
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            return await child.wait()

    def _child(self, name: str, arguments: list[str], cwd: Path) -> Child:
        command = [sys.executable, "-m", "tools.cli", *arguments]
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        log = self._fleet.log_file(name)
        return Child(name, command, log, cwd=cwd, environment={"PYTHONPATH": path})

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self._view.tick()

    async def _poll_heads(self) -> None:
        """Ask each node for its height, for the view only."""
        while True:
            for name in self._fleet.validators:
                try:
                    self._heads[name] = (await self._status(name)).height
                except ClientError:
                    self._heads.pop(name, None)
            await asyncio.sleep(POLL_HEADS_S)

    def _shown_heads(self) -> str:
        heads = (f"{name} {self._heads.get(name, 'down')}" for name in self._fleet.validators)
        return " | ".join(heads)
