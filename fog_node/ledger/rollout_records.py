"""What the state holds of rollouts: what each device type is offered, and how each board does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from fog_node.protocol.cbor import encode
from fog_node.protocol.errors import FormatError
from fog_node.protocol.keys import KID_BYTES
from fog_node.protocol.manifest import FIRMWARE_PREFIX
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.rollouts import MAX_GROUPS, MAX_TEXT_CHARS, Rollout
from fog_node.protocol.transactions import Release
from fog_node.protocol.validate import array, octets, text, uint

OFFER, BOARD = 7, 8

Status = Literal["proposed", "running", "paused", "finished", "stopped", "withdrawn"]
STATUSES = ("proposed", "running", "paused", "finished", "stopped", "withdrawn")
# How a board does: nothing is known; it runs the release; has done well with it; has failed; has
# gone back to another model after the rollout was stopped.
BoardState = Literal["waiting", "trying", "done", "failed", "returned"]
BOARD_STATES = ("waiting", "trying", "done", "failed", "returned")
Cause = Literal["", "refused", "rolled-back", "silent", "anomalies"]
CAUSES = ("", "refused", "rolled-back", "silent", "anomalies")


@dataclass(frozen=True)
class Offered:
    """A release, as far as boards and the stores of bundles need to know it.

    Attributes:
        manifest, bundle, size: as in the release.
        id: of the release's transaction.
    """

    name: str
    version: int
    device_type: str
    manifest: bytes
    bundle: bytes
    size: int
    id: bytes

    @classmethod
    def of(cls, release: Release, id_: bytes) -> Offered:
        """Take over what stands in a release."""
        return cls(
            release.name,
            release.version,
            release.device_type,
            release.manifest,
            release.bundle,
            release.size,
            id_,
        )

    @property
    def is_firmware(self) -> bool:
        """Whether it brings files of ours instead of a model."""
        return self.device_type.startswith(FIRMWARE_PREFIX)

    def value(self) -> list[Any]:
        """The array that stands for it."""
        return [self.name, self.version, self.manifest, self.bundle, self.size, self.id]


@dataclass(frozen=True)
class GroupCount:
    """How a group does.

    Attributes:
        boards: that belong to it and are not revoked.
        done, failed: of these.
        since: time of the block that let it begin, ms since 1970; 0 before.
    """

    boards: int = 0
    done: int = 0
    failed: int = 0
    since: int = 0

    def value(self) -> list[int]:
        """The array that stands for it."""
        return [self.boards, self.done, self.failed, self.since]


@dataclass(frozen=True)
class RolloutRecord:
    """A rollout and what has become of it.

    Attributes:
        id: of its transaction; `payload`, of it; `body`, parsed.
        proposer, approver: key ids; the latter empty before there is one.
        status: one of STATUSES.
        reason: why it is stopped, paused or withdrawn: a member's words, or which group failed.
        group: number of the latest group that has begun; -1 before there is one.
        release, back: what it brings, and what boards get if that is taken back.
        counts: of each group; empty before the approval.
    """

    id: bytes
    proposer: bytes
    payload: bytes = field(repr=False)
    body: Rollout = field(compare=False)
    release: Offered
    back: Offered | None
    approver: bytes = b""
    status: Status = "proposed"
    reason: str = ""
    group: int = -1
    counts: tuple[GroupCount, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it may still go on."""
        return self.status in ("proposed", "running", "paused")

    @property
    def is_offered(self) -> bool:
        """Whether boards of the groups that have begun are to install its release."""
        return self.status in ("running", "paused")

    @property
    def model_id(self) -> bytes:
        """What packs say of the model."""
        return self.body.model[:8]

    def value(self) -> list[Any]:
        """The array that stands for it."""
        return [
            self.id,
            self.proposer,
            self.approver,
            self.status,
            self.reason,
            self.group + 1,
            self.payload,
            self.release.value(),
            None if self.back is None else self.back.value(),
            [count.value() for count in self.counts],
        ]

    @classmethod
    def parse(cls, value: Any, device_type: str) -> RolloutRecord:
        """Read it; raises ProtocolError."""
        fields = array(value, "entry.rollout", length=10)
        id_, proposer, approver, status, reason, group, payload, release, back, counts = fields
        if status not in STATUSES:
            raise FormatError("entry.rollout.status", f"is {status!r}")
        if not isinstance(payload, bytes):
            raise FormatError("entry.rollout.payload", "is not a byte string")
        return cls(
            id=octets(id_, "entry.rollout.id", HASH_BYTES),
            proposer=octets(proposer, "entry.rollout.proposer", KID_BYTES),
            approver=b""
            if approver == b""
            else octets(approver, "entry.rollout.approver", KID_BYTES),
            status=cast("Status", status),
            reason=text(reason, "entry.rollout.reason", MAX_TEXT_CHARS, allow_empty=True),
            group=uint(group, "entry.rollout.group", MAX_GROUPS) - 1,
            payload=payload,
            body=Rollout.decode(payload),
            release=_offered(release, device_type),
            back=None if back is None else _offered(back, device_type),
            counts=tuple(
                GroupCount(*(uint(n, "entry.rollout.counts") for n in array(item, "entry", 4)))
                for item in array(counts, "entry.rollout.counts", at_most=MAX_GROUPS)
            ),
        )


