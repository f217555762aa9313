"""`fogline bench network`: how many packs real fog nodes make final, against the verify rate.

The limit: each of n validators checks each pack's signature, on the cores that all share. So
no more than cores x verify rate / n packs can become final in a second.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fog_node.protocol.block import parse_block
from fog_node.protocol.founding import Parameters
from fog_node.protocol.merkle import leaf_hash
from tools.bench import machine, network_plot
from tools.bench.daemons import HOST, Daemons
from tools.bench.feeder import Feeder
from tools.bench.pack_files import FRAME_PACKS, Order, packs_in, read_file, sign_files
from tools.bench.workload import MAX_READINGS, Board, enrolments
from tools.consortium import VALIDATOR_ROLES, Consortium, create
from tools.errors import ToolError, UsageError
from tools.outputs import write_json
from tools.submit import wait_final

LIMIT = 1.0
TARGET = 0.4
VALIDATORS = (1, 3, 5, 7, 9)
READINGS = (1, 10, 60)
# The default consortium but for a block every 3 s, at most one a second, with room in a block for
# what an interval brings on a fast machine, and with the difficulty that it begins with: a chain
# that has settled has its miners search for the rest of each interval, on the cores that verify.
PARAMETERS = Parameters(
    block_interval_ms=3000,
    max_block_bytes=8 * 1024 * 1024,
    max_block_transactions=16_384,
    retarget_blocks=0,
)
BOARDS = 64
WARM_UP_S = 30.0
DRAIN_S = 60.0
FEEDER = "feeder"
OPERATOR = "works"
POLL_S = 0.1
# Of the limit: the rate begins with it.
START_SHARE = 0.2
VERIFY_S = 2.0


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        validators, readings: each number of the one with each of the other.
        seconds: of each, after a warm-up.
        warm_up_s: until the rate has settled.
        signed_share: of the limit; so many packs are signed beforehand. A run that would need
            more ends earlier.
    """

    validators: Sequence[int] = VALIDATORS
    readings: Sequence[int] = READINGS
    seconds: float = 60.0
    warm_up_s: float = WARM_UP_S
    signed_share: float = 0.75


