"""Receipts: a gateway tells a board up to where its transactions are final."""

from __future__ import annotations

from dataclasses import dataclass

from .cbor import decode, encode
from .cose import mac0, parse_mac0
from .errors import FormatError
from .keys import KID_BYTES, PublicKey, SigningKey
from .validate import array, octets, time_ms, uint

CONTENT_TYPE = "application/vnd.fogline.receipt+cbor"
MAX_RECEIPT_BYTES = 512
NONCE_BYTES = 8
_INFO = b"fogline receipt"

# In the order of their numbers.
STATUSES = ("active", "quarantined", "revoked")


@dataclass(frozen=True)
class Receipt:
    """All transactions of `device` with a sequence number below `next` are final.

    Attributes:
        height: of the gateway's latest final block.
        time: the gateway's clock, ms since 1970.
        status: of the board on the ledger, one of STATUSES.
        nonce: what the board's latest status message held, so that the board knows how old
            `time` can be; None where the gateway has none.
    """

    device: bytes
    next: int
    height: int
    time: int
    status: str = "active"
    nonce: bytes | None = None


def receipt_key(
    own: SigningKey, peer: PublicKey, gateway: bytes, device: bytes, chain_id: bytes
) -> bytes:
    """The key that gateway and board agree on; the same from either side.

    The P-256 keys that sign also agree: the shared point only ever enters HKDF, under
    an info string that no signature can produce.
    """
    return own.agree(peer, chain_id, _INFO + gateway + device)


def encode_receipt(receipt: Receipt, key: bytes, gateway: bytes, chain_id: bytes) -> bytes:
    """COSE_Mac0 of the receipt."""
    status = STATUSES.index(receipt.status)
    payload = encode(
        [receipt.device, receipt.next, receipt.height, receipt.time, status, receipt.nonce]
    )
    return mac0(key, gateway, CONTENT_TYPE, payload, chain_id)


def decode_receipt(data: bytes, key: bytes, chain_id: bytes) -> Receipt:
    """Parse and authenticate; raises EncodingError, FormatError, SignatureError."""
    message = parse_mac0(data, MAX_RECEIPT_BYTES, "receipt")
    if message.content_type != CONTENT_TYPE:
        raise FormatError("receipt.content type", f"is not {CONTENT_TYPE}")
    message.verify(key, chain_id)
    value = decode(message.payload, MAX_RECEIPT_BYTES, "receipt")
    device, next_, height, time, status, nonce = array(value, "receipt", length=6)
    return Receipt(
        device=octets(device, "receipt.device", KID_BYTES),
        next=uint(next_, "receipt.next", at_least=1),
        height=uint(height, "receipt.height"),
        time=time_ms(time, "receipt.time"),
        status=STATUSES[uint(status, "receipt.status", len(STATUSES) - 1)],
        nonce=None if nonce is None else octets(nonce, "receipt.nonce", NONCE_BYTES),
    )
