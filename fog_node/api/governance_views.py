"""How what is decided by vote looks over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fog_node.ledger import State
from fog_node.protocol.governance import (
    AddMember,
    Approve,
    Change,
    Propose,
    RevokeCertificate,
    RotateKey,
    SetParameters,
    SetRoles,
    Withdraw,
)
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.member_records import ProposalRecord
from fog_node.protocol.transactions import Body

from .models import ConsortiumView, ProposalView
from .times import iso


def consortium_view(state: State, height: int) -> ConsortiumView:
    """What holds in the consortium."""
    return ConsortiumView(
        name=state.founding.name,
        height=height,
        quorum_rule=state.quorum_rule,
        quorum=state.quorum,
        validators=len(state.validators),
        voters=[kid_hex(kid) for kid in state.voters()],
        parameters=asdict(state.parameters),
        revoked_certificates=sorted(serial.hex() for serial in state.membership.certificates),
    )


def proposal_view(record: ProposalRecord, state: State) -> ProposalView:
    """A proposal, and how it stands."""
    return ProposalView(
        id=record.id.hex(),
        proposer=_name(record.proposer, state),
        opened=record.opened,
        until=iso(record.body.until),
        note=record.body.note,
        changes=[change_view(change) for change in record.body.changes],
        outcome=record.outcome,
        closed=record.closed or None,
        approvals=[_name(kid, state) for kid in record.approvals],
        missing=state.membership.missing_approvals(record) if record.is_open else 0,
    )


def change_view(change: Change) -> dict[str, Any]:
    """One change of a proposal."""
    view: dict[str, Any] = {"change": change.change}
    match change:
        case AddMember():
            view |= {
                "name": change.name,
                "kid": kid_hex(change.key.kid),
                "key": change.key.xy.hex(),
                "roles": sorted(change.roles),
            }
        case SetRoles():
            view |= {"member": kid_hex(change.member), "roles": sorted(change.roles)}
        case RotateKey():
            view |= {
                "member": kid_hex(change.member),
                "kid": kid_hex(change.key.kid),
                "key": change.key.xy.hex(),
            }
        case SetParameters():
            view |= {**dict(change.parameters)}
            view |= {} if change.quorum is None else {"quorum": change.quorum}
        case RevokeCertificate():
            view |= {"serial": change.serial.hex()}
        case _:
            view |= {
                name: value.hex() if isinstance(value, bytes) else value
                for name, value in change.value().items()
            }
    return view


def governance_body(body: Body) -> dict[str, Any] | None:
    """The body of a transaction of these kinds; None for another."""
    if isinstance(body, Propose):
        return {
            "changes": [change_view(change) for change in body.changes],
            "note": body.note,
            "until": iso(body.until),
        }
    if isinstance(body, Approve | Withdraw):
        return {"proposal": body.proposal.hex()}
    return None


def _name(kid: bytes, state: State) -> str:
    return state.name_of(kid) or kid_hex(kid)
