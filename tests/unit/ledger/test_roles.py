"""Which role may send which kind: the table of the ledger's README, each cell of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fog_node.errors import LedgerError
from fog_node.ledger import State
from fog_node.protocol.founding import ROLES
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.members import Member
from fog_node.protocol.transactions import (
    BOARD_KINDS,
    KINDS,
    RolloutApprove,
    RolloutControl,
    RolloutReport,
)

ALLOWED: dict[str, tuple[str, ...]] = {
    "rollout": ("trainer", "operator"),
    "rollout-approve": ("trainer", "operator"),
    "rollout-control": ("trainer", "operator"),
    "rollout-report": ("gateway",),
    "label": ("operator", "trainer"),
    "enrol": ("operator",),
    "revoke": ("operator",),
    "reinstate-device": ("operator",),
    "test-report": ("operator",),
    "incident": ("gateway",),
    "clone": ("gateway",),
    "release": ("trainer",),
    "evidence": ("validator",),
    "propose": ("validator",),
    "approve": ("validator",),
    "withdraw": ("validator",),
    "request": ("customer",),
    "response": ("provider",),
    "prediction": ("gateway", "trainer"),
    "drift": ("gateway", "trainer"),
    "training-round": ("trainer",),
}
SIGNER = SigningKey.from_secret(4242)
BOARD = SigningKey.from_secret(4243)
OTHER_BOARD = SigningKey.from_secret(4244)


def transaction_of(consortium, kind: str, by: SigningKey, proposal):
    """A valid transaction of this kind, but for who signs it."""
    make = {
        "pack": lambda: consortium.pack(by, 1),
        "alert": lambda: consortium.alert(by, 1, 2),
        "gap": lambda: consortium.gap(by, 1, 3),
        "enrol": lambda: consortium.enrol(OTHER_BOARD, by=by, sequence=1),
        "revoke": lambda: consortium.revoke(BOARD.kid, by=by, sequence=1),
        "reinstate-device": lambda: consortium.reinstate(OTHER_BOARD.kid, by=by, sequence=1),
        "test-report": lambda: consortium.test_report(by=by, sequence=1),
        "label": lambda: consortium.label(by=by, sequence=1),
        "prediction": lambda: consortium.prediction(by=by, sequence=1),
        "drift": lambda: consortium.drift(by=by, sequence=1),
        "incident": lambda: consortium.incident(by, sequence=1),
        "clone": lambda: consortium.clone(
            by, consortium.pack(BOARD, 1), consortium.pack(BOARD, 1, value=9.0), sequence=1
        ),
        "training-round": lambda: consortium.training_round(by=by, sequence=1),
        "release": lambda: consortium.release(1, by=by, sequence=1),
        "evidence": lambda: consortium.sign(
            by, consortium.evidence(consortium.validators[1], by=by).body, 1
        ),
        "propose": lambda: consortium.propose(by, consortium.adding("new", "trainer"), sequence=1),
        "approve": lambda: consortium.approve(by, proposal, sequence=1),
        "withdraw": lambda: consortium.withdraw(by, proposal, sequence=1),
        "rollout": lambda: consortium.rollout(by=by, sequence=1),
        "rollout-approve": lambda: consortium.sign(by, RolloutApprove(proposal.id), 1),
        "rollout-control": lambda: consortium.sign(
            by, RolloutControl(proposal.id, "rollback", "why"), 1
        ),
        "rollout-report": lambda: consortium.sign(
            by, RolloutReport(proposal.id, BOARD.kid, "refused", "why", 0), 1
        ),
        "request": lambda: consortium.request(None, by=by, sequence=1),
        "response": lambda: consortium.response(bytes(32), by=by),
    }
    return make[kind]()


def test_the_table_is_complete():
    assert set(ALLOWED) | set(BOARD_KINDS) == set(KINDS)


@pytest.mark.parametrize("role", [*ROLES, "none", "board"])
@pytest.mark.parametrize("kind", KINDS)
def test_who_may_send_what(make_consortium, kind, role):
    consortium = make_consortium(staged_releases=int(kind.startswith("rollout")))
    if role != "board":
        roles = frozenset() if role == "none" else frozenset({role})
        member = Member("someone", SIGNER.public, roles)
        consortium.founding = replace(
            consortium.founding, members=(*consortium.founding.members, member)
        )
    state = State.at_founding(consortium.founding)
    first = consortium.validators[0]
    proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
    enrolments = [consortium.enrol(BOARD)]
    if kind.startswith("rollout"):
        enrolments.append(consortium.release(1))
    if kind.startswith("rollout-"):
        proposal = consortium.rollout()
    if role == "board":
        enrolments.append(consortium.enrol(SIGNER))
    if kind == "reinstate-device":
        enrolments.append(consortium.enrol(OTHER_BOARD))
    for transaction in (*enrolments, proposal):
        state.apply(transaction, 5)
    if kind == "reinstate-device":
        pair = [consortium.pack(OTHER_BOARD, 1, value=value) for value in (1.0, 2.0)]
        state.apply(consortium.clone(first, *pair), 5)
    if kind == "withdraw" and role == "validator":
        state.apply(consortium.approve(SIGNER, proposal, sequence=1), 5)
    if kind == "alert" and role == "board":
        state.apply(consortium.pack(SIGNER, 1), 5)
    transaction = transaction_of(consortium, kind, SIGNER, proposal)
    if kind == "withdraw" and role == "validator":
        transaction = consortium.withdraw(SIGNER, proposal, sequence=2)
    may = role == "board" if kind in BOARD_KINDS else role in ALLOWED[kind]
    if may:
        state.apply(transaction, 5)
        return
    with pytest.raises(LedgerError) as caught:
        state.apply(transaction, 5)
    assert caught.value.cause == "role"
