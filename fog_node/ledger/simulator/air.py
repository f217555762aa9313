"""What befalls messages between nodes: weather, partitions, ambushes; all from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fog_node.protocol.votes import PREVOTE

from .scenario import FAIR, Fault, Silence

Item = TypeVar("Item")


@dataclass(frozen=True)
class Traffic:
    """What an ambush can tell about a message.

    Attributes:
        kind: `vote`, `proposal`, `final` (a final block), or `other`, which always passes.
        step: of a vote.
        voter: place of the signer among the validators.
    """

    kind: str
    height: int = 0
    round: int = 0
    step: int = 0
    voter: int = 0


@dataclass
class Ambush:
    """Silences that lie in wait for the next height at which somebody votes.

    Attributes:
        height: the height it struck at; 0 while it waits.
    """

    silences: tuple[Silence, ...]
    height: int = 0

    def lets_pass(self, traffic: Traffic, sender: int, receiver: int) -> bool:
        """Whether the message gets through."""
        if traffic.kind == "other":
            return True
        if traffic.kind == "final":
            return traffic.height != self.height
        self.height = self.height or traffic.height
        if traffic.height != self.height or traffic.round >= len(self.silences):
            return True
        silence = self.silences[traffic.round]
        if traffic.voter in silence.mute or sender in silence.mute:
            return False
        if traffic.kind == "proposal":
            return True
        deaf = silence.no_prevotes if traffic.step == PREVOTE else silence.no_precommits
        return receiver not in deaf


class Air:
    """Decides what becomes of each message.

    Attributes:
        reach: for each node, those it reaches now, itself included.
    """

    def __init__(self, nodes: int, rng: random.Random, coverage: Counter[str]) -> None:
        """Begin with fair weather and everybody connected."""
        self._nodes = nodes
        self._rng = rng
        self._coverage = coverage
        self._last_arrival: dict[tuple[int, int], float] = {}
        self.clear()

    def clear(self) -> None:
        """End all faults."""
        self._weather = FAIR
        self._ambush: Ambush | None = None
        self.reach = [set(range(self._nodes)) for _ in range(self._nodes)]

    @property
    def is_split(self) -> bool:
        """Whether some node does not reach some other one."""
        return min(len(reach) for reach in self.reach) < self._nodes

    def change_weather(self, fault: Fault) -> None:
        """Let messages fare as the fault says from now on."""
        self._weather = fault.weather

    def lie_in_wait(self, fault: Fault) -> None:
        """Lose what the fault says at the next height."""
        self._ambush = Ambush(fault.silences)

    def split(self, fault: Fault, liar: int | None) -> None:
        """Cut the links between groups; a liar keeps a foot in each: it serves a fork best."""
        groups = [group if liar is None else group | {liar} for group in fault.groups]
        self.reach = [
            set().union({i}, *(group for group in groups if i in group)) for i in range(self._nodes)
        ]

    def carry(
        self,
        now_ms: float,
        link: tuple[int, int],
        items: Sequence[Item],
        look: Callable[[Item], Traffic],
    ) -> tuple[Sequence[Item], list[float]]:
        """Return which of some messages that share one fate arrive, and when, each time.

        Args:
            link: sender and receiver.
            look: tells what a message is.
        """
        sender, receiver = link
        coverage, weather, rng = self._coverage, self._weather, self._rng
        if receiver not in self.reach[sender]:
            coverage["messages cut off"] += 1
            return (), []
        if self._ambush is not None:
            ambush = self._ambush
            passing = [item for item in items if ambush.lets_pass(look(item), sender, receiver)]
            coverage["messages ambushed"] += len(items) - len(passing)
            if not passing:
                return (), []
            items = passing
        if rng.random() < weather.drop:
            coverage["messages dropped"] += 1
            return (), []
        copies = 1
        if rng.random() < weather.duplicate:
            coverage["messages duplicated"] += 1
            copies = 2
        arrivals = []
        for _ in range(copies):
            delay = 1 + rng.random() * weather.delay_ms
            if rng.random() < weather.straggler:
                coverage["messages delayed tenfold"] += 1
                delay *= 10
            at = now_ms + delay
            if at < self._last_arrival.get(link, 0.0):
                coverage["messages reordered"] += 1
            else:
                self._last_arrival[link] = at
            arrivals.append(at)
        return items, arrivals
