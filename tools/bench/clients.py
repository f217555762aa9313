"""`fogline bench clients`: a thousand request nodes against a few controllers.

The network of the BCmfg paper (Li, Barenji, Huang: Toward a blockchain cloud manufacturing system
as a peer to peer distributed network platform, Robotics and Computer-Integrated Manufacturing 54,
2018) on one machine: controllers are validators, each a real daemon; request nodes are members with
a key and a TLS certificate of their own. Nine of ten are customers and send a request each, every
tenth is a provider and answers one of those. Each opens a connection, sends, and disconnects; later
each opens another, fetches the proof of what it sent, and verifies it against the founding file.

The limit is the bare TLS handshake: what this machine does of those a second, with nothing else.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fog_node.network import certificates
from fog_node.protocol.block import parse_block
from fog_node.protocol.members import MAX_MEMBERS
from tools import consortium as consortiums
from tools.bench import machine
from tools.bench.daemons import PARAMETERS, Daemons
from tools.consortium import Consortium
from tools.errors import ToolError, UsageError
from tools.outputs import write_json

MAX_CONTROLLERS = 16
# Every tenth client is a provider.
CUSTOMERS_PER_PROVIDER = 9
CONTENT_BYTES = 512
FINAL_TIMEOUT_S = 120.0
SAMPLE_S = 0.5
SHOWN_ERRORS = 5
MAX_LINE_BYTES = 64 * 1024 * 1024
_HANDSHAKES = 100
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        clients, controllers: how many.
        processes: that the clients are spread over.
        concurrency: sessions under way at once, of all processes together.
    """

    clients: int = 1000
    controllers: int = 5
    processes: int = 2
    concurrency: int = 100

    def check(self) -> None:
        """Raise UsageError where that cannot be."""
        least, most = 1 + 1, MAX_MEMBERS - self.controllers
        if not 1 <= self.controllers <= MAX_CONTROLLERS:
            raise UsageError(f"--controllers {self.controllers}: is not 1 to {MAX_CONTROLLERS}")
        if not least <= self.clients <= most:
            raise UsageError(
                f"--clients {self.clients}: is not {least} to {most}; a founding file lists "
                f"at most {MAX_MEMBERS} members"
            )
        if not 1 <= self.processes <= self.concurrency:
            raise UsageError("--processes, --concurrency: at least one session in each process")


