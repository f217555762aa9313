"""COSE_Sign1 and COSE_Mac0 (RFC 9052) in the one profile that Fogline uses.

The external additional data of every signature and MAC is the chain id, so that nothing
signed for one ledger means anything on another.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cbor2

from . import native_reading
from .cbor import decode, encode
from .errors import EncodingError, FormatError, SignatureError
from .keys import KID_BYTES, SIGNATURE_BYTES, PublicKey, SigningKey
from .validate import integers

ALG_ES256 = -7
ALG_HMAC_256 = 5
LABEL_ALG = 1
LABEL_CONTENT_TYPE = 3
LABEL_KID = 4
LABEL_SEQUENCE = -65537
LABEL_DROPPED = -65538
TAG_SIGN1 = 18
TAG_MAC0 = 17
MAX_PROTECTED_BYTES = 256
MAX_SEQUENCE = 2**63 - 1
MAC_BYTES = 32
CHAIN_ID_BYTES = 32


class Sign1(NamedTuple):
    """A parsed COSE_Sign1; nothing is verified until `verify` is called.

    Attributes:
        raw: the exact bytes, tag included.
        protected: the protected header as it was signed.
        content_type: what the payload is.
        kid: key id of the signer, 8 bytes.
        sequence: the signer's number for this message; None where the kind has none.
        dropped: the board's watermark (SPEC.md, "Packs"); None where absent.
        payload: the payload's bytes.
        signature: r||s, 64 bytes.
    """

    raw: bytes
    protected: bytes
    content_type: str
    kid: bytes
    sequence: int | None
    dropped: int | None
    payload: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"Sign1({self.content_type}, kid={self.kid.hex()}, sequence={self.sequence})"

    def verify(self, key: PublicKey, chain_id: bytes) -> None:
        """Raise SignatureError unless `key` signed this for the ledger `chain_id`."""
        if key.kid != self.kid:
            raise SignatureError("kid", f"is {self.kid.hex()}, the key's is {key.kid.hex()}")
        key.verify(self.signature, sig_structure(self.protected, chain_id, self.payload))


def sign1(
    key: SigningKey,
    content_type: str,
    payload: bytes,
    chain_id: bytes,
    sequence: int | None = None,
    dropped: int | None = None,
) -> bytes:
    """Sign `payload`; returns the tagged COSE_Sign1 bytes."""
    header: dict[int, Any] = {
        LABEL_ALG: ALG_ES256,
        LABEL_CONTENT_TYPE: content_type,
        LABEL_KID: key.kid,
    }
    if sequence is not None:
        header[LABEL_SEQUENCE] = sequence
    if dropped is not None:
        header[LABEL_DROPPED] = dropped
    protected = encode(header)
    signature = key.sign(sig_structure(protected, chain_id, payload))
    return encode(cbor2.CBORTag(TAG_SIGN1, [protected, {}, payload, signature]))


def parse_sign1(data: bytes, max_bytes: int, field: str = "message") -> Sign1:
    """Parse a tagged COSE_Sign1 of at most `max_bytes`; raises EncodingError, FormatError."""
    protected, payload, signature = _parse(data, max_bytes, TAG_SIGN1, "COSE_Sign1", field)
    header = _parse_header(protected, ALG_ES256, field)
    if len(signature) != SIGNATURE_BYTES:
        raise FormatError(f"{field}.signature", f"{len(signature)} bytes, ES256 has 64")
    return Sign1(
        raw=data,
        protected=protected,
        content_type=header[LABEL_CONTENT_TYPE],
        kid=header[LABEL_KID],
        sequence=header.get(LABEL_SEQUENCE),
        dropped=header.get(LABEL_DROPPED),
        payload=payload,
        signature=signature,
    )


@dataclass(frozen=True)
class Mac0:
    """A parsed COSE_Mac0; nothing is verified until `verify` is called."""

    protected: bytes = field(repr=False)
    content_type: str
    kid: bytes
    payload: bytes = field(repr=False)
    tag: bytes = field(repr=False)

    def verify(self, key: bytes, chain_id: bytes) -> None:
        """Raise SignatureError unless the tag was made with `key` (32 bytes)."""
        if not hmac.compare_digest(self.tag, _mac(key, self.protected, chain_id, self.payload)):
            raise SignatureError("tag", "does not verify under the agreed key")


def mac0(key: bytes, kid: bytes, content_type: str, payload: bytes, chain_id: bytes) -> bytes:
    """Authenticate `payload` with HMAC 256/256; returns the tagged COSE_Mac0 bytes."""
    protected = encode({LABEL_ALG: ALG_HMAC_256, LABEL_CONTENT_TYPE: content_type, LABEL_KID: kid})
    tag = _mac(key, protected, chain_id, payload)
    return encode(cbor2.CBORTag(TAG_MAC0, [protected, {}, payload, tag]))


def parse_mac0(data: bytes, max_bytes: int, field: str = "message") -> Mac0:
    """Parse a tagged COSE_Mac0 of at most `max_bytes`; raises EncodingError, FormatError."""
    protected, payload, tag = _parse(data, max_bytes, TAG_MAC0, "COSE_Mac0", field)
    header = _parse_header(protected, ALG_HMAC_256, field)
    if len(tag) != MAC_BYTES:
        raise FormatError(f"{field}.tag", f"{len(tag)} bytes, HMAC 256/256 has {MAC_BYTES}")
    return Mac0(protected, header[LABEL_CONTENT_TYPE], header[LABEL_KID], payload, tag)


def _parse(
    data: bytes, max_bytes: int, tag: int, name: str, field: str
) -> tuple[bytes, bytes, bytes]:
    if len(data) > max_bytes:
        raise EncodingError(field, f"{len(data)} bytes, at most {max_bytes} are allowed")
    value = decode(data, max_bytes, field)
    if not isinstance(value, cbor2.CBORTag) or value.tag != tag:
        raise FormatError(field, f"is not a tagged {name} (tag {tag})")
    parts = value.value
    if not isinstance(parts, list) or len(parts) != 4:
        raise FormatError(field, f"{name} has four parts")
    protected, unprotected, payload, last = parts
    if unprotected != {}:
        raise FormatError(f"{field}.unprotected", "must be empty: nothing unsigned is carried")
    if not (isinstance(protected, bytes) and isinstance(payload, bytes)):
        raise FormatError(field, "protected header and payload must be byte strings")
    if not isinstance(last, bytes):
        raise FormatError(field, "signature or tag must be a byte string")
    return protected, payload, last


def _parse_header(protected: bytes, alg: int, field: str) -> dict[int, Any]:
    header = decode(protected, MAX_PROTECTED_BYTES, f"{field}.protected")
    if not isinstance(header, dict) or not integers(header):
        raise FormatError(f"{field}.protected", "is not a map of integer labels")
    known = {LABEL_ALG, LABEL_CONTENT_TYPE, LABEL_KID, LABEL_SEQUENCE, LABEL_DROPPED}
    # For Python, True and 1.0 are the same key as 1.
    if unknown := {label for label in header if type(label) is not int} | (set(header) - known):
        raise FormatError(f"{field}.protected", f"has unknown labels {sorted(unknown, key=str)}")
    if not integers((header.get(LABEL_ALG),)) or header[LABEL_ALG] != alg:
        raise FormatError(f"{field}.alg", f"is {header.get(LABEL_ALG)}, must be {alg}")
    if not isinstance(header.get(LABEL_CONTENT_TYPE), str):
        raise FormatError(f"{field}.content type", "is missing or not text")
    kid = header.get(LABEL_KID)
    if not isinstance(kid, bytes) or len(kid) != KID_BYTES:
        raise FormatError(f"{field}.kid", f"is missing or not {KID_BYTES} bytes")
    for label, name in ((LABEL_SEQUENCE, "sequence"), (LABEL_DROPPED, "dropped")):
        if label in header:
            number = header[label]
            if type(number) is not int or not 0 <= number <= MAX_SEQUENCE:
                raise FormatError(f"{field}.{name}", "is not an integer from 0 to 2^63 - 1")
    return header


def sig_structure(protected: bytes, chain_id: bytes, payload: bytes) -> bytes:
    """What is signed (RFC 9052 section 4.4), with the chain id as external additional data."""
    return native_reading.sig_structure(protected, chain_id, payload)


def _mac(key: bytes, protected: bytes, chain_id: bytes, payload: bytes) -> bytes:
    structure = cbor2.dumps(["MAC0", protected, chain_id, payload])
    return hmac.new(key, structure, hashlib.sha256).digest()
