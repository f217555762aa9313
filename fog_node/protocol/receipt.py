"""Receipts: a gateway tells a board up to where its transactions are final."""

from __future__ import annotations

from dataclasses import dataclass

from .cbor import decode, encode
from .cose import mac0, parse_mac0
from .errors import FormatError
from .keys import KID_BYTES, PublicKey, SigningKey
from .validate import array, octets, uint

CONTENT_TYPE = "application/vnd.fogline.receipt+cbor"
MAX_RECEIPT_BYTES = 512
_INFO = b"fogline receipt"


@dataclass(frozen=True)
class Receipt:
    """All transactions of `device` with a sequence number below `next` are final.

    Attributes:
        height: of the gateway's latest final block.
        time: the gateway's clock, s since 1970.
    """

    device: bytes
    next: int
    height: int
    time: int


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
    payload = encode([receipt.device, receipt.next, receipt.height, receipt.time])
    return mac0(key, gateway, CONTENT_TYPE, payload, chain_id)


def decode_receipt(data: bytes, key: bytes, chain_id: bytes) -> Receipt:
    """Parse and authenticate; raises EncodingError, FormatError, SignatureError."""
    message = parse_mac0(data, MAX_RECEIPT_BYTES, "receipt")
    if message.content_type != CONTENT_TYPE:
        raise FormatError("receipt.content type", f"is not {CONTENT_TYPE}")
    message.verify(key, chain_id)
    value = decode(message.payload, MAX_RECEIPT_BYTES, "receipt")
    device, next_, height, time = array(value, "receipt", length=4)
    return Receipt(
        device=octets(device, "receipt.device", KID_BYTES),
        next=uint(next_, "receipt.next", at_least=1),
        height=uint(height, "receipt.height"),
        time=uint(time, "receipt.time"),
    )
