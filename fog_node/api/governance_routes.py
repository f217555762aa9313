"""Routes about what holds in the consortium, and what is proposed."""

from __future__ import annotations

from fastapi import APIRouter

from .access import AnyReader
from .errors import not_found
from .governance_views import consortium_view, proposal_view
from .models import ConsortiumView, Proposals, ProposalView
from .parameters import HexHash, read_hash
from .services import Node

router = APIRouter(tags=["consortium"])


@router.get("/v1/consortium")
def consortium(node: Node, _: AnyReader) -> ConsortiumView:
    """Who votes, by which rule, and the chain's parameters, after the latest block."""
    snapshot = node.ledger.snapshot
    return consortium_view(snapshot.state, snapshot.head.height)


@router.get("/v1/proposals")
def proposals(node: Node, _: AnyReader) -> Proposals:
    """Open proposals in the order in which they were made, then the latest closed ones."""
    state = node.ledger.state
    membership = state.membership
    closed = sorted(
        (record for record in membership.proposals.values() if not record.is_open),
        key=lambda record: (-record.closed, record.id),
    )
    listed = [*membership.open_proposals(), *closed]
    return Proposals(
        quorum=membership.quorum, proposals=[proposal_view(record, state) for record in listed]
    )


@router.get("/v1/proposals/{id}")
def proposal(node: Node, _: AnyReader, id: HexHash) -> ProposalView:  # noqa: A002 - of the path
    """A proposal that is open or was closed of late."""
    state = node.ledger.state
    record = state.membership.proposals.get(read_hash(id, "id"))
    if record is None:
        raise not_found(
            "id",
            f"{id[:80]} is no proposal that is open or was closed of late",
            f"get /v1/transactions/{id[:64]} for an older one",
        )
    return proposal_view(record, state)
