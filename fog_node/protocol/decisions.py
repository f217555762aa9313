"""How the membership changes: proposals, approvals, evidence, and what a decision does.

The functions that take a transaction return the records that came, changed or went and change
nothing themselves, so that a refusal leaves all as it was; `Membership.put` takes them in.
Signatures are checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields, replace

from .block import target_from_bits
from .errors import ProtocolError, RuleError
from .founding import Parameters, quorum_of
from .governance import (
    AddMember,
    Approve,
    Change,
    Propose,
    Reinstate,
    RemoveMember,
    RevokeCertificate,
    RotateKey,
    SetParameters,
    SetRoles,
    Withdraw,
)
from .member_records import (
    GovernanceRecord,
    MemberRecord,
    Outcome,
    ProposalRecord,
    RetiredKey,
    RevokedCertificate,
    Settings,
    Status,
)
from .members import MAX_MEMBERS, Member
from .membership import Changed, Membership
from .transactions import Evidence, Transaction
from .votes import MAX_VALIDATORS

# Open proposals of one validator. Those of whoever is no validator are void, so that there
# are never more than this times MAX_VALIDATORS, and nobody crowds out anybody else's.
MAX_OPEN_PER_PROPOSER = 4
# A proposal may stay open for so long.
MAX_OPEN_MS = 90 * 24 * 3_600_000
# Decided ones that are kept, for people to see what became of them.
MAX_CLOSED = 32
# One decision makes proof of work at most so much harder, so that the next can undo it.
MAX_BITS_FACTOR = 16
# What a vote cannot change, as boards have it in every pack.
FIXED_PARAMETERS = ("enterprise_number",)


@dataclass(frozen=True)
class _When:
    """What a change depends on beside the membership.

    Attributes:
        height: of the block that decides it.
        proposal: id of its transaction.
        devices: key ids of boards, which no member may have.
    """

    height: int
    proposal: bytes
    devices: Container[bytes]


def proposed(
    membership: Membership,
    signer: MemberRecord,
    transaction: Transaction,
    height: int,
    time: int,
    devices: Container[bytes],
    *,
    is_sealed: bool = True,
) -> list[Changed]:
    """What a `propose` changes.

    Args:
        signer: its record as it is after the transaction.
        transaction: the `propose`.
        height: of the block that holds it.
        time: of that block, ms since 1970.
        devices: key ids of boards, which no member may have.
        is_sealed: whether it is in that block; else it is to wait for a later one, and the
            term that the block's time allows is seen then.

    Raises:
        RuleError: names the field.
    """
    body = transaction.body
    assert isinstance(body, Propose)
    own = sum(record.proposer == signer.kid for record in membership.open_proposals())
    if own >= MAX_OPEN_PER_PROPOSER:
        raise RuleError(
            "propose", f"{own} proposals of {signer.name} are open", "withdraw one first"
        )
    if body.until <= time:
        raise RuleError("propose.until", f"is not after the block's time {time}")
    if is_sealed and body.until > time + MAX_OPEN_MS:
        raise RuleError("propose.until", f"is over {MAX_OPEN_MS} ms after the block's time {time}")
    after = _after(membership, signer)
    try:
        _change_all(after, body.changes, _When(height, transaction.id, devices))
    except ProtocolError as error:
        raise RuleError(error.field, error.problem, error.remedy) from error
    record = ProposalRecord(
        transaction.id, signer.kid, height, transaction.message.payload, body, (signer.kid,)
    )
    after = _after(membership, signer, record)
    _decide(after, height, devices)
    return after.changes_since(membership)


def approved(
    membership: Membership,
    signer: MemberRecord,
    approve: Approve,
    height: int,
    devices: Container[bytes],
) -> list[Changed]:
    """What an `approve` changes; arguments and errors as of `proposed`."""
    record = _open(membership, approve.proposal, "approve.proposal")
    if signer.kid in record.approvals:
        raise RuleError("approve.proposal", f"{signer.name} has approved it already")
    after = _after(membership, signer, record.with_approval(signer.kid))
    _decide(after, height, devices)
    return after.changes_since(membership)


def withdrawn(
    membership: Membership, signer: MemberRecord, withdraw: Withdraw, height: int
) -> list[Changed]:
    """What a `withdraw` changes; arguments and errors as of `proposed`."""
    record = _open(membership, withdraw.proposal, "withdraw.proposal")
    after = _after(membership, signer)
    if signer.kid == record.proposer:
        _close(after, record, "withdrawn", height)
    elif signer.kid in record.approvals:
        after.put(record.without_approval(signer.kid))
    else:
        raise RuleError("withdraw.proposal", f"{signer.name} has not approved it")
    return after.changes_since(membership)


def accused(membership: Membership, signer: MemberRecord, evidence: Evidence) -> list[Changed]:
    """What `evidence` changes; arguments and errors as of `proposed`."""
    offender = membership.members.get(evidence.offender)
    if offender is None or not offender.is_validator:
        raise RuleError("evidence.votes", f"{evidence.offender.hex()} is no validator")
    if offender.status != "active":
        raise RuleError("evidence.votes", f"{offender.name} is {offender.status} already")
    if evidence.first.height <= offender.cleared:
        raise RuleError(
            "evidence.votes",
            f"{offender.name} was cleared of its votes up to height {offender.cleared}",
        )
    can_be_spared = len(membership.voters()) > membership.quorum
    status: Status = "suspended" if can_be_spared else "accused"
    if offender.kid == signer.kid:
        return [replace(signer, status=status)]
    return [signer, replace(offender, status=status)]


def expired(membership: Membership, height: int, time: int) -> list[Changed]:
    """What changes because a block has this time: proposals whose term is over."""
    late = [record for record in membership.open_proposals() if record.body.until < time]
    if not late:
        return []
    after = membership.copy()
    for record in late:
        _close(after, record, "expired", height)
    return after.changes_since(membership)


def _open(membership: Membership, proposal: bytes, field: str) -> ProposalRecord:
    record = membership.proposals.get(proposal)
    if record is None:
        raise RuleError(field, f"{proposal.hex()} is no proposal that is open")
    if not record.is_open:
        raise RuleError(field, f"{proposal.hex()} is {record.outcome} already")
    return record


def _decide(membership: Membership, height: int, devices: Container[bytes]) -> None:
    """Apply what has its approvals, and what has them by the smaller quorum that follows."""
    while ready := [p for p in membership.open_proposals() if not membership.missing_approvals(p)]:
        record = ready[0]
        after = membership.copy()
        try:
            _change_all(after, record.body.changes, _When(height, record.id, devices))
        except ProtocolError:
            _close(membership, record, "failed", height)
        else:
            membership.adopt(after)
            _close(membership, record, "applied", height)
            _forget_former_validators(membership, height)


def _forget_former_validators(membership: Membership, height: int) -> None:
    """Nothing counts any more that was proposed or approved by who is no validator now."""
    kids = {record.kid for record in membership.validators}
    for record in membership.open_proposals():
        kept = tuple(kid for kid in record.approvals if kid in kids)
        trimmed = replace(record, approvals=kept)
        if record.proposer not in kids:
            _close(membership, trimmed, "void", height)
        elif kept != record.approvals:
            membership.put(trimmed)


def _close(membership: Membership, record: ProposalRecord, outcome: Outcome, height: int) -> None:
    membership.put(replace(record, outcome=outcome, closed=height))
    closed = [item for item in membership.proposals.values() if not item.is_open]
    if len(closed) > MAX_CLOSED:
        oldest = min(closed, key=lambda item: (item.closed, item.opened, item.id))
        del membership.proposals[oldest.id]


def _change_all(membership: Membership, changes: Sequence[Change], when: _When) -> None:
    """Make all the changes; raises ProtocolError where one does not fit, or all do not."""
    easiest = target_from_bits(membership.parameters.bits)
    for index, change in enumerate(changes):
        _change(membership, change, f"changes[{index}]", when)
    names = len(membership.members)
    if names > MAX_MEMBERS:
        raise RuleError("changes", f"make {names} members, at most {MAX_MEMBERS} may ever be")
    count, voters = len(membership.validators), len(membership.voters())
    if not 1 <= count <= MAX_VALIDATORS:
        raise RuleError("changes", f"leave {count} validators, 1 to {MAX_VALIDATORS} must be")
    if voters < membership.quorum:
        raise RuleError(
            "changes",
            f"leave {voters} validators that vote, and {membership.quorum} would have to: no block "
            "could follow",
        )
    if target_from_bits(membership.parameters.bits) < easiest // MAX_BITS_FACTOR:
        raise RuleError(
            "changes.bits", f"is over {MAX_BITS_FACTOR} times harder", "go there in steps"
        )


def _change(membership: Membership, change: Change, field: str, when: _When) -> None:
    match change:
        case AddMember():
            _add(membership, change, field, when)
        case RemoveMember():
            membership.put(replace(_trusted(membership, change.member, field), status="revoked"))
        case SetRoles():
            record = _trusted(membership, change.member, field)
            member = replace(record.member, roles=change.roles)
            order = record.order
            if "validator" in change.roles and not record.is_validator:
                order = _last_order(membership) + 1
            membership.put(replace(record, member=member, order=order))
        case RotateKey():
            _rotate(membership, change, field, when)
        case SetParameters():
            _set_parameters(membership, change, field, when)
        case RevokeCertificate():
            if change.serial in membership.certificates:
                raise RuleError(f"{field}.serial", "is revoked already")
            membership.put(RevokedCertificate(change.serial, when.height))
        case Reinstate():
            record = _trusted(membership, change.member, field)
            if record.status == "active":
                raise RuleError(f"{field}.member", f"{record.name} is active")
            membership.put(replace(record, status="active", cleared=when.height))


def _add(membership: Membership, change: AddMember, field: str, when: _When) -> None:
    _check_new(membership, change.key.kid, f"{field}.key", when.devices)
    if any(record.name == change.name for record in membership.members.values()):
        raise RuleError(
            f"{field}.name",
            f"{change.name!r} is or was a member's",
            "rotate that member's key, or choose another name",
        )
    order = _last_order(membership) + 1 if "validator" in change.roles else 0
    member = Member(change.name, change.key, change.roles)
    membership.put(MemberRecord(member, order, introduced=when.proposal))


def _rotate(membership: Membership, change: RotateKey, field: str, when: _When) -> None:
    record = _trusted(membership, change.member, field)
    _check_new(membership, change.key.kid, f"{field}.key", when.devices)
    if change.name != record.name:
        raise RuleError(f"{field}.proof.name", f"is {change.name}, not {record.name}")
    old = RetiredKey(record.key, change.key.kid, when.height, record.introduced)
    member = replace(record.member, key=change.key)
    new = replace(record, member=member, next=1, cleared=when.height, introduced=when.proposal)
    membership.put(old)
    membership.put(new)


def _set_parameters(membership: Membership, change: SetParameters, field: str, when: _When) -> None:
    known = {item.name for item in fields(Parameters)}
    for name, _ in change.parameters:
        if name not in known:
            raise RuleError(f"{field}.{name}", "is no parameter of the chain")
        if name in FIXED_PARAMETERS:
            raise RuleError(f"{field}.{name}", "is fixed for ever: boards have it")
    parameters = replace(membership.parameters, **dict(change.parameters))
    parameters.validate(field)
    rule = change.quorum or membership.settings.quorum_rule
    quorum_of(rule, 1)
    membership.put(Settings(rule, parameters, when.height))


def _trusted(membership: Membership, kid: bytes, field: str) -> MemberRecord:
    record = membership.members.get(kid)
    if record is None:
        what = "a key that was replaced" if kid in membership.retired else "no member"
        raise RuleError(f"{field}.member", f"{kid.hex()} is {what}")
    if record.status == "revoked":
        raise RuleError(f"{field}.member", f"{record.name} was removed for good")
    return record


def _check_new(membership: Membership, kid: bytes, field: str, devices: Container[bytes]) -> None:
    if kid in membership.members or kid in membership.retired or kid in devices:
        raise RuleError(field, f"{kid.hex()} is or was in use", "make a new key")


def _after(membership: Membership, *records: GovernanceRecord) -> Membership:
    after = membership.copy()
    for record in records:
        after.put(record)
    return after


def _last_order(membership: Membership) -> int:
    return max((record.order for record in membership.members.values()), default=0)
