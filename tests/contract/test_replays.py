"""What was signed for one ledger means nothing on another, though the keys are the same.

`SIGNED` names every place that signs, with the test here that shows it; a new one without a test
fails `test_every_place_that_signs_is_named_here`.
"""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from support.small_chain import CHANNELS, DEVICE_TYPE, START_MS, SmallChain, bundle_of

from fog_node.errors import LedgerError
from fog_node.network import wire
from fog_node.protocol.block import Block, Header, block_leaves, parse_coinbase
from fog_node.protocol.errors import ProofError, ProtocolError, SignatureError
from fog_node.protocol.governance import parse_key_proof, prove_key
from fog_node.protocol.keys import PublicKey, SigningKey
from fog_node.protocol.manifest import parse_bundle
from fog_node.protocol.merkle import root
from fog_node.protocol.proof import parse_proof
from fog_node.protocol.receipt import Receipt, decode_receipt, encode_receipt, receipt_key
from fog_node.protocol.transactions import (
    KINDS,
    Enrol,
    Revoke,
    parse_transaction,
    sign_transaction,
)
from fog_node.protocol.votes import (
    PRECOMMIT,
    sign_proposal,
    sign_vote,
    verify_proposal,
    verify_vote,
)
from tools.errors import ToolError
from tools.membership_request import load_request, make_request
from tools.vectors import hub

ROOT = Path(__file__).parents[2]
# Every function in the packages that signs or authenticates, and the test that shows that its work
# is refused elsewhere. Those of `cose` and `keys` are what the others are made with.
SIGNED = {
    "fog_node/protocol/cose.py:sign1": "test_a_signature_is_over_the_chain_id",
    "fog_node/protocol/keys.py:sign": "test_a_signature_is_over_the_chain_id",
    "fog_node/protocol/receipt.py:receipt_key": "test_a_receipt",
    "fog_node/protocol/receipt.py:encode_receipt": "test_a_receipt",
    "fog_node/protocol/transactions.py:sign_transaction": "test_a_transaction_of_each_kind",
    "fog_node/protocol/votes.py:sign_vote": "test_a_vote_and_a_proposal",
    "fog_node/protocol/votes.py:sign_proposal": "test_a_vote_and_a_proposal",
    "fog_node/protocol/block.py:sign_coinbase": "test_a_block_with_its_certificate",
    "fog_node/protocol/manifest.py:sign_manifest": "test_a_release_bundle",
    "fog_node/protocol/governance.py:prove_key": "test_the_proof_that_a_key_is_held",
    "tools/membership_request.py:make_request": "test_a_request_for_membership",
    # X.509: the authority of each consortium is its own, and the founding file names it.
    "fog_node/network/certificates.py:make_authority": "test_the_authority_is_the_founding_files",
    "fog_node/network/certificates.py:issue": "test_the_authority_is_the_founding_files",
}
SIGNING_CALLS = {"sign1", "mac0", "sign", "agree"}
PACKAGES = ("fog_node", "cloud", "tools")
# They make forgeries, vectors, load and simulated runs, and nothing that a ledger is asked to take
# as real.
NOT_IN_USE = (
    "tools/vectors/",
    "tools/demo/attacks.py",
    "tools/demo/vehicles/falsify.py",
    "tools/bench/",
    "tools/simulation/",
)


def signing_functions() -> set[str]:
    found = set()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(NOT_IN_USE):
                continue
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                    _called(node) in SIGNING_CALLS for node in ast.walk(function)
                ):
                    found.add(f"{name}:{function.name}")
    return found


