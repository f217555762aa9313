"""`fogline bench growth`: what a long chain costs in memory, on the disk, and in time."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from fog_node.ledger import Ledger
from fog_node.ledger.schema import DATABASE
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.transactions import parse_transaction
from fog_node.protocol.votes import parse_certificate
from tools.bench import machine
from tools.bench.chain import GrowingChain
from tools.bench.signatures import verify_bare_s
from tools.errors import ToolError, UsageError
from tools.outputs import write_json

# Bytes on the disk for each byte of the packs.
LIMIT = 1.3
READINGS = 10
PER_BLOCK = 500
CATCH_UP_PACKS = 20_000
LOOKUPS = 200
STARTS = 5
# At powers of ten from here on, and at the end.
FIRST_MARK = 10_000
SAMPLES = 200
KIB = 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")


def run(
    packs: int = 1_000_000,
    readings: int = READINGS,
    per_block: int = PER_BLOCK,
    directory: Path | None = None,
    json: Path | None = None,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Grow a chain, measure at each power of ten, print, and give what was printed.

    Args:
        packs: in all.
        readings: in each pack.
        per_block: packs in each block.
        directory: where the ledgers are kept meanwhile; the system's temporary one by default.
        json: where to write the result too.
        plot: where to draw memory and disk against packs, as PNG.

    Raises:
        UsageError: a number is out of range.
        ToolError: what is asked for cannot be written, or drawn here.
    """
    if packs < per_block or per_block < 1:
        raise UsageError(f"packs: {packs}; give at least one block of {per_block}")
    if plot is not None:
        _check_plotting()
    with tempfile.TemporaryDirectory(dir=directory) as name:
        result = {
            "machine": machine.describe(),
            "readings": readings,
            "packs_per_block": per_block,
            **_measure(Path(name), packs, readings, per_block),
        }
    _show(result)
    if json is not None:
        write_json(json, result)
    if plot is not None:
        _draw(result, plot)
    return result


