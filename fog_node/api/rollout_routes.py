"""Routes about which models boards are offered, and how rollouts go."""

from __future__ import annotations

import bisect
from typing import Annotated

from fastapi import APIRouter, Query

from fog_node.protocol.keys import kid_hex

from .access import ChainReader
from .errors import not_found
from .models import Offers, RolloutBoards
from .parameters import DevicesLimit, HexHash, read_hash, read_kid
from .rollout_views import board_view, offer_view
from .services import Node

BOARDS_PAGE = 100

router = APIRouter(tags=["rollouts"])


@router.get("/v1/rollouts")
def rollouts(node: Node, _: ChainReader) -> Offers:
    """For each device type whose releases are staged: what boards run, and its latest rollout."""
    state = node.ledger.state
    listed = sorted(state.offers.values(), key=lambda offer: offer.device_type)
    return Offers(offers=[offer_view(offer, state) for offer in listed])


@router.get("/v1/rollouts/{id}/boards")
def rollout_boards(
    node: Node,
    _: ChainReader,
    id: HexHash,  # noqa: A002 - of the path
    after: Annotated[str | None, Query(description="`next` of the page before")] = None,
    limit: DevicesLimit = BOARDS_PAGE,
) -> RolloutBoards:
    """How each board does in a device type's latest rollout, in order of their key ids."""
    state = node.ledger.state
    wanted = read_hash(id, "id")
    types = {
        offer.device_type
        for offer in state.offers.values()
        if offer.rollout is not None and offer.rollout.id == wanted and offer.rollout.approver
    }
    if not types:
        raise not_found(
            "id",
            f"{id[:64]} is no device type's latest rollout, or is not approved",
            "get /v1/rollouts for those that are",
        )
    boards = state.rollout_boards
    kids = sorted(kid for kid in boards if state.devices[kid].type in types)
    begin = 0 if after is None else bisect.bisect_right(kids, read_kid(after, "after"))
    page = kids[begin : begin + limit]
    return RolloutBoards(
        boards=[board_view(boards[kid]) for kid in page],
        next=kid_hex(page[-1]) if begin + limit < len(kids) else None,
    )
