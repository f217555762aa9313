"""Proofs: one file shows, with the founding file alone, what is final on a ledger.

A proof states a claim, and carries the blocks (without their other transactions) that show
it: those that hold what is claimed, and every block after which another set of validators
votes. The founding file says who votes first; so each block is checked by those who voted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .block import Block
from .cbor import decode, encode
from .errors import FormatError, ProofError, ProtocolError
from .founding import Founding
from .governance import AddMember, Propose, RotateKey
from .keys import KID_BYTES, PublicKey
from .merkle import HASH_BYTES, inclusion_proof, leaf_hash, verify_inclusion
from .sealed_header import MAX_LEAVES, SealedHeader, hash_path
from .transactions import MAX_TRANSACTION_BYTES, Enrol, Transaction, parse_transaction
from .validate import array, integers, octets, text_map, uint
from .validators import ValidatorSet

FORMAT = 2
MAX_PROOF_BYTES = 64 * 1024 * 1024
# Transactions that one proof of a range may hold.
MAX_SUBJECTS = 1024
# Keys that are not in the founding file, on the way to those that signed the subjects.
MAX_INTRODUCTIONS = 64
# One per subject and introduction, and one per change of the validators.
MAX_BLOCKS = 16 * 1024
MAX_ENTRY_BYTES = MAX_TRANSACTION_BYTES + 256

# Height and index: where a transaction stands in the order of all.
Place = tuple[int, int]
# By key id: the key, and where it came in.
Keys = dict[bytes, tuple[PublicKey, Place]]


@dataclass(frozen=True)
class TransactionClaim:
    """The transaction with this id is final."""

    id: bytes


@dataclass(frozen=True)
class RangeClaim:
    """These are all transactions that the signer numbered `first` to `last`."""

    signer: bytes
    first: int
    last: int


@dataclass(frozen=True)
class EnrolmentClaim:
    """The device is enrolled with this key, and this is how it stands at the last block."""

    device: bytes


Claim = TransactionClaim | RangeClaim | EnrolmentClaim


@dataclass(frozen=True)
class Inclusion:
    """A transaction, and its place in a certified block.

    Attributes:
        block: without its transactions.
        index: position of the transaction in the block, from 1.
        path: siblings from the transaction's leaf to the header's Merkle root.
    """

    block: SealedHeader
    transaction: Transaction
    index: int
    path: tuple[bytes, ...] = field(repr=False)

    @property
    def place(self) -> Place:
        """Height and index: where it stands in the order of all transactions."""
        return (self.block.height, self.index)

    def verify(self, where: str) -> None:
        """Raise ProofError unless the block's Merkle root covers the transaction here."""
        if self.index < 1:
            raise ProofError(f"{where}.index", "0 is the coinbase's, not a transaction's")
        root, size = self.block.header.merkle_root, self.block.size
        try:
            verify_inclusion(self.transaction.id, self.index, size, self.path, root)
        except ProofError as error:
            raise ProofError(f"{where}.{error.field}", error.problem) from error


@dataclass(frozen=True)
class StateRecord:
    """An entry of the ledger's state after a block, and the way up to the state's root.

    Attributes:
        entry: as `fog_node/ledger/README.md` says, in its exact bytes.
        index, size: its place among the state's entries.
    """

    block: SealedHeader
    entry: bytes = field(repr=False)
    index: int
    size: int
    path: tuple[bytes, ...] = field(repr=False)

    def verify(self, where: str) -> None:
        """Raise ProofError unless the coinbase's state root covers the entry."""
        root = self.block.coinbase.state
        try:
            verify_inclusion(leaf_hash(self.entry), self.index, self.size, self.path, root)
        except ProofError as error:
            raise ProofError(
                f"{where}.{error.field}", "does not lead to the state's root"
            ) from error


@dataclass(frozen=True)
class DeviceStanding:
    """What a device's entry in the state says of it."""

    status: str
    next: int


