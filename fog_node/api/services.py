"""What the API needs of the node that it speaks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from fog_node.blobs import BlobStore
from fog_node.ledger import Admission, Ledger
from fog_node.payloads import Payload, PayloadStore
from fog_node.protocol.transactions import Transaction

from .feed import BlockFeed


@dataclass(frozen=True)
class PeerCondition:
    """A connection to another node; `height` of its latest block, None where not told yet.

    Attributes:
        points, shed, paused_s: see `fog_node.network.score`.
    """

    name: str
    kid: bytes
    height: int | None
    points: float = 0.0
    shed: int = 0
    paused_s: float = 0.0


@dataclass(frozen=True)
class BannedCondition:
    """A member that is not listened to, for `seconds_left` more."""

    kid: bytes
    reason: str
    seconds_left: float
    times: int


@dataclass(frozen=True)
class Condition:
    """How the node is doing now, beyond what the ledger says.

    Attributes:
        round: of the agreement on the next block.
        peers: live connections.
        banned: members that are not listened to now.
        refused_connections: of peers, since the start.
        gateway: counters of the gateway (`dataclasses.asdict` of its GatewayCounts); None
            where this node has none.
        certificate_until: when this node's TLS certificate ends, ms since 1970.
    """

    round: int
    peers: tuple[PeerCondition, ...] = ()
    gateway: Mapping[str, Any] | None = None
    banned: tuple[BannedCondition, ...] = ()
    refused_connections: int = 0
    certificate_until: int | None = None


@dataclass(frozen=True)
class Services:
    """The parts of a node, as the API uses them.

    Attributes:
        member: this node's name in the founding file.
        version: of the software.
        ledger: answers what is final and what waits.
        blobs: holds bundles; `payloads`, contents of requests and responses.
        feed: tells of final blocks as they come.
        submit: admits a transaction durably and passes it to the other nodes; raises
            StoreError.
        stored: is called when a bundle was stored.
        want: is called for a payload that is not held here; must not block.
        condition: asked for each status; must not block.
    """

    member: str
    version: str
    ledger: Ledger = field(repr=False)
    blobs: BlobStore = field(repr=False)
    payloads: PayloadStore = field(repr=False)
    feed: BlockFeed = field(repr=False)
    submit: Callable[[Transaction], Awaitable[Admission]]
    stored: Callable[[], None]
    want: Callable[[Payload], None]
    condition: Callable[[], Condition]


async def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


# What a route asks for to get at the node.
Node = Annotated[Services, Depends(_services)]
