"""What the chain says of its members, one record each, and an entry of the state's tree each.

The entries are told apart by their first item; ledger/README.md lists all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from .cbor import encode
from .errors import FormatError
from .founding import Founding, Parameters
from .governance import Propose, parse_serial
from .keys import KID_BYTES, PublicKey
from .members import MAX_MEMBERS, Member, parse_name, parse_roles
from .merkle import HASH_BYTES
from .validate import array, octets, text, uint

MEMBER, RETIRED, SETTINGS, CERTIFICATE, PROPOSAL = 0, 3, 4, 5, 6

Status = Literal["active", "accused", "suspended", "quarantined", "revoked"]
STATUSES = ("active", "accused", "suspended", "quarantined", "revoked")
Outcome = Literal["open", "applied", "failed", "expired", "withdrawn", "void"]
OUTCOMES = ("open", "applied", "failed", "expired", "withdrawn", "void")


@dataclass(frozen=True)
class MemberRecord:
    """A member and what has become of it.

    Attributes:
        order: place among the validators, from 1; 0 where it never was one.
        status: `suspended` where evidence ended its part in the agreement; `accused` where
            evidence stands against it, but too few voters would be left without it;
            `revoked` where its key counts for nothing any more.
        next: number of its next transaction.
        cleared: votes up to this height are no evidence against it (any more).
        introduced: id of the proposal that brought its key in; empty for a founding key.
    """

    member: Member
    order: int = 0
    status: Status = "active"
    next: int = 1
    cleared: int = 0
    introduced: bytes = b""

    @property
    def kid(self) -> bytes:
        """Key id."""
        return self.member.kid

    @property
    def key(self) -> PublicKey:
        """Public key."""
        return self.member.key

    @property
    def name(self) -> str:
        """Its name, for ever."""
        return self.member.name

    @property
    def roles(self) -> frozenset[str]:
        """What it may do."""
        return self.member.roles

    @property
    def is_validator(self) -> bool:
        """Whether the quorum is counted of it, be it suspended or not."""
        return "validator" in self.roles and self.status != "revoked"

    @property
    def votes(self) -> bool:
        """Whether it takes part in the agreement."""
        return self.is_validator and self.status in ("active", "accused")

    @property
    def place(self) -> tuple[int, bytes]:
        """Kind and name of the entry."""
        return (MEMBER, self.kid)

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode(list(self.place))

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        member = [self.name, self.key.cose_key, sorted(self.roles), self.order, self.introduced]
        return encode([MEMBER, self.kid, [self.status, self.next, self.cleared, *member]])

    @classmethod
    def parse(cls, fields: Any) -> MemberRecord:
        """Read an entry's fields; raises ProtocolError."""
        status, next_, cleared, name, key, roles, order, introduced = array(
            fields, "entry", length=8
        )
        member = Member(
            parse_name(name, "entry.name"),
            PublicKey.from_cose_key(key, "entry.key"),
            parse_roles(roles, "entry.roles"),
        )
        return cls(
            member,
            uint(order, "entry.order"),
            parse_status(status),
            uint(next_, "entry.next", at_least=1),
            uint(cleared, "entry.cleared"),
            _introduction(introduced),
        )


@dataclass(frozen=True)
class RetiredKey:
    """A key that a member signed with until another took its place.

    Attributes:
        successor: key id that took its place.
        height: of the block that decided it.
        introduced: as in MemberRecord.
    """

    key: PublicKey
    successor: bytes
    height: int
    introduced: bytes = b""

    @property
    def kid(self) -> bytes:
        """Key id, which nobody may use again."""
        return self.key.kid

    @property
    def place(self) -> tuple[int, bytes]:
        """Kind and name of the entry."""
        return (RETIRED, self.kid)

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode(list(self.place))

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        ended = [self.successor, self.height, self.introduced]
        return encode([RETIRED, self.kid, [self.key.cose_key, *ended]])

    @classmethod
    def parse(cls, fields: Any) -> RetiredKey:
        """Read an entry's fields; raises ProtocolError."""
        key, successor, height, introduced = array(fields, "entry", length=4)
        return cls(
            PublicKey.from_cose_key(key, "entry.key"),
            octets(successor, "entry.successor", KID_BYTES),
            uint(height, "entry.height"),
            _introduction(introduced),
        )


@dataclass(frozen=True)
class Settings:
    """The rule of the quorum, and the chain's parameters.

    Attributes:
        since: height of the block that decided them; 0 for the founding file's.
    """

    quorum_rule: str
    parameters: Parameters
    since: int = 0

    @classmethod
    def of(cls, founding: Founding) -> Settings:
        """Those that the consortium was founded with."""
        return cls(founding.quorum_rule, founding.parameters)

    @property
    def place(self) -> tuple[int, bytes]:
        """Kind and name of the entry."""
        return (SETTINGS, b"")

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode(list(self.place))

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        return encode([SETTINGS, b"", [self.quorum_rule, self.parameters.value(), self.since]])

    @classmethod
    def parse(cls, value: Any) -> Settings:
        """Read an entry's fields; raises ProtocolError."""
        rule, parameters, since = array(value, "entry", length=3)
        found = Parameters.parse(parameters, "entry.parameters")
        found.validate("entry.parameters")
        return cls(text(rule, "entry.quorum", 32), found, uint(since, "entry.since"))


