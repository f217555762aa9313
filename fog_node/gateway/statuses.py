"""What boards say of themselves: their status messages."""

from __future__ import annotations

from dataclasses import dataclass

from fog_node.protocol.cbor import decode
from fog_node.protocol.errors import FormatError
from fog_node.protocol.receipt import NONCE_BYTES
from fog_node.protocol.rollouts import MODEL_ID_BYTES, REFUSED, ROLLED_BACK
from fog_node.protocol.validate import array, octets, text_map

MAX_STATUS_BYTES = 256
BUNDLE_ID_BYTES = 8
_KEYS = {"state", "next", "model", "firmware", "nonce"}
_OUTCOMES = {"rejected": REFUSED, "rolled_back": ROLLED_BACK}


@dataclass(frozen=True)
class Update:
    """What became of a bundle on a board that did not keep it.

    Attributes:
        bundle: first 8 bytes of its SHA-256.
        outcome: one of rollouts.OUTCOMES.
        reason: the board's words; what cannot be printed is a question mark.
    """

    bundle: bytes
    outcome: str
    reason: str


@dataclass(frozen=True)
class Status:
    """A board is here.

    Attributes:
        nonce: of this message, for the receipt to repeat.
        model: first 8 bytes of the SHA-256 of the model that judges; None for none.
        update: None where there is nothing to tell.
    """

    nonce: bytes
    model: bytes | None
    update: Update | None


def parse_status(data: bytes) -> Status | None:
    """Read a status; None from a board that is not here any more. Raises ProtocolError."""
    value = decode(data, MAX_STATUS_BYTES, "status")
    # Boards that have nothing to tell leave it out, as older ones do.
    told = {"update"} if isinstance(value, dict) and "update" in value else set()
    fields = text_map(value, _KEYS | told, "status")
    if fields["state"] == "offline":
        return None
    if fields["state"] != "online":
        raise FormatError("status.state", "is neither online nor offline")
    model = fields["model"]
    return Status(
        octets(fields["nonce"], "status.nonce", NONCE_BYTES),
        None if model is None else octets(model, "status.model", MODEL_ID_BYTES),
        _update(fields["update"]) if told else None,
    )


def _update(value: object) -> Update:
    bundle, state, reason = array(value, "status.update", length=3)
    if not isinstance(state, str) or state not in _OUTCOMES:
        raise FormatError("status.update.state", f"is not one of {', '.join(_OUTCOMES)}")
    if not isinstance(reason, str):
        raise FormatError("status.update.reason", "is not text")
    return Update(
        octets(bundle, "status.update.bundle", BUNDLE_ID_BYTES),
        _OUTCOMES[state],
        "".join(char if char.isprintable() else "?" for char in reason),
    )
