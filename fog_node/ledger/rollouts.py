"""How rollouts go: pure rules, from what is final alone, so that every node and auditor agrees.

`Rollouts` holds the records of one state. The functions say which records a transaction, or the
time of a block, changes; they change nothing themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from fog_node.protocol.errors import RuleError
from fog_node.protocol.member_records import Gone
from fog_node.protocol.rollouts import (
    PAUSE,
    REFUSED,
    RESUME,
    ROLLED_BACK,
    Named,
    Rollout,
    RolloutControl,
    RolloutReport,
)
from fog_node.protocol.transactions import Body, PackBody

from .records import Device, ReleaseRecord
from .rollout_records import (
    BOARD,
    BoardRecord,
    GroupCount,
    Offered,
    OfferRecord,
    RolloutRecord,
)

Changed = OfferRecord | BoardRecord | Gone
_MODEL_ID_NAME = b"model/id"
# CBOR's head of a byte string of 8 bytes.
_EIGHT_BYTES = b"\x48"


@dataclass
class Rollouts:
    """Offers by device type, and boards by key id."""

    offers: dict[str, OfferRecord] = field(default_factory=dict)
    boards: dict[bytes, BoardRecord] = field(default_factory=dict)

    def copy(self) -> Rollouts:
        """Return an independent one with the same content."""
        return Rollouts(dict(self.offers), dict(self.boards))

    def put(self, record: Changed) -> None:
        """Take a record in, or one away."""
        if isinstance(record, OfferRecord):
            self.offers[record.device_type] = record
        elif isinstance(record, BoardRecord):
            self.boards[record.kid] = record
        elif record.place[0] == BOARD:
            self.boards.pop(record.place[1], None)

    def records(self) -> list[OfferRecord | BoardRecord]:
        """All of them."""
        return [*self.offers.values(), *self.boards.values()]

    def offered(self, device: Device) -> Offered | None:
        """What a board is to run; None where its device type has nothing, or no record yet."""
        offer = self.offers.get(device.type)
        return None if offer is None else offered(offer, self.boards.get(device.kid))

    def named(self, id_: bytes, where: str) -> OfferRecord:
        """Return the record whose present or latest rollout has this id; raises RuleError."""
        for offer in self.offers.values():
            if offer.rollout is not None and offer.rollout.id == id_:
                return offer
        raise RuleError(where, "is no device type's present or latest rollout")


def offered(offer: OfferRecord, board: BoardRecord | None) -> Offered | None:
    """What a board is to run: its group's release, the way back, or what all have."""
    rollout = offer.rollout
    if rollout is not None and rollout.is_offered and board is not None:
        is_refused = board.cause in (REFUSED, ROLLED_BACK)  # boards do so for good
        if board.group <= rollout.group and not is_refused:
            return rollout.release
    return offer.back or offer.stable


def newest(releases: Iterable[ReleaseRecord], device_type: str) -> ReleaseRecord | None:
    """Return the release that a device type's boards get where nothing says otherwise."""
    found = (record for record in releases if record.release.device_type == device_type)
    return max(found, key=age, default=None)


def age(record: ReleaseRecord) -> tuple[int, int, str]:
    """Sort releases by this: the newest last."""
    return record.height, record.release.version, record.release.name


# Transactions ---------------------------------------------------------------------------------


def released(
    rollouts: Rollouts, before: ReleaseRecord | None, record: ReleaseRecord, is_staged: bool
) -> list[Changed]:
    """A model was released: offered to all boards at once, unless releases are staged.

    Args:
        rollouts: as they stand.
        before: the newest release of the device type until now.
        record: the release.
        is_staged: whether the chain's parameter says so.

    Raises:
        RuleError: it would overtake a rollout.
    """
    device_type = record.release.device_type
    offer = rollouts.offers.get(device_type)
    if is_staged:
        if offer is not None:
            return []
        stable = None if before is None else Offered.of(before.release, before.id)
        return [OfferRecord(device_type, stable)]
    if offer is None:
        return []
    if offer.rollout is not None and offer.rollout.is_open:
        raise RuleError(
            "release.device_type",
            "has an open rollout, and this release would be for all boards at once",
            "let it finish, or roll it back, first",
        )
    return [replace(offer, stable=Offered.of(record.release, record.id), back=None)]