@dataclass(frozen=True)
class OfferRecord:
    """What the boards of a device type are offered.

    Attributes:
        stable: what all of them may run; None before the first.
        back: what those get that run the release of a stopped rollout.
        rollout: the present or latest one.
    """

    device_type: str
    stable: Offered | None = None
    back: Offered | None = None
    rollout: RolloutRecord | None = None

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode([OFFER, self.device_type])

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        stable = None if self.stable is None else self.stable.value()
        back = None if self.back is None else self.back.value()
        rollout = None if self.rollout is None else self.rollout.value()
        return encode([OFFER, self.device_type, [stable, back, rollout]])

    @classmethod
    def parse(cls, name: Any, fields: Any) -> OfferRecord:
        """Read an entry's fields; raises ProtocolError."""
        device_type = text(name, "entry.device_type", 64)
        stable, back, rollout = array(fields, "entry", length=3)
        return cls(
            device_type,
            None if stable is None else _offered(stable, device_type),
            None if back is None else _offered(back, device_type),
            None if rollout is None else RolloutRecord.parse(rollout, device_type),
        )

    @property
    def all_offered(self) -> list[Offered]:
        """Every release that a board may be offered, now or later."""
        found = [self.stable, self.back]
        if self.rollout is not None and self.rollout.is_open:
            found += [self.rollout.release, self.rollout.back]
        return [one for one in found if one is not None]


@dataclass(frozen=True)
class BoardRecord:
    """How a board does in its device type's rollout.

    Attributes:
        kid: key id.
        group: number of its group, from 0.
        state: one of BOARD_STATES; `cause`, why it failed.
        verdicts, anomalies: of the new model, in final packs, until the board was done.
        since: time of the block with its first pack under the new model; 0 before.
        heard: time of the block with its latest transaction since its group began; 0 before.
    """

    kid: bytes
    group: int
    state: BoardState = "waiting"
    cause: Cause = ""
    verdicts: int = 0
    anomalies: int = 0
    since: int = 0
    heard: int = 0

    @property
    def entry_key(self) -> bytes:
        """Where the entry stands in the state's tree."""
        return encode([BOARD, self.kid])

    def entry(self) -> bytes:
        """Encode the tree's entry."""
        how = [self.state, self.cause, self.verdicts, self.anomalies, self.since, self.heard]
        return encode([BOARD, self.kid, [self.group, *how]])

    @classmethod
    def parse(cls, name: Any, fields: Any) -> BoardRecord:
        """Read an entry's fields; raises ProtocolError."""
        group, state, cause, verdicts, anomalies, since, heard = array(fields, "entry", length=7)
        if state not in BOARD_STATES or cause not in CAUSES:
            raise FormatError("entry.state", f"is {state!r}, {cause!r}")
        return cls(
            octets(name, "entry.kid", KID_BYTES),
            uint(group, "entry.group", MAX_GROUPS - 1),
            cast("BoardState", state),
            cast("Cause", cause),
            *(uint(n, "entry") for n in (verdicts, anomalies, since, heard)),
        )

    def failed(self, cause: Cause) -> BoardRecord:
        """Return it as failed."""
        return replace(self, state="failed", cause=cause)


def _offered(value: Any, device_type: str) -> Offered:
    name, version, manifest, bundle, size, id_ = array(value, "entry.offered", length=6)
    return Offered(
        text(name, "entry.offered.name", 64),
        uint(version, "entry.offered.version", at_least=1),
        device_type,
        octets(manifest, "entry.offered.manifest", HASH_BYTES),
        octets(bundle, "entry.offered.bundle", HASH_BYTES),
        uint(size, "entry.offered.size"),
        octets(id_, "entry.offered.id", HASH_BYTES),
    )
