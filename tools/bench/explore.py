"""`fogline bench explore`: all that can happen at one height of a small network."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from fog_node.ledger.explorer import BrokenRuleError, Network, Result, UnfairError, explore, told
from tools.bench import machine
from tools.errors import ToolError
from tools.outputs import write_json


def run(
    network: Network, max_states: int | None, thorough: bool, json: Path | None = None
) -> dict[str, Any]:
    """Explore, print what came of it, and give what was printed.

    Raises ToolError where a rule was broken: a fork where none may be, one that convicts the
    wrong validator, or an honest validator that contradicts itself.
    """
    begin = perf_counter()
    try:
        result = explore(network, max_states, thorough, _progress)
    except (BrokenRuleError, UnfairError) as error:
        raise ToolError(f"a rule is broken: {error}") from error
    summary = {
        "machine": machine.describe(),
        "validators": network.validators,
        "quorum": network.quorum,
        "liar": network.liar,
        "rounds": network.rounds,
        "blocks": network.blocks,
        "restarts": network.restarts,
        "seconds": perf_counter() - begin,
        "complete": result.is_complete,
        "states": result.states,
        "transitions": result.transitions,
        "validator_states": result.replicas,
        "decided": result.decided,
        "forks": result.forks,
        "forks_of_one_round": result.same_round,
        "shortest_fork": told(result.fork) if result.fork else None,
    }
    _show(summary)
    if json is not None:
        write_json(json, summary)
    may_fork = network.liar and 2 * network.quorum - network.validators <= 1
    if result.forks and not may_fork:
        raise ToolError(f"{result.forks} states with two final blocks, where there may be none")
    return summary


def _progress(result: Result) -> None:
    print(f"{result.states} states, {result.replicas} of single validators", flush=True)


def _show(summary: dict[str, Any]) -> None:
    extent = "all" if summary["complete"] else "not all; the first"
    print(f"{extent} {summary['states']} states within the bounds, in {summary['seconds']:.0f} s")
    print(f"{summary['transitions']} transitions, {summary['decided']} states with a final block")
    print(f"{summary['forks']} with two, {summary['forks_of_one_round']} of these of one round")
    for line in summary["shortest_fork"] or ():
        print(f"  {line}")
