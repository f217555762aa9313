"""A network of real processes: one daemon per node, a broker, and what is known of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from fog_node.api.models import Status
from fog_node.client import ClientError
from fog_node.config import split_address
from fog_node.protocol.founding import Founding
from support.daemons import PARAMETERS, Process
from support.processes import Mosquitto
from tools import consortium as consortiums

from .links import DESK, Links
from .manifest import BOARDS, BROKER, Manifest
from .namespaces import Namespaces
from .proxy import Proxy
from .wires import Wires

POLL_S = 0.25
START_TIMEOUT_S = 120.0
OPERATOR = "operator"
READER = "regulator"
# A node without a quorum may finish what was decided already when its links were cut, and what
# the nodes that were not asked at that moment knew more.
SLACK_BLOCKS = 2
# A daemon of these small networks takes some 100 MiB; growth beyond this is a leak.
MAX_RESIDENT_KIB = 320 * 1024
SKEWED_CLOCK = Path(__file__).with_name("skewed_clock.c")


@dataclass
class Node:
    """One node and what has been seen of it.

    Attributes:
        height: of its latest final block, when last asked.
        ceiling: the height it cannot pass while its links stay as they are; None: it can.
        resident_kib: most memory that its process ever took, of all its processes.
        exits: exit codes of orderly ends.
    """

    process: Process
    is_validator: bool
    height: int = 0
    ceiling: int | None = None
    paused: bool = False
    resident_kib: int = 0
    exits: list[int | None] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether it runs and is not paused."""
        return self.process.process.running and not self.paused


