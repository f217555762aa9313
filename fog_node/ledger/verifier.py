"""Verifies each signature once per process."""

from __future__ import annotations

import threading
from collections import OrderedDict

from fog_node.errors import LedgerError
from fog_node.protocol.block import Coinbase
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.transactions import Clone, Evidence, PackBody, Transaction
from fog_node.protocol.votes import verify_vote

from .state import State

# Ids of verified transactions that are remembered, about 130 bytes each.
MAX_VERIFIED = 131_072


class Verifier:
    """Verifies transactions, each once: it remembers the latest MAX_VERIFIED ids.

    An id stands for the exact bytes, and a key id for one key for ever, so that what
    verified once verifies always. Safe to use from several threads.
    """

    def __init__(self, chain_id: bytes, limit: int = MAX_VERIFIED) -> None:
        self._chain_id = chain_id
        self._limit = limit
        self._ids: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, transaction_id: bytes) -> None:
        """Take note that this one is known to verify."""
        with self._lock:
            self._ids[transaction_id] = None
            if len(self._ids) > self._limit:
                self._ids.popitem(last=False)

    def verify(self, transaction: Transaction, key: PublicKey, state: State) -> None:
        """Check the signature, and those inside evidence; LedgerError `bad_signature`, `rule`."""
        if transaction.id in self._ids:
            return
        try:
            transaction.verify(key, self._chain_id)
        except ProtocolError as error:
            raise LedgerError("bad_signature", f"transaction: {error}") from error
        if isinstance(transaction.body, PackBody):
            self.remember(transaction.id)
            return
        if isinstance(transaction.body, Evidence):
            self._verify_votes(transaction.body, state)
        if isinstance(transaction.body, Clone):
            self._verify_messages(transaction.body, state)
        self.remember(transaction.id)

    def verify_coinbase(self, coinbase: Coinbase, key: PublicKey) -> None:
        """Check the miner's signature; LedgerError `block`."""
        try:
            coinbase.message.verify(key, self._chain_id)
        except ProtocolError as error:
            raise LedgerError("block", f"coinbase: {error}") from error

    def _verify_votes(self, evidence: Evidence, state: State) -> None:
        key = state.key_of(evidence.offender)
        if key is None:
            raise LedgerError("rule", f"evidence.votes: {evidence.offender.hex()} is unknown")
        try:
            verify_vote(evidence.first, key, self._chain_id)
            verify_vote(evidence.second, key, self._chain_id)
        except ProtocolError as error:
            raise LedgerError("rule", f"evidence.votes: {error}") from error

    def _verify_messages(self, clone: Clone, state: State) -> None:
        key = state.key_of(clone.device)
        if key is None:
            raise LedgerError("rule", f"clone.messages: {clone.device.hex()} is unknown")
        try:
            clone.first.verify(key, self._chain_id)
            clone.second.verify(key, self._chain_id)
        except ProtocolError as error:
            raise LedgerError("rule", f"clone.messages: {error}") from error
