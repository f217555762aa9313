"""A final block without its transactions: enough to follow the chain, and to prove from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from .block import Block, Coinbase, Header, parse_coinbase
from .cbor import decode, encode
from .errors import FormatError, ProofError
from .founding import Founding
from .merkle import HASH_BYTES, inclusion_proof, leaf_hash, verify_inclusion
from .validate import array, octets, uint
from .validators import MAX_SET_BYTES, ValidatorSet
from .votes import MAX_CERTIFICATE_BYTES, Certificate, parse_certificate

MAX_LEAVES = 2**32
MAX_PATH = 64
# Certificate, the next set, and a few hundred bytes of header, coinbase and path.
MAX_SEALED_HEADER_BYTES = MAX_CERTIFICATE_BYTES + MAX_SET_BYTES + 8 * 1024


@dataclass(frozen=True)
class SealedHeader:
    """Header, coinbase and certificate of a final block.

    Attributes:
        size: leaves in the block's tree, the coinbase included.
        coinbase_path: siblings from the coinbase's leaf (index 0) to the root.
        next: who votes on the block after it; given if and only if it is another set than
            voted on this one. Such a block is a *handover*.
    """

    header: Header
    coinbase: Coinbase
    size: int
    coinbase_path: tuple[bytes, ...] = field(repr=False)
    certificate: Certificate = field(repr=False)
    next: ValidatorSet | None = None

    @property
    def height(self) -> int:
        """Number of blocks below this one."""
        return self.coinbase.height

    @property
    def hash(self) -> bytes:
        """Hash of the header, internal byte order."""
        return self.header.hash

    @classmethod
    def of(
        cls,
        header: Header,
        coinbase: Coinbase,
        leaves: Sequence[bytes],
        certificate: Certificate,
        next_: ValidatorSet | None,
    ) -> SealedHeader:
        """Take a final block's parts; `next_` may be given for any block."""
        path = tuple(inclusion_proof(leaves, 0))
        handover = next_ if coinbase.next != coinbase.validators else None
        return cls(header, coinbase, len(leaves), path, certificate, handover)

    @classmethod
    def of_block(
        cls, block: Block, certificate: Certificate, next_: ValidatorSet | None
    ) -> SealedHeader:
        """Leave the transactions of a final block away."""
        return cls.of(block.header, block.coinbase, block.leaves, certificate, next_)

    def verify(self, validators: ValidatorSet, chain_id: bytes) -> ValidatorSet:
        """Raise ProofError or SignatureError unless `validators` made this block final.

        Returns:
            Who votes on the block after it.
        """
        where = f"block {self.height}"
        self.header.check_work()
        root = self.header.merkle_root
        verify_inclusion(leaf_hash(self.coinbase.raw), 0, self.size, self.coinbase_path, root)
        if self.header.time != self.coinbase.time // 1000:
            raise ProofError(f"{where}.header.time", "is not the coinbase's")
        if self.coinbase.validators != validators.hash:
            raise ProofError(
                f"{where}.coinbase.validators",
                "is another set than the blocks before lead to",
                "a handover is missing, or the block is of another history",
            )
        certificate = self.certificate
        if certificate.block_hash != self.hash or certificate.height != self.height:
            raise ProofError(f"{where}.certificate", "is for another block")
        if certificate.round < self.coinbase.round:
            raise ProofError(f"{where}.certificate.round", "is before the block was mined")
        miner = validators.by_kid.get(self.coinbase.miner)
        if miner is None:
            raise ProofError(f"{where}.coinbase.miner", "does not vote on this block")
        self.coinbase.message.verify(miner, chain_id)
        validators.verify(certificate, chain_id)
        return self._successors(validators, where)

    def _successors(self, validators: ValidatorSet, where: str) -> ValidatorSet:
        if self.coinbase.next == validators.hash:
            if self.next is not None:
                raise ProofError(f"{where}.next", "is given, although the set does not change")
            return validators
        if self.next is None:
            raise ProofError(f"{where}.next", "is missing, although the set changes here")
        if self.next.hash != self.coinbase.next:
            raise ProofError(f"{where}.next", "is not the set that the coinbase names")
        return self.next

    def value(self) -> list[Any]:
        """`[header, coinbase, size, [path], certificate, next or null]`."""
        return [
            self.header.encode(),
            self.coinbase.raw,
            self.size,
            list(self.coinbase_path),
            self.certificate.encode(),
            None if self.next is None else self.next.value(),
        ]

    def encode(self) -> bytes:
        """Deterministic CBOR of `value`."""
        return encode(self.value())

    @classmethod
    def from_value(cls, value: Any, field: str = "sealed header") -> SealedHeader:
        """Read what `value` gives; raises EncodingError, FormatError, ProofError."""
        header, coinbase, size, path, certificate, next_ = array(value, field, length=6)
        for part, name in ((coinbase, "coinbase"), (certificate, "certificate")):
            if not isinstance(part, bytes):
                raise FormatError(f"{field}.{name}", "is not a byte string")
        return cls(
            header=Header.decode(header),
            coinbase=parse_coinbase(coinbase),
            size=uint(size, f"{field}.size", MAX_LEAVES, at_least=1),
            coinbase_path=hash_path(path, f"{field}.path"),
            certificate=parse_certificate(certificate, f"{field}.certificate"),
            next=None if next_ is None else ValidatorSet.from_value(next_, f"{field}.next"),
        )

    @classmethod
    def decode(cls, data: bytes, field: str = "sealed header") -> SealedHeader:
        """Read what `encode` writes; raises EncodingError, FormatError, ProofError."""
        return cls.from_value(decode(data, MAX_SEALED_HEADER_BYTES, field), field)