def run(
    options: Options, json_file: Path | None = None, plot: Path | None = None
) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    Raises:
        UsageError: the options do not fit together.
        ToolError: a session failed, a node ended, or a file cannot be written.
    """
    options.check()
    with tempfile.TemporaryDirectory(prefix="fogline-clients-") as directory:
        result = asyncio.run(_measure(options, Path(directory)))
    _show(result)
    try:
        if json_file is not None:
            write_json(json_file, result)
        if plot is not None:
            from tools.bench.client_plot import draw

            draw(result, plot)
    except OSError as error:
        raise ToolError(
            f"{error.filename}: {error.strerror}; name a file that can be written"
        ) from error
    if result["failures"]:
        raise ToolError("sessions failed: " + "; ".join(result["errors"]))
    return result


class _Loads:
    """The processes that the clients live in."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    @classmethod
    async def start(cls, count: int, founding: Path) -> _Loads:
        command = [sys.executable, "-m", "tools.bench.client_load", str(founding)]
        pipe = asyncio.subprocess.PIPE
        return cls(
            [
                await asyncio.create_subprocess_exec(
                    *command, stdin=pipe, stdout=pipe, cwd=_ROOT, limit=MAX_LINE_BYTES
                )
                for _ in range(count)
            ]
        )

    async def do(
        self, what: str, members: Sequence[dict[str, Any]], urls: Sequence[str], concurrency: int
    ) -> tuple[list[dict[str, Any]], float]:
        """Give each member its session; returns their results, and the s it took."""
        count = len(self._processes)
        began = time.perf_counter()
        parts = await asyncio.gather(
            *(
                self._one(
                    process,
                    {
                        "do": what,
                        "members": list(members[number::count]),
                        "urls": list(urls),
                        "concurrency": concurrency // count,
                    },
                )
                for number, process in enumerate(self._processes)
            )
        )
        return [result for part in parts for result in part], time.perf_counter() - began

    @staticmethod
    async def _one(
        process: asyncio.subprocess.Process, job: dict[str, Any]
    ) -> list[dict[str, Any]]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ToolError(f"a process of clients ended with code {await process.wait()}")
        results: list[dict[str, Any]] = json.loads(line)
        return results

    async def stop(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class _Watch:
    """When each transaction became final, as one controller tells it."""

    def __init__(self, daemons: Daemons, controller: str) -> None:
        self._daemons = daemons
        self._controller = controller
        self.final: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async with (
            self._daemons.client(self._controller, self._controller) as client,
            aclosing(client.stream(1)) as blocks,
        ):
            async for sealed in blocks:
                now = time.time()
                for transaction in parse_block(sealed.block).transactions:
                    self.final[transaction.id.hex()] = now
                self._changed.set()

    async def wait(self, ids: Sequence[str]) -> None:
        """Wait until all of these are final; raises ToolError after FINAL_TIMEOUT_S."""
        try:
            async with asyncio.timeout(FINAL_TIMEOUT_S):
                while not self.final.keys() >= set(ids):
                    if self._task.done():
                        self._task.result()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            missing = len(set(ids) - self.final.keys())
            raise ToolError(
                f"{missing} transactions are not final after {FINAL_TIMEOUT_S:.0f} s"
            ) from None

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class _Memory:
    """Resident memory of the controllers, sample by sample."""

    def __init__(self, daemons: Daemons) -> None:
        self._daemons = daemons
        self._began = time.monotonic()
        self.samples: list[dict[str, Any]] = []
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self.take()
            await asyncio.sleep(SAMPLE_S)

    def take(self) -> None:
        self._daemons.check()
        seconds = round(time.monotonic() - self._began, 2)
        self.samples.append({"s": seconds, "mib": self._daemons.resident_mib()})

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def _measure(options: Options, directory: Path) -> dict[str, Any]:
    controllers = [f"controller-{i}" for i in range(1, options.controllers + 1)]
    clients = [f"client-{i:04d}" for i in range(1, options.clients + 1)]
    providers = clients[CUSTOMERS_PER_PROVIDER :: CUSTOMERS_PER_PROVIDER + 1] or clients[-1:]
    consortium = await asyncio.to_thread(_found, directory, controllers, clients, providers)
    members = _Members(consortium)
    limit = await asyncio.to_thread(_handshakes_per_s, consortium, controllers[0])
    async with AsyncExitStack() as stack:
        daemons = await stack.enter_async_context(
            Daemons(consortium, controllers, directory / "nodes")
        )
        for name in controllers:
            daemons.init(name)
        await asyncio.gather(*(daemons.start(name) for name in controllers))
        await asyncio.gather(*(daemons.connected(n, len(controllers) - 1) for n in controllers))
        loads = await _Loads.start(options.processes, consortium.founding_file)
        stack.push_async_callback(loads.stop)
        watch = _Watch(daemons, controllers[0])
        stack.push_async_callback(watch.stop)
        memory = _Memory(daemons)
        stack.push_async_callback(memory.stop)

        asking = [name for name in clients if name not in set(providers)]
        jobs = [
            members.job(name, provider=members.kid(providers[i % len(providers)]))
            for i, name in enumerate(asking)
        ]
        requests, request_s = await loads.do("submit", jobs, daemons.urls, options.concurrency)
        sent = _by_name(requests)
        await watch.wait(list(sent.values()))
        # The first request that asks a provider is the one that it answers.
        jobs = [
            members.job(name, request=sent[asking[i]])
            for i, name in enumerate(providers)
            if i < len(asking) and asking[i] in sent
        ]
        responses, response_s = await loads.do("submit", jobs, daemons.urls, options.concurrency)
        sent |= _by_name(responses)
        await watch.wait(list(sent.values()))
        jobs = [members.job(name, id=id_) for name, id_ in sent.items()]
        proofs, proof_s = await loads.do("prove", jobs, daemons.urls, options.concurrency)
        memory.take()

    submitted = [*requests, *responses]
    errors = [f"{r['name']}: {r['error']}" for r in (*submitted, *proofs) if "error" in r]
    waits = [watch.final[r["id"]] - r["ended"] for r in submitted if "id" in r]
    sessions_per_s = (len(submitted) + len(proofs)) / (request_s + response_s + proof_s)
    cores = len(os.sched_getaffinity(0))
    return {
        "machine": machine.describe(),
        "load": os.getloadavg()[0],
        "clients": options.clients,
        "controllers": options.controllers,
        "quorum": consortium.founding.quorum,
        "processes": options.processes,
        "concurrency": options.concurrency,
        "tls": "1.3, certificates on both sides, no session resumed",
        "content_bytes": CONTENT_BYTES,
        "submit": _spread([r["seconds"] for r in submitted]),
        "proof": _spread([r["seconds"] for r in proofs]),
        "final": _spread([max(wait, 0.0) for wait in waits]),
        "seconds": {"requests": request_s, "responses": response_s, "proofs": proof_s},
        "sessions_per_s": sessions_per_s,
        "handshakes_per_s": limit * cores,
        "ratio": sessions_per_s / (limit * cores),
        "limit": 1.0,
        "proved": sum("error" not in r for r in proofs),
        "failures": len(errors) + options.clients - len(proofs),
        "errors": errors[:SHOWN_ERRORS],
        "memory": _memory(memory.samples),
        "samples": memory.samples,
        "latencies": {
            "submit": sorted(r["seconds"] for r in submitted),
            "proof": sorted(r["seconds"] for r in proofs),
            "final": sorted(waits),
        },
    }


class _Members:
    """What a process of clients is told of each of them."""

    def __init__(self, consortium: Consortium) -> None:
        self._consortium = consortium
        self._kids = {member.name: member.kid for member in consortium.founding.members}

    def kid(self, name: str) -> str:
        return self._kids[name].hex()

    def job(self, name: str, **more: str) -> dict[str, Any]:
        directory = str(self._consortium.member_directory(name))
        return {"name": name, "directory": directory, "size": CONTENT_BYTES, **more}


def _found(
    directory: Path, controllers: Sequence[str], clients: Sequence[str], providers: Sequence[str]
) -> Consortium:
    roles: dict[str, frozenset[str]] = dict.fromkeys(controllers, consortiums.VALIDATOR_ROLES)
    roles |= dict.fromkeys(clients, frozenset({"customer"}))
    roles |= dict.fromkeys(providers, frozenset({"provider"}))
    return consortiums.create(directory / "consortium", "bench", roles, parameters=PARAMETERS)


def _handshakes_per_s(consortium: Consortium, name: str) -> float:
    """Bare handshakes of one core, both sides of them: TLS 1.3 with both certificates."""
    own = consortium.member_directory(name)
    files = (consortium.founding.authority, own / "tls.crt", own / "tls.key")
    server, client = certificates.server_context(*files), certificates.client_context(*files)
    began = time.perf_counter()
    for _ in range(_HANDSHAKES):
        _shake_hands(server, client)
    return _HANDSHAKES / (time.perf_counter() - began)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=certificates.SERVER_NAME),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