def _called(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else None


def test_every_place_that_signs_is_named_here() -> None:
    assert signing_functions() == set(SIGNED), "name it in SIGNED, with a test that replays it"
    assert set(SIGNED.values()) <= set(globals())


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> SmallChain:
    chain = SmallChain(tmp_path_factory.mktemp("ours"), b"one authority")
    chain.enrol(BOARD)
    return chain


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> SmallChain:
    """The same members and boards with the same keys, under another founding file."""
    chain = SmallChain(tmp_path_factory.mktemp("theirs"), b"another authority")
    chain.enrol(BOARD)
    return chain


BOARD = SigningKey.from_secret(4711)


def test_the_two_ledgers_differ_by_their_founding_files_alone(ours, theirs) -> None:
    assert ours.founding.chain_id != theirs.founding.chain_id
    assert ours.founding.members == theirs.founding.members


def test_a_signature_is_over_the_chain_id(ours, theirs) -> None:
    message = ours.pack(BOARD, 1).message
    message.verify(BOARD.public, ours.founding.chain_id)
    for other in (theirs.founding.chain_id, bytes(32), b""):
        with pytest.raises(SignatureError):
            message.verify(BOARD.public, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_transaction_of_each_kind(kind) -> None:
    """Of each kind that there is a vector of, which is each kind that there is."""
    chain_id, other = hub.World().founding.chain_id, bytes(range(32))
    vectors = json.loads((ROOT / "tests/vectors/messages.json").read_text())
    assert bytes.fromhex(vectors["chain_id"]) == chain_id
    vector = vectors["transactions"][kind]
    transaction = parse_transaction(bytes.fromhex(vector["bytes"]))
    secret, key = next(
        (key["secret"], found)
        for key in vectors["keys"].values()
        if (found := PublicKey(bytes.fromhex(key["xy"]))).kid == transaction.signer
    )
    transaction.verify(key, chain_id)
    with pytest.raises(SignatureError):
        transaction.verify(key, other)
    again = sign_transaction(
        SigningKey.from_secret(secret), transaction.body, other, transaction.sequence,
        transaction.message.dropped,
    )  # fmt: skip
    again.message.verify(key, other)
    with pytest.raises(SignatureError):
        again.message.verify(key, chain_id)


@pytest.mark.parametrize("kind", ["pack", "alert", "enrol", "incident", "release", "revoke"])
def test_the_ledger_refuses_anothers(ours, theirs, kind) -> None:
    new = SigningKey.from_secret(4800)
    made = {
        "pack": lambda chain: chain.pack(BOARD, 1),
        "alert": lambda chain: chain.alert(BOARD, 1),
        "enrol": lambda chain: chain.sign(chain.operator, _enrol(new)),
        "incident": lambda chain: chain.incident(),
        "release": lambda chain: chain.bundle()[0],
        "revoke": lambda chain: chain.sign(chain.operator, _revoke()),
    }[kind]
    (result,) = theirs.ledger.admit([made(ours)], durable=False)
    assert result.status == "refused"
    assert result.error.cause == "bad_signature"


def _enrol(key: SigningKey):
    return Enrol(key.public, "operator", DEVICE_TYPE, "unix", CHANNELS, START_MS)


def _revoke():
    return Revoke(BOARD.kid, "lost", START_MS)


def test_a_vote_and_a_proposal(ours, theirs) -> None:
    key = ours.validators[0]
    here, there = ours.founding.chain_id, theirs.founding.chain_id
    vote = sign_vote(key, 1, 0, PRECOMMIT, bytes(32), here)
    proposal = sign_proposal(key, 1, 0, -1, bytes(32), here)
    verify_vote(vote, key.public, here)
    verify_proposal(proposal, key.public, here)
    with pytest.raises(SignatureError):
        verify_vote(vote, key.public, there)
    with pytest.raises(SignatureError):
        verify_proposal(proposal, key.public, there)


def test_a_block_with_its_certificate(ours, theirs) -> None:
    """Even put onto the other's head and mined anew, for its coinbase is signed as well."""
    block, certificate = ours.next_block()
    ours.ledger.validate(block, None)
    with pytest.raises(LedgerError):
        theirs.ledger.validate(block, None)
    keys = {key.kid: key.public for key in ours.validators}
    certificate.verify(keys, 2, ours.founding.chain_id)
    with pytest.raises(SignatureError):
        certificate.verify(keys, 2, theirs.founding.chain_id)
    moved = _mined_onto(block, theirs.ledger.head.hash)
    with pytest.raises(LedgerError, match="does not verify"):
        theirs.ledger.validate(moved, None)


def _mined_onto(block: Block, previous: bytes) -> Block:
    coinbase = parse_coinbase(block.coinbase.raw)
    merkle_root = root(block_leaves(coinbase, block.transactions))
    for nonce in range(2**20):
        header = Header(previous, merkle_root, block.header.time, block.header.bits, nonce)
        try:
            header.check_work()
        except ProofError:
            continue
        return Block(header, coinbase, block.transactions)
    raise AssertionError("no nonce meets an easy target")


def test_a_release_bundle(ours, theirs) -> None:
    _, data = bundle_of(ours.trainer, ours.founding.chain_id)
    bundle = parse_bundle(data)
    bundle.verify([ours.trainer.public], ours.founding.chain_id)
    with pytest.raises(SignatureError):
        bundle.verify([ours.trainer.public], theirs.founding.chain_id)


def test_a_receipt(ours, theirs) -> None:
    """Under its own ledger's key, and under the one that the two parties have on the other."""
    here, there = ours.founding.chain_id, theirs.founding.chain_id
    gateway = ours.gateway
    agreed = {
        chain_id: receipt_key(gateway, BOARD.public, gateway.kid, BOARD.kid, chain_id)
        for chain_id in (here, there)
    }
    assert agreed[here] != agreed[there]
    receipt = Receipt(BOARD.kid, 9, 3, 1_700_000_000_000, "quarantined", bytes(8))
    data = encode_receipt(receipt, agreed[here], gateway.kid, here)
    assert decode_receipt(data, agreed[here], here) == receipt
    for key, chain_id in ((agreed[here], there), (agreed[there], here), (agreed[there], there)):
        with pytest.raises(SignatureError):
            decode_receipt(data, key, chain_id)


def test_the_proof_that_a_key_is_held(ours, theirs) -> None:
    """Nobody adds a key to a consortium with what its holder signed for another one."""
    here, there = ours.founding.chain_id, theirs.founding.chain_id
    proof, name = parse_key_proof(prove_key(BOARD, "jeju", here), BOARD.public, "proof")
    assert name == "jeju"
    proof.verify(BOARD.public, here)
    with pytest.raises(SignatureError):
        proof.verify(BOARD.public, there)


def test_a_request_for_membership(ours, theirs, tmp_path) -> None:
    """As it is, and with the other ledger's name written into it."""
    path = make_request(ours.founding, "jeju", tmp_path / "request")
    assert load_request(path, ours.founding).name == "jeju"
    with pytest.raises(ToolError):
        load_request(path, theirs.founding)
    here, there = (chain.founding.chain_id.hex() for chain in (ours, theirs))
    path.write_text(path.read_text().replace(here, there))
    with pytest.raises(ToolError):
        load_request(path, theirs.founding)


def test_a_proof(ours, theirs) -> None:
    """As it is, and with the other ledger's name written into it."""
    incident = ours.incident()
    ours.seal(incident)
    made = ours.ledger.prove(incident.id)
    assert made is not None
    proof = parse_proof(made.encode())
    proof.verify(ours.founding)
    with pytest.raises(ProofError, match=r"proof\.chain"):
        proof.verify(theirs.founding)
    with pytest.raises(ProtocolError):
        replace(proof, chain_id=theirs.founding.chain_id).verify(theirs.founding)


def test_hello_names_the_ledger(ours) -> None:
    """Who follows another one is refused: see test_who_does_not_greet_properly_is_refused."""
    hello = wire.Hello(wire.PROTOCOL_VERSION, ours.founding.chain_id, "seoul")
    (_, version, chain_id, *_) = cbor2.loads(wire.encode_message(hello)[wire.LENGTH.size :])
    assert (version, chain_id) == (wire.PROTOCOL_VERSION, ours.founding.chain_id)


def test_the_authority_is_the_founding_files(ours, theirs) -> None:
    """Another authority's certificate: test_a_certificate_of_another_authority_is_refused."""
    assert ours.founding.authority != theirs.founding.authority
    assert ours.founding.chain_id != replace_authority(ours).chain_id


def replace_authority(chain: SmallChain):
    return replace(chain.founding, authority=b"a third")
