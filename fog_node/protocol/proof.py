"""Proofs: one file shows, with the founding file alone, that a transaction is final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .block import (
    Block,
    Coinbase,
    Header,
    parse_coinbase,
)
from .cbor import decode, encode
from .errors import FormatError, ProofError
from .founding import Founding
from .keys import PublicKey
from .merkle import HASH_BYTES, inclusion_proof, leaf_hash, verify_inclusion
from .transactions import Enrol, Transaction, parse_transaction
from .validate import array, octets, text_map, uint
from .votes import MAX_CERTIFICATE_BYTES, Certificate, parse_certificate

FORMAT = 1
MAX_PROOF_BYTES = 1024 * 1024
MAX_PATH = 64


@dataclass(frozen=True)
class Inclusion:
    """A transaction, its place in a certified block, and the way up to the header.

    Attributes:
        size: leaves in the block's tree, the coinbase included.
        index: position of the transaction, from 1.
        path: siblings from the transaction's leaf to the root.
        coinbase_path: siblings from the coinbase's leaf (index 0) to the root.
    """

    transaction: Transaction
    header: Header
    coinbase: Coinbase
    certificate: Certificate
    size: int
    index: int
    path: tuple[bytes, ...] = field(repr=False)
    coinbase_path: tuple[bytes, ...] = field(repr=False)

    def verify(self, founding: Founding) -> None:
        """Raise ProofError or SignatureError unless the transaction is final.

        Who signed the transaction is left to the caller.
        """
        self.header.check_work()
        root = self.header.merkle_root
        verify_inclusion(self.transaction.id, self.index, self.size, self.path, root)
        coinbase_leaf = leaf_hash(self.coinbase.raw)
        verify_inclusion(coinbase_leaf, 0, self.size, self.coinbase_path, root)
        if self.coinbase.validators != founding.validator_set.hash:
            raise ProofError("proof.coinbase.validators", "is another set than the founding file's")
        certificate = self.certificate
        if certificate.block_hash != self.header.hash:
            raise ProofError("proof.certificate", "is for another block")
        if certificate.height != self.coinbase.height:
            raise ProofError("proof.certificate", "is for another height")
        founding.validator_set.verify(certificate, founding.chain_id)

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proof file."""
        return {
            "transaction": self.transaction.raw,
            "header": self.header.encode(),
            "coinbase": self.coinbase.raw,
            "certificate": self.certificate.encode(),
            "size": self.size,
            "index": self.index,
            "path": list(self.path),
            "coinbase_path": list(self.coinbase_path),
        }

    @classmethod
    def from_value(cls, value: Any, field: str) -> Inclusion:
        """Read such a map; raises EncodingError, FormatError, ProofError."""
        names = {"transaction", "header", "coinbase", "certificate", "size", "index", "path"}
        entry = text_map(value, names | {"coinbase_path"}, field)
        for name in ("transaction", "coinbase", "certificate"):
            if not isinstance(entry[name], bytes):
                raise FormatError(f"{field}.{name}", "is not a byte string")
        if len(entry["certificate"]) > MAX_CERTIFICATE_BYTES:
            raise FormatError(f"{field}.certificate", "is too large")
        size = uint(entry["size"], f"{field}.size", 2**32, at_least=2)
        return cls(
            transaction=parse_transaction(entry["transaction"]),
            header=Header.decode(entry["header"]),
            coinbase=parse_coinbase(entry["coinbase"]),
            certificate=parse_certificate(entry["certificate"], f"{field}.certificate"),
            size=size,
            index=uint(entry["index"], f"{field}.index", size - 1, at_least=1),
            path=_path(entry["path"], f"{field}.path"),
            coinbase_path=_path(entry["coinbase_path"], f"{field}.coinbase_path"),
        )


@dataclass(frozen=True)
class Proof:
    """That `subject` is final, and, where a board signed it, that the board was enrolled.

    Attributes:
        chain_id: SHA-256 of the founding file it is to be checked with.
        enrolment: the enrol transaction of the signing board; None where a member that
            the founding file lists signed.
    """

    chain_id: bytes
    subject: Inclusion
    enrolment: Inclusion | None

    def encode(self) -> bytes:
        """The proof file's bytes."""
        enrolment = None if self.enrolment is None else self.enrolment.value()
        return encode(
            {
                "fogline-proof": FORMAT,
                "chain": self.chain_id,
                "subject": self.subject.value(),
                "enrolment": enrolment,
            }
        )

    def verify(self, founding: Founding) -> None:
        """Raise ProofError or SignatureError, naming what fails, unless all holds."""
        if self.chain_id != founding.chain_id:
            raise ProofError(
                "proof.chain",
                f"{self.chain_id.hex()} is another ledger than the founding file's",
                "check it with the founding file it was made under",
            )
        self.subject.verify(founding)
        self.subject.transaction.verify(self._signer_key(founding), founding.chain_id)

    def _signer_key(self, founding: Founding) -> PublicKey:
        signer = self.subject.transaction.signer
        member = founding.member(signer)
        if member is not None:
            if self.enrolment is not None:
                raise ProofError("proof.enrolment", "stands beside a member's own transaction")
            return member.key
        if self.enrolment is None:
            raise ProofError("proof.enrolment", f"of the signer {signer.hex()} is missing")
        self.enrolment.verify(founding)
        enrol = self.enrolment.transaction
        if not isinstance(enrol.body, Enrol) or enrol.body.device != signer:
            raise ProofError("proof.enrolment", "enrols another key than the signer's")
        operator = founding.member(enrol.signer)
        if operator is None or "operator" not in operator.roles:
            raise ProofError("proof.enrolment", "is not signed by an operator of the consortium")
        enrol.verify(operator.key, founding.chain_id)
        place = (self.enrolment.coinbase.height, self.enrolment.index)
        if place >= (self.subject.coinbase.height, self.subject.index):
            raise ProofError("proof.enrolment", "comes after what the board signed")
        return enrol.body.key


def prove_inclusion(block: Block, certificate: Certificate, transaction_id: bytes) -> Inclusion:
    """Make the inclusion part for a transaction of `block`; raises ProofError."""
    leaves: Sequence[bytes] = block.leaves
    for index, transaction in enumerate(block.transactions, start=1):
        if transaction.id == transaction_id:
            return Inclusion(
                transaction=transaction,
                header=block.header,
                coinbase=block.coinbase,
                certificate=certificate,
                size=len(leaves),
                index=index,
                path=tuple(inclusion_proof(leaves, index)),
                coinbase_path=tuple(inclusion_proof(leaves, 0)),
            )
    raise ProofError("proof.subject", f"{transaction_id.hex()} is not in this block")


def parse_proof(data: bytes) -> Proof:
    """Parse a proof file; raises EncodingError, FormatError, ProofError."""
    names = {"fogline-proof", "chain", "subject", "enrolment"}
    value = text_map(decode(data, MAX_PROOF_BYTES, "proof"), names, "proof")
    if value["fogline-proof"] != FORMAT:
        raise FormatError("proof.fogline-proof", f"is not format {FORMAT}")
    enrolment = value["enrolment"]
    return Proof(
        chain_id=octets(value["chain"], "proof.chain", HASH_BYTES),
        subject=Inclusion.from_value(value["subject"], "proof.subject"),
        enrolment=(
            None if enrolment is None else Inclusion.from_value(enrolment, "proof.enrolment")
        ),
    )


def _path(value: Any, field: str) -> tuple[bytes, ...]:
    return tuple(octets(item, field, HASH_BYTES) for item in array(value, field, at_most=MAX_PATH))
