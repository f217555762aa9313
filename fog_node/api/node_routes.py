"""Routes about the node itself."""

from __future__ import annotations

import time
from http import HTTPStatus

from fastapi import APIRouter, Response

from fog_node.protocol.block import hash_hex
from fog_node.protocol.keys import kid_hex

from .access import AnyReader
from .models import BannedPeer, Blobs, Health, Peer, Status
from .services import Node
from .times import iso

router = APIRouter(tags=["node"])


@router.get("/v1/status")
def status(node: Node, reader: AnyReader) -> Status:
    """Where the node stands and how it is doing; its peers and gateway for who reads the chain."""
    ledger = node.ledger
    snapshot = ledger.snapshot
    founding = ledger.founding
    condition = node.condition()
    fork = ledger.fork
    counts, ends = condition.gateway, condition.certificate_until
    gateway = dict(counts) if counts is not None and reader.reads_chain else None
    return Status(
        node=node.member,
        consortium=founding.name,
        chain_id=founding.chain_id.hex(),
        version=node.version,
        height=snapshot.head.height,
        head=hash_hex(snapshot.head.hash),
        head_time=iso(snapshot.head.time),
        state_root=snapshot.state.root().hex(),
        round=condition.round,
        validators=len(snapshot.state.validators),
        quorum=snapshot.state.quorum,
        peers=[
            Peer(
                name=peer.name,
                kid=kid_hex(peer.kid),
                height=peer.height,
                points=round(peer.points, 1),
                shed=peer.shed,
                paused_s=round(peer.paused_s, 1),
            )
            for peer in condition.peers
            if reader.reads_chain
        ],
        banned=[
            BannedPeer(
                name=member.name if (member := snapshot.state.members.get(ban.kid)) else None,
                kid=kid_hex(ban.kid),
                reason=ban.reason,
                until=iso(time.time_ns() // 1_000_000 + round(ban.seconds_left * 1000)),
                times=ban.times,
            )
            for ban in condition.banned
            if reader.reads_chain
        ],
        refused_connections=condition.refused_connections,
        waiting=ledger.waiting,
        final=ledger.counts(),
        devices=len(snapshot.state.devices),
        blobs=Blobs(count=len(node.blobs), bytes=node.blobs.total_bytes),
        payloads=Blobs(count=len(node.payloads), bytes=node.payloads.total_bytes),
        gateway=gateway,
        fork=None if fork is None else str(fork),
        bodies_from=max(1, ledger.pruned),
        abstains_until=ledger.abstain if ledger.abstain > snapshot.head.height else None,
        asks_before_voting=ledger.asking
        and any(validator.name == node.member for validator in snapshot.state.validators),
        certificate_until=None if ends is None else iso(ends),
    )


@router.get("/v1/healthz")
def health(node: Node, _: AnyReader, response: Response) -> Health:
    """200 while the ledger goes on; 503 when it stands still for good."""
    if node.ledger.fork is not None:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return Health(ok=False)
    return Health(ok=True)
