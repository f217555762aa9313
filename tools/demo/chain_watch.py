"""Follows the chain from one node and counts what boards, gateways and trainers put there."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from fog_node.client import Client
from fog_node.protocol import parse_block, parse_certificate
from fog_node.protocol.founding import Founding
from fog_node.protocol.transactions import Alert, Incident, PackBody, Transaction


@dataclass
class ChainWatch:
    """What has become final, as read from blocks whose certificates were checked here.

    Attributes:
        seen: how often each (signer, number) of a board was found in a block.
        final_at: moment (monotonic s) at which it was seen final.
        packs: final packs of each board, in order.
        incidents: how many of each cause.
        alerts: in order.
    """

    founding: Founding
    height: int = 0
    transactions: int = 0
    seen: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    final_at: dict[tuple[bytes, int], float] = field(default_factory=dict)
    packs: dict[bytes, list[Transaction]] = field(default_factory=dict)
    incidents: Counter[str] = field(default_factory=Counter)
    alerts: list[tuple[bytes, Alert]] = field(default_factory=list)

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
            for transaction in block.transactions:
                self._take(transaction, now)
            self.height = block.height

    def _take(self, transaction: Transaction, now: float) -> None:
        self.transactions += 1
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
