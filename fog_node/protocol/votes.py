"""Votes, proposals and the certificates that votes add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .cbor import decode, encode
from .cose import Sign1, parse_sign1, sign1
from .errors import FormatError, ProofError
from .keys import PublicKey, SigningKey
from .merkle import HASH_BYTES
from .validate import array, octets, uint

CONTENT_TYPE_VOTE = "application/vnd.fogline.vote+cbor"
CONTENT_TYPE_PROPOSAL = "application/vnd.fogline.proposal+cbor"
PREVOTE = 1
PRECOMMIT = 2
MAX_VOTE_BYTES = 512
MAX_VALIDATORS = 128
MAX_CERTIFICATE_BYTES = 256 + MAX_VALIDATORS * MAX_VOTE_BYTES
MAX_ROUND = 2**31 - 1
NO_ROUND = -1


@dataclass(frozen=True)
class Vote:
    """One validator's vote.

    Attributes:
        validator: key id of the voter.
        step: PREVOTE or PRECOMMIT.
        block_hash: what it votes for; None is a vote for no block in this round.
        raw: the signed bytes.
    """

    validator: bytes
    height: int
    round: int
    step: int
    block_hash: bytes | None
    raw: bytes = field(repr=False)

    @property
    def slot(self) -> tuple[bytes, int, int, int]:
        """What a validator may fill once: (validator, height, round, step)."""
        return (self.validator, self.height, self.round, self.step)


@dataclass(frozen=True)
class ProposalHeader:
    """The signed part of a proposal: this block for this height and round.

    Attributes:
        pol_round: round whose prevotes justify a block that is proposed again; NO_ROUND
            for a block mined in `round` itself.
        raw: the signed bytes.
    """

    validator: bytes
    height: int
    round: int
    pol_round: int
    block_hash: bytes
    raw: bytes = field(repr=False)


@dataclass(frozen=True)
class Certificate:
    """Precommits of at least the quorum for one block; they make it final."""

    height: int
    round: int
    block_hash: bytes
    votes: tuple[Vote, ...] = field(repr=False)

    def encode(self) -> bytes:
        """Deterministic CBOR, votes in order of key id."""
        votes = [vote.raw for vote in sorted(self.votes, key=lambda vote: vote.validator)]
        return encode([self.height, self.round, self.block_hash, votes])

    def verify(self, keys: Mapping[bytes, PublicKey], quorum: int, chain_id: bytes) -> None:
        """Raise ProofError or SignatureError unless this makes `block_hash` final.

        Args:
            keys: the validators whose votes count, by key id.
            quorum: how many of them must have signed.
            chain_id: SHA-256 of the founding file.
        """
        if len(self.votes) < quorum:
            raise ProofError("certificate", f"has {len(self.votes)} votes, {quorum} are needed")
        for vote in self.votes:
            key = keys.get(vote.validator)
            if key is None:
                who = vote.validator.hex()
                raise ProofError("certificate", f"{who} is no validator here whose vote counts")
            parse_sign1(vote.raw, MAX_VOTE_BYTES, "vote").verify(key, chain_id)


def sign_vote(
    key: SigningKey, height: int, round_: int, step: int, block_hash: bytes | None, chain_id: bytes
) -> Vote:
    """Sign a vote. The caller must have it on disk before it is sent."""
    payload = encode([height, round_, step, block_hash])
    raw = sign1(key, CONTENT_TYPE_VOTE, payload, chain_id)
    return Vote(key.kid, height, round_, step, block_hash, raw)


def parse_vote(data: bytes, field: str = "vote") -> Vote:
    """Parse a vote, without checking its signature; raises EncodingError, FormatError."""
    message = _unnumbered(data, MAX_VOTE_BYTES, CONTENT_TYPE_VOTE, field)
    value = decode(message.payload, MAX_VOTE_BYTES, field)
    height, round_, step, block_hash = array(value, field, length=4)
    return Vote(
        validator=message.kid,
        height=uint(height, f"{field}.height", at_least=1),
        round=uint(round_, f"{field}.round", MAX_ROUND),
        step=uint(step, f"{field}.step", PRECOMMIT, PREVOTE),
        block_hash=None if block_hash is None else octets(block_hash, f"{field}.hash", HASH_BYTES),
        raw=data,
    )


def verify_vote(vote: Vote, key: PublicKey, chain_id: bytes) -> None:
    """Raise SignatureError unless `key` signed the vote for this ledger."""
    parse_sign1(vote.raw, MAX_VOTE_BYTES, "vote").verify(key, chain_id)


def sign_proposal(
    key: SigningKey, height: int, round_: int, pol_round: int, block_hash: bytes, chain_id: bytes
) -> ProposalHeader:
    """Sign a proposal."""
    payload = encode([height, round_, pol_round, block_hash])
    raw = sign1(key, CONTENT_TYPE_PROPOSAL, payload, chain_id)
    return ProposalHeader(key.kid, height, round_, pol_round, block_hash, raw)


def parse_proposal(data: bytes, field: str = "proposal") -> ProposalHeader:
    """Parse a proposal, without checking its signature; raises EncodingError, FormatError."""
    message = _unnumbered(data, MAX_VOTE_BYTES, CONTENT_TYPE_PROPOSAL, field)
    value = decode(message.payload, MAX_VOTE_BYTES, field)
    height, round_, pol_round, block_hash = array(value, field, length=4)
    number = uint(round_, f"{field}.round", MAX_ROUND)
    return ProposalHeader(
        validator=message.kid,
        height=uint(height, f"{field}.height", at_least=1),
        round=number,
        pol_round=uint(pol_round, f"{field}.pol_round", number - 1, NO_ROUND),
        block_hash=octets(block_hash, f"{field}.hash", HASH_BYTES),
        raw=data,
    )


def verify_proposal(proposal: ProposalHeader, key: PublicKey, chain_id: bytes) -> None:
    """Raise SignatureError unless `key` signed the proposal for this ledger."""
    parse_sign1(proposal.raw, MAX_VOTE_BYTES, "proposal").verify(key, chain_id)


def make_certificate(votes: Sequence[Vote]) -> Certificate:
    """Put precommits for one block into a certificate."""
    first = votes[0]
    if first.block_hash is None:
        raise ProofError("certificate", "votes for no block certify nothing")
    ordered = tuple(sorted(votes, key=lambda vote: vote.validator))
    certificate = Certificate(first.height, first.round, first.block_hash, ordered)
    _check_votes(certificate, "certificate")
    return certificate


def parse_certificate(data: bytes, field: str = "certificate") -> Certificate:
    """Parse a certificate and check that its votes fit; signatures are left to `verify`."""
    value = decode(data, MAX_CERTIFICATE_BYTES, field)
    height, round_, block_hash, raw_votes = array(value, field, length=4)
    votes = []
    for raw in array(raw_votes, f"{field}.votes", at_most=MAX_VALIDATORS):
        if not isinstance(raw, bytes):
            raise FormatError(f"{field}.votes", "are not byte strings")
        votes.append(parse_vote(raw, f"{field}.votes"))
    certificate = Certificate(
        height=uint(height, f"{field}.height", at_least=1),
        round=uint(round_, f"{field}.round", MAX_ROUND),
        block_hash=octets(block_hash, f"{field}.hash", HASH_BYTES),
        votes=tuple(votes),
    )
    _check_votes(certificate, field)
    return certificate


def _check_votes(certificate: Certificate, field: str) -> None:
    wanted = (certificate.height, certificate.round, PRECOMMIT, certificate.block_hash)
    last = b""
    for vote in certificate.votes:
        if (vote.height, vote.round, vote.step, vote.block_hash) != wanted:
            raise ProofError(f"{field}.votes", "one is not a precommit for this block and round")
        if vote.validator <= last:
            raise ProofError(f"{field}.votes", "are not in order of key id, each validator once")
        last = vote.validator


def _unnumbered(data: bytes, max_bytes: int, content_type: str, field: str) -> Sign1:
    message = parse_sign1(data, max_bytes, field)
    if message.content_type != content_type:
        raise FormatError(f"{field}.content type", f"is not {content_type}")
    if message.sequence is not None or message.dropped is not None:
        raise FormatError(f"{field}.protected", "carries a number that only transactions have")
    return message
