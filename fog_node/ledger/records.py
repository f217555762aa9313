"""What the state holds: one record per member, device and release, an entry of its tree each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.errors import FormatError
from fog_node.protocol.founding import Founding, Member
from fog_node.protocol.keys import KID_BYTES, PublicKey
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.transactions import (
    MAX_TRANSACTION_BYTES,
    Channel,
    ChannelTable,
    Enrol,
    Release,
)
from fog_node.protocol.validate import array, octets, uint

MAX_ENTRY_BYTES = MAX_TRANSACTION_BYTES + 256
_MEMBER, _DEVICE, _RELEASE = 0, 1, 2

Status = Literal["active", "accused", "suspended", "revoked"]
_STATUSES = ("active", "accused", "suspended", "revoked")


@dataclass(frozen=True)
class MemberRecord:
    """A member of the founding file and what has become of it.

    Attributes:
        status: `suspended` where evidence ended its part in the agreement; `accused` where
            evidence stands against it, but too few voters would be left without it;
            `revoked` where its key counts for nothing any more.
        next: number of its next transaction.
    """

    member: Member
    status: Status = "active"
    next: int = 1

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
        """Name in the founding file."""
        return self.member.name

    @property
    def roles(self) -> frozenset[str]:
        """Roles in the founding file."""
        return self.member.roles

    @property
    def votes(self) -> bool:
        """Whether it takes part in the agreement."""
        return "validator" in self.roles and self.status in ("active", "accused")

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode([_MEMBER, self.kid])

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        return encode([_MEMBER, self.kid, [self.status, self.next]])


@dataclass(frozen=True)
class Device:
    """An enrolled board.

    Attributes:
        enrolment: the payload of the enrol transaction, parsed; `payload`, its bytes.
        enrolment_id: id of that transaction; `enrolled_height`, of its block.
        status: `active` or `revoked`.
        next: number of its next transaction; all below are final.
        dropped: the board has told that it no longer keeps its transactions below this.
        table: its channels, for a quick look at whole packs.
    """

    enrolment: Enrol
    payload: bytes = field(repr=False)
    enrolment_id: bytes
    enrolled_height: int
    table: ChannelTable = field(repr=False, compare=False)
    status: Status = "active"
    next: int = 1
    dropped: int = 0

    @classmethod
    def enrolled(cls, enrolment: Enrol, payload: bytes, id_: bytes, height: int) -> Device:
        """Return a device as it is right after its enrolment."""
        return cls(enrolment, payload, id_, height, ChannelTable(enrolment.channels))

    @property
    def kid(self) -> bytes:
        """Key id."""
        return self.enrolment.device

    @property
    def key(self) -> PublicKey:
        """Public key."""
        return self.enrolment.key

    @property
    def owner(self) -> str:
        """Name of the member it belongs to."""
        return self.enrolment.owner

    @property
    def type(self) -> str:
        """What it is, as releases name it in `device_type`."""
        return self.enrolment.type

    @property
    def board(self) -> str:
        """The hardware it runs on."""
        return self.enrolment.board

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Its channels as enrolled."""
        return self.enrolment.channels

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode([_DEVICE, self.kid])

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        fields = [self.status, self.next, self.dropped]
        enrolment = [self.enrolment_id, self.enrolled_height, self.payload]
        return encode([_DEVICE, self.kid, [*fields, *enrolment]])


@dataclass(frozen=True)
class ReleaseRecord:
    """The latest release of one name for one device type.

    Attributes:
        payload: bytes of the release, as signed.
        id: of the transaction; `height`, of its block.
    """

    release: Release
    payload: bytes = field(repr=False)
    id: bytes
    height: int

    @property
    def name(self) -> tuple[str, str]:
        """Device type, and name of the release."""
        return (self.release.device_type, self.release.name)

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode([_RELEASE, list(self.name)])

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        return encode([_RELEASE, list(self.name), [self.id, self.height, self.payload]])


Record = MemberRecord | Device | ReleaseRecord
Signer = MemberRecord | Device


def parse_entry(data: bytes, founding: Founding) -> Record:
    """Parse an entry of the state's tree; raises ProtocolError."""
    kind, name, fields = array(decode(data, MAX_ENTRY_BYTES, "entry"), "entry", length=3)
    if kind == _MEMBER:
        status, next_ = array(fields, "entry", length=2)
        member = founding.member(octets(name, "entry", KID_BYTES))
        if member is None:
            raise FormatError("entry", "is of a member that the founding file does not list")
        return MemberRecord(member, _status(status), uint(next_, "entry.next", at_least=1))
    if kind == _DEVICE:
        status, next_, dropped, id_, height, payload = array(fields, "entry", length=6)
        enrol = Enrol.decode(_payload(payload))
        return replace(
            Device.enrolled(
                enrol,
                payload,
                octets(id_, "entry.id", HASH_BYTES),
                uint(height, "entry.height"),
            ),
            status=_status(status),
            next=uint(next_, "entry.next", at_least=1),
            dropped=uint(dropped, "entry.dropped"),
        )
    if kind == _RELEASE:
        id_, height, payload = array(fields, "entry", length=3)
        return ReleaseRecord(
            Release.decode(_payload(payload)),
            payload,
            octets(id_, "entry.id", HASH_BYTES),
            uint(height, "entry.height"),
        )
    raise FormatError("entry", f"is of the unknown kind {kind!r}")


def _payload(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise FormatError("entry.payload", "is not a byte string")
    return value


def _status(value: Any) -> Status:
    if value not in _STATUSES:
        raise FormatError("entry.status", f"is {value!r}")
    return cast("Status", value)
