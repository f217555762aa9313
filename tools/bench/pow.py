"""`fogline bench pow`: the kernels of the proof of work against a hashlib loop, one core each.

Then each kernel on all cores against itself on one, and how long a search goes on when cancelled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Timer
from time import perf_counter, process_time, sleep
from typing import Any

from fog_node import pow as proof_of_work
from tools.bench import machine
from tools.errors import UsageError
from tools.outputs import write_json

# Times the hashlib loop, one x86-64 core: what a kernel is to reach.
LIMITS = {"avx512": 21.0, "sha_ni": 18.0, "avx2": 8.5}

# What a cancelled search may still take.
CANCEL_LIMIT_MS = 5.0

# Each round measures everything once, so that a machine that slows down slows all of it down.
_ROUNDS = 10
_LOOP_HASHES = 1_000
_CANCELS_PER_ROUND = 10
# Long enough for all threads of a search to be at work when it is cancelled.
_SEARCH_BEFORE_CANCEL_S = 0.005
_NO_HASH = 0
_HEADER = bytes(range(76))


def run(
    seconds: float = 2.0, kernels: Sequence[str] | None = None, json: Path | None = None
) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    seconds: for each kernel on one core, again on all cores, and for the loop. kernels: names, by
    default all of this machine. json: where to write the result too.

    Raises UsageError for a kernel this machine does not have or a time that is not positive.
    """
    if seconds <= 0:
        raise UsageError(f"seconds: {seconds} is not positive")
    names = proof_of_work.kernels() if kernels is None else list(kernels)
    for name in names:
        if name not in proof_of_work.kernels():
            raise UsageError(str(proof_of_work.KernelError(name, tuple(proof_of_work.kernels()))))
    rounds = [_Round(names, seconds / _ROUNDS) for _ in range(_ROUNDS)]
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "hashlib": {"hashes_per_s": median(one.loop for one in rounds)},
        "threads": proof_of_work.usable_cores(),
        "kernels": {name: _summary(name, rounds) for name in names},
    }
    _show(result)
    if json is not None:
        write_json(json, result)
    return result


@dataclass(frozen=True)
class _Rate:
    """Hashes per second of the processor's time, and of the clock.

    What other programs on the machine take has no part in the former, and so not in the ratio to
    the loop either.
    """

    of_processor: float
    of_clock: float


class _Round:
    """Everything measured once: rates, and milliseconds from cancel to end."""

    def __init__(self, names: Sequence[str], seconds: float) -> None:
        cores = proof_of_work.usable_cores()
        self.loop = _rate_of_hashlib(seconds)
        self.one_core = {name: _rate_of_kernel(name, 1, seconds) for name in names}
        self.all_cores = {name: _rate_of_kernel(name, cores, seconds) for name in names}
        self.cancels_ms = {
            name: [_cancel_ms(name, cores) for _ in range(_CANCELS_PER_ROUND)] for name in names
        }


def _summary(name: str, rounds: Sequence[_Round]) -> dict[str, Any]:
    rates = [(one.loop, one.one_core[name], one.all_cores[name]) for one in rounds]
    cancels_ms = [latency for one in rounds for latency in one.cancels_ms[name]]
    return {
        "hashes_per_s": median(one.of_processor for _, one, _ in rates),
        "ratio": median(one.of_processor / loop for loop, one, _ in rates),
        "limit": LIMITS.get(name),
        "all_cores": {
            "hashes_per_s": median(every.of_clock for _, _, every in rates),
            "ratio_to_one_core": median(every.of_clock / one.of_clock for _, one, every in rates),
        },
        "cancel_ms": {
            "p50": median(cancels_ms),
            "max": max(cancels_ms),
            "limit": CANCEL_LIMIT_MS,
            "cancels": len(cancels_ms),
        },
    }


def _rate_of_hashlib(seconds: float) -> float:
    sha256: Callable[[bytes], Any] = hashlib.sha256
    hashes = 0
    begin = perf_counter()
    begin_core = process_time()
    # On a busy machine the time may be over before the first hash.
    while hashes == 0 or perf_counter() - begin < seconds:
        for nonce in range(hashes, hashes + _LOOP_HASHES):
            sha256(sha256(_HEADER + nonce.to_bytes(4, "little")).digest()).digest()
        hashes += _LOOP_HASHES
    return hashes / (process_time() - begin_core)


def _rate_of_kernel(name: str, threads: int, seconds: float) -> _Rate:
    hashes = 0
    begin, begin_core = perf_counter(), process_time()
    while hashes == 0:
        token = proof_of_work.CancelToken()
        timer = Timer(seconds, token.cancel)
        timer.start()
        result = proof_of_work.mine(_HEADER, _NO_HASH, kernel=name, threads=threads, cancel=token)
        hashes = result.hashes
        timer.cancel()
    spent, spent_core = perf_counter() - begin, process_time() - begin_core
    return _Rate(hashes / spent_core, hashes / spent)


def _cancel_ms(name: str, threads: int) -> float:
    """From the call of cancel() to the return of mine(), which waits for all its threads."""
    token = proof_of_work.CancelToken()

    def search() -> float:
        proof_of_work.mine(_HEADER, _NO_HASH, kernel=name, threads=threads, cancel=token)
        return perf_counter()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(search)
        sleep(_SEARCH_BEFORE_CANCEL_S)
        begin = perf_counter()
        token.cancel()
        return (ended.result() - begin) * 1e3


def _show(result: dict[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    print(f"\n{'hashlib':10} {result['hashlib']['hashes_per_s'] / 1e6:8.2f} MH/s")
    for name, row in result["kernels"].items():
        limit = "" if row["limit"] is None else f"   limit {row['limit']:.1f} x"
        rate = row["hashes_per_s"] / 1e6
        print(f"{name:10} {rate:8.2f} MH/s {row['ratio']:7.2f} x hashlib{limit}")
    threads = result["threads"]
    print(f"\non {threads} threads, one per core; cancel to end, limit {CANCEL_LIMIT_MS:.0f} ms")
    for name, row in result["kernels"].items():
        rate = row["all_cores"]["hashes_per_s"] / 1e6
        ratio = row["all_cores"]["ratio_to_one_core"]
        cancel = row["cancel_ms"]
        print(
            f"{name:10} {rate:8.2f} MH/s {ratio:7.2f} x one thread"
            f"   p50 {cancel['p50']:.2f} ms   max {cancel['max']:.2f} ms"
        )
