"""Does everything that allocates in the C extension many times and watches the process's memory."""

from __future__ import annotations

import sys
from pathlib import Path

from fog_node.pow import CancelToken, KernelError, double_sha256, kernels, mine

ROUNDS = 2_000
# A leak of one 16-byte flag per search would come to more than twice this.
ALLOWED_KIB = 256
TOKENS_PER_ROUND = 20


def resident_kib() -> int:
    """Counted page by page: `status` may be off by some dozens of pages for each processor."""
    pages = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return int(pages.split("Rss:")[1].split()[0])


def work(rounds: int) -> None:
    for index in range(rounds):
        header = index.to_bytes(76, "big")
        tokens = [CancelToken() for _ in range(TOKENS_PER_ROUND)]
        tokens[0].cancel()
        mine(header, 0, kernel=kernels()[index % len(kernels())], count=3, cancel=tokens[0])
        mine(header, 1 << 255, kernel=kernels()[index % len(kernels())], count=50)
        double_sha256(header + bytes(4))
        try:
            mine(header, 0, kernel="missing")
        except KernelError:
            continue


work(ROUNDS)
before = resident_kib()
work(ROUNDS)
grown = resident_kib() - before
print(f"{grown} KiB more after {ROUNDS} rounds, {ALLOWED_KIB} allowed")
sys.exit(grown > ALLOWED_KIB)
