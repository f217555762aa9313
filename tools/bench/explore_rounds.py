"""`fogline bench explore-rounds`: all votes of a small network, with locks, over several rounds."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from fog_node.ledger.explorer import (
    Assembly,
    BrokenRuleError,
    Outcome,
    UnorderedError,
    explore_rounds,
    retrace,
    told,
)
from tools.bench import machine
from tools.errors import ToolError
from tools.outputs import write_json


def run(assembly: Assembly, json: Path | None = None) -> dict[str, Any]:
    """Explore, print what came of it, and give what was printed.

    Raises ToolError where a rule was broken, or where votes fork that may not.
    """
    begin = perf_counter()
    try:
        conduct = assembly.conduct()
        trials = f"{conduct.trials} trials of the real machine"
        print(f"{len(conduct.standings)} standings of one validator, by {trials}", flush=True)
        outcome = explore_rounds(assembly, conduct, _progress)
    except (BrokenRuleError, UnorderedError) as error:
        raise ToolError(f"a rule is broken: {error}") from error
    summary = {
        "machine": machine.describe(),
        "validators": assembly.validators,
        "quorum": assembly.quorum,
        "liars": assembly.liars,
        "blocks_per_round": assembly.blocks,
        "standings": outcome.standings,
        "trials": outcome.trials,
        "states": outcome.states,
        "ballots": outcome.ballots,
        "decided": outcome.decided,
        "forks": outcome.forks,
        "forks_of_one_round": outcome.forks_of_one_round,
        "seconds": perf_counter() - begin,
        "fork_of_one_round": _told(outcome, outcome.fork_of_one_round),
        "fork_of_two_rounds": _told(outcome, outcome.fork_of_two_rounds),
    }
    _show(summary)
    if json is not None:
        write_json(json, summary)
    if outcome.forks and not assembly.may_fork:
        raise ToolError(f"{outcome.forks} states with two final blocks, where there may be none")
    return summary


def _told(outcome: Outcome, way: list[Any] | None) -> list[str] | None:
    """Tell how whole machines get there, where they were found to and one liar is enough."""
    if way is None or outcome.assembly.liars > 1:
        return None
    found = retrace(outcome.assembly, way)
    return None if found is None else told(found[1])


def _progress(outcome: Outcome) -> None:
    print(f"{outcome.states} states", flush=True)


def _show(summary: dict[str, Any]) -> None:
    print(f"all {summary['states']} states within the bounds, in {summary['seconds']:.0f} s")
    print(f"{summary['ballots']} votes cast in them, {summary['decided']} with a final block")
    print(f"{summary['forks']} with two, {summary['forks_of_one_round']} of these of one round")
    for name in ("fork_of_one_round", "fork_of_two_rounds"):
        if summary[name] is not None:
            print(f"a {name.replace('_', ' ')}:")
            print("\n".join(f"  {line}" for line in summary[name]))