class Net:
    """See the module. Everything that random choices decide follows from the seed."""

    def __init__(self, manifest: Manifest, seed: int, way: str, directory: Path) -> None:
        self.manifest = manifest
        self.seed = seed
        self.directory = directory
        self.rng = random.Random(f"{seed}/{manifest.name}")
        self.links = Links(self.rng.randrange(2**32))
        self.drawn = self._draw()
        places = (*manifest.nodes, BROKER)
        make: type[Namespaces | Proxy] = {"namespaces": Namespaces, "proxy": Proxy}[way]
        self.wires: Wires = make(self.links, places)
        self.history: list[str] = []
        self.heads: dict[int, tuple[str, str]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self.consortium = self._found()
        self.broker = self._make_broker()
        self.nodes = {name: self._make_node(name) for name in manifest.nodes}

    @property
    def founding(self) -> Founding:
        """The consortium's."""
        return self.consortium.founding

    def say(self, what: str) -> None:
        """Note something for whoever reads a failure."""
        self.history.append(f"{self._loop.time() - self._begin:7.2f} s  {what}")

    # Making it

    def _draw(self) -> dict[str, str]:
        names = list(self.manifest.validators)
        self.rng.shuffle(names)
        return {f"x{index + 1}": name for index, name in enumerate(names)}

    def names(self, given: Iterable[str]) -> list[str]:
        """Names as they are, with those that the seed chose put in."""
        return [self.drawn.get(name, name) for name in given]

    def _found(self) -> consortiums.Consortium:
        manifest = self.manifest
        voting = frozenset({"validator"} if manifest.extra_gateways else {"validator", "gateway"})
        members: dict[str, frozenset[str]] = dict.fromkeys(manifest.validators, voting)
        members |= dict.fromkeys(manifest.observers, frozenset({"regulator"}))
        members |= dict.fromkeys(manifest.extra_gateways, frozenset({"gateway"}))
        members[OPERATOR] = frozenset({"operator"})
        members[READER] = frozenset({"regulator"})
        interval = manifest.network.block_interval_ms
        return consortiums.create(
            self.directory / "consortium", "test", members,
            quorum_rule=manifest.network.quorum,
            parameters=replace(PARAMETERS, block_interval_ms=interval),
        )  # fmt: skip

    def _make_broker(self) -> Mosquitto:
        directory = self.directory / BROKER
        certificate = consortiums.issue_certificate(
            self.consortium, BROKER, directory, hosts=self.wires.hosts()
        )
        tls = _Tls(self.consortium.authority_certificate, certificate, directory / "tls.key")
        address = split_address(self.wires.listen(BROKER, "mqtt"))
        return Mosquitto(
            directory, tls, address, lambda command: self.wires.command(BROKER, command)
        )

    def _make_node(self, name: str) -> Node:
        takes_packs = name in self.manifest.gateways
        sections: dict[str, dict[str, Any]] = {
            "peer": {
                "listen": self.wires.listen(name, "peer"),
                "peers": {
                    other: self.wires.reach(name, other, "peer")
                    for other in self.manifest.nodes
                    if other != name
                },
            },
            "mqtt": {"enabled": takes_packs},
            "api": {"listen": self.wires.listen(name, "api"), "tls": True},
        }
        if takes_packs:
            sections["mqtt"]["broker"] = self.wires.reach(name, BROKER, "mqtt")
        process = Process(
            self.consortium, name, self.directory / name, sections,
            wrap=lambda command: self.wires.command(name, command),
            environment=_clock(self.manifest.network.clocks_s.get(name, 0), self.directory),
            source=self.wires.source(DESK),
            reader=READER,
        )  # fmt: skip
        return Node(process, name in self.manifest.validators)

    @property
    def boards_broker(self) -> tuple[str, int]:
        """Where boards find the broker."""
        return split_address(self.wires.reach(BOARDS, BROKER, "mqtt"))

    async def start(self) -> None:
        """Start broker and nodes, but for the late ones, and wait until they answer."""
        _ = self.boards_broker  # the last of the ways that the wires must know
        await self.wires.start()
        await self.broker.start()
        early = [name for name in self.nodes if name not in self.manifest.network.late]
        await self.start_nodes(early)
        self._watcher = asyncio.create_task(self._watch())

    async def all_vote(self) -> None:
        """Wait until none of the validators abstains that run.

        One that meets the others only when they have begun does for two blocks, as it should: cut
        off with too few others, it would keep them standing.
        """
        async with asyncio.timeout(START_TIMEOUT_S):
            for name, node in self.nodes.items():
                while node.is_validator and node.active:
                    status = await self.status(name)
                    if status and not status.asks_before_voting and status.abstains_until is None:
                        break
                    self.check()
                    await asyncio.sleep(POLL_S)

    # Processes

    async def start_nodes(self, names: Sequence[str]) -> None:
        """Start these and wait until they answer."""
        for name in names:
            await self.nodes[name].process.process.start()
        async with asyncio.timeout(START_TIMEOUT_S):
            for name in names:
                while not await self.nodes[name].process.answers():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        await self.links_changed()

    async def kill(self, name: str) -> None:
        """SIGKILL."""
        node = self.nodes[name]
        self._note_memory(node)
        node.paused = False
        await node.process.process.kill()

    async def stop_node(self, name: str) -> None:
        """SIGTERM; it must end in order."""
        node = self.nodes[name]
        self.resume(name)
        self._note_memory(node)
        code = await node.process.process.stop()
        node.exits.append(code)
        assert code == 0, f"{name} ended with code {code} on SIGTERM"

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        os.kill(self._pid(name), signal.SIGSTOP)
        if name != BROKER:
            self.nodes[name].paused = True

    def resume(self, name: str) -> None:
        """SIGCONT."""
        if name == BROKER:
            os.kill(self._pid(name), signal.SIGCONT)
        elif self.nodes[name].paused:
            os.kill(self._pid(name), signal.SIGCONT)
            self.nodes[name].paused = False

    def delete_data(self, name: str) -> None:
        """What a node had on its disk is gone; it must not run."""
        shutil.rmtree(self.nodes[name].process.data)
        self.nodes[name].height = 0

    def _pid(self, name: str) -> int:
        return self.broker.pid if name == BROKER else self.nodes[name].process.process.pid

    def check(self) -> None:
        """Raise where a process ended by itself, or what was seen cannot be."""
        for node in self.nodes.values():
            node.process.process.check()
        if self._watcher is not None and self._watcher.done():
            self._watcher.result()

    # What is known of them

    async def status(self, name: str) -> Status | None:
        """What a node says now; None where it does not answer."""
        node = self.nodes[name]
        if not node.active:
            return None
        try:
            status = await node.process.client.status()
        except ClientError:
            return None
        self._note(name, status)
        return status

    @property
    def height(self) -> int:
        """The highest final block seen."""
        return max(self.heads, default=0)

    def _note(self, name: str, status: Status) -> None:
        """Compare what a node says with all that nodes have said."""
        said = (status.head, status.state_root)
        known = self.heads.setdefault(status.height, said)
        assert known == said, f"fork: at height {status.height} {name} has {said}, others {known}"
        assert status.fork is None, f"{name}: {status.fork}"
        self.nodes[name].height = max(status.height, self.nodes[name].height)

    async def _watch(self) -> None:
        while True:
            await asyncio.gather(*(self._look_at(name) for name in self.nodes))
            await asyncio.sleep(POLL_S)

    async def _look_at(self, name: str) -> None:
        node, version = self.nodes[name], self.links.version
        status = await self.status(name)
        self._note_memory(node)
        if status is None or version != self.links.version or node.ceiling is None:
            return
        assert status.height <= node.ceiling, (
            f"{name}: at height {status.height}, though it has had no quorum since "
            f"height {node.ceiling - SLACK_BLOCKS}"
        )

    def _note_memory(self, node: Node) -> None:
        if node.process.process.running:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{node.process.process.pid}/status").read_text()
                if found := re.search(r"VmHWM:\s+(\d+) kB", text):
                    node.resident_kib = max(node.resident_kib, int(found[1]))

    # Who reaches whom

    async def links_changed(self) -> None:
        """Work out anew which nodes can get further; call after every change."""
        self.links.version += 1
        for node in self.nodes.values():
            node.ceiling = None
        await asyncio.gather(*(self.status(name) for name in self.nodes))
        ceiling = self.height + SLACK_BLOCKS
        for part in self.parts():
            if sum(self.nodes[name].is_validator for name in part) < self.founding.quorum:
                for name in part:
                    self.nodes[name].ceiling = ceiling

    def parts(self) -> list[set[str]]:
        """The nodes that run, in parts that reach each other, through others if need be."""
        active = [name for name, node in self.nodes.items() if node.active]
        parts: list[set[str]] = [{name} for name in active]
        for a, b in combinations(active, 2):
            if not self.links.between(a, b).cut:
                one = next(part for part in parts if a in part)
                other = next(part for part in parts if b in part)
                if one is not other:
                    one |= other
                    parts.remove(other)
        return parts

    # The end

    async def end(self) -> None:
        """End everything, however it went."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await asyncio.gather(*(node.process.process.kill() for node in self.nodes.values()))
        clients = (node.process.client for node in self.nodes.values())
        await asyncio.gather(*(client.__aexit__(None, None, None) for client in clients))
        await self.broker.kill()
        await self.wires.stop()

    async def stop_watching(self) -> None:
        """Look at nodes no more."""
        assert self._watcher is not None
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher


@dataclass(frozen=True)
class _Tls:
    ca_pem: Path
    pem: Path
    key: Path


def _clock(ahead_s: int, directory: Path) -> dict[str, str]:
    """Environment of a process whose clock of day is ahead; its timers run true."""
    if not ahead_s:
        return {}
    library = directory / "skewed_clock.so"
    if not library.exists():
        command = [os.environ.get("CC", "cc"), "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
        command += ["-shared", "-fPIC", str(SKEWED_CLOCK), "-o", str(library)]
        subprocess.run(command, check=True, timeout=START_TIMEOUT_S)
    return {"LD_PRELOAD": str(library), "AHEAD_S": str(ahead_s)}
