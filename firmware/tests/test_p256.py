"""P-256: published vectors, edge scalars, and that what must be refused is refused."""

# ruff: noqa: SLF001 - a test may look inside

import hashlib
import io

from fogline import hmac256, p256
from fogline.errors import CryptoError
from support import Random, raises, vectors

VECTORS = vectors("p256_rfc6979")
SECRET = bytes.fromhex(VECTORS["secret"])
PUBLIC = bytes.fromhex(VECTORS["public"])
DIGEST = bytes.fromhex(VECTORS["digest"])
SEED = 6979


def test_signatures_are_those_of_rfc_6979():
    for vector in VECTORS["signatures"]:
        digest = hashlib.sha256(vector["message"].encode()).digest()
        low_s = bytes.fromhex(vector["low_s"])
        assert p256.sign_raw(SECRET, digest).hex() == vector["raw"]
        assert p256.sign(SECRET, digest) == low_s
        assert p256.verify(PUBLIC, digest, low_s)


def test_verify_refuses():
    for vector in VECTORS["invalid"]:
        assert not p256.verify(PUBLIC, DIGEST, bytes.fromhex(vector["signature"])), vector["why"]
    signature = p256.sign(SECRET, DIGEST)
    assert p256.verify(PUBLIC, DIGEST, signature)
    assert not p256.verify(PUBLIC, hashlib.sha256(b"other").digest(), signature)
    assert not p256.verify(PUBLIC, DIGEST[:31], signature)
    other = p256.public_key(bytes(31) + b"\x07")
    assert not p256.verify(other, DIGEST, signature)


def test_one_flipped_bit_breaks_a_signature():
    signature = p256.sign(SECRET, DIGEST)
    for bit in range(0, 512, 37):
        damaged = bytearray(signature)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        assert not p256.verify(PUBLIC, DIGEST, damaged), bit


def test_what_is_signed_verifies():
    random = Random(SEED)
    for _ in range(20):
        secret = p256.secret_from_entropy(random.bytes(40))
        digest = random.bytes(32)
        assert p256.verify(p256.public_key(secret), digest, p256.sign(secret, digest))


def test_digests_at_the_edges_are_signed():
    for digest in (bytes(32), b"\xff" * 32, bytes(31) + b"\x01"):
        assert p256.verify(PUBLIC, digest, p256.sign(SECRET, digest))


def test_public_keys_of_edge_scalars():
    for vector in VECTORS["public_keys"]:
        assert p256.public_key(bytes.fromhex(vector["secret"])).hex() == vector["public"], vector


def test_edge_scalars_sign():
    for vector in VECTORS["public_keys"]:
        signature = p256.sign(bytes.fromhex(vector["secret"]), DIGEST)
        assert p256.verify(bytes.fromhex(vector["public"]), DIGEST, signature), vector


def test_agreements():
    for vector in VECTORS["agreements"]:
        shared = p256.ecdh(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["public"]))
        assert shared.hex() == vector["x"], vector


def test_agreement_is_the_same_from_both_sides():
    random = Random(SEED)
    one, other = (p256.secret_from_entropy(random.bytes(40)) for _ in range(2))
    assert p256.ecdh(one, p256.public_key(other)) == p256.ecdh(other, p256.public_key(one))


def test_bad_points_are_refused():
    for data in VECTORS["bad_points"]:
        point = bytes.fromhex(data)
        raises("p256.point", p256.ecdh, SECRET, point)
        raises("p256.point", p256.verify, point, DIGEST, bytes(64))


def test_bad_secrets_are_refused():
    for data in VECTORS["bad_secrets"]:
        secret = bytes.fromhex(data)
        assert not p256.is_secret(secret)
        for error in (
            raises("p256.secret", p256.sign, secret, DIGEST),
            raises("p256.secret", p256.public_key, secret),
            raises("p256.secret", p256.ecdh, secret, PUBLIC),
        ):
            assert data == "" or data not in str(error)
    raises("p256.digest", p256.sign, SECRET, DIGEST + b"\x00")


def test_keys_from_entropy_are_in_range():
    assert p256.secret_from_entropy(bytes(40)) == bytes(31) + b"\x01"
    for entropy in (b"\xff" * 40, b"\xff" * 64, bytes(range(40))):
        assert p256.is_secret(p256.secret_from_entropy(entropy))
    raises("p256.entropy", p256.secret_from_entropy, bytes(39))


def test_a_damaged_table_signs_nothing():
    p256.prepare()
    table = p256._comb
    table.seek(0)
    damaged = bytearray(table.read())
    for index in range(0, len(damaged), 64):
        damaged[index] ^= 1
    p256._comb = io.BytesIO(damaged)
    try:
        raises("p256.fault", p256.sign, SECRET, DIGEST)
    finally:
        p256._comb = table


def test_no_memory_for_the_table_is_an_error_of_ours():
    def no_memory(size):
        raise MemoryError

    from fogline import p256_points

    p256_points.bytearray = no_memory
    raises("p256.memory", p256_points.open_comb, None)
    del p256_points.bytearray


def test_hkdf_is_rfc_5869():
    vector = VECTORS["hkdf"]
    secret, salt, info, okm = (
        bytes.fromhex(vector[name]) for name in ("secret", "salt", "info", "okm")
    )
    assert hmac256.hkdf_sha256(secret, salt, info, len(okm)) == okm


def test_hmac_of_a_long_key_is_rfc_4231():
    mac = hmac256.hmac_sha256(
        b"\xaa" * 131, b"Test Using Larger Than Block-Size Key", b" - Hash Key First"
    )
    assert mac.hex() == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"


def test_comparison_of_macs():
    assert hmac256.equal(b"abc", bytearray(b"abc"))
    for other in (b"", b"ab", b"abd", b"bbc", b"abcd"):
        assert not hmac256.equal(b"abc", other)


def test_errors_are_of_the_tree():
    assert isinstance(raises("p256.secret", p256.sign, bytes(32), DIGEST), CryptoError)