def _measure(directory: Path, packs: int, readings: int, per_block: int) -> dict[str, Any]:
    marks = _marks(packs)
    every = max(1, packs // SAMPLES // per_block) * per_block
    samples: list[dict[str, float]] = []
    rows: list[dict[str, Any]] = []
    pack_bytes = sealed = 0
    path = directory / "ledger"
    with GrowingChain(path) as chain:

        def tell(done: int) -> None:
            if (sealed + done) % every < per_block:
                disk = _disk_bytes(path)
                samples.append({"packs": sealed + done, "rss": _rss_bytes(), "disk": disk})

        for mark in marks:
            pack_bytes += chain.grow(mark - sealed, readings, per_block, tell)
            sealed = mark
            start_ms = _start_ms(chain, path)
            disk = _disk_bytes(path)
            rows.append(
                {
                    "packs": sealed,
                    "bytes_per_pack": pack_bytes / sealed,
                    "disk_per_pack": disk / sealed,
                    "ratio": disk / pack_bytes,
                    "rss_mib": _rss_bytes() / KIB**2,
                    "start_ms": start_ms,
                    **_look_up(chain.ledger),
                }
            )
        catch_up = _catch_up(chain, directory / "follower")
    return {"marks": rows, "limit": LIMIT, "catch_up": catch_up, "samples": samples}


def _marks(packs: int) -> list[int]:
    marks = []
    mark = FIRST_MARK
    while mark < packs:
        marks.append(mark)
        mark *= 10
    return [*marks, packs]


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _disk_bytes(path: Path) -> int:
    """Bytes of the database; the write-ahead log, which does not grow with it, is left out."""
    return (path / DATABASE).stat().st_size


def _start_ms(chain: GrowingChain, path: Path) -> float:
    spent = []
    for _ in range(STARTS):
        chain.ledger.close()
        begin = perf_counter()
        chain.ledger = Ledger.open(path, chain.founding)
        spent.append((perf_counter() - begin) * 1000)
    return median(spent)


def _look_up(ledger: Ledger) -> dict[str, float]:
    """Median times of look-ups all over the chain, in ms."""
    # The same ones in each run; nothing here is secret.
    chance = random.Random(ledger.height)  # noqa: S311
    ids, numbers, heights, unknown = [], [], [], []
    for _ in range(LOOKUPS):
        height = chance.randint(2, ledger.height)
        block = ledger.block(height)
        assert block is not None
        parsed = ledger.parse_block(block[0])
        chosen = chance.choice(parsed.transactions)
        ids.append(chosen.id)
        numbers.append((chosen.signer, chosen.sequence))
        heights.append(height)
        unknown.append(chance.randbytes(HASH_BYTES))
    return {
        "find_id_ms": _each_ms(ledger.find, ids),
        "find_number_ms": _each_ms(lambda number: ledger.find_sequence(*number), numbers),
        "find_unknown_ms": _each_ms(ledger.find, unknown),
        "find_block_ms": _each_ms(ledger.info, heights),
    }


def _each_ms(ask: Callable[[Any], Any], questions: Sequence[Any]) -> float:
    spent = []
    for question in questions:
        begin = perf_counter()
        ask(question)
        spent.append((perf_counter() - begin) * 1000)
    return median(spent)


def _catch_up(chain: GrowingChain, path: Path) -> dict[str, float]:
    """A second node takes the same blocks, as bytes, and checks everything."""
    follower = Ledger.open(path, chain.founding)
    packs, bare_s, spent = 0, 0.0, 0.0
    keys = [board.key.public for board in chain.boards]
    try:
        for height in range(1, chain.ledger.height + 1):
            found = chain.ledger.block(height)
            assert found is not None
            begin = perf_counter()
            block = follower.parse_block(found[0])
            follower.commit(block, parse_certificate(found[1]))
            if height == 1:  # the enrolments
                continue
            spent += perf_counter() - begin
            packs += len(block.transactions)
            fresh = [parse_transaction(item.raw) for item in block.transactions]
            bare_s += verify_bare_s(fresh, keys, chain.founding.chain_id)
            if packs >= CATCH_UP_PACKS:
                break
    finally:
        follower.close()
    return {
        "packs_per_s": packs / spent,
        "verify_per_s": packs / bare_s,
        "ratio": bare_s / spent,
        "limit": 1.0,
    }


def _show(result: dict[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    print(f"\npacks of {result['readings']} readings, {result['packs_per_block']} in a block")
    head = "packs,B/pack,disk/pack,ratio,RSS MiB,start ms,by id ms,by number,unknown,block"
    print(" ".join(f"{title:>10}" for title in head.split(",")))
    for row in result["marks"]:
        values = [f"{row['packs']:10d}"]
        values += [f"{row[key]:10.1f}" for key in ("bytes_per_pack", "disk_per_pack")]
        values += [f"{row['ratio']:10.3f}", f"{row['rss_mib']:10.1f}", f"{row['start_ms']:10.1f}"]
        values += [f"{row[f'find_{key}_ms']:10.3f}" for key in ("id", "number", "unknown", "block")]
        print(" ".join(values))
    print(f"limit: {result['limit']} bytes on the disk for each byte of a pack")
    catch_up = result["catch_up"]
    print(
        f"catching up: {catch_up['packs_per_s']:.0f} packs/s, {catch_up['ratio']:.2f} of the bare "
        f"{catch_up['verify_per_s']:.0f} verifications/s (limit {catch_up['limit']:.1f})"
    )


def _check_plotting() -> None:
    if find_spec("matplotlib") is None:
        raise ToolError("--plot: needs matplotlib; install it with: pip install '.[cloud]'")


def _draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    packs = [sample["packs"] for sample in result["samples"]]
    figure, (memory, disk) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    memory.plot(packs, [sample["rss"] / KIB**2 for sample in result["samples"]])
    memory.set(xlabel="packs", ylabel="resident memory, MiB", ylim=(0, None))
    disk.plot(packs, [sample["disk"] / KIB**2 for sample in result["samples"]], label="disk")
    size = result["marks"][-1]["bytes_per_pack"]
    disk.plot(packs, [count * size / KIB**2 for count in packs], label="packs' own bytes")
    disk.set(xlabel="packs", ylabel="MiB")
    disk.legend()
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; name a file that can be written") from error
    finally:
        plt.close(figure)
