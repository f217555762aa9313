"""`fogline bench admission`: from a pack's bytes to the disk, against bare signature checks."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Self

from fog_node import garbage
from fog_node.gateway.admission import Admission, Message, Outcome
from fog_node.gateway.intake import MAX_GROUP, Intake
from fog_node.ledger import Ledger
from fog_node.ledger.mempool import Mempool
from fog_node.ledger.store import Store
from fog_node.ledger.validation import check_transaction
from fog_node.ledger.verifier import Verifier
from fog_node.pow import best, mine
from fog_node.protocol.block import Block, target_from_bits
from fog_node.protocol.founding import Founding, Member, Parameters
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Transaction
from fog_node.protocol.votes import PRECOMMIT, make_certificate, sign_vote
from tools.bench import machine
from tools.bench.signatures import verify_bare_s
from tools.bench.workload import MAX_READINGS, Board, enrolments
from tools.errors import ToolError, UsageError
from tools.outputs import write_json

# Of the bare rate of signature checks; 1.0 would be an admission that costs nothing else.
LIMIT = 1.0
TARGET = 0.75
READINGS = (1, 10, 60)
BOARDS = 16
EASY_BITS = 0x207FFFFF

# Each round measures both, so that a machine that slows down slows both of them down.
_ROUNDS = 5
# What waits in the intake: enough that it never runs dry.
_AHEAD = 4 * MAX_GROUP


def run(
    readings: Sequence[int] = READINGS,
    packs: int = 4000,
    directory: Path | None = None,
    json: Path | None = None,
) -> dict[str, Any]:
    """Measure on one core, print, and give what was printed.

    Args:
        readings: sizes of the packs to measure.
        packs: in each of the rounds.
        directory: where the ledgers are kept meanwhile; the system's temporary one by default.
        json: where to write the result too.

    Raises:
        UsageError: a pack cannot have so many readings, or there are too few packs.
    """
    for count in readings:
        if not 1 <= count <= MAX_READINGS:
            raise UsageError(f"readings: {count}; a pack has 1 to {MAX_READINGS}")
    if packs < BOARDS:
        raise UsageError(f"packs: {packs}; give at least {BOARDS}")
    result: dict[str, Any] = {"machine": machine.describe(), "limit": LIMIT, "target": TARGET}
    with _one_core(), _as_in_a_node():
        result["packs"] = {str(count): _measure(count, packs, directory) for count in readings}
    _show(result)
    if json is not None:
        write_json(json, result)
    return result


def _measure(readings: int, packs: int, directory: Path | None) -> dict[str, Any]:
    rounds = []
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory(dir=directory) as name, _World(Path(name)) as world:
            rounds.append(world.measure(readings, packs))
    typical = {key: median(each[key] for each in rounds) for key in rounds[0]}
    bare, whole = typical["verify_cpu_us"], typical["admission_cpu_us"]
    parts = {key: typical[f"{key}_us"] for key in ("parse", "checks", "mempool", "disk")}
    return {
        "bytes": round(typical["bytes"]),
        "verify_per_s": 1e6 / typical["verify_us"],
        "admitted_per_s": 1e6 / typical["admission_us"],
        "ratio": median(each["verify_us"] / each["admission_us"] for each in rounds),
        "cpu_ratio": median(each["verify_cpu_us"] / each["admission_cpu_us"] for each in rounds),
        "cpu_us_per_pack": {
            "verify": bare,
            **parts,
            "other": whole - bare - sum(parts.values()),
        },
    }


class _World:
    """A ledger with boards on it, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        validator, operator = SigningKey.generate(), SigningKey.generate()
        members = (
            Member("node", validator.public, frozenset({"gateway", "validator"})),
            Member("works", operator.public, frozenset({"operator"})),
        )
        parameters = Parameters(bits=EASY_BITS, rest_ms=0)
        self._founding = Founding("bench", 1_700_000_000_000, "majority", parameters, b"", members)
        self._directory = directory
        self._ledger = Ledger.open(directory / "ledger", self._founding)
        self._boards = [Board.make() for _ in range(BOARDS)]
        chain_id = self._founding.chain_id
        self._ledger.admit(enrolments(operator, "works", self._boards, chain_id))
        self._seal(validator)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()

    def measure(self, readings: int, packs: int) -> dict[str, float]:
        """Microseconds per pack: of bare verification, of admission, and of its parts alone.

        The parts, and both as `_cpu`, in processor time, which others' load leaves alone.
        """
        number = self._founding.parameters.enterprise_number
        chain_id = self._founding.chain_id
        raw = [
            self._boards[index % BOARDS].sign_pack(readings, number, chain_id)
            for index in range(packs)
        ]
        parsed = [self._ledger.parse_transaction(data) for data in raw]
        state, height = self._ledger.state, self._ledger.height + 1
        verifier, pool = Verifier(chain_id), Mempool()

        def check(transaction: Transaction) -> None:
            check_transaction(transaction, state, height, verifier)

        keys = [board.key.public for board in self._boards]
        bare_s = verify_bare_s(parsed, keys, chain_id)
        bare_cpu_s = verify_bare_s(parsed, keys, chain_id, process_time)
        # A board's topic names it.
        arriving = [Message(item.raw, item.signer) for item in parsed]
        begin = process_time()
        admission_s = self._admit(arriving)
        admission_cpu_s = process_time() - begin
        checks_s = _each(check, parsed) - bare_cpu_s
        seconds = {
            "verify": bare_s,
            "admission": admission_s,
            "verify_cpu": bare_cpu_s,
            "admission_cpu": admission_cpu_s,
            "parse": _each(self._ledger.parse_transaction, raw),
            "checks": checks_s,
            "mempool": _each(pool.add, parsed),
            "disk": self._write(parsed),
        }
        per_pack = {f"{key}_us": value / packs * 1e6 for key, value in seconds.items()}
        return {"bytes": sum(map(len, raw)) / packs, **per_pack}

    def _admit(self, messages: Sequence[Message]) -> float:
        """Give packs to the gateway's intake until all are on the disk."""
        return asyncio.run(self._take_in(messages))

    async def _take_in(self, messages: Sequence[Message]) -> float:
        arriving = iter(messages)
        left = len(messages)
        all_done = asyncio.Event()

        def offer() -> None:
            while len(intake) < _AHEAD and (message := next(arriving, None)) is not None:
                intake.offer(message)

        def settled(outcomes: Sequence[Outcome]) -> None:
            nonlocal left
            for outcome in outcomes:
                if outcome.kind != "admitted":
                    raise ToolError(f"bench: a pack was {outcome.kind}: {outcome.refusal}")
            left -= len(outcomes)
            offer()
            if not left:
                all_done.set()

        with ThreadPoolExecutor(1) as executor:
            intake = Intake(Admission(self._ledger), executor, settled)
            begin = perf_counter()
            offer()
            running = asyncio.create_task(intake.run())
            waiting = asyncio.create_task(all_done.wait())
            await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
            spent = perf_counter() - begin
            if running.done():
                running.result()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return spent

    def _write(self, parsed: Sequence[Transaction]) -> float:
        store = Store(self._directory / "alone", self._founding.chain_id)
        try:
            # Its work alone: the intake goes on while the disk is waited for.
            begin = process_time()
            for first in range(0, len(parsed), MAX_GROUP):
                group = parsed[first : first + MAX_GROUP]
                store.add_pending((item.id, item.raw) for item in group)
            return process_time() - begin
        finally:
            store.close()

    def _seal(self, validator: SigningKey) -> None:
        ledger = self._ledger
        block = ledger.template(validator, 0, ledger.head.time + 1)
        found = mine(
            block.header.encode(), target_from_bits(block.header.bits), kernel=best()
        ).nonce
        assert found is not None
        block = Block(replace(block.header, nonce=found), block.coinbase, block.transactions)
        vote = sign_vote(validator, block.height, 0, PRECOMMIT, block.hash, self._founding.chain_id)
        ledger.commit(block, make_certificate([vote]))


def _each(do: Callable[[Any], object], items: Sequence[Any]) -> float:
    begin = process_time()
    for item in items:
        do(item)
    return process_time() - begin


@contextmanager
def _as_in_a_node() -> Iterator[None]:
    """Look for cycles of objects as seldom as a node does."""
    before = gc.get_threshold()
    garbage.relax()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process, and the threads it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _show(result: dict[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    for readings, row in result["packs"].items():
        print(
            f"\n{readings} readings, {row['bytes']} bytes: {row['admitted_per_s']:.0f} packs/s, "
            f"{row['ratio']:.2f} x the {row['verify_per_s']:.0f} bare signature checks/s "
            f"({row['cpu_ratio']:.2f} x in processor time)   limit {result['limit']:.2f} x, "
            f"to reach {result['target']:.2f} x"
        )
        for part, spent in row["cpu_us_per_pack"].items():
            print(f"  {part:8} {spent:7.1f} us of processor time")
