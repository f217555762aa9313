"""COSE on the board (RFC 9052): signs its packs, checks manifests and receipts.

The external additional data of every signature and MAC is the chain id (32 bytes), so that
nothing made for one ledger means anything on another. The unprotected header is always
empty: nothing unsigned is carried.
"""

import hashlib
from collections import namedtuple

from . import cbor, p256
from .errors import CryptoError
from .hmac256 import equal, hkdf_sha256, hmac_sha256

CHAIN_ID_BYTES = 32
KID_BYTES = 8
MAC_BYTES = 32
MAX_SEQUENCE = (1 << 63) - 1
MAX_RECEIPT_BYTES = 256
MANIFEST = "application/vnd.fogline.manifest+cbor"
PACK = "application/senml+cbor"
ALERT = "application/vnd.fogline.alert+cbor"
GAP = "application/vnd.fogline.gap+cbor"
RECEIPT = "application/vnd.fogline.receipt+cbor"
NONCE_BYTES = 8
ACTIVE, QUARANTINED, REVOKED = 0, 1, 2

# A gateway's word: all transactions below `next` are final at `height`; its clock says `time_ms`
# (since 1970); the ledger says `status` of this board; `nonce` is what the board said last, or
# None.
Receipt = namedtuple("Receipt", ("next", "height", "time_ms", "status", "nonce"))

_ALG = 1
_CONTENT_TYPE = 3
_KID = 4
_SEQUENCE = -65537
_DROPPED = -65538
_ES256 = -7
_HMAC_256 = 5
_TAG_MAC0 = 17
_TAG_SIGN1 = 18
_MAX_PROTECTED_BYTES = 256


def thumbprint(public):
    """Return the COSE Key Thumbprint (RFC 9679, SHA-256, 32 bytes) of x || y."""
    key = {1: 2, -1: 1, -2: public[:32], -3: public[32:]}
    return hashlib.sha256(cbor.encode(key)).digest()


def key_id(public):
    """Return the kid of x || y: the first 8 bytes of its thumbprint."""
    return thumbprint(public)[:KID_BYTES]


def sign1(key, content_type, payload, chain_id, sequence, dropped):
    """Sign `payload` as the board's transaction number `sequence`.

    Args:
        key: a `board_key.BoardKey`.
        content_type: PACK, ALERT or GAP.
        payload: bytes.
        chain_id: SHA-256 of the founding file.
        sequence: 1, 2, 3, ... without a gap: `Outbox.next`.
        dropped: the board has dropped all its transactions below this number.

    Returns the tagged COSE_Sign1 bytes. Raises CryptoError `cose.sequence`, `cose.chain`,
    `cose.memory`, `p256.fault`.
    """
    if not 0 < sequence <= MAX_SEQUENCE or not 0 <= dropped <= sequence:
        raise CryptoError("cose.sequence")
    protected = cbor.encode(
        {
            _ALG: _ES256,
            _CONTENT_TYPE: content_type,
            _KID: key.kid,
            _SEQUENCE: sequence,
            _DROPPED: dropped,
        }
    )
    try:
        signature = key.sign(_digest(protected, chain_id, payload))
        return b"".join(
            (
                b"\xd2\x84",  # tag 18, array of four
                cbor.encode(protected),
                b"\xa0",
                cbor.encode_head(2, len(payload)),
                payload,
                cbor.encode_head(2, len(signature)),
                signature,
            )
        )
    except MemoryError:
        raise CryptoError("cose.memory", f"{len(payload)} bytes of payload") from None


def verify_sign1(data, public_keys, content_type, chain_id, max_bytes):
    """Check a COSE_Sign1 that carries no sequence number, such as a manifest.

    Args:
        data: bytes-like, the message and nothing behind it.
        public_keys: the x || y (64 bytes each) that may have signed it.
        content_type: what the message must say it is.
        chain_id: SHA-256 of the founding file.
        max_bytes: refuse more before parsing.

    Returns the payload's bytes. Raises EncodingError; CryptoError `cose.form`, `cose.alg`,
    `cose.type`, `cose.signer` (none of the keys) or `cose.signature` (also for a high s).
    """
    protected, kid, payload, signature = _open(data, _TAG_SIGN1, _ES256, content_type, max_bytes)
    for public in public_keys:
        if key_id(public) == kid:
            break
    else:
        raise CryptoError("cose.signer", f"not one of {len(public_keys)} keys")
    if not p256.verify(public, _digest(protected, chain_id, payload), signature):
        raise CryptoError("cose.signature")
    return payload


