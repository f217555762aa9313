"""`fogline bench pow`: the kernels of the proof of work against a hashlib loop, one core each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from statistics import median
from threading import Timer
from time import perf_counter
from typing import Any

from fog_node import pow as proof_of_work
from tools.bench import machine
from tools.errors import ToolError, UsageError

# Times the hashlib loop, one x86-64 core: what a kernel is to reach.
LIMITS = {"avx512": 21.0, "sha_ni": 18.0, "avx2": 8.5}

# Each round measures everything once, so that a machine that slows down slows all of it down.
_ROUNDS = 10
_LOOP_HASHES = 1_000
_NO_HASH = 0
_HEADER = bytes(range(76))


def run(
    seconds: float = 2.0, kernels: Sequence[str] | None = None, json: Path | None = None
) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    seconds: for each kernel and for the loop. kernels: names, by default all of this machine.
    json: where to write the result too.

    Raises UsageError for a kernel this machine does not have or a time that is not positive.
    """
    if seconds <= 0:
        raise UsageError(f"seconds: {seconds} is not positive")
    names = proof_of_work.kernels() if kernels is None else list(kernels)
    for name in names:
        if name not in proof_of_work.kernels():
            raise UsageError(str(proof_of_work.KernelError(name, tuple(proof_of_work.kernels()))))
    rounds = [_measure(names, seconds / _ROUNDS) for _ in range(_ROUNDS)]
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "hashlib": {"hashes_per_s": median(loop for loop, _ in rounds)},
        "kernels": {
            name: {
                "hashes_per_s": median(rates[name] for _, rates in rounds),
                "ratio": median(rates[name] / loop for loop, rates in rounds),
                "limit": LIMITS.get(name),
            }
            for name in names
        },
    }
    _show(result)
    if json is not None:
        try:
            json.write_text(dumps(result, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ToolError(f"{json}: {error.strerror}; name a file that can be written") from error
    return result


def _measure(names: Sequence[str], seconds: float) -> tuple[float, dict[str, float]]:
    return _rate_of_hashlib(seconds), {name: _rate_of_kernel(name, seconds) for name in names}


def _rate_of_hashlib(seconds: float) -> float:
    sha256: Callable[[bytes], Any] = hashlib.sha256
    hashes = 0
    begin = perf_counter()
    while (spent := perf_counter() - begin) < seconds:
        for nonce in range(hashes, hashes + _LOOP_HASHES):
            sha256(sha256(_HEADER + nonce.to_bytes(4, "little")).digest()).digest()
        hashes += _LOOP_HASHES
    return hashes / spent


def _rate_of_kernel(name: str, seconds: float) -> float:
    token = proof_of_work.CancelToken()
    timer = Timer(seconds, token.cancel)
    timer.start()
    begin = perf_counter()
    result = proof_of_work.mine(_HEADER, _NO_HASH, kernel=name, cancel=token)
    spent = perf_counter() - begin
    timer.cancel()
    return result.hashes / spent


def _show(result: dict[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    print(f"\n{'hashlib':10} {result['hashlib']['hashes_per_s'] / 1e6:8.2f} MH/s")
    for name, row in result["kernels"].items():
        limit = "" if row["limit"] is None else f"   limit {row['limit']:.1f} x"
        rate = row["hashes_per_s"] / 1e6
        print(f"{name:10} {rate:8.2f} MH/s {row['ratio']:7.2f} x hashlib{limit}")
