"""Follows the chain from one node and counts what boards, gateways and trainers put there."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from fog_node.client import Client
from fog_node.protocol import parse_block, parse_certificate
from fog_node.protocol.founding import Founding
from fog_node.protocol.transactions import Alert, Clone, Incident, PackBody, Transaction


@dataclass
class ChainWatch:
    """What has become final, as read from blocks whose certificates were checked here.

    Attributes:
        seen: how often each (signer, number) of a board was found in a block.
        final_at: moment (monotonic s) at which it was seen final.
        packs: final packs of each board, in order.
        incidents: how many of each cause.
        reports: the incidents themselves, in order.
        alerts: in order.
        clones: boards that were quarantined because two hold their key, in order.
        heights: of the block of each (signer, number), whoever signed it.
        voters: of each block, by height: whose votes its certificate holds.
    """

    founding: Founding
    height: int = 0
    transactions: int = 0
    seen: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    final_at: dict[tuple[bytes, int], float] = field(default_factory=dict)
    packs: dict[bytes, list[Transaction]] = field(default_factory=dict)
    incidents: Counter[str] = field(default_factory=Counter)
    reports: list[Incident] = field(default_factory=list)
    alerts: list[tuple[bytes, Alert]] = field(default_factory=list)
    clones: list[bytes] = field(default_factory=list)
    heights: dict[tuple[bytes, int], int] = field(default_factory=dict)
    voters: dict[int, frozenset[bytes]] = field(default_factory=dict)

    async def follow(self, client: Client) -> None:
        """Follow for ever; the client resumes where a node went away."""
        keys = {m.kid: m.key for m in self.founding.validators}
        async for sealed in client.stream(self.height + 1):
            block = parse_block(sealed.block)
            certificate = parse_certificate(sealed.certificate)
            certificate.verify(keys, self.founding.quorum, self.founding.chain_id)
            if certificate.block_hash != block.hash or block.height != self.height + 1:
                raise ValueError(f"block {block.height}: is not certified, or out of order")
            now = time.monotonic()
            self.voters[block.height] = frozenset(vote.validator for vote in certificate.votes)
            for transaction in block.transactions:
                self._take(transaction, block.height, now)
            self.height = block.height

    def _take(self, transaction: Transaction, height: int, now: float) -> None:
        self.transactions += 1
        self.heights[transaction.signer, transaction.sequence] = height
        body = transaction.body
        match body:
            case PackBody() | Alert():
                place = (transaction.signer, transaction.sequence)
                self.seen[place] += 1
                self.final_at[place] = now
                if isinstance(body, Alert):
                    self.alerts.append((transaction.signer, body))
                else:
                    self.packs.setdefault(transaction.signer, []).append(transaction)
            case Incident():
                self.incidents[body.cause] += 1
                self.reports.append(body)
            case Clone():
                self.clones.append(body.device)