def receipt_key(key, gateway, chain_id):
    """Return the 32-byte MAC key that the board `key` and `gateway` (x || y) agree on.

    Costs as much as six signatures: derive it once for each gateway. Raises CryptoError.
    """
    info = b"fogline receipt" + key_id(gateway) + key.kid
    return hkdf_sha256(key.agree(gateway), chain_id, info, MAC_BYTES)


def open_receipt(data, mac_key, gateway_kid, device_kid, chain_id):
    """Check a receipt and return it as a Receipt.

    Raises EncodingError; CryptoError `cose.form`, `cose.alg`, `cose.type`, `cose.signer` or
    `cose.mac`.
    """
    protected, kid, payload, tag = _open(data, _TAG_MAC0, _HMAC_256, RECEIPT, MAX_RECEIPT_BYTES)
    if kid != gateway_kid:
        raise CryptoError("cose.signer", "not this gateway")
    structure = _structure("MAC0", protected, chain_id, payload)
    if not equal(tag, hmac_sha256(mac_key, structure, payload)):
        raise CryptoError("cose.mac")
    fields = cbor.decode(payload, MAX_RECEIPT_BYTES)
    if not isinstance(fields, list) or len(fields) != 6 or fields[0] != device_kid:
        raise CryptoError("cose.form", "receipt")
    for number in fields[1:5]:
        if not _is_count(number):
            raise CryptoError("cose.form", "receipt")
    nonce = fields[5]
    good = nonce is None or (isinstance(nonce, bytes) and len(nonce) == NONCE_BYTES)
    if fields[1] == 0 or fields[4] > REVOKED or not good:
        raise CryptoError("cose.form", "receipt")
    return Receipt(*fields[1:])


def split(data):
    """Return (content type, payload) of a transaction that this board has signed before.

    Nothing is verified. Raises EncodingError for what is none.
    """
    protected, _, payload, _ = cbor.decode(data, len(data)).value
    return cbor.decode(protected, _MAX_PROTECTED_BYTES)[_CONTENT_TYPE], payload


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEQUENCE


def _structure(context, protected, chain_id, payload):
    """The Sig_structure or MAC_structure up to the payload, which need not be copied then."""
    if len(chain_id) != CHAIN_ID_BYTES:
        raise CryptoError("cose.chain", "needs 32 bytes")
    head = b"\x84" + cbor.encode(context) + cbor.encode(protected) + cbor.encode(chain_id)
    return head + cbor.encode_head(2, len(payload))


def _digest(protected, chain_id, payload):
    digest = hashlib.sha256(_structure("Signature1", protected, chain_id, payload))
    digest.update(payload)
    return digest.digest()


def _open(data, tag, alg, content_type, max_bytes):
    """Take a message with the header {alg, content type, kid} apart, nothing verified yet."""
    message = cbor.decode(data, max_bytes)
    if not isinstance(message, cbor.Tagged) or message.tag != tag:
        raise CryptoError("cose.form", "tag")
    parts = message.value
    if not isinstance(parts, list) or len(parts) != 4 or parts[1] != {}:
        raise CryptoError("cose.form", "parts")
    protected, _, payload, authenticator = parts
    for part in (protected, payload, authenticator):
        if not isinstance(part, bytes):
            raise CryptoError("cose.form", "parts")
    header = cbor.decode(protected, _MAX_PROTECTED_BYTES)
    if not isinstance(header, dict) or set(header) != {_ALG, _CONTENT_TYPE, _KID}:
        raise CryptoError("cose.form", "header")
    if header[_ALG] != alg or isinstance(header[_ALG], bool):
        raise CryptoError("cose.alg")
    if header[_CONTENT_TYPE] != content_type:
        raise CryptoError("cose.type")
    kid = header[_KID]
    if not isinstance(kid, bytes) or len(kid) != KID_BYTES:
        raise CryptoError("cose.form", "kid")
    return protected, kid, payload, authenticator
