"""Fog nodes of a benchmark: real daemons on 127.0.0.1, with their API over TLS."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fog_node.client import Client, ClientError
from fog_node.protocol.founding import Parameters
from tools import fog
from tools.consortium import Consortium
from tools.demo.processes import Child, free_port
from tools.errors import ToolError
from tools.nodes import credentials_in

HOST = "127.0.0.1"
READY_TIMEOUT_S = 120.0
# Many nodes that end at once on few cores take their time.
STOP_TIMEOUT_S = 120.0
POLL_S = 0.05
# A search of some ms of one core: several miners must leave room on two cores.
PARAMETERS = Parameters(
    block_interval_ms=500,
    heartbeat_ms=0,
    bits=0x1E1FFFFF,
    retarget_blocks=0,
    rest_ms=250,
    stagger_ms=100,
)
_ROOT = Path(__file__).resolve().parents[2]
_KIB = 1024


class Daemons:
    """The fog nodes of some members; those still running end with the context."""

    def __init__(self, consortium: Consortium, names: Sequence[str], directory: Path) -> None:
        """Choose ports; `init` and `start` do the rest.

        Args:
            consortium: with the members `names`.
            names: whose nodes there are; each has all others as peers.
            directory: each node gets a directory in it.
        """
        self._consortium = consortium
        self._directory = directory
        self._peer_ports = {name: free_port() for name in names}
        self._api_ports = {name: free_port() for name in names}
        self._children: dict[str, Child] = {}

    @property
    def urls(self) -> list[str]:
        """Addresses of the nodes' APIs."""
        return [f"https://{HOST}:{port}" for port in self._api_ports.values()]

    @property
    def peer_ports(self) -> dict[str, int]:
        """Where each node listens for others."""
        return dict(self._peer_ports)

    def client(self, name: str, reader: str) -> Client:
        """Make a client of one node, as the member `reader`."""
        credentials = credentials_in(self._consortium.member_directory(reader))
        return Client([f"https://{HOST}:{self._api_ports[name]}"], credentials=credentials)

    def directory(self, name: str) -> Path:
        """Where a node's configuration, log and data are."""
        return self._directory / name

    def init(self, name: str) -> None:
        """Write a node's configuration, as `fogline fog init` does."""
        overrides: dict[str, dict[str, Any]] = {
            "peer": {
                "listen": f"{HOST}:{self._peer_ports[name]}",
                "peers": {n: f"{HOST}:{p}" for n, p in self._peer_ports.items() if n != name},
            },
            "mqtt": {"enabled": False},
            "api": {"listen": f"{HOST}:{self._api_ports[name]}", "tls": True},
        }
        own = self.directory(name)
        configuration, _ = fog.init(
            own,
            name,
            self._consortium.founding_file,
            self._consortium.member_directory(name),
            data_dir=own / "data",
            overrides=overrides,
        )
        command = [sys.executable, "-m", "tools.cli", "fog", "run", "--config", str(configuration)]
        self._children[name] = Child(name, command, own / "log", cwd=_ROOT)

    async def start(self, name: str) -> None:
        """Start a node, and wait until its API answers."""
        child = self._children[name]
        await child.start()
        deadline = time.monotonic() + READY_TIMEOUT_S
        async with self.client(name, name) as client:
            while True:
                child.check()
                try:
                    await client.status()
                except ClientError:
                    pass
                else:
                    return
                if time.monotonic() > deadline:
                    raise ToolError(
                        f"{name}: does not answer after {READY_TIMEOUT_S:.0f} s; its last lines:\n"
                        f"{child.tail()}"
                    )
                await asyncio.sleep(POLL_S)

    async def connected(self, name: str, peers: int) -> None:
        """Wait until a node is connected to so many others."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        async with self.client(name, name) as client:
            while len((await client.status()).peers) < peers:
                self._children[name].check()
                if time.monotonic() > deadline:
                    raise ToolError(f"{name}: is not connected to {peers} nodes in time")
                await asyncio.sleep(POLL_S)

    async def stop(self, name: str) -> None:
        """End a node in order."""
        code = await self._children[name].stop(STOP_TIMEOUT_S)
        if code:
            tail = self._children[name].tail()
            raise ToolError(f"{name}: ended with code {code}; its last lines:\n{tail}")

    def check(self) -> None:
        """Raise ToolError where a node ended by itself."""
        for child in self._children.values():
            child.check()

    def resident_mib(self) -> dict[str, float]:
        """Resident memory of each running node, in MiB."""
        found = {}
        for name, child in self._children.items():
            if child.running:
                fields = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
                (line,) = (x for x in fields.splitlines() if x.startswith("VmRSS:"))
                found[name] = int(line.split()[1]) / _KIB
        return found

    def cpu_s(self) -> dict[str, float]:
        """Processor time that each running node has used so far, in s."""
        tick = os.sysconf("SC_CLK_TCK")
        found = {}
        for name, child in self._children.items():
            if child.running:
                # The name of the program, in brackets, may hold blanks (proc(5)).
                stat = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii", errors="replace")
                fields = stat.rpartition(")")[2].split()
                found[name] = (int(fields[11]) + int(fields[12])) / tick
        return found

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what runs."""
        await asyncio.gather(*(child.stop() for child in self._children.values()))
