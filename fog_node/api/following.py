"""Answers without an end: the chain's blocks as they become final."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fog_node.ledger import Ledger
from fog_node.protocol.cbor import encode
from fog_node.protocol.transactions import KINDS, parse_transaction

from .access import Reader, still_reads_chain
from .errors import RequestError
from .models import BlockSummary, TransactionView
from .services import Services
from .views import block_summary, final_view

# Followers at once, of both kinds. Each holds one block at most.
MAX_FOLLOWERS = 32
# Something is sent at least so often, so that a follower notices a node that is gone.
KEEPALIVE_S = 15.0
# Per kind and block; whoever wants all reads the block.
MAX_EVENTS_PER_KIND = 50
EMPTY_ARRAY = encode([])
LISTED_KINDS = tuple(kind for kind in KINDS if kind != "pack")


class Followers:
    """Counts those who follow, and refuses further ones."""

    def __init__(self, limit: int = MAX_FOLLOWERS) -> None:
        self._limit = limit
        self.count = 0

    def check(self) -> None:
        """Raise RequestError 503 where there are too many."""
        if self.count >= self._limit:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "followers",
                f"{self._limit} follow this node already",
                "follow another node, or page through /v1/blocks",
                {"Retry-After": str(int(KEEPALIVE_S))},
            )


class Following(StreamingResponse):
    """An endless answer that counts as a follower while it lasts."""

    def __init__(
        self, followers: Followers, content: AsyncIterator[bytes], media_type: str
    ) -> None:
        super().__init__(content, media_type=media_type, headers={"Cache-Control": "no-store"})
        self._followers = followers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, until the other side leaves or the node stops."""
        self._followers.count += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._followers.count -= 1


async def sealed_blocks(services: Services, reader: Reader, first: int) -> AsyncIterator[bytes]:
    """CBOR sequence of [block, certificate] from height `first`; [] to keep alive."""
    async for height in _final_heights(services, reader, first):
        if height is None:
            yield EMPTY_ARRAY
            continue
        stored = await asyncio.to_thread(services.ledger.block, height)
        assert stored is not None  # it was announced as final
        yield encode(list(stored))


async def events(services: Services, reader: Reader, first: int) -> AsyncIterator[bytes]:
    """Server-sent events, for people: each block, and what is in it but packs."""
    async for height in _final_heights(services, reader, first):
        if height is None:
            yield b": still here\n\n"
            continue
        summary, listed = await asyncio.to_thread(_told, services.ledger, height)
        yield _event("block", summary, height)
        for view in listed:
            yield _event(view.kind, view, height)


async def _final_heights(
    services: Services, reader: Reader, first: int
) -> AsyncIterator[int | None]:
    """Heights from `first` on as they become final; None after each KEEPALIVE_S without one.

    Ends where the reader has lost its access meanwhile.
    """
    feed = services.feed
    height = first
    while True:
        is_final = await feed.wait(height, KEEPALIVE_S)
        if not still_reads_chain(reader, services.ledger.state):
            return
        if is_final:
            yield height
            height += 1
        elif feed.is_closed:
            return
        else:
            yield None


def _told(ledger: Ledger, height: int) -> tuple[BlockSummary, list[TransactionView]]:
    info = ledger.info(height)
    assert info is not None  # it was announced as final
    places = []
    for kind in LISTED_KINDS:
        found = ledger.list_kind(kind, (height + 1, 0), MAX_EVENTS_PER_KIND)
        places += [place for place in found if place.height == height]
    places.sort(key=lambda place: place.index)
    summary = block_summary(info, ledger.state)
    told = [final_view(parse_transaction(place.raw), place, ledger) for place in places]
    return summary, told


def _event(name: str, value: BlockSummary | TransactionView, height: int) -> bytes:
    data = json.dumps(value.model_dump(mode="json"), separators=(",", ":"))
    return f"event: {name}\nid: {height}\ndata: {data}\n\n".encode()
