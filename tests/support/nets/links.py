"""What the network does to traffic: one rule per pair of places, whatever carries the traffic."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

# Where the test itself is; what it asks nodes and tells them is never disturbed.
DESK = "desk"


@dataclass(frozen=True)
class Link:
    """How traffic fares between two places, either way.

    Attributes:
        cut: nothing passes, and nobody is told: as when a cable is pulled.
        delay_s: how much later it arrives.
        loss: share of the packets that are lost.
    """

    cut: bool = False
    delay_s: float = 0.0
    loss: float = 0.0


GOOD = Link()


class Links:
    """The rules of a network; good links unless changed."""

    def __init__(self, seed: int) -> None:
        self._rules: dict[frozenset[str], Link] = {}
        self._chance = random.Random(seed)
        # Counts changes, so that an observation can tell that it spans one.
        self.version = 0

    def between(self, a: str, b: str) -> Link:
        """The rule for a pair."""
        return self._rules.get(frozenset((a, b)), GOOD)

    def is_lost(self, link: Link) -> bool:
        """Draw whether this packet is lost."""
        return bool(link.loss) and self._chance.random() < link.loss

    def chance(self) -> float:
        """Draw a number from 0 to 1."""
        return self._chance.random()

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Cut these."""
        self._change(pairs, cut=True)

    def slow(self, pairs: Iterable[tuple[str, str]], delay_s: float) -> None:
        """Slow these down."""
        self._change(pairs, delay_s=delay_s)

    def lossy(self, pairs: Iterable[tuple[str, str]], loss: float) -> None:
        """Lose a share of the packets on these."""
        self._change(pairs, loss=loss)

    def heal(self) -> None:
        """Make all links good."""
        self._rules.clear()
        self.version += 1

    def _change(self, pairs: Iterable[tuple[str, str]], **changes: object) -> None:
        for a, b in pairs:
            assert DESK not in (a, b)
            self._rules[frozenset((a, b))] = replace(self.between(a, b), **changes)
        self.version += 1
