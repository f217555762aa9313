"""Fog nodes as a user runs them: one process each, from a configuration file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from fog_node.client import Client, ClientError
from fog_node.credentials import Credentials
from fog_node.protocol.founding import Parameters
from tools import fog
from tools.consortium import Consortium, create
from tools.demo.processes import Child, free_port

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
# The mean search is shorter than what it takes to vote, so that two cores carry five nodes.
PARAMETERS = Parameters(
    block_interval_ms=300, heartbeat_ms=0, bits=0x1F7FFFFF, retarget_blocks=0, rest_ms=100,
    stagger_ms=80,
)  # fmt: skip


def found(
    directory: Path, names: tuple[str, ...], parameters: Parameters = PARAMETERS
) -> Consortium:
    """Validators `names`, an operator and a trainer."""
    members = {name: frozenset({"validator", "gateway"}) for name in names}
    members |= {"operator": frozenset({"operator"}), "trainer": frozenset({"trainer"})}
    return create(directory, "test", members, parameters=parameters)


class Process:
    """One `fogline fog run`, from its configuration's sections.

    `wrap` makes the command that runs a command where this node is to be; `source` is the
    address from which the test asks it, over TLS as the member `reader` if one is named.
    """

    def __init__(
        self,
        consortium: Consortium,
        name: str,
        directory: Path,
        sections: dict[str, dict[str, Any]],
        *,
        wrap: Callable[[list[str]], list[str]] = list,
        environment: dict[str, str] | None = None,
        source: str = "",
        reader: str | None = None,
    ) -> None:
        self.name = name
        self.url = f"{'https' if reader else 'http'}://{sections['api']['listen']}"
        self.data = directory / "data"
        self.config, _ = fog.init(
            directory, name, consortium.founding_file, consortium.member_directory(name),
            data_dir=self.data, overrides=sections,
        )  # fmt: skip
        command = [sys.executable, "-m", "tools.cli", "fog", "run", "--config", str(self.config)]
        self.process = Child(
            name, wrap(command), directory / "log", cwd=ROOT, environment=environment
        )
        if reader is None:
            self.client = Client([self.url], timeout_s=DEADLINE_S)
            return
        own = consortium.member_directory(reader)
        credentials = Credentials(own / "tls.crt", own / "tls.key", consortium.founding.authority)
        transport = httpx.AsyncHTTPTransport(
            local_address=source or None, verify=credentials.context()
        )
        self.client = Client([self.url], transport=transport, credentials=credentials)

    @property
    def log(self) -> str:
        path = self.config.parent / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def start(self) -> None:
        await self.process.start()
        await until(self.answers, f"{self.name} answers")

    async def answers(self) -> bool:
        self.process.check()
        try:
            await self.client.status()
        except ClientError:
            return False
        return True

    async def run_to_end(self) -> tuple[int, str]:
        """Exit code and output of a daemon that is to end by itself."""
        await self.process.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self.process.wait(), self.log
        finally:
            await self.process.kill()


class Daemon(Process):
    """A node on loopback that knows its peers by their ports, without a broker."""

    def __init__(
        self,
        consortium: Consortium,
        name: str,
        directory: Path,
        ports: dict[str, int],
        **overrides: dict[str, Any],
    ) -> None:
        self.peer_port = ports[name]
        sections: dict[str, dict[str, Any]] = {
            "peer": {
                "listen": f"127.0.0.1:{self.peer_port}",
                "peers": {n: f"127.0.0.1:{p}" for n, p in ports.items() if n != name},
            },
            "mqtt": {"enabled": False},
            "api": {"listen": f"127.0.0.1:{free_port()}"},
        }
        for section, values in overrides.items():
            sections[section] = sections.get(section, {}) | values
        super().__init__(consortium, name, directory, sections)


def make_daemons(consortium: Consortium, directory: Path) -> list[Daemon]:
    """A daemon of every validator, not started yet."""
    names = [member.name for member in consortium.founding.validators]
    ports = {name: free_port() for name in names}
    return [Daemon(consortium, name, directory / name, ports) for name in names]


async def stop_all(daemons: Sequence[Process]) -> None:
    """End them however the test went."""
    await asyncio.gather(*(daemon.process.kill() for daemon in daemons))
    await asyncio.gather(*(daemon.client.__aexit__(None, None, None) for daemon in daemons))


async def level(*daemons: Process) -> None:
    """Wait until all have the same latest block: what one has said of it, all say."""

    async def agree() -> bool:
        statuses = await asyncio.gather(*(daemon.client.status() for daemon in daemons))
        return len({status.head for status in statuses}) == 1

    await until(agree, "all have the same latest block")


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition, DEADLINE_S at most."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited {DEADLINE_S:.0f} s in vain until {what}") from None
