"""What validators propose to each other, and how they approve it.

A proposal is a list of changes to the consortium that take effect together, once so many
validators have approved it as make a block final. What each change does, and when it fits,
is in `membership.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from .cbor import decode, encode
from .cose import Sign1, parse_sign1, sign1
from .errors import FormatError
from .keys import KID_BYTES, PublicKey, SigningKey
from .members import parse_name, parse_roles
from .merkle import HASH_BYTES
from .validate import array, octets, text, text_map, time_ms, uint

CONTENT_TYPE_MEMBER = "application/vnd.fogline.member+cbor"
MAX_CHANGES = 16
MAX_NOTE_CHARS = 200
MAX_KEY_PROOF_BYTES = 384
MAX_SERIAL_BYTES = 20  # RFC 5280 section 4.1.2.2
MAX_PARAMETERS = 32
_MAX_PAYLOAD_BYTES = 24 * 1024


def prove_key(key: SigningKey, name: str, chain_id: bytes) -> bytes:
    """Sign that `key` is to be the member `name`'s, so that nobody adds a key he does not hold."""
    return sign1(key, CONTENT_TYPE_MEMBER, encode({"name": name}), chain_id)


def parse_key_proof(data: Any, key: PublicKey, field: str) -> tuple[Sign1, str]:
    """Read what `prove_key` gave, without checking the signature; returns the name, too.

    Raises:
        EncodingError, FormatError: it is something else, or for another key.
    """
    if not isinstance(data, bytes):
        raise FormatError(field, "is not a byte string")
    message = parse_sign1(data, MAX_KEY_PROOF_BYTES, field)
    if message.content_type != CONTENT_TYPE_MEMBER:
        raise FormatError(f"{field}.content type", f"is not {CONTENT_TYPE_MEMBER}")
    if message.sequence is not None or message.dropped is not None:
        raise FormatError(f"{field}.protected", "carries a number that only transactions have")
    if message.kid != key.kid:
        raise FormatError(f"{field}.kid", "is of another key than the change's")
    value = text_map(decode(message.payload, MAX_KEY_PROOF_BYTES, field), {"name"}, field)
    return message, parse_name(value["name"], f"{field}.name")


class Change(Protocol):
    """One change of a proposal."""

    change: ClassVar[str]

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""


@dataclass(frozen=True)
class AddMember:
    """A new member; with the role validator it votes from the next block on."""

    change: ClassVar[str] = "add-member"
    name: str
    key: PublicKey
    roles: frozenset[str]
    proof: Sign1 = field(repr=False)

    @classmethod
    def parse(cls, value: dict[str, Any], field: str) -> AddMember:
        """Read its map; raises ProtocolError."""
        text_map(value, {"change", "name", "key", "roles", "proof"}, field)
        key = PublicKey.from_cose_key(value["key"], f"{field}.key")
        name = parse_name(value["name"], f"{field}.name")
        proof, proven = parse_key_proof(value["proof"], key, f"{field}.proof")
        if proven != name:
            raise FormatError(f"{field}.proof.name", f"is {proven}, not {name}")
        return cls(name, key, parse_roles(value["roles"], f"{field}.roles"), proof)

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""
        return {
            "change": self.change,
            "name": self.name,
            "key": self.key.cose_key,
            "roles": sorted(self.roles),
            "proof": self.proof.raw,
        }


@dataclass(frozen=True)
class RemoveMember:
    """A member's key counts for nothing any more, for good."""

    change: ClassVar[str] = "remove-member"
    member: bytes

    @classmethod
    def parse(cls, value: dict[str, Any], field: str) -> RemoveMember:
        """Read its map; raises ProtocolError."""
        text_map(value, {"change", "member"}, field)
        return cls(octets(value["member"], f"{field}.member", KID_BYTES))

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""
        return {"change": self.change, "member": self.member}


@dataclass(frozen=True)
class SetRoles:
    """A member's roles are these from now on."""

    change: ClassVar[str] = "set-roles"
    member: bytes
    roles: frozenset[str]

    @classmethod
    def parse(cls, value: dict[str, Any], field: str) -> SetRoles:
        """Read its map; raises ProtocolError."""
        text_map(value, {"change", "member", "roles"}, field)
        member = octets(value["member"], f"{field}.member", KID_BYTES)
        return cls(member, parse_roles(value["roles"], f"{field}.roles"))

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""
        return {"change": self.change, "member": self.member, "roles": sorted(self.roles)}


@dataclass(frozen=True)
class RotateKey:
    """A member signs with another key from now on; its old one is retired for ever.

    Attributes:
        name: the member's, as its proof says.
    """

    change: ClassVar[str] = "rotate-key"
    member: bytes
    key: PublicKey
    name: str
    proof: Sign1 = field(repr=False)

    @classmethod
    def parse(cls, value: dict[str, Any], field: str) -> RotateKey:
        """Read its map; raises ProtocolError."""
        text_map(value, {"change", "member", "key", "proof"}, field)
        key = PublicKey.from_cose_key(value["key"], f"{field}.key")
        proof, name = parse_key_proof(value["proof"], key, f"{field}.proof")
        return cls(octets(value["member"], f"{field}.member", KID_BYTES), key, name, proof)

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""
        return {
            "change": self.change,
            "member": self.member,
            "key": self.key.cose_key,
            "proof": self.proof.raw,
        }


