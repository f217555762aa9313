"""Runs one manifest from founding to verdict; a failure says all that is needed to replay it."""

from __future__ import annotations

from pathlib import Path

from .judge import end_in_order, judge, settle
from .load import Load
from .manifest import Manifest
from .net import Net
from .steps import Steps

TAIL_LINES = 60
TEST = "tests/network/test_manifests.py"


async def run(manifest: Manifest, seed: int, way: str, directory: Path) -> None:
    """Build, load, perturb, heal and judge a network.

    Raises:
        AssertionError: with seed, history and the end of every log, where it did not hold.
    """
    print(f"{manifest.name}: seed {seed}, by {way}")
    net = Net(manifest, seed, way, directory)
    load = Load(net)
    steps = Steps(net, load)
    try:
        net.say(f"drawn: {net.drawn}")
        await net.start()
        net.say("started")
        await load.start()
        net.say("loaded")
        await net.all_vote()
        net.say("all vote")
        await steps.carry_out()
        await settle(net, load, steps)
        await judge(net, load)
        await load.stop()
        await end_in_order(net)
        print("\n".join(net.history))
    except Exception as error:
        raise AssertionError(await _report(net, load, way, error)) from error
    finally:
        await load.stop()
        await net.end()


async def _report(net: Net, load: Load, way: str, error: Exception) -> str:
    name = net.manifest.name
    lines = [
        f"{name}: {type(error).__name__}: {error}",
        f"replay: pytest {TEST} --manifests {name} --networks {way} --net-seed {net.seed}",
        "what was done:",
        *net.history,
        "boards (signed, receipted):",
        *(f"  {board.name}: {board.last}, {board.receipted - 1}" for board in load.boards),
        "nodes:",
    ]
    for node_name, node in net.nodes.items():
        status = await net.nodes[node_name].process.answers() if node.active else False
        lines.append(
            f"  {node_name}: height {node.height}, ceiling {node.ceiling}, running "
            f"{node.process.process.running}, paused {node.paused}, answers {status}"
        )
    logs = [(n, node.process.config.parent / "log") for n, node in net.nodes.items()]
    logs += [("broker", net.broker.log)]
    logs += [(p.stem, p) for p in sorted((net.directory / "boards").glob("*.log"))]
    for log_name, path in logs:
        text = path.read_text(errors="replace").splitlines() if path.exists() else []
        lines.append(f"---- {log_name}: the end of {path} ({len(text)} lines)")
        lines += text[-TAIL_LINES:]
    return "\n".join(lines)