def run(
    options: Options,
    directory: Path | None = None,
    json: Path | None = None,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Measure, print as it goes, and give what was printed.

    Raises:
        UsageError: an option is out of range.
        ToolError: a node ended, a pack was lost, or a file cannot be written.
    """
    if any(not 1 <= count <= MAX_READINGS for count in options.readings):
        raise UsageError(f"readings: a pack has 1 to {MAX_READINGS}")
    if any(not 1 <= count <= 128 for count in options.validators):
        raise UsageError("validators: a consortium has 1 to 128")
    described = machine.describe()
    result: dict[str, Any] = {
        "machine": described,
        "limit": LIMIT,
        "target": TARGET,
        "block_interval_s": PARAMETERS.block_interval_ms / 1000,
        "runs": [],
    }
    for key, value in described.items():
        print(f"{key:10} {value}")
    print(_HEADER)
    for validators in options.validators:
        for readings in options.readings:
            with tempfile.TemporaryDirectory(dir=directory) as name:
                row = asyncio.run(_measure(Path(name), validators, readings, options))
            result["runs"].append(row)
            print(_line(row), flush=True)
    result["growth"] = growth(result["runs"])
    for text in result["growth"]:
        print(text)
    try:
        if json is not None:
            write_json(json, result)
        if plot is not None:
            network_plot.draw(result, plot)
    except OSError as error:
        raise ToolError(f"{error.filename}: {error.strerror}; name another file") from error
    return result


async def _measure(
    directory: Path, validators: int, readings: int, options: Options
) -> dict[str, Any]:
    verify_per_s = _verify_rate()
    cores = len(os.sched_getaffinity(0))
    limit = cores * verify_per_s / validators
    names = [f"v{index}" for index in range(validators)]
    consortium = create(
        directory / "consortium",
        "bench",
        {
            **dict.fromkeys(names, VALIDATOR_ROLES),
            FEEDER: frozenset({"gateway"}),
            OPERATOR: frozenset({"operator"}),
        },
        parameters=PARAMETERS,
    )
    boards = [Board.make() for _ in range(BOARDS)]
    packs = int(limit * options.signed_share * (options.seconds + options.warm_up_s))
    files = _sign(directory, consortium, boards, packs, readings, cores)
    async with Daemons(consortium, names, directory / "nodes") as daemons:
        for name in names:
            daemons.init(name)
        await asyncio.gather(*(daemons.start(name) for name in names))
        await asyncio.gather(*(daemons.connected(name, validators - 1) for name in names))
        async with _Run(consortium, daemons, names, START_SHARE * limit) as measured:
            await measured.enrol(boards)
            row = await measured.feed(_alternate(files), options)
    return {
        "validators": validators,
        "readings": readings,
        "verify_per_s": verify_per_s,
        "limit_per_s": limit,
        **row,
        "ratio": row["packs_per_s"] / limit,
    }


class _Run:
    """One network under load."""

    def __init__(
        self, consortium: Consortium, daemons: Daemons, names: Sequence[str], start_rate: float
    ) -> None:
        self._founding = consortium.founding
        self._consortium = consortium
        self._daemons = daemons
        self._names = names
        self._client = daemons.client(names[0], OPERATOR)
        by_name = {member.name: member.kid for member in self._founding.members}
        addresses = {name: (HOST, port) for name, port in daemons.peer_ports.items()}
        self._feeder = Feeder(
            self._founding,
            consortium.signing_key(FEEDER),
            consortium.member_directory(FEEDER),
            addresses,
            lambda: self._committed,
            start_rate,
        )
        self._kids = [by_name[name] for name in addresses]
        self._asked = by_name[names[0]]
        self._committed = 0
        self._base = 0
        self._height = 0

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        await self._feeder.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._feeder.stop()
        await self._client.__aexit__(None, None, None)

    async def enrol(self, boards: Sequence[Board]) -> None:
        """Put the boards on the chain."""
        operator = self._consortium.signing_key(OPERATOR)
        transactions = enrolments(operator, OPERATOR, boards, self._founding.chain_id)
        for transaction in transactions:
            await self._client.submit(transaction.raw)
        for transaction in transactions:
            await wait_final(self._client, transaction)
        await self._look()
        self._committed = 0
        self._base = self._height

    async def feed(self, frames: Iterator[tuple[int, bytes]], options: Options) -> dict[str, Any]:
        """Warm up, measure, and account for every pack."""
        sent: list[bytes] = []

        def remembered() -> Iterator[tuple[int, bytes]]:
            for packs, frame in frames:
                sent.append(frame)
                yield packs, frame

        feeding = asyncio.create_task(self._feeder.feed(remembered()))
        await self._watch(feeding, options.warm_up_s)
        before, begin = self._daemons.cpu_s(), time.monotonic()
        own = time.process_time()
        await self._watch(feeding, options.seconds)
        spent = time.monotonic() - begin
        cpu = {name: used - before[name] for name, used in self._daemons.cpu_s().items()}
        own = time.process_time() - own
        memory = self._daemons.resident_mib()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await self._drain()
        heads = await self._heads()
        committed = await self._committed_ids()
        placed = _place(sent, [item.at for item in self._feeder.sent])
        counted = [identity for identity, _, _ in committed if identity in placed]
        latencies = sorted(
            final - placed[identity]
            for identity, final, height in committed
            if identity in placed and begin <= final < begin + spent and height
        )
        if not latencies:
            raise ToolError("bench: nothing became final while it was measured; give it more time")
        return {
            "packs_per_s": len(latencies) / spent,
            "p50_s": _quantile(latencies, 0.5),
            "p99_s": _quantile(latencies, 0.99),
            "seconds": spent,
            "lost": len(placed) - len(set(counted)),
            "doubled": len(counted) - len(set(counted)),
            "heads": len(heads),
            "blocks": len({height for _, final, height in committed if final >= begin}),
            "cpu_share": sum(cpu.values()) / spent / len(os.sched_getaffinity(0)),
            "us_per_pack_and_node": sum(cpu.values()) / len(cpu) / len(latencies) * 1e6,
            "feeder_cpu_share": own / spent / len(os.sched_getaffinity(0)),
            "mib": max(memory.values()),
        }

    async def _watch(self, feeding: asyncio.Task[None], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not feeding.done():
            await asyncio.sleep(POLL_S)
            await self._look()
        self._daemons.check()
        if feeding.done():
            feeding.result()

    async def _look(self) -> None:
        """Count what has become final, when a node has told of a new block."""
        told = self._feeder.progress.height_of(self._asked)
        while self._height < told:
            page = await self._client.blocks(self._height + 1, told - self._height)
            for block in page.blocks:
                self._height = block.height
                self._committed += block.transactions

    async def _drain(self) -> None:
        """Wait until all that was sent is final on all nodes, DRAIN_S at most."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            await self._look()
            if self._committed >= self._feeder.packs and all(
                self._feeder.progress.height_of(kid) >= self._height for kid in self._kids
            ):
                return
            await asyncio.sleep(POLL_S)

    async def _heads(self) -> set[str]:
        """Hashes that the nodes have at the last height."""
        found = set()
        for name in self._names:
            async with self._daemons.client(name, name) as client:
                block = await client.block(self._height)
                found.add(block.hash)
        return found

    async def _committed_ids(self) -> list[tuple[bytes, float, int]]:
        """Id, time at which most nodes had it final, and height of each pack on the chain."""
        found = []
        final_at = self._feeder.progress.final_at
        async with aclosing(self._client.stream(self._base + 1)) as stream:
            async for sealed in stream:
                times = sorted(final_at.get(sealed.height, {}).values())
                at = times[len(times) // 2] if times else math.inf
                block = parse_block(sealed.block)
                found += [(item.id, at, sealed.height) for item in block.transactions]
                if sealed.height >= self._height:
                    break
        return found


def growth(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Say in words how the rate changes with validators and with readings."""
    said = []
    for readings in dict.fromkeys(row["readings"] for row in runs):
        rows = [row for row in runs if row["readings"] == readings]
        if len(rows) > 1:
            said.append(f"{readings} readings: " + _power(rows, "validators"))
    for validators in dict.fromkeys(row["validators"] for row in runs):
        rows = [row for row in runs if row["validators"] == validators]
        if len(rows) > 1:
            said.append(f"{validators} validators: " + _power(rows, "readings"))
    return said


def _power(rows: Sequence[dict[str, Any]], key: str) -> str:
    """Fit packs/s = a * key^b by least squares of the logarithms."""
    xs = [math.log(row[key]) for row in rows]
    ys = [math.log(row["packs_per_s"]) for row in rows]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return f"packs/s grow as {key}^{slope:.2f}"


_HEADER = (
    f"\n{'validators':>10} {'readings':>8} {'packs/s':>8} {'limit':>8} {'ratio':>6} {'p50 s':>6} "
    f"{'p99 s':>6} {'lost':>5} {'doubled':>7} {'heads':>5} {'nodes CPU':>9} {'us/pack':>7} "
    f"{'MiB':>5}"
)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['validators']:10} {row['readings']:8} {row['packs_per_s']:8.0f} "
        f"{row['limit_per_s']:8.0f} {row['ratio']:6.2f} {row['p50_s']:6.2f} {row['p99_s']:6.2f} "
        f"{row['lost']:5} {row['doubled']:7} {row['heads']:5} {row['cpu_share']:9.0%} "
        f"{row['us_per_pack_and_node']:7.0f} {row['mib']:5.0f}"
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _place(frames: Sequence[bytes], times: Sequence[float]) -> dict[bytes, float]:
    """When each pack was sent, by id."""
    placed = {}
    for frame, at in zip(frames, times, strict=False):
        placed.update(dict.fromkeys(map(leaf_hash, packs_in(frame)), at))
    return placed


def _sign(
    directory: Path,
    consortium: Consortium,
    boards: Sequence[Board],
    packs: int,
    readings: int,
    files: int,
) -> list[Path]:
    founding = consortium.founding
    each = math.ceil(packs / files / FRAME_PACKS) * FRAME_PACKS
    orders = [
        Order(
            tuple(board.key.to_pem() for board in boards[index::files]),
            each,
            readings,
            founding.parameters.enterprise_number,
            founding.chain_id,
        )
        for index in range(files)
    ]
    paths = [directory / f"packs-{index}" for index in range(files)]
    sign_files(orders, paths)
    return paths


def _alternate(files: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    for several in zip(*(read_file(path) for path in files), strict=True):
        yield from several


def _verify_rate() -> float:
    """Signature checks per second on one core, as `cryptography` does it best."""
    algorithm = ec.ECDSA(hashes.SHA256())
    key = ec.generate_private_key(ec.SECP256R1())
    public, message = key.public_key(), bytes(400)
    signature = key.sign(message, algorithm)
    count, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < VERIFY_S:
        for _ in range(100):
            public.verify(signature, message, algorithm)
        count += 100
    return count / spent