def proposed(
    rollouts: Rollouts,
    releases: Mapping[tuple[str, str], ReleaseRecord],
    devices: Mapping[bytes, Device],
    proposal: tuple[bytes, bytes, bytes],
    body: Rollout,
) -> list[Changed]:
    """A member asks for a rollout.

    Args:
        rollouts, releases, devices: as they stand.
        proposal: id and payload of the transaction, and its signer.
        body: of it.

    Raises:
        RuleError: it does not fit.
    """
    offer = rollouts.offers.get(body.device_type)
    if offer is None:
        raise RuleError(
            "rollout.device_type",
            "has no release that waits for a rollout: they are for all boards at once",
            "have the validators set the parameter staged_releases to 1, and release after that",
        )
    if offer.rollout is not None and offer.rollout.is_open:
        raise RuleError(
            "rollout.device_type",
            f"has the open rollout {offer.rollout.id.hex()[:16]}",
            "let it finish, or roll it back, first",
        )
    release = _released(releases, body.device_type, body.release, "rollout.release")
    back = None
    if body.back is not None:
        back = _released(releases, body.device_type, body.back, "rollout.back")
    for known in (offer.stable, offer.back):
        if known is not None and release.version <= known.version:
            raise RuleError(
                "rollout.release.version",
                f"is not above {known.version}, which boards may run; they refuse it",
                "release it again: it gets a higher version",
            )
    if (back is None) != (offer.stable is None):
        problem = "names none" if back is None else "is given, and there was nothing before"
        raise RuleError(
            "rollout.back", problem, "name a release of what boards run now, or null on a first one"
        )
    for kid in (kid for group in body.groups for kid in group.boards):
        device = devices.get(kid)
        if device is None or device.type != body.device_type or device.status == "revoked":
            raise RuleError("rollout.groups", f"{kid.hex()} is no board of {body.device_type}")
    id_, payload, signer = proposal
    record = RolloutRecord(id_, signer, payload, body, release, back)
    return [replace(offer, rollout=record)]


def approved(
    offer: OfferRecord, approver: bytes, devices: Iterable[Device], time: int
) -> list[Changed]:
    """A second member is for it: the boards are dealt, and the first group begins.

    Raises:
        RuleError: it waits for no approval.
    """
    rollout = _present(offer)
    if rollout.status != "proposed":
        raise RuleError("rollout-approve.rollout", f"is {rollout.status}, not proposed")
    kids = [d.kid for d in devices if d.type == offer.device_type and d.status != "revoked"]
    groups = deal(rollout.body, kids)
    boards = [BoardRecord(kid, group) for kid, group in sorted(groups.items())]
    counts = [0] * len(rollout.body.groups)
    for board in boards:
        counts[board.group] += 1
    begun = replace(
        rollout,
        approver=approver,
        status="running",
        counts=tuple(GroupCount(count) for count in counts),
    )
    return [*boards, _go_on(replace(offer, rollout=begun), time)]


