"""`fogline bench simulate`: networks under faults, each from one seed, and what they met."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from fog_node.ledger import simulator
from fog_node.ledger.simulator import SimulationError
from tools import simulation
from tools.bench import machine
from tools.errors import ToolError, UsageError
from tools.outputs import write_json
from tools.simulation.many import PARTS, Summary, play

_TITLES = {"consensus": "the voting alone", "nodes": "whole nodes"}


def run(
    seeds: int = 1000,
    first: int = 0,
    jobs: int = 1,
    parts: tuple[str, ...] = PARTS,
    json: Path | None = None,
) -> dict[str, Any]:
    """Play `seeds` runs of each part, print what they met, and give what was printed.

    Raises ToolError where a run broke a promise, after everything was printed.
    """
    if seeds < 1 or jobs < 1:
        raise UsageError("seeds, jobs: must be at least 1")
    result: dict[str, Any] = {"machine": machine.describe(), "first": first, "parts": {}}
    failures = []
    for part in parts:
        begin = perf_counter()
        summary = Summary.of(play(part, range(first, first + seeds), jobs))
        seconds = perf_counter() - begin
        result["parts"][part] = _as_json(summary, seconds)
        _show(part, summary, seconds)
        failures += [outcome.failure for outcome in summary.failures]
    if json is not None:
        write_json(json, result)
    if failures:
        raise ToolError(f"{len(failures)} of {seeds * len(parts)} runs broke a promise")
    return result


def replay(seed: int, part: str) -> None:
    """Play one run and tell what happens in it; ToolError where it breaks a promise."""
    try:
        if part == "consensus":
            consensus = simulator.simulate(seed, print)
            coverage, recovery_ms = consensus.coverage, consensus.recovery_ms
        else:
            with simulation.remembered():
                nodes = simulation.simulate(seed, print)
            coverage, recovery_ms = nodes.coverage, nodes.recovery_ms
    except SimulationError as error:
        raise ToolError(str(error)) from error
    for what, count in sorted(coverage.items()):
        print(f"{count:10d}  {what}")
    if recovery_ms is not None:
        print(f"went on {recovery_ms:.0f} ms after the last fault")


def _as_json(summary: Summary, seconds: float) -> dict[str, Any]:
    slowest = summary.slowest
    return {
        "runs": summary.runs,
        "seconds": seconds,
        "live": summary.live,
        "failures": [{"seed": o.seed, "problem": o.failure} for o in summary.failures],
        "coverage": {
            what: {"runs": summary.runs_with[what], "events": count}
            for what, count in sorted(summary.events.items())
        },
        "networks": {f"{n} {rule}": count for (n, rule), count in sorted(summary.networks.items())},
        "slowest_recovery": None
        if slowest is None or slowest.recovery_ms is None
        else {"seed": slowest.seed, "ms": slowest.recovery_ms},
    }


def _show(part: str, summary: Summary, seconds: float) -> None:
    print(f"\n{_TITLES[part]}: {summary.runs} runs in {seconds:.0f} s\n")
    print(f"{'runs':>8} {'events':>10}  what came about")
    for what, count in sorted(summary.events.items()):
        print(f"{summary.runs_with[what]:8d} {count:10d}  {what}")
    networks = ", ".join(
        f"{count} of {n} under {rule}" for (n, rule), count in sorted(summary.networks.items())
    )
    print(f"\nnetworks: {networks}")
    slowest = summary.slowest
    if slowest is not None and slowest.recovery_ms is not None:
        print(
            f"{summary.live} runs had to go on after their faults; the slowest, seed "
            f"{slowest.seed}, took {slowest.recovery_ms:.0f} ms"
        )
    for outcome in summary.failures:
        print(outcome.failure)
    print(f"{summary.runs - len(summary.failures)} of {summary.runs} runs kept every promise")
