"""How rollouts look over HTTP."""

from __future__ import annotations

from typing import Any

from fog_node.ledger import BoardRecord, Offered, OfferRecord, State
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.rollouts import (
    Group,
    Named,
    Rollout,
    RolloutApprove,
    RolloutControl,
    RolloutReport,
)
from fog_node.protocol.transactions import Body

from .models import OfferedView, OfferView, RolloutBoardView, RolloutGroupView, RolloutView
from .times import iso


def offer_view(offer: OfferRecord, state: State) -> OfferView:
    """What the boards of a device type are offered."""
    return OfferView(
        device_type=offer.device_type,
        stable=_offered(offer.stable),
        back=_offered(offer.back),
        rollout=None if offer.rollout is None else _rollout(offer, state),
    )


def board_view(board: BoardRecord) -> RolloutBoardView:
    """How a board does."""
    return RolloutBoardView(
        kid=kid_hex(board.kid),
        group=board.group + 1,
        state=board.state,
        cause=board.cause or None,
        verdicts=board.verdicts,
        anomalies=board.anomalies,
        since=iso(board.since) if board.since else None,
        heard=iso(board.heard) if board.heard else None,
    )


def rollout_body(body: Body) -> dict[str, Any] | None:
    """The body of a transaction of these kinds; None for another."""
    if isinstance(body, Rollout):
        return {
            "device_type": body.device_type,
            "release": _named(body.release),
            "model": body.model.hex(),
            "back": None if body.back is None else _named(body.back),
            "groups": [_group(group) for group in body.groups],
            "verdicts": body.verdicts,
            "soak_s": body.soak_s,
            "anomalies": body.anomalies,
            "silent_s": body.silent_s,
            "note": body.note,
            "time": iso(body.time),
        }
    if isinstance(body, RolloutApprove):
        return {"rollout": body.rollout.hex()}
    if isinstance(body, RolloutControl):
        return {"rollout": body.rollout.hex(), "action": body.action, "reason": body.reason}
    if isinstance(body, RolloutReport):
        return {
            "rollout": body.rollout.hex(),
            "device": kid_hex(body.device),
            "outcome": body.outcome,
            "reason": body.reason,
            "time": iso(body.time),
        }
    return None


def _rollout(offer: OfferRecord, state: State) -> RolloutView:
    rollout = offer.rollout
    assert rollout is not None
    body = rollout.body
    release = _offered(rollout.release)
    assert release is not None
    counts = rollout.counts
    return RolloutView(
        id=rollout.id.hex(),
        status=rollout.status,
        reason=rollout.reason,
        proposer=state.name_of(rollout.proposer) or kid_hex(rollout.proposer),
        approver=(state.name_of(rollout.approver) or kid_hex(rollout.approver))
        if rollout.approver
        else None,
        release=release,
        back=_offered(rollout.back),
        model=body.model.hex(),
        group=rollout.group + 1,
        groups=[
            RolloutGroupView(
                **_group(group),
                size=counts[number].boards if counts else None,
                done=counts[number].done if counts else 0,
                failed=counts[number].failed if counts else 0,
                since=iso(counts[number].since) if counts and counts[number].since else None,
            )
            for number, group in enumerate(body.groups)
        ],
        verdicts=body.verdicts,
        soak_s=body.soak_s,
        anomalies=body.anomalies,
        silent_s=body.silent_s,
        note=body.note,
    )


def _offered(offered: Offered | None) -> OfferedView | None:
    if offered is None:
        return None
    return OfferedView(
        name=offered.name,
        version=offered.version,
        bundle=offered.bundle.hex(),
        size=offered.size,
        transaction=offered.id.hex(),
    )


def _named(named: Named) -> dict[str, Any]:
    return {"name": named.name, "version": named.version, "bundle": named.bundle.hex()}


def _group(group: Group) -> dict[str, Any]:
    return {
        "percent": group.percent,
        "boards": [kid_hex(kid) for kid in group.boards],
        "success": group.success,
        "errors": group.errors,
    }
