"""What the state holds: one record per member, device and release, an entry of its tree each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.clocks import MAX_STARTS, Start, parse_start, start_value
from fog_node.protocol.errors import FormatError
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.member_records import (
    GovernanceRecord,
    MemberRecord,
    Status,
    parse_record,
    parse_status,
)
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.transactions import (
    MAX_TRANSACTION_BYTES,
    Channel,
    ChannelTable,
    Enrol,
    Release,
)
from fog_node.protocol.validate import array, octets, uint

from .rollout_records import BOARD, OFFER, BoardRecord, OfferRecord

MAX_ENTRY_BYTES = MAX_TRANSACTION_BYTES + 256
_DEVICE_FIELDS = 7  # and one more where any start is known
_DEVICE, _RELEASE = 1, 2  # the other kinds are in protocol/member_records.py


@dataclass(frozen=True)
class Device:
    """An enrolled board.

    Attributes:
        enrolment: the payload of the enrol transaction, parsed; `payload`, its bytes.
        enrolment_id: id of that transaction; `enrolled_height`, of its block.
        status: `active`, `quarantined` or `revoked`.
        next: number of its next transaction; all below are final.
        dropped: the board has told that it no longer keeps its transactions below this.
        disputed: two messages with a number up to this one are no news (any more).
        starts: when its latest starts were, of those in which it did not know the time at first.
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
    disputed: int = 0
    starts: tuple[Start, ...] = ()

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

    def after(self, next_: int, dropped: int, starts: tuple[Start, ...]) -> Device:
        """Return it as it is after a transaction of its own; what `replace` would, much faster."""
        changed = object.__new__(Device)
        changed.__dict__.update(self.__dict__)
        changed.__dict__.update(next=next_, dropped=dropped, starts=starts)
        return changed

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode([_DEVICE, self.kid])

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        fields = [self.status, self.next, self.dropped, self.disputed]
        enrolment = [self.enrolment_id, self.enrolled_height, self.payload]
        # Left out where there are none, as with most boards.
        starts = [[start_value(start) for start in self.starts]] if self.starts else []
        return encode([_DEVICE, self.kid, [*fields, *enrolment, *starts]])


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


Record = Device | ReleaseRecord | OfferRecord | BoardRecord | GovernanceRecord
Signer = MemberRecord | Device


def parse_entry(data: bytes) -> Record:
    """Parse an entry of the state's tree; raises ProtocolError."""
    kind, name, fields = array(decode(data, MAX_ENTRY_BYTES, "entry"), "entry", length=3)
    if kind == _DEVICE:
        fields = array(fields, "entry", at_most=_DEVICE_FIELDS + 1)
        if len(fields) < _DEVICE_FIELDS:
            raise FormatError("entry", f"has fewer than {_DEVICE_FIELDS} fields")
        status, next_, dropped, disputed, id_, height, payload = fields[:_DEVICE_FIELDS]
        enrol = Enrol.decode(_payload(payload))
        return replace(
            Device.enrolled(
                enrol,
                payload,
                octets(id_, "entry.id", HASH_BYTES),
                uint(height, "entry.height"),
            ),
            status=parse_status(status),
            next=uint(next_, "entry.next", at_least=1),
            dropped=uint(dropped, "entry.dropped"),
            disputed=uint(disputed, "entry.disputed"),
            starts=_starts(fields[_DEVICE_FIELDS:]),
        )
    if kind == _RELEASE:
        id_, height, payload = array(fields, "entry", length=3)
        return ReleaseRecord(
            Release.decode(_payload(payload)),
            payload,
            octets(id_, "entry.id", HASH_BYTES),
            uint(height, "entry.height"),
        )
    if kind == OFFER:
        return OfferRecord.parse(name, fields)
    if kind == BOARD:
        return BoardRecord.parse(name, fields)
    record = parse_record(kind, name, fields)
    if record is None:
        raise FormatError("entry", f"is of the unknown kind {kind!r}")
    return record


def _starts(fields: list[Any]) -> tuple[Start, ...]:
    if not fields:
        return ()
    starts = array(fields[0], "entry.starts", at_most=MAX_STARTS)
    if not starts:
        raise FormatError("entry.starts", "is empty; it is left out then")
    return tuple(parse_start(start, "entry.starts") for start in starts)


def _payload(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise FormatError("entry.payload", "is not a byte string")
    return value
