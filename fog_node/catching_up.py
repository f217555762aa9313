"""Carries out what `catch_up` plans: asks peers, checks headers, and hands on whole blocks."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from .catch_up import AskHeaders, CatchUp, Source, is_far
from .errors import LedgerError
from .ledger.ledger import Ledger
from .network import wire
from .network.peers import Peer
from .network.score import Offence
from .protocol.block import Block
from .protocol.errors import ProtocolError
from .protocol.sealed_header import LightChain, SealedHeader
from .protocol.votes import Certificate

log = logging.getLogger(__name__)


class CatchingUp:
    """A node's way to its peers' height while it is far behind; at rest otherwise."""

    def __init__(
        self,
        ledger: Ledger,
        apart: Callable[..., Coroutine[Any, Any, Any]],
        write: Callable[..., Coroutine[Any, Any, Any]],
        take_final: Callable[[Block, Certificate], Awaitable[None]],
    ) -> None:
        """Prepare.

        Args:
            ledger: of this node; what it has fetched of headers before is taken up.
            apart: does what takes long beside the event loop.
            write: does what waits for the disk there.
            take_final: makes a block final here.
        """
        self._ledger = ledger
        self._apart = apart
        self._write = write
        self._take_final = take_final
        self._empty: Counter[bytes] = Counter()
        self._plan: CatchUp | None = None
        self._chain: LightChain | None = None

    @property
    def is_active(self) -> bool:
        """Whether blocks are fetched in this way."""
        return self._plan is not None

    def ask(self, peers: Sequence[Peer]) -> bool:
        """Ask what is to be asked now; returns whether this node is far behind."""
        head = self._ledger.height
        sources = [_source(peer) for peer in peers if peer.status is not None]
        if self._plan is None or self._chain is None:
            if not is_far(head, sources, self._empty):
                return False
            self._chain = self._ledger.light_chain()
            self._plan = CatchUp(self._chain.height, self._empty)
            log.info("catching up: at block %d, headers known to %d", head, self._chain.height)
        if self._plan.is_over(head, sources):
            log.info("catching up: at block %d, from here on block by block", head)
            self._plan = self._chain = None
            return False
        by_kid = {peer.kid: peer for peer in peers}
        asks, late = self._plan.plan(asyncio.get_running_loop().time(), head, sources)
        for kid in late:
            by_kid[kid].misses += 1
        for ask in asks:
            if isinstance(ask, AskHeaders):
                by_kid[ask.kid].send(wire.GetHeaders(ask.first))
            else:
                by_kid[ask.kid].send(wire.GetBlocks(ask.first, ask.count))
        return True

    async def take_headers(self, peer: Peer, message: wire.Headers) -> None:
        """Check headers that a peer sent; raises ProtocolError for what does not hold."""
        if self._plan is None or self._chain is None:
            return
        if not message.raw or message.first != self._chain.height + 1:
            peer.misses += not message.raw
            self._plan.take_headers(peer.kid, self._chain.height)
            return
        try:
            headers, chain = await self._apart(_check, self._chain, message.raw)
        except ProtocolError:
            self._plan.take_headers(peer.kid, self._chain.height)
            raise
        await self._write(self._ledger.save_ahead, headers, chain)
        self._chain = chain
        peer.misses = 0
        self._plan.take_headers(peer.kid, chain.height)

    async def take_blocks(self, peer: Peer, message: wire.Blocks) -> bool:
        """Take bodies that a peer sent; returns False where they were not asked for here."""
        if self._plan is None:
            return False
        bodies = [raw for raw, _ in message.blocks]
        head = self._ledger.height
        if not self._plan.take_bodies(peer.kid, message.first, bodies, head):
            if message.first <= head and bodies:
                return False
            peer.misses += 1
            return True
        peer.misses = 0
        while (body := self._plan.next_body(self._ledger.height)) is not None:
            height = self._ledger.height + 1
            sealed = await self._apart(self._ledger.ahead, height)
            if sealed is None:
                # It came in another way meanwhile, or the headers were dropped: begin anew.
                self._plan = self._chain = None
                return True
            try:
                # That it is the certificate's block is looked at before it is made final.
                block = await self._apart(self._ledger.parse_block, body.raw)
                await self._take_final(block, sealed.certificate)
            except (ProtocolError, LedgerError) as error:
                if body.kid != peer.kid:
                    log.warning("catching up: block %d of another peer: %s", height, error)
                    return True
                peer.offend(Offence.BAD_BLOCK, f"block {height} does not hold: {error}")
                return True
        return True


def _source(peer: Peer) -> Source:
    assert peer.status is not None
    return Source(peer.kid, peer.status.height - 1, peer.lowest, peer.misses)


def _check(chain: LightChain, raw: Sequence[bytes]) -> tuple[list[SealedHeader], LightChain]:
    headers = []
    for item in raw:
        sealed = SealedHeader.decode(item)
        chain = chain.after(sealed)
        headers.append(sealed)
    return headers, chain
