"""A gateway without a node: a peer of the fog nodes that passes on as much as they take.

It speaks what nodes speak among each other (`fog_node.network`): in a real network most packs
reach a validator so, from the gateways of the others, and nothing but the packs' own checks
comes between.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fog_node.network import certificates, wire
from fog_node.network.certificates import PeerCertificate
from fog_node.network.peers import Address, Peer, PeerNetwork
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from tools.errors import ToolError

TICK_S = 0.02
# The rate follows what the network takes. When a block has become final, what is still under way
# came in while it was agreed on; where that is less than what comes in this share of an interval,
# the rate rises, where it is more than the second one, it falls, and again only where what is under
# way still grows. Near the rate that was too much it rises slowly: falling again and again
# while a backlog is worked off would measure the feeder, not the network.
UNDER_WAY = (0.35, 0.5)
RISE = 1.08
SLOW_RISE = 1.01
FALL = 0.85


@dataclass
class Sent:
    """One frame that was sent: when (monotonic, s), and how many packs."""

    at: float
    packs: int


@dataclass
class Progress:
    """What the nodes have said.

    Attributes:
        final_at: by height and node, when the node said that the block is final.
    """

    final_at: dict[int, dict[bytes, float]] = field(default_factory=dict)
    _heights: dict[bytes, int] = field(default_factory=dict)

    def height_of(self, kid: bytes) -> int:
        """Latest final height of a node; 0 where it has said nothing."""
        return self._heights.get(kid, 0)

    def note(self, kid: bytes, status: wire.Status) -> None:
        """A node works on this height now."""
        self._heights[kid] = status.height - 1
        self.final_at.setdefault(status.height - 1, {}).setdefault(kid, time.monotonic())


class Feeder:
    """Sends frames to all nodes at a rate that it finds out."""

    def __init__(
        self,
        founding: Founding,
        key: SigningKey,
        member: Path,
        addresses: Mapping[str, Address],
        committed: Callable[[], int],
        start_rate: float,
    ) -> None:
        """Prepare.

        Args:
            founding: of the ledger.
            key: of the member that this is.
            member: directory with its TLS certificate and key.
            addresses: of the nodes, by member name.
            committed: how many packs are final so far, as far as is known.
            start_rate: packs per second at first.
        """
        self._names = {m.kid: m.name for m in founding.members if m.name in addresses}
        self._interval_s = founding.parameters.block_interval_ms / 1000
        self._committed = committed
        self._rate = start_rate
        self._too_much = math.inf
        self._is_falling = False
        self._under_way = 0
        self._seen = 0
        self.sent: list[Sent] = []
        self.packs = 0
        self.progress = Progress()
        files = (member / "tls.crt", member / "tls.key")
        status = wire.Status(1, founding.genesis.hash, 0, -1, False, [], [])
        self._network = PeerNetwork(
            key.kid,
            wire.Hello(wire.PROTOCOL_VERSION, founding.chain_id, "feeder"),
            (
                certificates.server_context(founding.authority, *files),
                certificates.client_context(founding.authority, *files),
            ),
            addresses,
            self,
            self,
            lambda: status,
        )

    @property
    def rate(self) -> float:
        """Packs per second at present."""
        return self._rate

    async def start(self) -> None:
        """Connect to all nodes."""
        await self._network.start("127.0.0.1", 0)
        async with asyncio.timeout(60):
            while len(self._network.peers) < len(self._names):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Disconnect."""
        await self._network.stop()

    async def feed(self, frames: Iterator[tuple[int, bytes]]) -> None:
        """Send until there are no frames left, or cancelled."""
        allowance = 0.0
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            allowance += (now - last) * self._rate
            last = now
            self._adapt()
            while allowance > 0:
                found = next(frames, None)
                if found is None:
                    return
                packs, frame = found
                self._send(frame)
                self.sent.append(Sent(now, packs))
                self.packs += packs
                allowance -= packs

    def _send(self, frame: bytes) -> None:
        peers = self._network.peers
        if len(peers) < len(self._names):
            raise ToolError("bench: a node has cut the connection; see its log")
        for peer in peers:
            peer.send_frame(frame)

    def _adapt(self) -> None:
        committed = self._committed()
        if committed == self._seen:
            return
        self._seen = committed
        before, self._under_way = self._under_way, self.packs - committed
        intervals = self._under_way / self._rate / self._interval_s
        if intervals > UNDER_WAY[1]:
            if not self._is_falling or self._under_way > before:
                self._is_falling = True
                self._too_much = self._rate
                self._rate *= FALL
            return
        self._is_falling = False
        if intervals < UNDER_WAY[0]:
            self._rate *= RISE if self._rate < self._too_much * FALL else SLOW_RISE

    # What the connections call

    def authorise(self, certificate: PeerCertificate, dialled: bool) -> str | None:
        """Whom this is; the nodes alone may connect."""
        return self._names.get(certificate.kid) if dialled else None

    def kid_of(self, name: str) -> bytes | None:
        """Key id of a node's member."""
        return next((kid for kid, known in self._names.items() if known == name), None)

    def peer_joined(self, peer: Peer) -> None:
        """Nothing to pass on."""

    def peer_left(self, peer: Peer) -> None:
        """`feed` notices."""

    async def peer_message(self, peer: Peer, message: wire.Message) -> None:
        """Where a node stands is all that counts here."""
        if isinstance(message, wire.Status):
            self.progress.note(peer.kid, message)
