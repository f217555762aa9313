"""What the chain says now: members, devices, releases, and each signer's next number.

A pure value: no clock, socket or disk, and signatures are checked elsewhere
(`validation.py`). A state that the ledger has handed out is never changed again; whoever
wants to go on from it takes a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from fog_node.errors import LedgerError
from fog_node.protocol.founding import Founding, Parameters, quorum_of
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.merkle import leaf_hash
from fog_node.protocol.senml import Reading
from fog_node.protocol.transactions import (
    Alert,
    Channel,
    Enrol,
    Evidence,
    PackBody,
    Release,
    Request,
    Revoke,
    Transaction,
)
from fog_node.protocol.validators import ValidatorSet

from .records import (
    Device,
    MemberRecord,
    Record,
    ReleaseRecord,
    Signer,
    Status,
    parse_entry,
)
from .tree import SortedTree

ROLE_OF_KIND = {
    "enrol": "operator",
    "revoke": "operator",
    "incident": "gateway",
    "release": "trainer",
    "evidence": "validator",
    "request": "customer",
    "response": "provider",
}


def check_readings(channels: Iterable[Channel], readings: Iterable[Reading]) -> None:
    """Raise LedgerError `implausible` for the first reading that no channel of these allows."""
    ranges = {c.name: (c.unit, c.minimum, c.maximum) for c in channels}
    for reading in readings:
        known = ranges.get(reading.name)
        if known is None:
            raise LedgerError(
                "implausible", f"pack: {reading.name!r} is not a channel of this device"
            )
        unit, minimum, maximum = known
        if reading.unit != unit:
            raise LedgerError(
                "implausible", f"pack: {reading.name} is in {reading.unit!r}, not in {unit!r}"
            )
        if not minimum <= reading.value <= maximum:
            raise LedgerError(
                "implausible",
                f"pack: {reading.name} is {reading.value:g} {unit}, plausible is "
                f"{minimum:g} to {maximum:g}",
            )


class State:
    """The state after some block.

    Attributes:
        founding: the founding file it began with.
    """

    def __init__(
        self,
        founding: Founding,
        members: Mapping[bytes, MemberRecord],
        devices: Mapping[bytes, Device],
        releases: Mapping[tuple[str, str], ReleaseRecord],
        tree: SortedTree,
    ) -> None:
        """Put a state together; `at_founding`, `from_entries` and `copy` are the usual ways."""
        self.founding = founding
        self._members = dict(members)
        self._devices = dict(devices)
        self._releases = dict(releases)
        self._tree = tree
        self._validator_set: ValidatorSet | None = None
        self._changes: dict[bytes, bytes] = {}
        self._unhashed: dict[bytes, Record] = {}

    @classmethod
    def at_founding(cls, founding: Founding) -> State:
        """Make the state of height 0: members only."""
        return cls.from_entries(founding, ())

    @classmethod
    def from_entries(cls, founding: Founding, entries: Iterable[bytes]) -> State:
        """Build a state from the entries that differ from the founding's.

        Raises:
            ProtocolError: one is damaged.
        """
        members = {member.kid: MemberRecord(member) for member in founding.members}
        devices: dict[bytes, Device] = {}
        releases: dict[tuple[str, str], ReleaseRecord] = {}
        for entry in entries:
            record = parse_entry(entry, founding)
            if isinstance(record, Device):
                devices[record.kid] = record
            elif isinstance(record, MemberRecord):
                members[record.kid] = record
            else:
                releases[record.name] = record
        records: list[Record] = [*members.values(), *devices.values(), *releases.values()]
        leaves = {record.entry_key: leaf_hash(record.entry()) for record in records}
        return cls(founding, members, devices, releases, SortedTree(leaves))

    def copy(self) -> State:
        """Return an independent state with the same content and no changes yet."""
        self.root()
        return State(self.founding, self._members, self._devices, self._releases, self._tree.copy())

    @property
    def members(self) -> Mapping[bytes, MemberRecord]:
        """Members by key id, in file order."""
        return MappingProxyType(self._members)

    @property
    def devices(self) -> Mapping[bytes, Device]:
        """Devices by key id, revoked ones included."""
        return MappingProxyType(self._devices)

    @property
    def releases(self) -> Mapping[tuple[str, str], ReleaseRecord]:
        """The latest release for each (device type, name)."""
        return MappingProxyType(self._releases)

    @property
    def suspended(self) -> frozenset[bytes]:
        """Validators whose votes and blocks no longer count, revoked ones included."""
        return frozenset(
            record.kid
            for record in self._members.values()
            if "validator" in record.roles and not record.votes
        )

    @property
    def parameters(self) -> Parameters:
        """The chain's parameters."""
        return self.founding.parameters

    @property
    def quorum_rule(self) -> str:
        """One of QUORUM_RULES."""
        return self.founding.quorum_rule

    @property
    def quorum(self) -> int:
        """Votes that make a block final; also approvals that decide a proposal."""
        return quorum_of(self.quorum_rule, len(self.validators))

    @property
    def validators(self) -> tuple[MemberRecord, ...]:
        """Those that the quorum is counted of, suspended ones included, in their order."""
        return tuple(record for record in self._members.values() if "validator" in record.roles)

    @property
    def validator_set(self) -> ValidatorSet:
        """Who votes on the next block, and how many votes make it final."""
        if self._validator_set is None:
            self._validator_set = ValidatorSet(self.quorum, tuple(self.voters().values()))
        return self._validator_set

    def voters(self) -> dict[bytes, PublicKey]:
        """Return validators whose votes count, in their order."""
        return {record.kid: record.key for record in self.validators if record.votes}

    def signer(self, kid: bytes) -> Signer | None:
        """Return the member or device with this key id, revoked or not."""
        return self._members.get(kid) or self._devices.get(kid)

    def key_of(self, kid: bytes) -> PublicKey | None:
        """Return the public key with this key id."""
        record = self.signer(kid)
        return None if record is None else record.key

    def next_sequence(self, kid: bytes) -> int:
        """Return the number of the signer's next transaction; 1 for an unknown signer."""
        record = self.signer(kid)
        return 1 if record is None else record.next

    def root(self) -> bytes:
        """RFC 9162 root over the entries in bytewise order; only changed ones are hashed."""
        for key, record in self._unhashed.items():
            entry = record.entry()
            self._changes[key] = entry
            self._tree.set(key, leaf_hash(entry))
        self._unhashed.clear()
        return self._tree.root()

    def prove(self, record: Record) -> tuple[bytes, int, int, list[bytes]]:
        """Return a record's entry, its index, the number of entries, and its path to the root."""
        return (record.entry(), *self._tree.prove(record.entry_key))

    def changes(self) -> dict[bytes, bytes]:
        """Entries that came or changed since this state was copied, by their keys."""
        self.root()
        return dict(self._changes)

    def trusted_signer(self, transaction: Transaction) -> Signer:
        """Return the signer's record; LedgerError for an unknown or a revoked one."""
        record = self.signer(transaction.signer)
        who = transaction.signer.hex()
        if record is None:
            raise LedgerError(
                "unknown_device",
                f"transaction.kid: {who} is neither an enrolled device nor a member; "
                "enrol it first",
            )
        if record.status == "revoked":
            raise LedgerError("revoked_device", f"transaction.kid: {who} is revoked for good")
        return record

    def permit(self, transaction: Transaction) -> Signer:
        """Check what depends on the signer's own record alone, whatever its number is.

        Returns:
            The signer's record.

        Raises:
            LedgerError: unknown_device, revoked_device, role, malformed, implausible.
        """
        record = self.trusted_signer(transaction)
        role = ROLE_OF_KIND.get(transaction.kind)
        if isinstance(record, Device):
            if role is not None:
                raise LedgerError(
                    "role", f"transaction: a device signs packs and alerts, no {transaction.kind}"
                )
            self._permit_device(record, transaction)
        elif role is None:
            raise LedgerError(
                "role", f"transaction: {record.name} is no device and signs no {transaction.kind}"
            )
        elif role not in record.roles or (role == "validator" and not record.votes):
            raise LedgerError(
                "role",
                f"transaction: {transaction.kind} needs the role {role}, which {record.name} "
                "does not hold",
            )
        return record

    def check(self, transaction: Transaction, height: int) -> None:
        """Raise LedgerError unless `transaction` may come next, in a block of this height."""
        self._outcome(transaction, height)

    def apply(self, transaction: Transaction, height: int) -> None:
        """Take a transaction of the block at `height` into the state.

        Its signature, and those inside evidence, are not checked here.

        Raises:
            LedgerError: unknown_device, revoked_device, role, malformed, implausible,
                sequence, rule; the state is then unchanged.
        """
        for record in self._outcome(transaction, height):
            self._put(record)

    def _outcome(self, transaction: Transaction, height: int) -> list[Record]:
        """Return the records that the transaction changes or makes, the signer's first."""
        signer = self.permit(transaction)
        if transaction.sequence != signer.next:
            raise LedgerError(
                "sequence",
                f"transaction.sequence: is {transaction.sequence}, the next of "
                f"{signer.kid.hex()} is {signer.next}",
            )
        body = transaction.body
        if isinstance(signer, Device):
            dropped = max(signer.dropped, transaction.message.dropped or 0)
            return [replace(signer, next=signer.next + 1, dropped=dropped)]
        signer = replace(signer, next=signer.next + 1)
        if isinstance(body, Enrol):
            return [signer, self._enrolled(body, transaction, height)]
        if isinstance(body, Revoke):
            return self._revoked(signer, body)
        if isinstance(body, Release):
            return [signer, self._released(body, transaction, height)]
        if isinstance(body, Evidence):
            return self._accused(signer, body)
        if isinstance(body, Request):
            self._check_request(body)
        return [signer]  # the other kinds change nothing else

    def _permit_device(self, device: Device, transaction: Transaction) -> None:
        if (transaction.message.dropped or 0) > transaction.sequence:
            raise LedgerError(
                "malformed", "transaction.dropped: is above the transaction's own number"
            )
        body = transaction.body
        if isinstance(body, Alert):
            if not 1 <= body.pack < transaction.sequence:
                raise LedgerError(
                    "malformed", "alert.pack: is not an earlier number of the same device"
                )
        elif isinstance(body, PackBody):
            self._permit_pack(device, body)

    def _permit_pack(self, device: Device, body: PackBody) -> None:
        expected = self.parameters.enterprise_number
        if body.enterprise_number != expected:
            raise LedgerError(
                "malformed",
                f"pack[0].bn: enterprise number {body.enterprise_number}, this "
                f"consortium's is {expected}",
            )
        if not device.table.holds(body):
            check_readings(device.channels, body.pack.readings)

    def _enrolled(self, enrol: Enrol, transaction: Transaction, height: int) -> Device:
        known = self.signer(enrol.device)
        if known is not None:
            what = "a member's key" if isinstance(known, MemberRecord) else known.status
            raise LedgerError(
                "rule",
                f"enrol.device: {enrol.device.hex()} is {what} already; make a new key on the "
                "board",
            )
        if not any(
            record.name == enrol.owner and record.status != "revoked"
            for record in self._members.values()
        ):
            raise LedgerError("rule", f"enrol.owner: {enrol.owner!r} is no member")
        return Device.enrolled(enrol, transaction.message.payload, transaction.id, height)

    def _revoked(self, signer: MemberRecord, revoke: Revoke) -> list[Record]:
        subject = self.signer(revoke.subject)
        if subject is None:
            raise LedgerError(
                "rule", f"revoke.subject: {revoke.subject.hex()} is no device and no member"
            )
        if subject.status == "revoked":
            raise LedgerError("rule", f"revoke.subject: {subject.kid.hex()} is revoked already")
        if isinstance(subject, Device):
            return [signer, replace(subject, status="revoked")]
        if subject.votes and not self._can_spare_a_voter():
            raise LedgerError(
                "rule",
                f"revoke.subject: without {subject.name} fewer validators than the quorum "
                "would be left, and no block could follow; found the consortium anew instead",
            )
        if subject.kid == signer.kid:
            return [replace(signer, status="revoked")]
        return [signer, replace(subject, status="revoked")]

    def _released(self, release: Release, transaction: Transaction, height: int) -> ReleaseRecord:
        latest = self._releases.get((release.device_type, release.name))
        if latest is not None and release.version <= latest.release.version:
            raise LedgerError(
                "rule",
                f"release.version: is {release.version}, must be above "
                f"{latest.release.version} of the latest {release.name!r}",
            )
        dataset = release.dataset
        if not dataset.first <= dataset.last < height:
            raise LedgerError(
                "rule", "release.dataset: first and last are not heights of earlier blocks"
            )
        return ReleaseRecord(release, transaction.message.payload, transaction.id, height)

    def _accused(self, signer: MemberRecord, evidence: Evidence) -> list[Record]:
        offender = self._members.get(evidence.offender)
        if offender is None or "validator" not in offender.roles:
            raise LedgerError("rule", f"evidence.votes: {evidence.offender.hex()} is no validator")
        if offender.status != "active":
            raise LedgerError(
                "rule", f"evidence.votes: {offender.name} is {offender.status} already"
            )
        status: Status = "suspended" if self._can_spare_a_voter() else "accused"
        if offender.kid == signer.kid:
            return [replace(signer, status=status)]
        return [signer, replace(offender, status=status)]

    def _check_request(self, request: Request) -> None:
        if request.provider is None:
            return
        asked = self._members.get(request.provider)
        if asked is None or asked.status == "revoked" or "provider" not in asked.roles:
            raise LedgerError(
                "rule",
                f"request.provider: {request.provider.hex()} is no member with the role provider; "
                "ask one of /v1/members, or any with null",
            )

    def _can_spare_a_voter(self) -> bool:
        return len(self.voters()) > self.quorum

    def _put(self, record: Record) -> None:
        if isinstance(record, Device):
            self._devices[record.kid] = record
        elif isinstance(record, MemberRecord):
            self._members[record.kid] = record
            self._validator_set = None
        else:
            self._releases[record.name] = record
        self._unhashed[record.entry_key] = record
