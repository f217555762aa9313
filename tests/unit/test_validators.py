"""A validator set travels as bytes, and its hash stands for it."""

from __future__ import annotations

import hashlib

import cbor2
import pytest

from fog_node.protocol.errors import FormatError, ProofError, ProtocolError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import PRECOMMIT, make_certificate, sign_vote

KEYS = [SigningKey.from_secret(100 + i) for i in range(4)]
VOTERS = ValidatorSet(2, tuple(key.public for key in KEYS[:3]))
CHAIN = bytes(32)


def certificate(*keys: SigningKey):
    return make_certificate([sign_vote(k, 1, 0, PRECOMMIT, bytes(32), CHAIN) for k in keys])


def test_comes_back_from_its_bytes():
    assert ValidatorSet.decode(VOTERS.raw) == VOTERS
    assert VOTERS.hash == hashlib.sha256(VOTERS.raw).digest()
    assert list(VOTERS.by_kid) == [key.kid for key in KEYS[:3]]


def test_hash_tells_order_and_quorum_apart():
    others = [
        ValidatorSet(3, VOTERS.keys),
        ValidatorSet(2, VOTERS.keys[::-1]),
        ValidatorSet(2, VOTERS.keys[:2]),
    ]
    assert len({VOTERS.hash, *(other.hash for other in others)}) == 4


def test_a_certificate_needs_the_quorum_of_these_voters():
    VOTERS.verify(certificate(*KEYS[:2]), CHAIN)
    for keys in (KEYS[:1], KEYS[2:4]):
        with pytest.raises(ProofError):
            VOTERS.verify(certificate(*keys), CHAIN)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda value: value[:1], "validators"),
        (lambda value: [0, value[1]], "validators.quorum"),
        (lambda value: [4, value[1]], "validators.quorum"),
        (lambda value: [2, []], "validators.quorum"),
        (lambda value: [2, [*value[1], value[1][0]]], "validators.keys"),
        (lambda value: [2, [{1: 2}]], "validators.keys"),
        (lambda value: [2, value[1] * 43], "validators.keys"),
        (lambda value: [2, [{**value[1][0], -3: bytes(32)}]], "key"),
    ],
)
def test_refuses_by_field(change, field):
    with pytest.raises(FormatError) as caught:
        ValidatorSet.decode(cbor2.dumps(change(VOTERS.value()), canonical=True))
    assert caught.value.field == field


def test_refuses_truncated_bytes():
    for length in range(len(VOTERS.raw)):
        with pytest.raises(ProtocolError):
            ValidatorSet.decode(VOTERS.raw[:length])
