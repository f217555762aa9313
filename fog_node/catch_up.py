"""Whom a node that is far behind asks for what: first for headers, then for bodies.

Headers with their coinbases and certificates are small, and show who votes when; so the whole
way is checked before the first body is asked for, and no peer can lead a node astray with bodies.
These are then fetched in pieces from several peers at once, and judged like any block.

A pure core: no clock, socket, disk or peer object. Peers are named by their key ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# A node that is fewer blocks behind asks for whole blocks at once.
FEW_BLOCKS = 32
# Bodies are asked for up to so far above the head.
WINDOW_BLOCKS = 256
PIECE_BLOCKS = 16
MAX_PIECES_PER_PEER = 2
# Bodies that wait for one below them.
MAX_HELD_BYTES = 64 * 1024 * 1024
# A peer that so often in a row had no headers where it said that it had is not believed.
MAX_EMPTY = 2
ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Source:
    """A peer that can be asked.

    Attributes:
        height: of its latest block, as it says.
        lowest: it keeps bodies from this height on.
        misses: how often in a row it was of no use.
    """

    kid: bytes
    height: int
    lowest: int = 1
    misses: int = 0


@dataclass(frozen=True)
class AskHeaders:
    """Ask a peer for headers from a height on."""

    kid: bytes
    first: int


@dataclass(frozen=True)
class AskBodies:
    """Ask a peer for so many bodies from a height on."""

    kid: bytes
    first: int
    count: int


@dataclass
class _Pending:
    ask: AskHeaders | AskBodies
    deadline_s: float


@dataclass(frozen=True)
class Body:
    """A block that a peer has sent; that it is whole is not checked yet."""

    kid: bytes
    raw: bytes = field(repr=False)


def target_of(sources: Iterable[Source], empty: Counter[bytes]) -> int:
    """Height to make for: one that two peers claim, or the only one does.

    A single peer that claims more than it has leads nobody anywhere; nor does one that often had
    no headers where it said that it had.
    """
    heights = sorted(s.height for s in sources if empty[s.kid] < MAX_EMPTY)
    return heights[-2] if len(heights) > 1 else max(heights, default=0)


def is_far(head: int, sources: Iterable[Source], empty: Counter[bytes]) -> bool:
    """Whether the others are more than a few blocks ahead."""
    return target_of(sources, empty) > head + FEW_BLOCKS


class CatchUp:
    """What is known, asked for and held on the way to the peers' height.

    Attributes:
        top: height of the latest header that was checked.
    """

    def __init__(self, top: int, empty: Counter[bytes] | None = None) -> None:
        """Begin with headers that were checked up to `top`.

        Args:
            top: height.
            empty: how often in a row each peer had no headers; goes on being counted.
        """
        self.top = top
        self._empty = Counter() if empty is None else empty
        self._headers: _Pending | None = None
        self._bodies: list[_Pending] = []
        self._held: dict[int, Body] = {}
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that wait for others."""
        return self._held_bytes

    def plan(
        self, now_s: float, head: int, sources: Sequence[Source]
    ) -> tuple[list[AskHeaders | AskBodies], list[bytes]]:
        """Say whom to ask for what now.

        Args:
            now_s: monotonic.
            head: height of the latest block here.
            sources: peers that are connected.

        Returns:
            Questions, and peers that did not answer in time.
        """
        late = self._drop_late(now_s, {source.kid for source in sources})
        deadline_s = now_s + ANSWER_TIMEOUT_S
        asks: list[AskHeaders | AskBodies] = []
        target = target_of(sources, self._empty)
        if self._headers is None and self.top < target:
            best = min(
                (source for source in sources if source.height > self.top),
                key=lambda source: (self._empty[source.kid], source.misses, -source.height),
            )
            asks.append(AskHeaders(best.kid, self.top + 1))
            self._headers = _Pending(asks[0], deadline_s)
        if self.top + FEW_BLOCKS >= target:  # the whole way is known
            for ask in self._plan_bodies(head, sources):
                asks.append(ask)
                self._bodies.append(_Pending(ask, deadline_s))
        return asks, late

    def take_headers(self, kid: bytes, top: int) -> None:
        """Headers of a peer were checked, up to `top`; none, where `top` is as before."""
        if self._headers is not None and self._headers.ask.kid == kid:
            self._headers = None
        if top > self.top:
            self._empty.pop(kid, None)
        else:
            self._empty[kid] += 1
        self.top = max(self.top, top)

    def take_bodies(self, kid: bytes, first: int, bodies: Sequence[bytes], head: int) -> int:
        """Hold what a peer sent; returns how many of them were asked for."""
        for pending in self._bodies:
            ask = pending.ask
            if isinstance(ask, AskBodies) and (ask.kid, ask.first) == (kid, first):
                self._bodies.remove(pending)
                break
        else:
            return 0
        taken = 0
        for height, raw in enumerate(bodies[: ask.count], start=first):
            if head < height <= self.top and height not in self._held:
                self._held[height] = Body(kid, raw)
                self._held_bytes += len(raw)
                taken += 1
        return taken

    def next_body(self, head: int) -> Body | None:
        """Take out the body above the head; what is below it is dropped."""
        for height in [height for height in self._held if height <= head]:
            self._release(height)
        return self._release(head + 1) if head + 1 in self._held else None

    def is_over(self, head: int, sources: Iterable[Source]) -> bool:
        """Whether the node is close enough to go on block by block."""
        return head >= self.top and not is_far(self.top, sources, self._empty)

    def _drop_late(self, now_s: float, connected: set[bytes]) -> list[bytes]:
        """Forget questions that nobody answers any more; returns who let them lie."""
        late = []
        kept = []
        for pending in (*self._bodies, *((self._headers,) if self._headers else ())):
            if pending.ask.kid in connected and now_s < pending.deadline_s:
                kept.append(pending)
            elif pending.ask.kid in connected:
                late.append(pending.ask.kid)
                self._empty[pending.ask.kid] += isinstance(pending.ask, AskHeaders)
        self._bodies = [pending for pending in kept if isinstance(pending.ask, AskBodies)]
        headers = [pending for pending in kept if isinstance(pending.ask, AskHeaders)]
        self._headers = headers[0] if headers else None
        return late

    def _plan_bodies(self, head: int, sources: Sequence[Source]) -> list[AskBodies]:
        busy = Counter(pending.ask.kid for pending in self._bodies)
        asks: list[AskBodies] = []
        for first, count in self._missing(head):
            if self._held_bytes > MAX_HELD_BYTES and first > head + 1:
                break
            able = [
                source
                for source in sources
                if source.lowest <= first
                and source.height >= first + count - 1
                and busy[source.kid] < MAX_PIECES_PER_PEER
            ]
            if not able:
                continue
            chosen = min(able, key=lambda source: (source.misses, busy[source.kid]))
            busy[chosen.kid] += 1
            asks.append(AskBodies(chosen.kid, first, count))
        return asks

    def _missing(self, head: int) -> list[tuple[int, int]]:
        """Pieces of what is neither held nor asked for, as first height and count."""
        asked: set[int] = set()
        for pending in self._bodies:
            if isinstance(pending.ask, AskBodies):
                asked |= set(range(pending.ask.first, pending.ask.first + pending.ask.count))
        pieces: list[tuple[int, int]] = []
        for height in range(head + 1, min(self.top, head + WINDOW_BLOCKS) + 1):
            if height in self._held or height in asked:
                continue
            if pieces and sum(pieces[-1]) == height and pieces[-1][1] < PIECE_BLOCKS:
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1)
            else:
                pieces.append((height, 1))
        return pieces

    def _release(self, height: int) -> Body:
        body = self._held.pop(height)
        self._held_bytes -= len(body.raw)
        return body
