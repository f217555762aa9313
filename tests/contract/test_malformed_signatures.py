"""Signatures and keys that are almost right: none of them passes, whatever they sign.

The cases follow what others learnt the hard way: the malformed signatures of python-ecdsa's own
tests, Wycheproof's edge cases of r and s, invalid-curve points, and r = s = 0 (CVE-2022-21449).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace

import cbor2
import ecdsa
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from ecdsa.util import sigdecode_string
from support.small_chain import CHANNELS, DEVICE_TYPE, START_MS, SmallChain, bundle_of

from fog_node.protocol import cose
from fog_node.protocol.block import Block, parse_coinbase
from fog_node.protocol.cbor import encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import HALF_ORDER, ORDER, PublicKey, SigningKey
from fog_node.protocol.manifest import parse_bundle
from fog_node.protocol.transactions import Enrol, parse_transaction
from fog_node.protocol.votes import (
    PREVOTE,
    Certificate,
    Vote,
    parse_certificate,
    parse_proposal,
    parse_vote,
    sign_proposal,
    sign_vote,
    verify_proposal,
    verify_vote,
)

# The prime of P-256's field (SEC 2 version 2, section 2.4.2).
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
SIGNER = SigningKey.from_secret(4711)
STRANGER = SigningKey.from_secret(4712)
BASE = ec.derive_private_key(1, ec.SECP256R1()).public_key().public_numbers()


def raw(r: int, s: int, length: int = 32) -> bytes:
    return r.to_bytes(length, "big") + s.to_bytes(length, "big")


def numbers(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def on_curve(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> Callable[..., bytes]:
    def forge(message: bytes, signature: bytes) -> bytes:
        key = ec.derive_private_key(4711, curve)
        r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
        return raw(r, s, (curve.key_size + 7) // 8)

    return forge


def of_digest(message: bytes, name: str) -> bytes:
    """Signs another digest of the message."""
    digest = hashlib.new(name, message).digest()
    key = ecdsa.SigningKey.from_secret_exponent(4711, ecdsa.NIST256p)
    r, s = numbers(key.sign_digest(digest, allow_truncate=True))
    return raw(r, min(s, ORDER - s))


# What each makes of the bytes that are signed and of the right signature.
FORGERIES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "high s": lambda m, g: raw(numbers(g)[0], ORDER - numbers(g)[1]),
    "r and s swapped": lambda m, g: g[32:] + g[:32],
    "r negated": lambda m, g: raw(ORDER - numbers(g)[0], numbers(g)[1]),
    "r + 1": lambda m, g: raw(numbers(g)[0] + 1, numbers(g)[1]),
    "s + 1": lambda m, g: raw(numbers(g)[0], numbers(g)[1] + 1),
    "both little-endian": lambda m, g: g[:32][::-1] + g[32:][::-1],
    "DER": lambda m, g: utils.encode_dss_signature(*numbers(g)),
    "DER padded to 64": lambda m, g: utils.encode_dss_signature(*numbers(g))[:64].ljust(64, b"\0"),
    "a zero in front": lambda m, g: b"\0" + g,
    "a zero behind": lambda m, g: g + b"\0",
    "33 bytes each": lambda m, g: raw(*numbers(g), length=33),
    "one byte short": lambda m, g: g[:-1],
    "twice": lambda m, g: g + g,
    "empty": lambda m, g: b"",
    "r alone": lambda m, g: g[:32],
    "another key's": lambda m, g: STRANGER.sign(m),
    "of SHA-384": lambda m, g: of_digest(m, "sha384"),
    "of SHA3-256": lambda m, g: of_digest(m, "sha3_256"),
    "of the digest's digest": lambda m, g: SIGNER.sign(hashlib.sha256(m).digest()),
    "on P-384": on_curve(ec.SECP384R1(), hashes.SHA384()),
    "on secp256k1": on_curve(ec.SECP256K1(), hashes.SHA256()),
    "on brainpoolP256r1": on_curve(ec.BrainpoolP256R1(), hashes.SHA256()),
}
EDGES = {
    "0": 0, "1": 1, "2": 2, "half n": HALF_ORDER, "half n + 1": HALF_ORDER + 1, "n - 1": ORDER - 1,
    "n": ORDER, "n + 1": ORDER + 1, "p - n": PRIME - ORDER, "p": PRIME, "2^255": 2**255,
    "2^256 - 1": 2**256 - 1, "x of G": BASE.x,
}  # fmt: skip
for r_name, r_edge in EDGES.items():
    for s_name, s_edge in EDGES.items():
        FORGERIES[f"r {r_name}, s {s_name}"] = lambda m, g, r=r_edge, s=s_edge: raw(r, s)
for edge_name, edge in EDGES.items():
    FORGERIES[f"r {edge_name}"] = lambda m, g, r=edge: raw(r, numbers(g)[1])
    FORGERIES[f"s {edge_name}"] = lambda m, g, s=edge: raw(numbers(g)[0], s)


def forged(message: bytes, chain_id: bytes, forge: Callable[[bytes, bytes], bytes]) -> bytes:
    """The same COSE_Sign1 under another signature."""
    protected, _, payload, signature = cbor2.loads(message).value
    wrong = forge(cose.sig_structure(protected, chain_id, payload), signature)
    assert wrong != signature
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, wrong]), canonical=True)


def test_a_high_s_is_a_valid_signature_elsewhere_so_the_rule_is_needed() -> None:
    message = b"what is signed"
    signature = SIGNER.sign(message)
    high = raw(numbers(signature)[0], ORDER - numbers(signature)[1])
    key = ecdsa.VerifyingKey.from_string(SIGNER.public.xy, ecdsa.NIST256p)
    for either in (signature, high):
        assert key.verify(either, message, hashlib.sha256, sigdecode=sigdecode_string)
    SIGNER.public.verify(signature, message)
    with pytest.raises(ProtocolError, match="upper half"):
        SIGNER.public.verify(high, message)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_no_malformed_signature_verifies(forge) -> None:
    for text in (b"", b"what is signed", bytes(1000)):
        signature = SIGNER.sign(text)
        with pytest.raises(ProtocolError):
            SIGNER.public.verify(forge(text, signature), text)


def test_no_changed_byte_verifies() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    message = b"what is signed"
    good = SIGNER.sign(message)
    for at in range(len(good)):
        for change in (0x01, 0x80, chance.randrange(1, 256)):
            bad = good[:at] + bytes([good[at] ^ change]) + good[at + 1 :]
            with pytest.raises(ProtocolError):
                SIGNER.public.verify(bad, message)
    for _ in range(300):
        with pytest.raises(ProtocolError):
            SIGNER.public.verify(chance.randbytes(64), message)


# Each structure that is signed


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> SmallChain:
    made = SmallChain(tmp_path_factory.mktemp("chain"))
    made.enrol(SIGNER)
    return made


@pytest.mark.parametrize("kind", ["pack", "alert", "enrol", "incident", "release"])
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_the_ledger_takes_no_transaction_with_a_malformed_signature(chain, kind, forge) -> None:
    good, key = {
        "pack": lambda: (chain.pack(SIGNER, 1), SIGNER),
        "alert": lambda: (chain.alert(SIGNER, 1), SIGNER),
        "enrol": lambda: (enrolment(chain), chain.operator),
        "incident": lambda: (chain.incident(), chain.gateway),
        "release": lambda: (chain.bundle()[0], chain.trainer),
    }[kind]()
    good.verify(key.public, chain.founding.chain_id)
    try:
        bad = parse_transaction(forged(good.raw, chain.founding.chain_id, forge))
    except ProtocolError:
        return  # its length already is wrong
    (result,) = chain.ledger.admit([bad], durable=False)
    assert result.status == "refused"
    assert result.error.cause == "bad_signature"


def enrolment(chain: SmallChain):
    body = Enrol(STRANGER.public, "operator", DEVICE_TYPE, "unix", CHANNELS, START_MS)
    return chain.sign(chain.operator, body)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_no_vote_proposal_certificate_block_or_bundle_passes_with_one(chain, forge) -> None:
    chain_id = chain.founding.chain_id
    voter = chain.validators[0]
    keys = {key.kid: key.public for key in chain.validators}

    def vote() -> None:
        good = sign_vote(voter, 2, 0, PREVOTE, bytes(32), chain_id)
        bad = parse_vote(forged(good.raw, chain_id, forge))
        verify_vote(bad, voter.public, chain_id)

    def proposal() -> None:
        good = sign_proposal(voter, 2, 0, -1, bytes(32), chain_id)
        verify_proposal(parse_proposal(forged(good.raw, chain_id, forge)), voter.public, chain_id)

    def certificate() -> None:
        _, good = next_block(chain)
        votes = [Vote(**vars(vote)) for vote in good.votes]
        votes[0] = replace(votes[0], raw=forged(votes[0].raw, chain_id, forge))
        bad = Certificate(good.height, good.round, good.block_hash, tuple(votes))
        parse_certificate(bad.encode()).verify(keys, 2, chain_id)

    def coinbase() -> None:
        block, _ = next_block(chain)
        bad = parse_coinbase(forged(block.coinbase.raw, chain_id, forge))
        chain.ledger.validate(Block(block.header, bad, block.transactions), None)

    def bundle() -> None:
        _, good = bundle_of(chain.trainer, chain_id)
        (signature,), payload = cbor2.loads(good)
        bad = encode([[forged(signature, chain_id, forge)], payload])
        parse_bundle(bad).verify([chain.trainer.public], chain_id)

    for check in (vote, proposal, certificate, coinbase, bundle):
        with pytest.raises(ValueError if check is not coinbase else Exception):
            check()


_BLOCKS: dict[int, tuple[Block, Certificate]] = {}


def next_block(chain: SmallChain) -> tuple[Block, Certificate]:
    """One block for all cases: mining is not what is tested here."""
    if id(chain) not in _BLOCKS:
        _BLOCKS[id(chain)] = chain.next_block()
    return _BLOCKS[id(chain)]


# Keys


def cose_key(x: object, y: object, **more: object) -> dict[int, object]:
    return {1: 2, -1: 1, -2: x, -3: y} | {int(k): v for k, v in more.items()}


def coordinates(curve: ec.EllipticCurve, length: int) -> tuple[bytes, bytes]:
    point = ec.derive_private_key(4711, curve).public_key().public_numbers()
    return point.x.to_bytes(length, "big"), point.y.to_bytes(length, "big")


X, Y = SIGNER.public.xy[:32], SIGNER.public.xy[32:]
NO_KEYS = {
    "not on the curve": cose_key(X, (int.from_bytes(Y, "big") ^ 1).to_bytes(32, "big")),
    "swapped": cose_key(Y, X),
    "zero": cose_key(bytes(32), bytes(32)),
    "x 0, y 1": cose_key(bytes(32), (1).to_bytes(32, "big")),
    "x above p": cose_key((PRIME + 5).to_bytes(32, "big"), Y),
    "y above p": cose_key(X, b"\xff" * 32),
    "x is p": cose_key(PRIME.to_bytes(32, "big"), Y),
    "compressed": cose_key(X, Y[-1] % 2 == 1),
    "compressed as SEC 1": cose_key(b"\x02" + X, Y),
    "uncompressed as SEC 1": cose_key(b"\x04" + X + Y, b""),
    "33 bytes": cose_key(b"\0" + X, b"\0" + Y),
    "31 bytes": cose_key(X[1:], Y[1:]),
    "integers": cose_key(int.from_bytes(X, "big") >> 200, 1),
    "a point of secp256k1": cose_key(*coordinates(ec.SECP256K1(), 32)),
    "a point of brainpoolP256r1": cose_key(*coordinates(ec.BrainpoolP256R1(), 32)),
    "a point of P-384": cose_key(*coordinates(ec.SECP384R1(), 48)),
    "a point of the twist": cose_key((5).to_bytes(32, "big"), (1).to_bytes(32, "big")),
    "P-384 by name": {1: 2, -1: 2, -2: X, -3: Y},
    "an OKP": {1: 1, -1: 6, -2: X, -3: Y},
    "with the private part": cose_key(X, Y) | {-4: bytes(32)},
    "with a kid": cose_key(X, Y) | {2: b"kid"},
    "without y": {1: 2, -1: 1, -2: X},
    "names as floats": {1: 2.0, -1: 1, -2: X, -3: Y},
    "curve as true": {1: 2, -1: True, -2: X, -3: Y},
    "labels as floats": {1.0: 2, -1: 1, -2: X, -3: Y},
    "an array": [2, 1, X, Y],
    "nothing": {},
}


@pytest.mark.parametrize("value", NO_KEYS.values(), ids=NO_KEYS.keys())
def test_what_is_no_point_of_p256_is_no_key(value) -> None:
    with pytest.raises(ProtocolError):
        PublicKey.from_cose_key(value)


def test_a_point_has_one_encoding() -> None:
    assert PublicKey.from_cose_key(cose_key(X, Y)).xy == SIGNER.public.xy
