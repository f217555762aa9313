"""P-256 keys: ES256 signatures (low-S), COSE_Key, thumbprints, key agreement."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import native_reading
from .errors import FormatError, SignatureError
from .validate import integers

# Order of the P-256 group (SEC 2 version 2, section 2.4.2).
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
HALF_ORDER = ORDER >> 1
KID_BYTES = 8
SIGNATURE_BYTES = 64
XY_BYTES = 64

_ALGORITHM = ec.ECDSA(hashes.SHA256())
_DETERMINISTIC = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def canonical_signature(signature: bytes) -> bytes:
    """Return r||s (64 bytes) with s replaced by n - s where s is above half the order."""
    s = int.from_bytes(signature[32:], "big")
    if s > HALF_ORDER:
        return signature[:32] + (ORDER - s).to_bytes(32, "big")
    return signature


def check_scalars(signature: bytes) -> None:
    """Raise SignatureError unless this is r||s with 0 < r < n and 0 < s <= (n - 1) / 2."""
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureError("signature", f"{len(signature)} bytes, ES256 has 64")
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not 0 < r < ORDER or not 0 < s < ORDER:
        raise SignatureError("signature", "r or s is not between 1 and n - 1")
    if s > HALF_ORDER:
        raise SignatureError("signature", "s is in the upper half", "send the low-S form")


def kid_hex(kid: bytes) -> str:
    """The form in which people see a key id: 16 lower-case hex digits."""
    return kid.hex()


def parse_kid(text: str, field: str = "kid") -> bytes:
    """Read a key id from 16 hex digits; raises FormatError."""
    try:
        kid = bytes.fromhex(text)
    except ValueError:
        kid = b""
    if len(kid) != KID_BYTES:
        raise FormatError(field, f"{text!r} is not a key id", "give its 16 hex digits")
    return kid


@dataclass(frozen=True)
class PublicKey:
    """A point of P-256 that is known to be on the curve. `xy` is x||y, 64 bytes."""

    xy: bytes

    def __post_init__(self) -> None:
        if len(self.xy) != XY_BYTES:
            raise FormatError("key", f"{len(self.xy)} bytes, x||y of P-256 has {XY_BYTES}")
        try:
            self._key  # noqa: B018 - parses the point, so that a bad one is refused here
        except ValueError as error:
            raise FormatError("key", "is not a point on P-256") from error

    @cached_property
    def _key(self) -> ec.EllipticCurvePublicKey:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + self.xy)

    @classmethod
    def from_cose_key(cls, value: Any, field: str = "key") -> PublicKey:
        """Read a COSE_Key map {1: 2, -1: 1, -2: x, -3: y} (RFC 9053 section 7.1.1)."""
        if not isinstance(value, dict) or set(value) != {1, -1, -2, -3} or not integers(value):
            raise FormatError(field, "is not a COSE_Key with kty, crv, x and y alone")
        x, y = value[-2], value[-3]
        if not integers((value[1], value[-1])) or value[1] != 2 or value[-1] != 1:
            raise FormatError(field, "is not an EC2 key on P-256")
        if not (isinstance(x, bytes) and isinstance(y, bytes) and len(x) == len(y) == 32):
            raise FormatError(field, "x and y must be 32 bytes each")
        return cls(x + y)

    @cached_property
    def cose_key(self) -> dict[int, int | bytes]:
        """The key as a COSE_Key map with exactly the members that RFC 9679 hashes."""
        return {1: 2, -1: 1, -2: self.xy[:32], -3: self.xy[32:]}

    @cached_property
    def thumbprint(self) -> bytes:
        """COSE Key Thumbprint, SHA-256 (RFC 9679), 32 bytes: the device id."""
        return hashlib.sha256(cbor2.dumps(self.cose_key, canonical=True)).digest()

    @cached_property
    def kid(self) -> bytes:
        """The first 8 bytes of the thumbprint."""
        return self.thumbprint[:KID_BYTES]

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check an ES256 signature r||s; raises SignatureError, also for a high s."""
        der = native_reading.to_der(signature)
        if der is None:
            check_scalars(signature)
            raise SignatureError("signature", "is not r||s of ES256")
        try:
            self._key.verify(der, message, _ALGORITHM)
        except InvalidSignature as error:
            raise SignatureError("signature", "does not verify under the signer's key") from error


class SigningKey:
    """A P-256 private key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(key.curve, ec.SECP256R1):
            raise FormatError("key", f"is on {key.curve.name}", "use a P-256 key")
        self._key = key
        numbers = key.public_key().public_numbers()
        self.public = PublicKey(numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the operating system's entropy."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_secret(cls, secret: int) -> SigningKey:
        """The key with this secret scalar; for test vectors and simulations."""
        return cls(ec.derive_private_key(secret, ec.SECP256R1()))

    @classmethod
    def from_pem(cls, data: bytes, field: str = "key") -> SigningKey:
        """Read an unencrypted PKCS #8 PEM file; raises FormatError."""
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise FormatError(field, f"is not an unencrypted PEM private key ({error})") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FormatError(field, "is not an elliptic-curve key", "use a P-256 key")
        return cls(key)

    def to_pem(self) -> bytes:
        """PKCS #8 PEM, unencrypted: write it with mode 0600 only."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The key object of `cryptography`, for X.509."""
        return self._key

    @property
    def kid(self) -> bytes:
        """Key id of the public half."""
        return self.public.kid

    def sign(self, message: bytes) -> bytes:
        """ES256 with an RFC 6979 nonce: r||s, 64 bytes, low-S."""
        r, s = utils.decode_dss_signature(self._key.sign(message, _DETERMINISTIC))
        return canonical_signature(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def agree(self, peer: PublicKey, salt: bytes, info: bytes) -> bytes:
        """HKDF-SHA256 (RFC 5869) over the ECDH x coordinate; 32 bytes."""
        other = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + peer.xy)
        shared = self._key.exchange(ec.ECDH(), other)
        return HKDF(hashes.SHA256(), 32, salt, info).derive(shared)