@dataclass(frozen=True)
class RevokedCertificate:
    """A TLS certificate that opens no connection any more.

    Attributes:
        height: of the block that decided it.
    """

    serial: bytes
    height: int

    @property
    def place(self) -> tuple[int, bytes]:
        """Kind and name of the entry."""
        return (CERTIFICATE, self.serial)

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode(list(self.place))

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        return encode([CERTIFICATE, self.serial, [self.height]])

    @classmethod
    def parse(cls, serial: Any, fields: Any) -> RevokedCertificate:
        """Read an entry's fields; raises ProtocolError."""
        (height,) = array(fields, "entry", length=1)
        return cls(parse_serial(serial, "entry.serial"), uint(height, "entry.height"))


@dataclass(frozen=True)
class ProposalRecord:
    """A proposal, open or of late decided.

    Attributes:
        id: of its transaction.
        proposer: key id of the validator that made it.
        opened, closed: heights of the blocks; `closed` is 0 while it is open.
        outcome: `open`; `applied`; `failed` where its changes no longer fitted when it was
            decided; `expired`; `withdrawn` by its proposer; `void` where its proposer is no
            validator under that key any more.
        approvals: key ids of those who are for it, in bytewise order.
        payload: of the transaction; `body`, parsed.
    """

    id: bytes
    proposer: bytes
    opened: int
    payload: bytes = field(repr=False)
    body: Propose = field(compare=False)
    approvals: tuple[bytes, ...] = ()
    outcome: Outcome = "open"
    closed: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it may still be approved."""
        return self.outcome == "open"

    def with_approval(self, kid: bytes) -> ProposalRecord:
        """Add an approval."""
        return replace(self, approvals=tuple(sorted({*self.approvals, kid})))

    def without_approval(self, kid: bytes) -> ProposalRecord:
        """Take an approval off."""
        return replace(self, approvals=tuple(item for item in self.approvals if item != kid))

    @property
    def place(self) -> tuple[int, bytes]:
        """Kind and name of the entry."""
        return (PROPOSAL, self.id)

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode(list(self.place))

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        heights = [self.opened, self.closed]
        made = [self.outcome, *heights, self.proposer, list(self.approvals), self.payload]
        return encode([PROPOSAL, self.id, made])

    @classmethod
    def parse(cls, id_: Any, fields: Any) -> ProposalRecord:
        """Read an entry's fields; raises ProtocolError."""
        outcome, opened, closed, proposer, approvals, payload = array(fields, "entry", length=6)
        if outcome not in OUTCOMES:
            raise FormatError("entry.outcome", f"is {outcome!r}")
        if not isinstance(payload, bytes):
            raise FormatError("entry.payload", "is not a byte string")
        listed = array(approvals, "entry.approvals", at_most=MAX_MEMBERS)
        return cls(
            id=octets(id_, "entry.id", HASH_BYTES),
            proposer=octets(proposer, "entry.proposer", KID_BYTES),
            opened=uint(opened, "entry.opened"),
            payload=payload,
            body=Propose.decode(payload),
            approvals=tuple(octets(item, "entry.approvals", KID_BYTES) for item in listed),
            outcome=cast("Outcome", outcome),
            closed=uint(closed, "entry.closed"),
        )


@dataclass(frozen=True)
class Gone:
    """The entry at this place is no more."""

    place: tuple[int, bytes]

    @property
    def entry_key(self) -> bytes:
        """Where the entry stood in the state's tree."""
        return encode(list(self.place))


GovernanceRecord = MemberRecord | RetiredKey | Settings | RevokedCertificate | ProposalRecord
_KINDS = (MEMBER, RETIRED, SETTINGS, CERTIFICATE, PROPOSAL)


def parse_record(kind: int, name: Any, fields: Any) -> GovernanceRecord | None:
    """Read an entry of one of these kinds, None for another; raises ProtocolError."""
    record: GovernanceRecord
    if kind == MEMBER:
        record = MemberRecord.parse(fields)
    elif kind == RETIRED:
        record = RetiredKey.parse(fields)
    elif kind == SETTINGS:
        record = Settings.parse(fields)
    elif kind == CERTIFICATE:
        record = RevokedCertificate.parse(name, fields)
    elif kind == PROPOSAL:
        record = ProposalRecord.parse(name, fields)
    else:
        return None
    if record.place != (kind, name):
        raise FormatError("entry", "stands under another name than its own")
    return record


def _introduction(value: Any) -> bytes:
    return b"" if value == b"" else octets(value, "entry.introduced", HASH_BYTES)


def parse_status(value: Any) -> Status:
    """Read a signer's status; raises FormatError."""
    if value not in STATUSES:
        raise FormatError("entry.status", f"is {value!r}")
    return cast("Status", value)


__all__ = [
    "Gone",
    "GovernanceRecord",
    "MemberRecord",
    "Outcome",
    "ProposalRecord",
    "RetiredKey",
    "RevokedCertificate",
    "Settings",
    "Status",
    "parse_record",
    "parse_status",
]
