"""Tells the other nodes again of what was admitted here and is not final yet.

A node that lacks the latest block refuses what depends on it: an approval of a proposal that it
does not know yet, say. Were it told once only, such a transaction could wait for ever at a node
that does not mine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from fog_node.protocol.transactions import BOARD_KINDS, Transaction

# What waits for longer than this is told again, and again after as long.
AGAIN_S = 3.0
# Transactions that are remembered; boards send theirs again by themselves.
MAX_TOLD = 1024


class Retelling:
    """Members' transactions that this node took in, while they wait."""

    def __init__(self, is_waiting: Callable[[bytes], bool]) -> None:
        """Ask `is_waiting` whether the transaction with an id still waits for a block."""
        self._is_waiting = is_waiting
        self._told: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    def told(self, transactions: Sequence[Transaction], now_s: float) -> None:
        """Take note of what the others were told now."""
        for transaction in transactions:
            if transaction.kind not in BOARD_KINDS:
                self._told[transaction.id] = (now_s, transaction.raw)
        while len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)

    def due(self, now_s: float) -> list[bytes]:
        """Bytes of what is to be told again now; it counts as told."""
        found = []
        for id_, (at_s, raw) in list(self._told.items()):
            if not self._is_waiting(id_):
                del self._told[id_]
            elif now_s - at_s >= AGAIN_S:
                self._told[id_] = (now_s, raw)
                found.append(raw)
        return found