def deal(rollout: Rollout, kids: Iterable[bytes]) -> dict[bytes, int]:
    """Number of each board's group.

    Boards that a group names are its own. All boards stand in the order of the SHA-256 of the
    bundle's hash and their key id; a group of p percent has those of the first p percent,
    rounded up, that are in no group yet. So who is first differs from release to release, and
    nobody can choose it.
    """
    order = sorted(kids, key=lambda kid: hashlib.sha256(rollout.release.bundle + kid).digest())
    known = set(order)
    dealt = {
        kid: number
        for number, group in enumerate(rollout.groups)
        for kid in group.boards
        if kid in known
    }
    for number, group in enumerate(rollout.groups):
        if group.percent is not None:
            for kid in order[: -(-len(order) * group.percent // 100)]:
                dealt.setdefault(kid, number)
    return dealt


def controlled(offer: OfferRecord, control: RolloutControl, time: int) -> list[Changed]:
    """A member pauses it, lets it go on, or rolls it back; raises RuleError."""
    rollout = _present(offer)
    wanted = {PAUSE: ("running",), RESUME: ("paused",)}.get(
        control.action, ("proposed", "running", "paused", "finished")
    )
    if rollout.status not in wanted:
        raise RuleError(
            "rollout-control.action",
            f"{control.action} of a rollout that is {rollout.status}",
            f"it must be {' or '.join(wanted)}",
        )
    if control.action == PAUSE:
        return [replace(offer, rollout=replace(rollout, status="paused", reason=control.reason))]
    if control.action == RESUME:
        running = replace(rollout, status="running", reason="")
        return [_go_on(replace(offer, rollout=running), time)]
    if rollout.status == "proposed":
        ended = replace(rollout, status="withdrawn", reason=control.reason)
        return [replace(offer, rollout=ended)]
    if rollout.status == "finished" and (rollout.back is None or offer.stable != rollout.release):
        raise RuleError("rollout-control.rollout", "is finished, and has no way back any more")
    return [_stop(offer, control.reason)]


def reported(
    rollouts: Rollouts, devices: Mapping[bytes, Device], report: RolloutReport, time: int
) -> list[Changed]:
    """A gateway passes on that a board did not take the release, or gave it up.

    What several gateways say, or say too late, changes nothing: none of them is wrong.
    """
    device, board = devices.get(report.device), rollouts.boards.get(report.device)
    offer = None if device is None else rollouts.offers.get(device.type)
    if offer is None or board is None or offer.rollout is None or device is None:
        return []
    rollout = offer.rollout
    if rollout.id != report.rollout or not rollout.is_offered or board.group > rollout.group:
        return []
    if device.status == "revoked" or board.state in ("failed", "returned"):
        return []
    after = board.failed("refused" if report.outcome == REFUSED else "rolled-back")
    return [after, _counted(offer, board, after, time)]


def heard(offer: OfferRecord, board: BoardRecord, body: Body, time: int) -> list[Changed]:
    """Something that a board signed is final: what it says of the model that the board runs."""
    rollout = offer.rollout
    if rollout is None or board.group > rollout.group:
        return []
    if rollout.is_offered:
        after = _doing(rollout, board, body, time)
    elif rollout.status == "stopped":
        after = _returning(rollout, board, body)
    else:
        return []
    if after == board:
        return []
    if after.state == board.state or not rollout.is_offered:
        return [after]
    return [after, _counted(offer, board, after, time)]


def revoked(offer: OfferRecord, board: BoardRecord, time: int) -> list[Changed]:
    """A board's key is revoked: it belongs to no group any more."""
    gone = Gone((BOARD, board.kid))
    rollout = offer.rollout
    if rollout is None or not rollout.is_offered:
        return [gone]
    return [gone, _counted(offer, board, None, time)]


# Time -----------------------------------------------------------------------------------------


def silenced(
    rollouts: Rollouts,
    type_of: Callable[[bytes], str],
    before: int,
    time: int,
    heartbeat_ms: int,
) -> list[Changed]:
    """Which boards have failed by their silence, in a block of this time behind one of `before`.

    Nobody can be heard while the chain itself stands still. So behind a pause of more than two
    heartbeats, and more than half as long as silence may last, it counts anew.
    """
    changed: list[Changed] = []
    for device_type, offer in sorted(rollouts.offers.items()):
        if offer.rollout is None or not offer.rollout.is_offered:
            continue
        limit_ms = offer.rollout.body.silent_s * 1000
        is_pause = time - before > max(limit_ms // 2, 2 * heartbeat_ms)
        current = offer
        for kid, board in sorted(rollouts.boards.items()):
            if not board.heard or board.state not in ("waiting", "trying"):
                continue
            if type_of(kid) != device_type:
                continue
            if is_pause:
                changed.append(replace(board, heard=time))
            elif board.heard + limit_ms < time:
                failed = board.failed("silent")
                changed.append(failed)
                current = _counted(current, board, failed, time)
        if current is not offer:
            changed.append(current)
    return changed


# Steps ----------------------------------------------------------------------------------------


def _doing(rollout: RolloutRecord, board: BoardRecord, body: Body, time: int) -> BoardRecord:
    """A board to which the release is offered, after one of its transactions."""
    if board.state in ("failed", "returned"):
        return board
    is_new = _runs(body, rollout.model_id)
    if board.state == "done":
        return board.failed("rolled-back") if is_new is False else board
    after = replace(board, heard=time)
    if is_new is not True:
        gave_up = is_new is False and board.state == "trying"
        return after.failed("rolled-back") if gave_up else after
    assert isinstance(body, PackBody)
    verdicts = body.pack.verdicts
    after = replace(
        after,
        state="trying",
        verdicts=board.verdicts + len(verdicts),
        anomalies=board.anomalies + sum(verdict.anomaly for verdict in verdicts),
        since=board.since or time,
    )
    terms = rollout.body
    if after.verdicts < terms.verdicts or time < after.since + terms.soak_s * 1000:
        return after
    if after.anomalies * 100 > terms.anomalies * after.verdicts:
        return after.failed("anomalies")
    return replace(after, state="done")


def _returning(rollout: RolloutRecord, board: BoardRecord, body: Body) -> BoardRecord:
    """A board of a rollout that was stopped: whether it runs another model again."""
    if board.since and board.state != "returned" and _runs(body, rollout.model_id) is False:
        return replace(board, state="returned")
    return board


def _runs(body: Body, model_id: bytes) -> bool | None:
    """Whether a pack is of this model; None for one without verdicts, and what is no pack."""
    if not isinstance(body, PackBody) or _MODEL_ID_NAME not in body.payload:
        return None
    if _EIGHT_BYTES + model_id not in body.payload:
        # The name alone may stand in a text, but only a record's name does so in a valid pack.
        return False if body.pack.model is not None else None
    model = body.pack.model
    return None if model is None else model == model_id


def _counted(
    offer: OfferRecord, before: BoardRecord, after: BoardRecord | None, time: int
) -> OfferRecord:
    """The offer after a board's state has changed; `after` None: the board is gone."""
    rollout = _present(offer)
    count = rollout.counts[before.group]
    states = None if after is None else after.state
    count = replace(
        count,
        boards=count.boards - (after is None),
        done=count.done - (before.state == "done") + (states == "done"),
        failed=count.failed - (before.state == "failed") + (states == "failed"),
    )
    offer = replace(offer, rollout=_with_count(rollout, before.group, count))
    group = rollout.body.groups[before.group]
    if not rollout.is_offered:
        return offer
    if count.failed and count.failed * 100 >= group.errors * count.boards:
        return _stop(
            offer, f"group {before.group + 1}: {count.failed} of {count.boards} boards failed"
        )
    return _go_on(offer, time)


def _go_on(offer: OfferRecord, time: int) -> OfferRecord:
    """Begin groups, as far as those before them have done well; finish behind the last."""
    rollout = _present(offer)
    if rollout.status != "running":
        return offer
    while True:
        if rollout.group >= 0:
            count, group = rollout.counts[rollout.group], rollout.body.groups[rollout.group]
            if count.done * 100 < group.success * count.boards:
                return replace(offer, rollout=rollout)
        following = rollout.group + 1
        if following == len(rollout.body.groups):
            finished = replace(rollout, status="finished")
            return replace(offer, stable=rollout.release, back=None, rollout=finished)
        begun = replace(rollout.counts[following], since=time)
        rollout = replace(_with_count(rollout, following, begun), group=following)


def _stop(offer: OfferRecord, reason: str) -> OfferRecord:
    """Offer the release to nobody any more, and the way back to who has it."""
    rollout = _present(offer)
    stopped = replace(rollout, status="stopped", reason=reason)
    if rollout.status == "finished":  # all boards may have it
        return replace(offer, stable=rollout.back, back=None, rollout=stopped)
    return replace(offer, back=rollout.back or offer.back, rollout=stopped)


def _with_count(rollout: RolloutRecord, group: int, count: GroupCount) -> RolloutRecord:
    counts = (*rollout.counts[:group], count, *rollout.counts[group + 1 :])
    return replace(rollout, counts=counts)


def _present(offer: OfferRecord) -> RolloutRecord:
    assert offer.rollout is not None
    return offer.rollout


def _released(
    releases: Mapping[tuple[str, str], ReleaseRecord], device_type: str, named: Named, where: str
) -> Offered:
    record = releases.get((device_type, named.name))
    if (
        record is None
        or record.release.version != named.version
        or record.release.bundle != named.bundle
    ):
        raise RuleError(where, f"is not the latest release of {named.name!r} for {device_type}")
    return Offered.of(record.release, record.id)


__all__ = [
    "Changed",
    "Rollouts",
    "age",
    "approved",
    "controlled",
    "deal",
    "heard",
    "newest",
    "offered",
    "proposed",
    "released",
    "reported",
    "revoked",
    "silenced",
]
