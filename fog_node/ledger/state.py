"""What the chain says now: members, devices, releases, and each signer's next number.

A pure value: no clock, socket or disk, and signatures are checked elsewhere
(`validation.py`). A state that the ledger has handed out is never changed again; whoever
wants to go on from it takes a copy.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from fog_node.errors import LedgerError
from fog_node.protocol import decisions
from fog_node.protocol.clocks import starts_after
from fog_node.protocol.errors import RuleError
from fog_node.protocol.founding import Founding, Parameters
from fog_node.protocol.governance import Approve, Propose, Withdraw
from fog_node.protocol.keys import PublicKey
from fog_node.protocol.labels import Image, PackSpan
from fog_node.protocol.member_records import Gone, MemberRecord
from fog_node.protocol.membership import Membership
from fog_node.protocol.merkle import leaf_hash
from fog_node.protocol.predictions import Subject, Thing
from fog_node.protocol.senml import Reading
from fog_node.protocol.transactions import (
    Alert,
    Body,
    Channel,
    Clone,
    Enrol,
    Evidence,
    Label,
    PackBody,
    Prediction,
    ReinstateDevice,
    Release,
    Request,
    Revoke,
    Rollout,
    RolloutApprove,
    RolloutControl,
    RolloutReport,
    TestReport,
    TrainingRound,
    Transaction,
)
from fog_node.protocol.validators import ValidatorSet

from . import rollouts as rolling
from .records import (
    Device,
    Record,
    ReleaseRecord,
    Signer,
    parse_entry,
)
from .rollout_records import BOARD, BoardRecord, Offered, OfferRecord
from .rollouts import Rollouts
from .tree import SortedTree

# One of these a member must hold.
ROLES_OF_KIND = {
    "enrol": ("operator",),
    "revoke": ("operator",),
    "incident": ("gateway",),
    "release": ("trainer",),
    "evidence": ("validator",),
    "request": ("customer",),
    "response": ("provider",),
    "propose": ("validator",),
    "approve": ("validator",),
    "withdraw": ("validator",),
    "clone": ("gateway",),
    "reinstate-device": ("operator",),
    "test-report": ("operator",),
    "label": ("trainer", "operator"),
    "rollout": ("trainer", "operator"),
    "rollout-approve": ("trainer", "operator"),
    "rollout-control": ("trainer", "operator"),
    "rollout-report": ("gateway",),
    "prediction": ("gateway", "trainer"),
    "drift": ("gateway", "trainer"),
    "training-round": ("trainer",),
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
        membership: members, settings and proposals; not to be changed from outside.
        time: of the block, ms since 1970.
    """

    def __init__(
        self,
        founding: Founding,
        membership: Membership,
        devices: Mapping[bytes, Device],
        releases: Mapping[tuple[str, str], ReleaseRecord],
        rollouts: Rollouts,
        tree: SortedTree,
        time: int,
    ) -> None:
        """Put a state together; `at_founding`, `from_entries` and `copy` are the usual ways."""
        self.founding = founding
        self.membership = membership
        self.time = time
        self._devices = dict(devices)
        self._releases = dict(releases)
        self._rollouts = rollouts
        self._tree = tree
        self._changes: dict[bytes, bytes | None] = {}
        self._unhashed: dict[bytes, Record | Gone] = {}
        # Of these by key id: most transactions touch nothing but a device.
        self._touched: dict[bytes, Device] = {}

    @classmethod
    def at_founding(cls, founding: Founding) -> State:
        """Make the state of height 0: members and settings only."""
        return cls.from_entries(founding, (), founding.time)

    @classmethod
    def from_entries(cls, founding: Founding, entries: Iterable[bytes], time: int) -> State:
        """Build a state from the entries that differ from the founding's.

        Args:
            founding: the founding file.
            entries: in any order.
            time: of the block that they are the state after.

        Raises:
            ProtocolError: one is damaged.
        """
        membership = Membership.at_founding(founding)
        devices: dict[bytes, Device] = {}
        releases: dict[tuple[str, str], ReleaseRecord] = {}
        rollouts = Rollouts()
        for entry in entries:
            record = parse_entry(entry)
            if isinstance(record, Device):
                devices[record.kid] = record
            elif isinstance(record, ReleaseRecord):
                releases[record.name] = record
            elif isinstance(record, OfferRecord | BoardRecord):
                rollouts.put(record)
            else:
                membership.put(record)
        records: list[Record] = [*membership.records(), *devices.values(), *releases.values()]
        records += rollouts.records()
        leaves = {record.entry_key: leaf_hash(record.entry()) for record in records}
        return cls(founding, membership, devices, releases, rollouts, SortedTree(leaves), time)

    def copy(self) -> State:
        """Return an independent state with the same content and no changes yet."""
        self.root()
        return State(
            self.founding,
            self.membership.copy(),
            self._devices,
            self._releases,
            self._rollouts.copy(),
            self._tree.copy(),
            self.time,
        )

    def advance(self, height: int, time: int) -> None:
        """Begin the block of this height and time.

        Proposals whose term is over expire, and boards that were silent for too long fail.
        """
        before, self.time = self.time, time
        for change in decisions.expired(self.membership, height, time):
            self._put(change)
        heartbeat_ms = self.parameters.heartbeat_ms
        for changed in rolling.silenced(
            self._rollouts, lambda kid: self._devices[kid].type, before, time, heartbeat_ms
        ):
            self._put(changed)

    @property
    def members(self) -> Mapping[bytes, MemberRecord]:
        """Members by key id, removed ones included."""
        return MappingProxyType(self.membership.members)

    @property
    def devices(self) -> Mapping[bytes, Device]:
        """Devices by key id, revoked ones included."""
        return MappingProxyType(self._devices)

    @property
    def releases(self) -> Mapping[tuple[str, str], ReleaseRecord]:
        """The latest release for each (device type, name)."""
        return MappingProxyType(self._releases)

    @property
    def offers(self) -> Mapping[str, OfferRecord]:
        """What boards are offered, by device type, where releases are or were staged."""
        return MappingProxyType(self._rollouts.offers)

    @property
    def rollout_boards(self) -> Mapping[bytes, BoardRecord]:
        """How each board does in its device type's latest rollout, by key id."""
        return MappingProxyType(self._rollouts.boards)

    def offered(self, device: Device) -> Offered | None:
        """What a board is to run; None where its device type is not in `offers`, or has nothing."""
        return self._rollouts.offered(device)

    @property
    def suspended(self) -> frozenset[bytes]:
        """Validators whose votes and blocks do not count."""
        return frozenset(record.kid for record in self.validators if not record.votes)

    @property
    def parameters(self) -> Parameters:
        """The chain's parameters."""
        return self.membership.parameters

    @property
    def quorum_rule(self) -> str:
        """One of QUORUM_RULES."""
        return self.membership.settings.quorum_rule

    @property
    def quorum(self) -> int:
        """Votes that make a block final; also approvals that decide a proposal."""
        return self.membership.quorum

    @property
    def validators(self) -> tuple[MemberRecord, ...]:
        """Those that the quorum is counted of, suspended ones included, in their order."""
        return self.membership.validators

    @property
    def validator_set(self) -> ValidatorSet:
        """Who votes on the next block, and how many votes make it final."""
        return self.membership.validator_set

    @property
    def revoked_certificates(self) -> Container[bytes]:
        """Serial numbers of the authority's certificates that open no connection any more."""
        return self.membership.certificates

    def voters(self) -> dict[bytes, PublicKey]:
        """Return validators whose votes count, in their order."""
        return self.membership.voters()

    def name_of(self, kid: bytes) -> str | None:
        """Name of the member that signs, or signed, with this key."""
        while (retired := self.membership.retired.get(kid)) is not None:
            kid = retired.successor
        record = self.membership.members.get(kid)
        return None if record is None else record.name

    def member_named(self, name: str) -> MemberRecord | None:
        """Return the member with this name, removed or not."""
        found = (record for record in self.membership.members.values() if record.name == name)
        return next(found, None)

    def signer(self, kid: bytes) -> Signer | None:
        """Return the member or device with this key id, revoked or not."""
        return self._devices.get(kid) or self.membership.members.get(kid)

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
        self._unhashed.update((device.entry_key, device) for device in self._touched.values())
        self._touched.clear()
        for key, record in self._unhashed.items():
            if isinstance(record, Gone):
                self._changes[key] = None
                self._tree.remove(key)
                continue
            entry = record.entry()
            self._changes[key] = entry
            self._tree.set(key, leaf_hash(entry))
        self._unhashed.clear()
        return self._tree.root()

    def prove(self, record: Record) -> tuple[bytes, int, int, list[bytes]]:
        """Return a record's entry, its index, the number of entries, and its path to the root."""
        return (record.entry(), *self._tree.prove(record.entry_key))

    def changes(self) -> dict[bytes, bytes | None]:
        """Entries that came or changed since this state was copied, by their keys; None: went."""
        self.root()
        return dict(self._changes)

    def trusted_signer(self, transaction: Transaction) -> Signer:
        """Return the signer's record; LedgerError for an unknown or a revoked one."""
        record = self.signer(transaction.signer)
        if record is not None and record.status == "active":
            return record
        who = transaction.signer.hex()
        if record is None and transaction.signer in self.membership.retired:
            raise LedgerError(
                "revoked_device",
                f"transaction.kid: {who} was replaced by another key of its member",
            )
        if record is None:
            raise LedgerError(
                "unknown_device",
                f"transaction.kid: {who} is neither an enrolled device nor a member; "
                "enrol it first",
            )
        if record.status == "revoked":
            raise LedgerError("revoked_device", f"transaction.kid: {who} is revoked for good")
        if record.status == "quarantined":
            raise LedgerError(
                "quarantined",
                f"transaction.kid: two hold the key of {who}; an operator reinstates or revokes it",
            )
        return record

    def permit(self, transaction: Transaction, signer: Signer | None = None) -> Signer:
        """Check what depends on the signer's own record alone, whatever its number is.

        Args:
            transaction: parsed.
            signer: what `trusted_signer` has said, where it was asked already.

        Returns:
            The signer's record.

        Raises:
            LedgerError: unknown_device, revoked_device, role, malformed, implausible.
        """
        record = signer or self.trusted_signer(transaction)
        roles = ROLES_OF_KIND.get(transaction.kind)
        if isinstance(transaction.body, Release) and transaction.body.is_firmware:
            roles = ("operator",)
        if isinstance(record, Device):
            if roles is not None:
                raise LedgerError(
                    "role",
                    f"transaction: a device signs packs, alerts and gaps, no {transaction.kind}",
                )
            self._permit_device(record, transaction)
        elif roles is None:
            raise LedgerError(
                "role", f"transaction: {record.name} is no device and signs no {transaction.kind}"
            )
        elif record.roles.isdisjoint(roles) or (roles == ("validator",) and not record.votes):
            raise LedgerError(
                "role",
                f"transaction: {transaction.kind} needs the role {' or '.join(roles)}, which "
                f"{record.name} does not hold",
            )
        return record

    def check(self, transaction: Transaction, height: int) -> None:
        """Raise LedgerError unless `transaction` may come next, in a block of this height."""
        self._outcome(transaction, height, is_sealed=False)

    def apply(self, transaction: Transaction, height: int, signer: Signer | None = None) -> None:
        """Take a transaction of the block at `height` into the state.

        Its signature, and those inside evidence, are not checked here. `signer`: see `permit`.

        Raises:
            LedgerError: unknown_device, revoked_device, role, malformed, implausible,
                sequence, rule; the state is then unchanged.
        """
        for record in self._outcome(transaction, height, is_sealed=True, known=signer):
            self._put(record)

    def _outcome(
        self,
        transaction: Transaction,
        height: int,
        *,
        is_sealed: bool,
        known: Signer | None = None,
    ) -> Sequence[Record | Gone]:
        """Return the records that the transaction changes, makes or ends."""
        signer = self.permit(transaction, known)
        if transaction.first != signer.next:
            raise LedgerError(
                "sequence",
                f"transaction.sequence: is {transaction.sequence}, the next of "
                f"{signer.kid.hex()} is {signer.next}",
            )
        if isinstance(signer, Device):
            dropped = max(signer.dropped, transaction.message.dropped or 0)
            starts, body = signer.starts, transaction.body
            if isinstance(body, PackBody) and body.clock is not None:
                starts = starts_after(starts, body.clock, transaction.sequence)
            after = signer.after(transaction.sequence + 1, dropped, starts)
            board = self._rollouts.boards.get(signer.kid) if is_sealed else None
            if board is None:
                return [after]
            offer = self._rollouts.offers[signer.type]
            return [after, *rolling.heard(offer, board, body, self.time)]
        try:
            counted = replace(signer, next=signer.next + 1)
            return self._of_member(counted, transaction, height, is_sealed=is_sealed)
        except RuleError as error:
            raise LedgerError("rule", str(error)) from error

    def _of_member(
        self, signer: MemberRecord, transaction: Transaction, height: int, *, is_sealed: bool
    ) -> Sequence[Record | Gone]:
        """Return what a member's transaction changes; `signer` is as after it."""
        match transaction.body:
            case Propose():
                return decisions.proposed(
                    self.membership,
                    signer,
                    transaction,
                    height,
                    self.time,
                    self._devices,
                    is_sealed=is_sealed,
                )
            case Approve() as approve:
                return decisions.approved(self.membership, signer, approve, height, self._devices)
            case Withdraw() as withdraw:
                return decisions.withdrawn(self.membership, signer, withdraw, height)
            case Evidence() as evidence:
                return decisions.accused(self.membership, signer, evidence)
            case Enrol() as enrol:
                return [signer, self._enrolled(enrol, transaction, height)]
            case Revoke() as revoke:
                return [signer, *self._revoked(revoke)]
            case Release() as release:
                return [signer, *self._released(release, transaction, height)]
            case Rollout() | RolloutApprove() | RolloutControl() | RolloutReport():
                return [signer, *self._rolled(signer, transaction)]
            case Clone() as clone:
                return [signer, self._quarantined(clone)]
            case ReinstateDevice() as reinstate:
                return [signer, self._reinstated(reinstate)]
        self._check(transaction.body)
        return [signer]  # the other kinds change nothing else

    def _check(self, body: Body) -> None:
        """Look at what a member says that changes nothing else."""
        match body:
            case Request() as request:
                self._check_request(request)
            case TestReport() as report:
                self._check_test_report(report)
            case Label() as label:
                self._check_targets(
                    ("label.labels[{}].target", item.target) for item in label.labels
                )
            case Prediction() as prediction:
                self._check_targets(
                    ("prediction.verdicts[{}].subject", item) for item in prediction.targets
                )
            case TrainingRound() as training:
                self._check_training_round(training)

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
        known = self._devices.get(enrol.device)
        is_members = self.membership.key_of(enrol.device) is not None
        if known is not None or is_members:
            what = "a member's key" if known is None else known.status
            raise LedgerError(
                "rule",
                f"enrol.device: {enrol.device.hex()} is {what} already; make a new key on the "
                "board",
            )
        if not any(
            record.name == enrol.owner and record.status != "revoked"
            for record in self.membership.members.values()
        ):
            raise LedgerError("rule", f"enrol.owner: {enrol.owner!r} is no member")
        return Device.enrolled(enrol, transaction.message.payload, transaction.id, height)

    def _revoked(self, revoke: Revoke) -> Sequence[Record | Gone]:
        subject = self._devices.get(revoke.subject)
        if subject is None:
            remedy = ""
            if revoke.subject in self.membership.members:
                remedy = "; members are removed by vote: fogline consortium propose"
            raise LedgerError(
                "rule", f"revoke.subject: {revoke.subject.hex()} is no device{remedy}"
            )
        if subject.status == "revoked":
            raise LedgerError("rule", f"revoke.subject: {subject.kid.hex()} is revoked already")
        ended = replace(subject, status="revoked")
        board = self._rollouts.boards.get(subject.kid)
        if board is None:
            return [ended]
        return [ended, *rolling.revoked(self._rollouts.offers[subject.type], board, self.time)]

    def _quarantined(self, clone: Clone) -> Device:
        device = self._devices.get(clone.device)
        if device is None or device.status == "revoked":
            raise LedgerError(
                "rule", f"clone.messages: {clone.device.hex()} is no device, or is revoked"
            )
        if device.status == "active" and clone.sequence <= device.disputed:
            raise LedgerError(
                "rule",
                f"clone.messages: {clone.device.hex()} was reinstated after number "
                f"{clone.sequence}",
            )
        # Several gateways may say it, each with what it saw; none is wrong.
        disputed = max(device.disputed, clone.sequence)
        return replace(device, status="quarantined", disputed=disputed)

    def _reinstated(self, reinstate: ReinstateDevice) -> Device:
        device = self._devices.get(reinstate.device)
        if device is None or device.status != "quarantined":
            raise LedgerError(
                "rule", f"reinstate-device.device: {reinstate.device.hex()} is not quarantined"
            )
        disputed = max(device.disputed, device.next - 1)
        return replace(device, status="active", disputed=disputed)

    def _released(
        self, release: Release, transaction: Transaction, height: int
    ) -> Sequence[Record | Gone]:
        latest = self._releases.get((release.device_type, release.name))
        if latest is not None and release.version <= latest.release.version:
            raise LedgerError(
                "rule",
                f"release.version: is {release.version}, must be above "
                f"{latest.release.version} of the latest {release.name!r}",
            )
        dataset = release.dataset
        if dataset.query is not None and dataset.query.height >= height:
            raise LedgerError(
                "rule", "release.dataset.query.height: is not the height of an earlier block"
            )
        if not dataset.first <= dataset.last < height:
            raise LedgerError(
                "rule", "release.dataset: first and last are not heights of earlier blocks"
            )
        record = ReleaseRecord(release, transaction.message.payload, transaction.id, height)
        if release.is_firmware:
            return [record]
        before = rolling.newest(self._releases.values(), release.device_type)
        is_staged = bool(self.parameters.staged_releases)
        return [record, *rolling.released(self._rollouts, before, record, is_staged)]

    def _rolled(self, signer: MemberRecord, transaction: Transaction) -> Sequence[rolling.Changed]:
        """What a transaction about a rollout changes; raises RuleError."""
        match transaction.body:
            case Rollout() as rollout:
                proposal = (transaction.id, transaction.message.payload, signer.kid)
                return rolling.proposed(
                    self._rollouts, self._releases, self._devices, proposal, rollout
                )
            case RolloutApprove() as approve:
                offer = self._rollouts.named(approve.rollout, "rollout-approve.rollout")
                assert offer.rollout is not None
                if self.name_of(offer.rollout.proposer) == signer.name:
                    raise RuleError(
                        "rollout-approve.rollout",
                        f"was proposed by {signer.name}",
                        "another member with the role trainer or operator approves it",
                    )
                return rolling.approved(offer, signer.kid, self._devices.values(), self.time)
            case RolloutControl() as control:
                offer = self._rollouts.named(control.rollout, "rollout-control.rollout")
                return rolling.controlled(offer, control, self.time)
            case RolloutReport() as report:
                return rolling.reported(self._rollouts, self._devices, report, self.time)
        raise AssertionError(transaction.kind)

    def _check_request(self, request: Request) -> None:
        if request.provider is None:
            return
        asked = self.membership.members.get(request.provider)
        if asked is None or asked.status == "revoked" or "provider" not in asked.roles:
            raise LedgerError(
                "rule",
                f"request.provider: {request.provider.hex()} is no member with the role provider; "
                "ask one of /v1/members, or any with null",
            )

    def _check_test_report(self, report: TestReport) -> None:
        if report.device is not None and report.device not in self._devices:
            raise LedgerError(
                "rule",
                f"test-report.board.kid: {report.device.hex()} is no device; enrol the board "
                "first, or leave its key id out",
            )
        if (named := report.release) is None:
            return
        latest = self._releases.get((named.device_type, named.name))
        # Of earlier releases the state has forgotten the bundles.
        if latest is None or named.version > latest.release.version:
            raise LedgerError(
                "rule",
                f"test-report.release: version {named.version} of {named.name!r} for "
                f"{named.device_type} is not released",
            )
        if named.version == latest.release.version and named.bundle != latest.release.bundle:
            raise LedgerError(
                "rule",
                f"test-report.release.bundle: is not that of version {named.version} of "
                f"{named.name!r} for {named.device_type}",
            )

    def _check_training_round(self, training: TrainingRound) -> None:
        for kid in sorted(training.members):
            if self.membership.key_of(kid) is None:
                raise LedgerError(
                    "rule",
                    f"training-round.updates: {kid.hex()} is no member, and never was; leave its "
                    "key id out",
                )

    def _check_targets(self, targets: Iterable[tuple[str, Subject]]) -> None:
        """Refuse boards that never were, and packs that are not final; `targets`: field, what."""
        for index, (field, target) in enumerate(targets):
            if isinstance(target, Image | Thing):
                continue
            where = field.format(index)
            device = self._devices.get(target.device)
            if device is None:
                raise LedgerError(
                    "rule",
                    f"{where}.device: {target.device.hex()} is no device; name an enrolled board",
                )
            if isinstance(target, PackSpan) and target.last >= device.next:
                raise LedgerError(
                    "rule",
                    f"{where}.last: is {target.last}, the latest number of {target.device.hex()} "
                    f"on the chain is {device.next - 1}",
                )

    def _put(self, record: Record | Gone) -> None:
        if isinstance(record, Device):
            self._devices[record.kid] = self._touched[record.kid] = record
            return
        if isinstance(record, ReleaseRecord):
            self._releases[record.name] = record
        elif isinstance(record, OfferRecord | BoardRecord) or (
            isinstance(record, Gone) and record.place[0] == BOARD
        ):
            self._rollouts.put(record)
        else:
            self.membership.put(record)
        self._unhashed[record.entry_key] = record