@dataclass(frozen=True)
class LightChain:
    """What has to be remembered to check the next block's header: the head, and who votes.

    Attributes:
        chain_id: SHA-256 of the founding file.
        height: of the latest block that was checked; 0 is the founding.
        head: its hash, internal byte order.
        time: of that block, ms since 1970.
        state: root of the ledger's state after it; empty at the founding.
        validators: who votes on the block after it.
    """

    chain_id: bytes
    height: int
    head: bytes
    time: int
    state: bytes
    validators: ValidatorSet

    @classmethod
    def at_founding(cls, founding: Founding) -> Self:
        """Begin with what the founding file says."""
        return cls(
            chain_id=founding.chain_id,
            height=0,
            head=founding.genesis.hash,
            time=founding.time,
            state=b"",
            validators=founding.validator_set,
        )

    def after(self, sealed: SealedHeader) -> Self:
        """Check the next block's header and certificate; raises ProofError, SignatureError."""
        where = f"block {sealed.height}"
        if sealed.height != self.height + 1:
            raise ProofError(f"{where}.coinbase.height", f"follows on height {self.height}")
        if sealed.header.previous != self.head:
            raise ProofError(f"{where}.header.previous", "is not the hash of the block before")
        if sealed.coinbase.time <= self.time:
            raise ProofError(f"{where}.coinbase.time", "is not above that of the block before")
        return replace(
            self,
            height=sealed.height,
            head=sealed.hash,
            time=sealed.coinbase.time,
            state=sealed.coinbase.state,
            validators=sealed.verify(self.validators, self.chain_id),
        )

    def value(self) -> list[Any]:
        """`[chain id, height, head, time, state, validators]`."""
        return [
            self.chain_id, self.height, self.head, self.time, self.state, self.validators.value(),
        ]  # fmt: skip

    @classmethod
    def from_value(cls, value: Any, field: str = "light chain") -> Self:
        """Read what `value` gives; raises FormatError. Trust it only as its file is trusted."""
        chain_id, height, head, time, state, validators = array(value, field, length=6)
        number = uint(height, f"{field}.height")
        return cls(
            chain_id=octets(chain_id, f"{field}.chain id", HASH_BYTES),
            height=number,
            head=octets(head, f"{field}.head", HASH_BYTES),
            time=uint(time, f"{field}.time"),
            state=octets(state, f"{field}.state", HASH_BYTES if number else 0),
            validators=ValidatorSet.from_value(validators, f"{field}.validators"),
        )


def hash_path(value: Any, field: str) -> tuple[bytes, ...]:
    """Read the siblings of an inclusion path, leaf first; raises FormatError."""
    return tuple(octets(item, field, HASH_BYTES) for item in array(value, field, at_most=MAX_PATH))