def _by_name(results: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {result["name"]: result["id"] for result in results if "id" in result}


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile (nearest rank) and maximum, in s."""
    if not seconds:
        return {"p50_s": math.nan, "p99_s": math.nan, "max_s": math.nan}
    ranked = sorted(seconds)
    return {
        "p50_s": median(ranked),
        "p99_s": ranked[math.ceil(0.99 * len(ranked)) - 1],
        "max_s": ranked[-1],
    }


def _memory(samples: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    names = samples[0]["mib"]
    return {
        name: {
            "start_mib": samples[0]["mib"][name],
            "peak_mib": max(sample["mib"].get(name, 0.0) for sample in samples),
            "end_mib": samples[-1]["mib"].get(name, math.nan),
        }
        for name in names
    }


def _show(result: dict[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    print(f"{'load':10} {result['load']:.1f}")
    print(
        f"\n{result['clients']} clients, {result['controllers']} controllers (quorum "
        f"{result['quorum']}); {result['processes']} processes, {result['concurrency']} sessions "
        f"at once; TLS {result['tls']}\n"
    )
    for name, meaning in (
        ("submit", "connect, ask for the number, send, disconnect"),
        ("final", "from then until the block is final"),
        ("proof", "connect, fetch, disconnect, verify"),
    ):
        row = result[name]
        print(
            f"{name:8} p50 {row['p50_s'] * 1000:8.0f} ms   p99 {row['p99_s'] * 1000:8.0f} ms   max "
            f"{row['max_s'] * 1000:8.0f} ms   {meaning}"
        )
    print(
        f"\n{result['sessions_per_s']:.0f} sessions/s, {result['ratio']:.2f} x the "
        f"{result['handshakes_per_s']:.0f} bare handshakes/s of all cores   limit "
        f"{result['limit']:.2f} x"
    )
    for name, row in result["memory"].items():
        print(
            f"{name:14} {row['start_mib']:6.0f} MiB at first, {row['peak_mib']:6.0f} at most, "
            f"{row['end_mib']:6.0f} at the end"
        )
    print(f"{result['proved']} proofs verified, {result['failures']} failures")
