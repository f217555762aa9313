"""COSE: bytes equal to the hub's, and strictness towards what comes from outside."""

from fogline import cose, p256
from support import raises, vectors

VECTORS = vectors("cose_sign1")
MESSAGES = vectors("messages")
CHAIN_ID = bytes.fromhex(VECTORS["chain_id"])
MAX_BYTES = 16384


class Key:
    """What a `board_key.BoardKey` offers, of a fixed secret."""

    def __init__(self, secret):
        self._secret = secret
        self.public = p256.public_key(secret)
        self.kid = cose.key_id(self.public)

    def sign(self, digest):
        return p256.sign(self._secret, digest)

    def agree(self, public):
        return p256.ecdh(self._secret, public)


BOARD = Key(bytes.fromhex(VECTORS["board"]["secret"]))


def check_manifest(message, public_keys=None):
    vector = VECTORS["manifest"]
    if public_keys is None:
        public_keys = [bytes.fromhex(key) for key in vector["public_keys"]]
    return cose.verify_sign1(message, public_keys, cose.MANIFEST, CHAIN_ID, MAX_BYTES)


def check_receipt(message):
    vector = VECTORS["receipt"]
    gateway_kid = cose.key_id(bytes.fromhex(vector["gateway"]))
    key = bytes.fromhex(vector["key"])
    return cose.open_receipt(message, key, gateway_kid, BOARD.kid, CHAIN_ID)


def test_thumbprint():
    assert cose.thumbprint(BOARD.public).hex() == VECTORS["board"]["thumbprint"]
    assert BOARD.kid == cose.thumbprint(BOARD.public)[:8]


def test_signs_the_hubs_bytes():
    for vector in VECTORS["signed"]:
        message = cose.sign1(
            BOARD,
            vector["content_type"],
            bytes.fromhex(vector["payload"]),
            CHAIN_ID,
            vector["sequence"],
            vector["dropped"],
        )
        assert message.hex() == vector["message"]


def test_refuses_to_sign_what_no_ledger_takes():
    for sequence, dropped in ((0, 0), (1 << 63, 0), (5, 6), (5, -1)):
        raises("cose.sequence", cose.sign1, BOARD, cose.PACK, b"", CHAIN_ID, sequence, dropped)
    raises("cose.chain", cose.sign1, BOARD, cose.PACK, b"", CHAIN_ID[:31], 1, 0)


def test_takes_a_manifest():
    vector = VECTORS["manifest"]
    assert check_manifest(bytes.fromhex(vector["message"])).hex() == vector["payload"]


def test_refuses_manifests():
    for vector in VECTORS["manifest"]["refused"]:
        raises(vector["code"], check_manifest, bytes.fromhex(vector["message"]))
    good = bytes.fromhex(VECTORS["manifest"]["message"])
    raises("cose.signer", check_manifest, good, [])
    raises("cbor.size", cose.verify_sign1, good, [], cose.MANIFEST, CHAIN_ID, len(good) - 1)


def test_takes_a_receipt():
    vector = VECTORS["receipt"]
    gateway = bytes.fromhex(vector["gateway"])
    assert cose.receipt_key(BOARD, gateway, CHAIN_ID).hex() == vector["key"]
    opened = check_receipt(bytes.fromhex(vector["message"]))
    nonce = bytes.fromhex(vector["nonce"])
    assert opened == (vector["next"], vector["height"], vector["time"], cose.ACTIVE, nonce)
    for number, said in enumerate(vector["statuses"]):
        opened = check_receipt(bytes.fromhex(said["message"]))
        assert opened.status == number
        assert opened.nonce == (said["nonce"] and bytes.fromhex(said["nonce"]))


def test_refuses_receipts():
    for vector in VECTORS["receipt"]["refused"]:
        raises(vector["code"], check_receipt, bytes.fromhex(vector["message"]))


def test_a_receipt_with_any_flipped_bit_is_refused():
    good = bytes.fromhex(VECTORS["receipt"]["message"])
    for at in range(len(good)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << (at & 7)
        try:
            check_receipt(damaged)
        except (cose.CryptoError, cose.cbor.EncodingError):
            continue
        raise AssertionError(f"byte {at}")


def test_reads_the_ledgers_own_examples():
    board = Key((4000).to_bytes(32, "big"))
    chain_id = bytes.fromhex(MESSAGES["chain_id"])
    gateway = bytes.fromhex(MESSAGES["keys"]["validator-0"]["xy"])
    assert board.public.hex() == MESSAGES["keys"]["board"]["xy"]
    key = cose.receipt_key(board, gateway, chain_id)
    assert key.hex() == MESSAGES["receipt"]["key"]
    message = bytes.fromhex(MESSAGES["receipt"]["bytes"])
    opened = cose.open_receipt(message, key, cose.key_id(gateway), board.kid, chain_id)
    assert opened[0] == MESSAGES["receipt"]["next"]


def test_no_memory_to_sign_is_an_error_of_ours():
    class Exhausted(Key):
        def sign(self, digest):
            raise MemoryError

    key = Exhausted((4000).to_bytes(32, "big"))
    raises("cose.memory", cose.sign1, key, cose.PACK, b"", CHAIN_ID, 1, 0)
