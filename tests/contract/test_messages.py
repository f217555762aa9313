"""The formats of fog_node/protocol/SPEC.md, held to `tests/vectors/{messages,refusals}.json`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fog_node.protocol import parse_block, parse_certificate, parse_founding, parse_proof
from fog_node.protocol.block import hash_hex
from fog_node.protocol.cose import parse_sign1
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import PublicKey, SigningKey
from fog_node.protocol.manifest import parse_bundle
from fog_node.protocol.receipt import decode_receipt, encode_receipt, receipt_key
from fog_node.protocol.transactions import KINDS, parse_transaction, sign_transaction
from fog_node.protocol.votes import parse_proposal, parse_vote, verify_proposal, verify_vote
from tools.vectors import hub

VECTORS = Path(__file__).parents[1] / "vectors"
MESSAGES: dict[str, Any] = json.loads((VECTORS / "messages.json").read_text())
REFUSALS: list[dict[str, str]] = json.loads((VECTORS / "refusals.json").read_text())
CHAIN = bytes.fromhex(MESSAGES["chain_id"])
KEYS = {name: PublicKey(bytes.fromhex(key["xy"])) for name, key in MESSAGES["keys"].items()}
BY_KID = {key.kid: key for key in KEYS.values()}


@pytest.fixture(scope="module")
def founding() -> Founding:
    return parse_founding(bytes.fromhex(MESSAGES["founding"]))


def test_the_files_are_what_their_generator_makes() -> None:
    for name, content in hub.files().items():
        assert (VECTORS / name).read_text() == content, f"python -m tools.vectors.hub ({name})"


def test_every_kind_of_transaction_has_a_vector() -> None:
    assert set(MESSAGES["transactions"]) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_transaction_parses_verifies_and_signs_to_the_same_bytes(kind: str) -> None:
    vector = MESSAGES["transactions"][kind]
    transaction = parse_transaction(bytes.fromhex(vector["bytes"]))
    assert transaction.kind == kind
    assert transaction.id.hex() == vector["id"]
    assert transaction.signer.hex() == vector["signer"]
    assert transaction.sequence == vector["sequence"]
    transaction.verify(BY_KID[transaction.signer], CHAIN)
    secret = next(
        key["secret"]
        for name, key in MESSAGES["keys"].items()
        if KEYS[name].kid == transaction.signer
    )
    again = sign_transaction(
        SigningKey.from_secret(secret),
        transaction.body,
        CHAIN,
        transaction.sequence,
        transaction.message.dropped,
    )
    assert again.raw == transaction.raw


def test_a_transaction_of_another_ledger_does_not_verify() -> None:
    transaction = parse_transaction(bytes.fromhex(MESSAGES["transactions"]["pack"]["bytes"]))
    with pytest.raises(ProtocolError, match="does not verify"):
        transaction.verify(KEYS["board"], bytes(32))


def test_block_certificate_and_proof_belong_together(founding: Founding) -> None:
    assert founding.chain_id == CHAIN
    block = parse_block(bytes.fromhex(MESSAGES["block"]["bytes"]))
    assert hash_hex(block.hash) == MESSAGES["block"]["hash"]
    assert block.header.previous == founding.genesis.hash
    block.header.check_work()
    certificate = parse_certificate(bytes.fromhex(MESSAGES["certificate"]))
    assert certificate.block_hash == block.hash
    keys = {member.kid: member.key for member in founding.validators}
    certificate.verify(keys, founding.quorum, CHAIN)
    with pytest.raises(ProtocolError, match="3 are needed"):
        certificate.verify(keys, 3, CHAIN)
    proof = parse_proof(bytes.fromhex(MESSAGES["proof"]))
    proof.verify(founding)
    assert proof.subject.transaction.id == block.transactions[1].id


def test_votes_and_proposals_verify_under_their_signers_key(founding: Founding) -> None:
    vote = parse_vote(bytes.fromhex(MESSAGES["vote"]))
    verify_vote(vote, KEYS["validator-0"], founding.chain_id)
    with pytest.raises(ProtocolError, match="kid"):
        verify_vote(vote, KEYS["validator-1"], founding.chain_id)
    proposal = parse_proposal(bytes.fromhex(MESSAGES["proposal"]))
    verify_proposal(proposal, KEYS["validator-0"], founding.chain_id)


def test_both_sides_agree_on_the_receipts_key() -> None:
    gateway = SigningKey.from_secret(MESSAGES["keys"]["validator-0"]["secret"])
    board = SigningKey.from_secret(MESSAGES["keys"]["board"]["secret"])
    ours = receipt_key(gateway, board.public, gateway.kid, board.kid, CHAIN)
    theirs = receipt_key(board, gateway.public, gateway.kid, board.kid, CHAIN)
    assert ours == theirs == bytes.fromhex(MESSAGES["receipt"]["key"])
    data = bytes.fromhex(MESSAGES["receipt"]["bytes"])
    receipt = decode_receipt(data, ours, CHAIN)
    assert receipt.next == MESSAGES["receipt"]["next"]
    assert encode_receipt(receipt, ours, gateway.kid, CHAIN) == data
    with pytest.raises(ProtocolError, match="tag"):
        decode_receipt(data, bytes(32), CHAIN)


def test_a_bundle_verifies_under_the_trainers_key_only() -> None:
    bundle = parse_bundle(bytes.fromhex(MESSAGES["bundle"]))
    bundle.verify([KEYS["trainer"]], CHAIN)
    with pytest.raises(ProtocolError, match="may not release"):
        bundle.verify([KEYS["operator"]], CHAIN)


@pytest.mark.parametrize("index", range(len(REFUSALS)))
def test_what_is_not_as_the_spec_says_is_refused_by_field(index: int, founding: Founding) -> None:
    case = REFUSALS[index]
    data = bytes.fromhex(case["bytes"])

    def check() -> None:
        if case["kind"] == "proof":
            parse_proof(data).verify(founding)
        else:
            parse_transaction(data).verify(KEYS["board"], CHAIN)

    with pytest.raises(ProtocolError) as refusal:
        check()
    assert refusal.value.field == case["field"]


def test_no_flipped_bit_of_a_proof_is_accepted(founding: Founding) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    good = bytes.fromhex(MESSAGES["proof"])
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << chance.randrange(8)
        with pytest.raises(ProtocolError):
            parse_proof(bytes(bad)).verify(founding)


@pytest.mark.parametrize("name", ["vote", "proposal", "certificate", "proof", "bundle"])
def test_truncated_messages_are_refused(name: str) -> None:
    data = bytes.fromhex(MESSAGES[name])
    parse = {
        "vote": parse_vote,
        "proposal": parse_proposal,
        "certificate": parse_certificate,
        "proof": parse_proof,
        "bundle": parse_bundle,
    }[name]
    for length in range(0, len(data), max(1, len(data) // 200)):
        with pytest.raises(ProtocolError):
            parse(data[:length])


def test_oversized_messages_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(ProtocolError, match="at most 512 are allowed"):
        parse_sign1(b"\xff" * 513, 512)