@dataclass(frozen=True)
class SetParameters:
    """Chain parameters by name; `quorum` stands for the quorum's rule."""

    change: ClassVar[str] = "set-parameters"
    parameters: tuple[tuple[str, int], ...]
    quorum: str | None = None

    @classmethod
    def parse(cls, value: dict[str, Any], field: str) -> SetParameters:
        """Read its map; raises ProtocolError."""
        listed = {name: item for name, item in value.items() if name not in ("change", "quorum")}
        if len(listed) > MAX_PARAMETERS:
            raise FormatError(field, f"names more than {MAX_PARAMETERS} parameters")
        quorum = value.get("quorum")
        if not listed and quorum is None:
            raise FormatError(field, "names no parameter")
        return cls(
            tuple(
                sorted(
                    (text(name, field, 32), uint(number, f"{field}.{name}"))
                    for name, number in listed.items()
                )
            ),
            None if quorum is None else text(quorum, f"{field}.quorum", 32),
        )

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""
        quorum = {} if self.quorum is None else {"quorum": self.quorum}
        return {"change": self.change, **dict(self.parameters), **quorum}


@dataclass(frozen=True)
class RevokeCertificate:
    """An X.509 certificate of the authority opens no connection any more.

    Attributes:
        serial: big-endian, without leading zeros.
    """

    change: ClassVar[str] = "revoke-certificate"
    serial: bytes

    @classmethod
    def parse(cls, value: dict[str, Any], field: str) -> RevokeCertificate:
        """Read its map; raises ProtocolError."""
        text_map(value, {"change", "serial"}, field)
        return cls(parse_serial(value["serial"], f"{field}.serial"))

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""
        return {"change": self.change, "serial": self.serial}


@dataclass(frozen=True)
class Reinstate:
    """A validator that evidence suspended or accused votes again."""

    change: ClassVar[str] = "reinstate"
    member: bytes

    @classmethod
    def parse(cls, value: dict[str, Any], field: str) -> Reinstate:
        """Read its map; raises ProtocolError."""
        text_map(value, {"change", "member"}, field)
        return cls(octets(value["member"], f"{field}.member", KID_BYTES))

    def value(self) -> dict[str, Any]:
        """The map that stands for it in a proposal."""
        return {"change": self.change, "member": self.member}


def parse_serial(value: Any, field: str) -> bytes:
    """Read a certificate's serial number; raises FormatError."""
    if not isinstance(value, bytes) or not 1 <= len(value) <= MAX_SERIAL_BYTES or not value[0]:
        raise FormatError(
            field, f"is not a byte string of 1 to {MAX_SERIAL_BYTES} bytes without leading zeros"
        )
    return value


def serial_bytes(number: int) -> bytes:
    """A certificate's serial number as `revoke-certificate` names it."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


_PARSERS: dict[str, Callable[[dict[str, Any], str], Change]] = {
    kind.change: kind.parse
    for kind in (
        AddMember,
        RemoveMember,
        SetRoles,
        RotateKey,
        SetParameters,
        RevokeCertificate,
        Reinstate,
    )
}
CHANGES = tuple(_PARSERS)


def parse_change(value: Any, field: str) -> Change:
    """Read one change; raises ProtocolError."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise FormatError(field, "is not a map of names")
    name = value.get("change")
    parser = _PARSERS.get(name) if isinstance(name, str) else None
    if parser is None:
        raise FormatError(f"{field}.change", f"is not one of {', '.join(CHANGES)}")
    return parser(value, field)


@dataclass(frozen=True)
class Propose:
    """Changes to decide on; the signer's approval of them is in it.

    Attributes:
        note: why, for people.
        until: ms since 1970: undecided in the first block after this, it expires.
    """

    kind: ClassVar[str] = "propose"
    changes: tuple[Change, ...]
    note: str
    until: int

    @classmethod
    def decode(cls, payload: bytes) -> Propose:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"changes", "note", "until"}, "propose")
        listed = array(value["changes"], "propose.changes", at_most=MAX_CHANGES)
        if not listed:
            raise FormatError("propose.changes", "is empty")
        return cls(
            tuple(parse_change(item, f"propose.changes[{i}]") for i, item in enumerate(listed)),
            text(value["note"], "propose.note", MAX_NOTE_CHARS, allow_empty=True),
            time_ms(value["until"], "propose.until"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        changes = [change.value() for change in self.changes]
        return encode({"changes": changes, "note": self.note, "until": self.until})

    def verify_keys(self, chain_id: bytes) -> None:
        """Raise SignatureError unless each new key signed that it is to be a member's."""
        for change in self.changes:
            if isinstance(change, (AddMember, RotateKey)):
                change.proof.verify(change.key, chain_id)


@dataclass(frozen=True)
class Approve:
    """A validator is for an open proposal, named by its transaction's id."""

    kind: ClassVar[str] = "approve"
    proposal: bytes

    @classmethod
    def decode(cls, payload: bytes) -> Approve:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"proposal"}, "approve")
        return cls(octets(value["proposal"], "approve.proposal", HASH_BYTES))

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"proposal": self.proposal})


@dataclass(frozen=True)
class Withdraw:
    """A validator takes back its approval; the proposer, the whole proposal."""

    kind: ClassVar[str] = "withdraw"
    proposal: bytes

    @classmethod
    def decode(cls, payload: bytes) -> Withdraw:
        """Parse; raises EncodingError, FormatError."""
        value = _map(payload, {"proposal"}, "withdraw")
        return cls(octets(value["proposal"], "withdraw.proposal", HASH_BYTES))

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode({"proposal": self.proposal})


def _map(payload: bytes, names: set[str], field: str) -> dict[str, Any]:
    return text_map(decode(payload, _MAX_PAYLOAD_BYTES, field), names, field)
