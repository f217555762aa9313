"""Who belongs to the consortium now, what holds in it, and what is proposed.

Fog nodes keep this in their state; whoever follows the chain by its blocks keeps it, too,
for it says whose votes make the next block final. How it changes is in `decisions.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .cbor import decode
from .errors import FormatError
from .founding import Founding, Parameters, quorum_of
from .keys import PublicKey
from .member_records import (
    MEMBER,
    PROPOSAL,
    Gone,
    GovernanceRecord,
    MemberRecord,
    ProposalRecord,
    RetiredKey,
    RevokedCertificate,
    Settings,
    parse_record,
)
from .transactions import MAX_TRANSACTION_BYTES
from .validate import array
from .validators import ValidatorSet

MAX_ENTRY_BYTES = MAX_TRANSACTION_BYTES + 256
Changed = GovernanceRecord | Gone


class Membership:
    """Members, settings and proposals after some block."""

    def __init__(self, settings: Settings, records: Iterable[GovernanceRecord] = ()) -> None:
        """Begin with these; `at_founding` and `copy` are the usual ways."""
        self.settings = settings
        self.members: dict[bytes, MemberRecord] = {}
        self.retired: dict[bytes, RetiredKey] = {}
        self.certificates: dict[bytes, RevokedCertificate] = {}
        self.proposals: dict[bytes, ProposalRecord] = {}
        self._validators: tuple[MemberRecord, ...] | None = None
        self._validator_set: ValidatorSet | None = None
        for record in records:
            self.put(record)

    @classmethod
    def at_founding(cls, founding: Founding) -> Membership:
        """What the founding file says."""
        order = {member.kid: place for place, member in enumerate(founding.validators, start=1)}
        members = [MemberRecord(member, order.get(member.kid, 0)) for member in founding.members]
        return cls(Settings.of(founding), members)

    @classmethod
    def from_entries(cls, entries: Iterable[bytes]) -> Membership:
        """Read all the entries that `records` gave; raises ProtocolError."""
        records = []
        for entry in entries:
            kind, name, fields = array(decode(entry, MAX_ENTRY_BYTES, "entry"), "entry", length=3)
            record = parse_record(kind, name, fields)
            if record is None:
                raise FormatError("entry", f"is of the unknown kind {kind!r}")
            records.append(record)
        settings = [record for record in records if isinstance(record, Settings)]
        if len(settings) != 1:
            raise FormatError("entries", "do not hold the settings once")
        return cls(settings[0], records)

    def __eq__(self, other: object) -> bool:
        """Whether the other has the same content."""
        if not isinstance(other, Membership):
            return NotImplemented
        return {r.place: r for r in self.records()} == {r.place: r for r in other.records()}

    # Its content changes.
    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Membership:
        """Return an independent one with the same content."""
        copied = Membership(self.settings)
        copied.members = dict(self.members)
        copied.retired = dict(self.retired)
        copied.certificates = dict(self.certificates)
        copied.proposals = dict(self.proposals)
        copied._validators = self._validators
        copied._validator_set = self._validator_set
        return copied

    def records(self) -> list[GovernanceRecord]:
        """All records, the settings first."""
        return [
            self.settings,
            *self.members.values(),
            *self.retired.values(),
            *self.certificates.values(),
            *self.proposals.values(),
        ]

    def put(self, record: Changed) -> None:
        """Take a record in, or one away."""
        if isinstance(record, Gone):
            kind, name = record.place
            if kind == MEMBER:
                self.members.pop(name, None)
            elif kind == PROPOSAL:
                self.proposals.pop(name, None)
        elif isinstance(record, MemberRecord):
            known = self.members.get(record.kid)
            self.members[record.kid] = record
            if known is not None and replace(known, next=record.next) == record:
                self._validators = None
                return  # only counted: the same keys vote
        elif isinstance(record, RetiredKey):
            self.retired[record.kid] = record
            # Entries that a node loads come in any order, and say nothing of what went.
            self.members.pop(record.kid, None)
        elif isinstance(record, RevokedCertificate):
            self.certificates[record.serial] = record
        elif isinstance(record, ProposalRecord):
            self.proposals[record.id] = record
        else:
            self.settings = record
        if not isinstance(record, (ProposalRecord, RevokedCertificate)):
            self._validators = self._validator_set = None

    def adopt(self, other: Membership) -> None:
        """Take over all of another's content but its proposals."""
        self.settings = other.settings
        self.members, self.retired = dict(other.members), dict(other.retired)
        self.certificates = dict(other.certificates)
        self._validators = self._validator_set = None

    def changes_since(self, before: Membership) -> list[Changed]:
        """Records that came, changed or went since this was a copy of `before`."""
        now = {record.place: record for record in self.records()}
        then = {record.place: record for record in before.records()}
        changed = [item for place, item in now.items() if then.get(place) is not item]
        return [*changed, *(Gone(place) for place in then if place not in now)]

    # Who and what

    @property
    def parameters(self) -> Parameters:
        """The chain's parameters."""
        return self.settings.parameters

    @property
    def validators(self) -> tuple[MemberRecord, ...]:
        """Those that the quorum is counted of, suspended ones included, in their order."""
        if self._validators is None:
            found = (record for record in self.members.values() if record.is_validator)
            self._validators = tuple(sorted(found, key=lambda record: record.order))
        return self._validators

    @property
    def quorum(self) -> int:
        """Votes that make a block final; approvals that decide a proposal."""
        return quorum_of(self.settings.quorum_rule, len(self.validators))

    @property
    def validator_set(self) -> ValidatorSet:
        """Who votes on the next block, and how many votes make it final."""
        if self._validator_set is None:
            keys = tuple(record.key for record in self.validators if record.votes)
            self._validator_set = ValidatorSet(self.quorum, keys)
        return self._validator_set

    def voters(self) -> dict[bytes, PublicKey]:
        """Validators whose votes count, in their order."""
        return self.validator_set.by_kid

    def key_of(self, kid: bytes) -> PublicKey | None:
        """The key with this id that is or was a member's."""
        record = self.members.get(kid) or self.retired.get(kid)
        return None if record is None else record.key

    def open_proposals(self) -> list[ProposalRecord]:
        """Open ones, in the order in which they are decided where several could be."""
        found = (record for record in self.proposals.values() if record.is_open)
        return sorted(found, key=lambda record: (record.opened, record.id))

    def approvals_that_count(self, proposal: ProposalRecord) -> list[bytes]:
        """Key ids of those who are for it and vote now."""
        voters = self.voters()
        return [kid for kid in proposal.approvals if kid in voters]

    def missing_approvals(self, proposal: ProposalRecord) -> int:
        """How many more it takes."""
        return max(0, self.quorum - len(self.approvals_that_count(proposal)))
