"""A final block as the store holds it, of which only what is asked for is parsed."""

from __future__ import annotations

from functools import cached_property

from fog_node.protocol.block import MAX_BLOCK_BYTES, Coinbase, Header, parse_coinbase
from fog_node.protocol.cbor import decode
from fog_node.protocol.errors import FormatError, ProofError
from fog_node.protocol.merkle import inclusion_proof, leaf_hash, root
from fog_node.protocol.proof import Inclusion
from fog_node.protocol.sealed_header import SealedHeader
from fog_node.protocol.transactions import parse_transaction
from fog_node.protocol.validate import array
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import Certificate, parse_certificate


class StoredBlock:
    """A block that was validated before it was stored.

    Attributes:
        header, coinbase, certificate: parsed.
    """

    def __init__(self, raw: bytes, certificate: bytes) -> None:
        """Parse all but the transactions; raises ProtocolError where the bytes are damaged."""
        header, entries = array(decode(raw, MAX_BLOCK_BYTES, "block"), "block", length=2)
        self._entries = array(entries, "block.transactions")
        if not self._entries or not all(isinstance(entry, bytes) for entry in self._entries):
            raise FormatError("block.transactions", "is empty or holds no byte strings")
        self.header: Header = Header.decode(header)
        self.coinbase: Coinbase = parse_coinbase(self._entries[0])
        self.certificate: Certificate = parse_certificate(certificate)
        if root(self._leaves) != self.header.merkle_root:
            raise ProofError("header.merkle_root", "is not the root of the block's transactions")
        if self.certificate.block_hash != self.header.hash:
            raise ProofError("certificate", "is for another block")

    def sealed_header(self, next_: ValidatorSet) -> SealedHeader:
        """Leave the transactions away; `next_` votes on the block after this one."""
        return SealedHeader.of(self.header, self.coinbase, self._leaves, self.certificate, next_)

    def inclusion(self, index: int, block: SealedHeader) -> Inclusion:
        """Return what shows that the transaction at `index`, from 1, is in this block."""
        path = tuple(inclusion_proof(self._leaves, index))
        return Inclusion(block, parse_transaction(self._entries[index]), index, path)

    @cached_property
    def _leaves(self) -> list[bytes]:
        return [leaf_hash(entry) for entry in self._entries]
