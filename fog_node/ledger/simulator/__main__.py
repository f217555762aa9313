"""Play runs from the command line: one in full, or many in brief."""

from __future__ import annotations

import argparse
from collections import Counter

from . import Report, SimulationError, simulate


def main() -> int:
    """Return 0 when every run kept its promises, else 1."""
    parser = argparse.ArgumentParser(prog="python -m fog_node.ledger.simulator")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell every event")
    arguments = parser.parse_args()
    coverage: Counter[str] = Counter()
    slowest: Report | None = None
    failures = 0
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        try:
            report = simulate(seed, print if arguments.verbose else None)
        except SimulationError as error:
            print(error)
            failures += 1
            continue
        coverage += report.coverage
        if slowest is None or (report.recovery_ms or 0) > (slowest.recovery_ms or 0):
            slowest = report
    for what, count in sorted(coverage.items()):
        print(f"{count:10d}  {what}")
    if slowest is not None and slowest.recovery_ms is not None:
        seed, recovery_ms = slowest.scenario.seed, slowest.recovery_ms
        print(f"slowest recovery: {recovery_ms:.0f} ms, seed {seed}")
    print(f"{arguments.runs - failures} of {arguments.runs} runs kept every promise")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