@dataclass(frozen=True)
class Proof:
    """A claim and all that shows it.

    Attributes:
        chain_id: SHA-256 of the founding file it is to be checked with.
        blocks: in order of height.
        introductions: earlier transactions that brought the keys which the founding file
            lacks: a device's enrolment, a member's proposal.
        subjects: the transactions that the claim is about, in their order.
        record: the device's entry in the state after the last block, for an enrolment.
    """

    chain_id: bytes
    claim: Claim
    blocks: tuple[SealedHeader, ...] = field(repr=False)
    introductions: tuple[Inclusion, ...] = field(repr=False)
    subjects: tuple[Inclusion, ...]
    record: StateRecord | None = None

    @property
    def subject(self) -> Inclusion:
        """The only transaction, or the first one of a range."""
        return self.subjects[0]

    def encode(self) -> bytes:
        """The proof file's bytes."""
        numbers = {block.height: index for index, block in enumerate(self.blocks)}
        return encode(
            {
                "fogline-proof": FORMAT,
                "chain": self.chain_id,
                "claim": _claim_value(self.claim),
                "blocks": [block.value() for block in self.blocks],
                "introductions": [_inclusion_value(i, numbers) for i in self.introductions],
                "subjects": [_inclusion_value(i, numbers) for i in self.subjects],
                "record": _record_value(self.record),
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
        self.voters(founding)
        shown = (*self.introductions, *self.subjects, *((self.record,) if self.record else ()))
        if not {id(item.block) for item in shown} <= {id(block) for block in self.blocks}:
            raise ProofError("proof.blocks", "lack one that something is said to be in")
        keys: Keys = {member.kid: (member.key, (0, 0)) for member in founding.members}
        for where, inclusion in _in_order(self.introductions, "proof.introductions"):
            _verify_signed(inclusion, keys, founding, where)
            for key in introduced(inclusion.transaction, where):
                if keys.setdefault(key.kid, (key, inclusion.place))[0] != key:
                    raise ProofError(where, f"gives {key.kid.hex()} another key than it has")
        for where, inclusion in _in_order(self.subjects, "proof.subjects"):
            _verify_signed(inclusion, keys, founding, where)
        self._verify_claim()

    def lost(self) -> list[tuple[int, int]]:
        """Return the numbers within a range that its signer has declared lost: (first, last)."""
        if not isinstance(self.claim, RangeClaim):
            return []
        stated = [
            (max(t.first, self.claim.first), min(t.sequence - 1, self.claim.last))
            for t in (inclusion.transaction for inclusion in self.subjects)
        ]
        return [(first, last) for first, last in stated if first <= last]

    def introduced(self) -> dict[bytes, str]:
        """Return by key id the names of members who came in by vote, as their proposals say."""
        return {
            change.key.kid: change.name
            for body in (inclusion.transaction.body for inclusion in self.introductions)
            if isinstance(body, Propose)
            for change in body.changes
            if isinstance(change, (AddMember, RotateKey))
        }

    def standing(self) -> DeviceStanding | None:
        """Return how the device of an enrolment stood after the last block."""
        if self.record is None:
            return None
        kind, _, fields = array(decode(self.record.entry, MAX_ENTRY_BYTES), "entry", length=3)
        status, next_ = array(fields, "entry")[:2]
        if kind != 1 or not isinstance(status, str):
            raise FormatError("proof.record.entry", "is not a device's")
        return DeviceStanding(status, uint(next_, "proof.record.entry.next", at_least=1))

    def voters(self, founding: Founding) -> dict[int, ValidatorSet]:
        """Return who voted on each block, by height; raises as `verify` for what does not hold."""
        found = {}
        validators = founding.validator_set
        height = 0
        for number, block in enumerate(self.blocks):
            where = f"proof.blocks[{number}]"
            if block.height <= height:
                raise ProofError(where, "blocks are not in order of height, each once")
            height = block.height
            found[height] = validators
            try:
                validators = block.verify(validators, founding.chain_id)
            except ProtocolError as error:
                raise type(error)(f"{where}.{error.field}", error.problem, error.remedy) from error
        return found

    def _verify_claim(self) -> None:
        claim = self.claim
        if isinstance(claim, RangeClaim):
            self._verify_range(claim)
            return
        if len(self.subjects) != 1:
            raise ProofError("proof.subjects", f"are {len(self.subjects)}, the claim is about one")
        transaction = self.subject.transaction
        if isinstance(claim, TransactionClaim):
            if transaction.id != claim.id:
                raise ProofError("proof.subjects[0]", "is another transaction than the claimed one")
            if self.record is not None:
                raise ProofError("proof.record", "has no place beside a transaction")
            return
        body = transaction.body
        if not isinstance(body, Enrol) or body.device != claim.device:
            raise ProofError("proof.subjects[0]", "does not enrol the claimed device")
        self._verify_record(claim.device, transaction)

    def _verify_range(self, claim: RangeClaim) -> None:
        if self.record is not None:
            raise ProofError("proof.record", "has no place beside a range")
        expected = claim.first
        for number, inclusion in enumerate(self.subjects):
            where = f"proof.subjects[{number}]"
            transaction = inclusion.transaction
            if transaction.signer != claim.signer:
                raise ProofError(where, "is not of the claimed signer")
            # A gap is its signer's own statement that the numbers below it are lost.
            starts_here = transaction.first == expected
            if not number and transaction.first < expected <= transaction.sequence:
                starts_here = True
            if expected > claim.last or not starts_here:
                raise ProofError(
                    where,
                    f"has the number {transaction.sequence}, where {expected} is needed",
                    "the range is not complete; ask for it anew",
                )
            expected = transaction.sequence + 1
        if expected <= claim.last:
            raise ProofError("proof.subjects", f"end before the number {expected}")

    def _verify_record(self, device: bytes, enrol: Transaction) -> None:
        record = self.record
        if record is None:
            raise ProofError("proof.record", "is missing")
        if record.block is not self.blocks[-1]:
            raise ProofError("proof.record", "is not of the last block's state")
        record.verify("proof.record")
        kind, name, fields = array(decode(record.entry, MAX_ENTRY_BYTES), "entry", length=3)
        if (kind, name) != (1, device):
            raise ProofError("proof.record.entry", "is not that of the device")
        if enrol.id not in array(fields, "proof.record.entry"):
            raise ProofError("proof.record.entry", "names another enrolment")
        self.standing()


def prove_inclusion(block: Block, sealed: SealedHeader, transaction_id: bytes) -> Inclusion:
    """Make the inclusion of a transaction of `block`, which `sealed` is of; raises ProofError."""
    for index, transaction in enumerate(block.transactions, start=1):
        if transaction.id == transaction_id:
            path = tuple(inclusion_proof(block.leaves, index))
            return Inclusion(sealed, transaction, index, path)
    raise ProofError("proof.subjects", f"{transaction_id.hex()} is not in this block")


def parse_proof(data: bytes) -> Proof:
    """Parse a proof file; raises EncodingError, FormatError, ProofError."""
    names = {"fogline-proof", "chain", "claim", "blocks", "introductions", "subjects", "record"}
    decoded = decode(data, MAX_PROOF_BYTES, "proof")
    written = decoded.get("fogline-proof", FORMAT) if isinstance(decoded, dict) else FORMAT
    if not integers((written,)) or written != FORMAT:
        raise FormatError(
            "proof.fogline-proof", f"is not format {FORMAT}", "get the proof anew from a node"
        )
    value = text_map(decoded, names, "proof")
    listed = array(value["blocks"], "proof.blocks", at_most=MAX_BLOCKS)
    blocks = tuple(
        SealedHeader.from_value(item, f"proof.blocks[{number}]")
        for number, item in enumerate(listed)
    )
    introductions = _inclusions(value, "introductions", MAX_INTRODUCTIONS, blocks)
    subjects = _inclusions(value, "subjects", MAX_SUBJECTS, blocks)
    if not subjects:
        raise FormatError("proof.subjects", "is empty")
    proof = Proof(
        chain_id=octets(value["chain"], "proof.chain", HASH_BYTES),
        claim=_parse_claim(value["claim"]),
        blocks=blocks,
        introductions=introductions,
        subjects=subjects,
        record=_parse_record(value["record"], blocks),
    )
    used = {id(inclusion.block) for inclusion in (*introductions, *subjects)}
    for number, block in enumerate(blocks):
        is_last = proof.record is not None and block is blocks[-1]
        if id(block) not in used and block.next is None and not is_last:
            raise FormatError(f"proof.blocks[{number}]", "shows nothing; it must not be here")
    return proof


def _in_order(inclusions: Sequence[Inclusion], name: str) -> Iterator[tuple[str, Inclusion]]:
    """Give each with the name of its field; raises ProofError where one stands too early."""
    last: Place = (0, 0)
    for number, inclusion in enumerate(inclusions):
        where = f"{name}[{number}]"
        if inclusion.place <= last:
            raise ProofError(where, "does not stand behind the one before it")
        last = inclusion.place
        yield where, inclusion


def _verify_signed(inclusion: Inclusion, keys: Keys, founding: Founding, where: str) -> None:
    inclusion.verify(where)
    signer = inclusion.transaction.signer
    key, place = keys.get(signer, (None, (0, 0)))
    if key is None:
        raise ProofError(
            where, f"the key of {signer.hex()} is neither in the founding file nor introduced"
        )
    if place >= inclusion.place:
        raise ProofError(where, f"stands before the introduction of its signer {signer.hex()}")
    try:
        inclusion.transaction.verify(key, founding.chain_id)
    except ProtocolError as error:
        raise type(error)(f"{where}.{error.field}", error.problem, error.remedy) from error


# Kinds whose transactions bring keys in.
INTRODUCING = frozenset({Enrol.kind, Propose.kind})


def introduced(transaction: Transaction, where: str) -> Iterator[PublicKey]:
    """Keys that a transaction brings in; that it was in order, the block's voters have checked."""
    body = transaction.body
    if isinstance(body, Enrol):
        yield body.key
    elif isinstance(body, Propose):
        for change in body.changes:
            if isinstance(change, (AddMember, RotateKey)):
                yield change.key
    else:
        raise ProofError(where, f"a transaction of the kind {transaction.kind} brings in no key")


def _claim_value(claim: Claim) -> list[Any]:
    if isinstance(claim, TransactionClaim):
        return ["transaction", claim.id]
    if isinstance(claim, RangeClaim):
        return ["range", claim.signer, claim.first, claim.last]
    return ["enrolment", claim.device]


def _parse_claim(value: Any) -> Claim:
    match array(value, "proof.claim"):
        case ["transaction", id_]:
            return TransactionClaim(octets(id_, "proof.claim.id", HASH_BYTES))
        case ["range", signer, first, last]:
            start = uint(first, "proof.claim.first", at_least=1)
            return RangeClaim(
                octets(signer, "proof.claim.signer", KID_BYTES),
                start,
                uint(last, "proof.claim.last", at_least=start),
            )
        case ["enrolment", device]:
            return EnrolmentClaim(octets(device, "proof.claim.device", KID_BYTES))
    raise FormatError("proof.claim", "is of no known kind", "check it with a newer release")


def _inclusion_value(inclusion: Inclusion, numbers: dict[int, int]) -> list[Any]:
    block = numbers[inclusion.block.height]
    return [block, inclusion.index, inclusion.transaction.raw, list(inclusion.path)]


def _inclusions(
    value: dict[str, Any], name: str, at_most: int, blocks: Sequence[SealedHeader]
) -> tuple[Inclusion, ...]:
    found = []
    for number, item in enumerate(array(value[name], f"proof.{name}", at_most=at_most)):
        where = f"proof.{name}[{number}]"
        block, index, raw, path = array(item, where, length=4)
        if not isinstance(raw, bytes):
            raise FormatError(f"{where}.transaction", "is not a byte string")
        found.append(
            Inclusion(
                block=blocks[uint(block, f"{where}.block", len(blocks) - 1)],
                transaction=parse_transaction(raw),
                index=uint(index, f"{where}.index", MAX_LEAVES, at_least=1),
                path=hash_path(path, f"{where}.path"),
            )
        )
    return tuple(found)


def _record_value(record: StateRecord | None) -> list[Any] | None:
    if record is None:
        return None
    return [record.entry, record.index, record.size, list(record.path)]


def _parse_record(value: Any, blocks: Sequence[SealedHeader]) -> StateRecord | None:
    if value is None:
        return None
    entry, index, size, path = array(value, "proof.record", length=4)
    if not isinstance(entry, bytes) or len(entry) > MAX_ENTRY_BYTES:
        raise FormatError("proof.record.entry", "is not a byte string of a sane size")
    return StateRecord(
        block=blocks[-1],
        entry=entry,
        index=uint(index, "proof.record.index", MAX_LEAVES),
        size=uint(size, "proof.record.size", MAX_LEAVES, at_least=1),
        path=hash_path(path, "proof.record.path"),
    )
