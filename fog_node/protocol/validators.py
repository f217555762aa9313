"""The validators whose votes count on a block, and how many votes make it final."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .cbor import decode, encode
from .errors import FormatError
from .keys import PublicKey
from .validate import array, uint
from .votes import MAX_VALIDATORS, Certificate

# 128 keys of 75 bytes, the quorum, and the CBOR heads around them.
MAX_SET_BYTES = 16 * 1024


@dataclass(frozen=True)
class ValidatorSet:
    """Who may vote on a block.

    A coinbase names two of them by their hashes: the one that votes on the block, and the
    one that votes on the block after it. Whoever knows the first can thus follow the chain
    from one certified block to the next one whose `next` differs, a *handover*.

    Attributes:
        quorum: votes that make a block final.
        keys: of the validators that vote, in the order in which they became validators.
    """

    quorum: int
    keys: tuple[PublicKey, ...]

    def value(self) -> list[Any]:
        """`[quorum, [COSE_Key, ...]]`."""
        return [self.quorum, [key.cose_key for key in self.keys]]

    @cached_property
    def raw(self) -> bytes:
        """Deterministic CBOR of `value`."""
        return encode(self.value())

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of `raw`, as it stands in coinbases."""
        return hashlib.sha256(self.raw).digest()

    @cached_property
    def by_kid(self) -> dict[bytes, PublicKey]:
        """The keys by key id, in order."""
        return {key.kid: key for key in self.keys}

    def verify(self, certificate: Certificate, chain_id: bytes) -> None:
        """Raise ProofError or SignatureError unless these make the certificate's block final."""
        certificate.verify(self.by_kid, self.quorum, chain_id)

    @classmethod
    def from_value(cls, value: Any, field: str = "validators") -> ValidatorSet:
        """Read what `value` gives; raises FormatError."""
        quorum, listed = array(value, field, length=2)
        keys = array(listed, f"{field}.keys", at_most=MAX_VALIDATORS)
        found = cls(
            uint(quorum, f"{field}.quorum", MAX_VALIDATORS, at_least=1),
            tuple(PublicKey.from_cose_key(key, f"{field}.keys") for key in keys),
        )
        if len(found.by_kid) != len(keys):
            raise FormatError(f"{field}.keys", "name one validator twice")
        if found.quorum > len(keys):
            raise FormatError(f"{field}.quorum", "is more than there are validators")
        return found

    @classmethod
    def decode(cls, data: bytes, field: str = "validators") -> ValidatorSet:
        """Read `raw`; raises EncodingError, FormatError."""
        return cls.from_value(decode(data, MAX_SET_BYTES, field), field)
