"""Carries out a manifest's steps: waits for each one's moment, then perturbs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import combinations

from .load import Load
from .manifest import (
    BOARDS,
    BROKER,
    Heal,
    Lossy,
    OnNodes,
    Partition,
    Progress,
    Rolling,
    Slow,
    Standstill,
    Step,
    When,
)
from .net import Net

# No claim on speed: only a network that is stuck for good takes so long.
PATIENCE_S = 120.0
TICK_S = 0.05

Pairs = list[tuple[str, str]]


class Steps:
    """Perturbs one network."""

    def __init__(self, net: Net, load: Load) -> None:
        self._net = net
        self._load = load

    async def carry_out(self) -> None:
        """All of them, in order."""
        for step in self._net.manifest.steps:
            if step.when is not None:
                await self._moment(step.when)
            self._net.say(_words(step))
            await self._do(step)
            await self._net.links_changed()

    async def until(self, what: str, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait for a condition; raises where it does not come, or a process ends."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    result = condition()
                    if isinstance(result, Awaitable):
                        result = await result
                    if result:
                        return
                    self._net.check()
                    self._load.check()
                    await asyncio.sleep(TICK_S)
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain until {what}") from None

    async def _moment(self, when: When) -> None:
        net = self._net
        if when.seconds is not None:
            await asyncio.sleep(when.seconds)
            net.check()
        elif when.receipts is not None:
            goal = self._load.receipts + when.receipts
            # Less is all there is where the boards have measured everything.
            await self.until(
                f"boards have {goal} receipts",
                lambda: self._load.receipts >= goal or self._load.boards_done,
            )
        else:
            height = when.height or net.height + (when.blocks or 0)
            await self.until(f"height {height} is reached", lambda: net.height >= height)

    async def _do(self, step: Step) -> None:
        net, links = self._net, self._net.links
        match step:
            case Partition():
                links.cut(self._cuts(step))
            case Slow():
                links.slow(self._links_of(net.names(step.nodes)), step.delay_ms / 1000)
            case Lossy():
                links.lossy(self._links_of(net.names(step.nodes)), step.loss)
            case Heal():
                links.heal()
            case OnNodes():
                await self._on_nodes(step.do, net.names(step.nodes))
            case Rolling():
                for name in net.names(step.nodes) or list(net.nodes):
                    await self._on_nodes("restart", [name])
                    await self._progress([name], step.blocks)
            case Progress():
                await self._progress(net.names(step.nodes), step.blocks)
            case Standstill():
                await self._standstill(net.names(step.nodes), step.seconds)

    async def _on_nodes(self, what: str, names: list[str]) -> None:
        net = self._net
        if what == "disconnect":
            net.links.cut(self._links_of(names))
            return
        if what in ("pause", "resume"):
            for name in names:
                net.pause(name) if what == "pause" else net.resume(name)
            return
        if BROKER in names:
            await self._on_broker(what)
        nodes = [name for name in names if name != BROKER]
        if what == "kill":
            await asyncio.gather(*(net.kill(name) for name in nodes))
        if what in ("stop", "restart", "wipe"):
            await asyncio.gather(*(net.stop_node(name) for name in nodes))
        if what == "wipe":
            for name in nodes:
                net.delete_data(name)
        if what in ("start", "restart", "wipe"):
            await net.start_nodes(nodes)

    async def _on_broker(self, what: str) -> None:
        broker = self._net.broker
        if what == "kill":
            await broker.kill()
        if what in ("stop", "restart"):
            await broker.stop()
        if what in ("start", "restart"):
            await broker.start()

    async def _progress(self, names: list[str], blocks: int) -> None:
        net = self._net
        goal = net.height + blocks
        self._load.keep_busy()
        await self.until(
            f"{', '.join(names)} reach height {goal}",
            lambda: all(net.nodes[name].height >= goal for name in names),
        )

    async def _standstill(self, names: list[str], seconds: float) -> None:
        net = self._net
        wrong = [name for name in names if net.nodes[name].ceiling is None]
        assert not wrong, f"the manifest is wrong: {', '.join(wrong)} can get further"
        self._load.keep_busy()
        # The network's watcher looks after the ceiling.
        await asyncio.sleep(seconds)
        net.check()

    def _places(self) -> list[str]:
        return [*self._net.nodes, BROKER, BOARDS]

    def _links_of(self, names: Iterable[str]) -> Pairs:
        return [(a, b) for a in names for b in self._places() if a != b]

    def _cuts(self, step: Partition) -> Pairs:
        net = self._net
        validators = list(net.manifest.validators)
        if step.shape == "ring":
            count = len(validators)
            near = {frozenset((validators[i], validators[(i + 1) % count])) for i in range(count)}
            return [p for p in combinations(validators, 2) if frozenset(p) not in near]
        if step.shape == "single":
            alone = net.drawn["x1"]
            return [(alone, other) for other in net.nodes if other != alone]
        groups = [net.names(group) for group in step.groups]
        if step.shape == "halves":
            drawn = [net.drawn[f"x{i + 1}"] for i in range(len(validators))]
            half = len(drawn) // 2
            groups = [drawn[:half], drawn[half:]]
        return [(a, b) for one, other in combinations(groups, 2) for a in one for b in other]


def _words(step: Step) -> str:
    values = step.model_dump(exclude={"when"}, exclude_defaults=True)
    what = values.pop("do")
    return " ".join((what, *(f"{key}={value}" for key, value in values.items())))
