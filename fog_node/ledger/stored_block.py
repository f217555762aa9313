"""A final block as the store holds it, of which only what is asked for is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from fog_node.errors import PrunedError
from fog_node.protocol.block import MAX_BLOCK_BYTES, Coinbase, Header, parse_coinbase
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.errors import FormatError, ProofError
from fog_node.protocol.merkle import inclusion_proof, leaf_hash, root, verify_inclusion
from fog_node.protocol.proof import Inclusion
from fog_node.protocol.sealed_header import SealedHeader, hash_path
from fog_node.protocol.transactions import parse_transaction
from fog_node.protocol.validate import array
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import Certificate, parse_certificate

from .store_reader import MAX_KEPT_BYTES, StoredHeader, StoreReader


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

    def entry(self, index: int) -> bytes:
        """Bytes of the transaction at `index`, from 1."""
        entry: bytes = self._entries[index]
        return entry

    def kept(self, index: int) -> bytes:
        """What is kept of the entry at `index`, where 0 is the coinbase, when the body goes.

        Deterministic CBOR: `[path]` of the coinbase, `[path, transaction]` of another.
        """
        path = inclusion_proof(self._leaves, index)
        return encode([path, self._entries[index]] if index else [path])

    @cached_property
    def _leaves(self) -> list[bytes]:
        return [leaf_hash(entry) for entry in self._entries]


class PrunedBlock:
    """A final block whose body is gone, but for what must stay.

    Attributes:
        header, coinbase, certificate: parsed.
    """

    def __init__(self, found: StoredHeader, kept: Mapping[int, bytes]) -> None:
        """Parse what `StoredBlock.kept` gave, by index; raises ProtocolError."""
        self.header: Header = Header.decode(found.header)
        self.coinbase: Coinbase = parse_coinbase(found.coinbase)
        self.certificate: Certificate = parse_certificate(found.certificate)
        self._size = found.info.transactions + 1
        self._paths: dict[int, tuple[bytes, ...]] = {}
        self._transactions: dict[int, bytes] = {}
        for index, value in kept.items():
            path, *rest = array(decode(value, MAX_KEPT_BYTES, "kept"), "kept")
            self._paths[index] = hash_path(path, "kept.path")
            leaf = leaf_hash(rest[0] if index else found.coinbase)
            root_ = self.header.merkle_root
            verify_inclusion(leaf, index, self._size, self._paths[index], root_)
            if index:
                self._transactions[index] = rest[0]
        if 0 not in self._paths:
            raise FormatError("kept", f"lacks the coinbase's path of block {found.info.height}")

    def sealed_header(self, next_: ValidatorSet) -> SealedHeader:
        """Leave the transactions away; `next_` votes on the block after this one."""
        handover = next_ if self.coinbase.next != self.coinbase.validators else None
        return SealedHeader(
            self.header, self.coinbase, self._size, self._paths[0], self.certificate, handover
        )

    def inclusion(self, index: int, block: SealedHeader) -> Inclusion:
        """Return what shows that the transaction at `index` is in this block.

        Raises:
            PrunedError: it is not among those that are kept.
        """
        raw = self._transactions.get(index)
        if raw is None:
            raise PrunedError(self.coinbase.height)
        return Inclusion(block, parse_transaction(raw), index, self._paths[index])


def read_sealed(reader: StoreReader, height: int, next_: ValidatorSet) -> SealedHeader:
    """Return a final block without its transactions, whose body is not looked at.

    Args:
        reader: of the store.
        height: of the block.
        next_: who votes on the block after it.

    Raises:
        DamagedError: it is not what was written.
        PrunedError: nothing of it is here.
    """
    found = reader.header(height)
    if found is None:
        if 0 < height <= reader.meta.base:
            raise PrunedError(height)
        raise reader.damaged(f"block {height}: is missing")
    with reader.readable(f"block {height}"):
        return PrunedBlock(found, reader.kept(height)).sealed_header(next_)


def read_block(reader: StoreReader, height: int) -> StoredBlock | PrunedBlock:
    """Return a final block, with its body or what stayed of it.

    Raises:
        DamagedError: it is not what was written.
        PrunedError: nothing of it is here.
    """
    with reader.readable(f"block {height}"):
        try:
            found = reader.block(height)
        except PrunedError:
            header = reader.header(height)
            assert header is not None  # its body was asked for
            return PrunedBlock(header, reader.kept(height))
        if found is None:
            if 0 < height <= reader.meta.base:
                raise PrunedError(height)
            raise reader.damaged(f"block {height}: is missing")
        return StoredBlock(*found)
