"""What validators decide by vote: each change, who may propose it, and when it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fog_node.errors import LedgerError
from fog_node.ledger import State
from fog_node.protocol import governance
from fog_node.protocol.decisions import MAX_CLOSED, MAX_OPEN_MS, MAX_OPEN_PER_PROPOSER
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import quorum_of
from fog_node.protocol.governance import (
    Reinstate,
    RevokeCertificate,
    SetParameters,
    SetRoles,
)
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Evidence, parse_transaction
from fog_node.protocol.votes import PREVOTE, sign_vote

HEIGHT = 5
VALIDATOR = frozenset({"gateway", "validator"})


@pytest.fixture
def state(consortium) -> State:
    return State.at_founding(consortium.founding)


def apply(state: State, *transactions) -> None:
    for transaction in transactions:
        state.apply(transaction, HEIGHT)


def refusal(state: State, transaction) -> LedgerError:
    """The error that `apply` raises; the state must be as before."""
    before = state.root()
    with pytest.raises(LedgerError) as caught:
        state.apply(transaction, HEIGHT)
    assert state.root() == before
    return caught.value


def decide(consortium, state: State, *changes, by=None, count=None) -> None:
    """Have the validators decide on changes, which must take effect."""
    transactions = consortium.decision(*changes, by=by, count=count)
    apply(state, *transactions)
    assert state.membership.proposals[transactions[0].id].outcome == "applied"


def roles_of(state: State, name: str) -> frozenset[str]:
    return state.member_named(name).roles


class TestDeciding:
    def test_takes_the_quorums_approvals(self, consortium, state):
        first, second, third = consortium.validators[:3]
        proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
        apply(state, proposal, consortium.approve(second, proposal))
        record = state.membership.proposals[proposal.id]
        assert record.is_open
        assert state.membership.missing_approvals(record) == 1
        assert state.member_named("ulsan") is None
        apply(state, consortium.approve(third, proposal))
        record = state.membership.proposals[proposal.id]
        assert (record.outcome, record.opened, record.closed) == ("applied", HEIGHT, HEIGHT)
        assert roles_of(state, "ulsan") == {"trainer"}

    def test_a_single_validator_decides_alone(self, make_consortium):
        alone = make_consortium(validators=1)
        state = State.at_founding(alone.founding)
        apply(state, alone.propose(alone.validators[0], alone.adding("ulsan", "trainer")))
        assert roles_of(state, "ulsan") == {"trainer"}

    def test_takes_two_thirds_where_the_rule_says_so(self, consortium, state):
        decide(consortium, state, SetParameters((), "two-thirds"))
        assert (state.quorum_rule, state.quorum) == ("two-thirds", 4)
        proposal, *approvals = consortium.decision(consortium.adding("ulsan", "trainer"))
        apply(state, proposal, *approvals)
        assert state.membership.proposals[proposal.id].is_open
        apply(state, consortium.approve(consortium.validators[3], proposal))
        assert state.membership.proposals[proposal.id].outcome == "applied"

    def test_a_validator_approves_once(self, consortium, state):
        first, second = consortium.validators[:2]
        proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
        apply(state, proposal, consortium.approve(second, proposal))
        for key in (first, second):
            error = refusal(state, consortium.approve(key, proposal, sequence=2))
            assert error.cause == "rule"
            assert "already" in str(error)

    def test_there_must_be_such_a_proposal(self, consortium, state):
        first, second = consortium.validators[:2]
        proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
        for make in (consortium.approve, consortium.withdraw):
            assert "is no proposal" in str(refusal(state, make(second, proposal, sequence=1)))

    def test_what_is_decided_is_closed(self, consortium, state):
        transactions = consortium.decision(consortium.adding("ulsan", "trainer"))
        apply(state, *transactions)
        late = consortium.approve(consortium.validators[4], transactions[0])
        assert "applied already" in str(refusal(state, late))

    def test_an_approval_counts_only_while_its_giver_votes(self, consortium, state):
        first, second, third, fourth, fifth = consortium.validators
        proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
        apply(state, proposal, consortium.approve(second, proposal))
        apply(state, consortium.evidence(second, by=fifth))
        apply(state, consortium.approve(third, proposal))
        record = state.membership.proposals[proposal.id]
        assert record.is_open
        assert set(state.membership.approvals_that_count(record)) == {first.kid, third.kid}
        apply(state, consortium.approve(fourth, proposal))
        assert state.membership.proposals[proposal.id].outcome == "applied"

    def test_a_smaller_quorum_decides_what_waits(self, consortium, state):
        """A removal lowers the quorum to what another proposal has already."""
        first, second, third, fourth, fifth = consortium.validators
        waiting = consortium.propose(first, consortium.adding("ulsan", "trainer"))
        apply(state, waiting, consortium.approve(second, waiting))
        decide(
            consortium,
            state,
            consortium.removing(fourth),
            consortium.removing(fifth),
            by=[third, second, first],
        )
        assert state.quorum == 2
        assert state.membership.proposals[waiting.id].outcome == "applied"
        assert roles_of(state, "ulsan") == {"trainer"}

    def test_what_no_longer_fits_fails_visibly(self, consortium, state):
        first, second, third = consortium.validators[:3]
        proposal = consortium.propose(
            first, consortium.adding("ulsan", "trainer"), consortium.removing(consortium.owner)
        )
        apply(state, proposal, consortium.approve(second, proposal))
        decide(consortium, state, consortium.removing(consortium.owner))
        apply(state, consortium.approve(third, proposal))
        assert state.membership.proposals[proposal.id].outcome == "failed"
        assert state.member_named("ulsan") is None  # all of it, or nothing

    def test_a_board_that_took_the_key_meanwhile(self, consortium, state):
        key = consortium.member_key("ulsan")
        first, second, third = consortium.validators[:3]
        proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
        apply(state, proposal, consortium.approve(second, proposal), consortium.enrol(key))
        apply(state, consortium.approve(third, proposal))
        assert state.membership.proposals[proposal.id].outcome == "failed"
        assert key.kid in state.devices

    def test_changes_of_one_proposal_build_on_each_other(self, consortium, state):
        added = consortium.adding("ulsan", "trainer")
        decide(consortium, state, added, SetRoles(added.key.kid, VALIDATOR))
        assert roles_of(state, "ulsan") == VALIDATOR
        assert list(state.voters())[-1] == added.key.kid

    @pytest.mark.parametrize("late", [1, 1000])
    def test_expires_after_its_term(self, consortium, state, late):
        until = state.time + 5000
        first, second = consortium.validators[:2]
        proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"), until=until)
        apply(state, proposal)
        state.advance(HEIGHT + 1, until)
        assert state.membership.proposals[proposal.id].is_open
        state.advance(HEIGHT + 2, until + late)
        record = state.membership.proposals[proposal.id]
        assert (record.outcome, record.closed) == ("expired", HEIGHT + 2)
        assert "expired already" in str(refusal(state, consortium.approve(second, proposal)))

    @pytest.mark.parametrize("ahead", [0, -1, MAX_OPEN_MS + 1])
    def test_its_term_is_bounded(self, consortium, state, ahead):
        key, change = consortium.validators[0], consortium.adding("ulsan", "trainer")
        error = refusal(state, consortium.propose(key, change, until=state.time + ahead))
        assert "propose.until" in str(error)

    def test_its_term_is_held_against_the_block_that_seals_it(self, consortium, state):
        """While it waits, the latest block may be long ago."""
        until = state.time + MAX_OPEN_MS + 5000
        proposal = consortium.propose(
            consortium.validators[0], consortium.adding("ulsan", "trainer"), until=until
        )
        state.check(proposal, HEIGHT)
        assert "propose.until" in str(refusal(state, proposal))
        state.advance(HEIGHT, state.time + 5000)
        apply(state, proposal)

    def test_so_many_are_open_per_proposer(self, consortium, state):
        first, second = consortium.validators[:2]
        proposals = [
            consortium.propose(first, consortium.adding(f"m{i}", "trainer"))
            for i in range(MAX_OPEN_PER_PROPOSER)
        ]
        apply(state, *proposals)
        number = state.next_sequence(first.kid)
        more = consortium.propose(first, consortium.adding("one", "trainer"), sequence=number)
        assert "withdraw one" in str(refusal(state, more))
        apply(state, consortium.propose(second, consortium.adding("one", "trainer")))
        apply(state, consortium.withdraw(first, proposals[0], sequence=number))
        number += 1
        apply(
            state, consortium.propose(first, consortium.adding("two", "trainer"), sequence=number)
        )

    def test_the_latest_outcomes_are_kept(self, consortium, state):
        first = consortium.validators[0]
        closed = []
        for height in range(1, MAX_CLOSED + 3):
            proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
            state.apply(proposal, height)
            state.apply(consortium.withdraw(first, proposal), height)
            closed.append(proposal.id)
        assert set(state.membership.proposals) == set(closed[2:])
        assert state.changes()[state.membership.proposals[closed[5]].entry_key] is not None

    def test_withdrawing(self, consortium, state):
        first, second, third = consortium.validators[:3]
        proposal = consortium.propose(first, consortium.adding("ulsan", "trainer"))
        apply(state, proposal, consortium.approve(second, proposal))
        apply(state, consortium.withdraw(second, proposal))
        assert state.membership.proposals[proposal.id].approvals == (first.kid,)
        assert "has not approved" in str(refusal(state, consortium.withdraw(third, proposal)))
        apply(state, consortium.withdraw(first, proposal))
        assert state.membership.proposals[proposal.id].outcome == "withdrawn"

    def test_a_suspended_validator_has_no_say(self, consortium, state):
        first, second = consortium.validators[:2]
        proposal = consortium.propose(second, consortium.adding("ulsan", "trainer"))
        apply(state, proposal, consortium.evidence(first, by=second))
        for transaction in (
            consortium.propose(first, consortium.adding("jeju", "trainer"), sequence=1),
            consortium.approve(first, proposal, sequence=1),
            consortium.withdraw(first, proposal, sequence=1),
        ):
            assert refusal(state, transaction).cause == "role"


class TestAddMember:
    def test_a_validator_votes_from_the_next_block_on(self, consortium, state):
        before = state.validator_set
        decide(consortium, state, consortium.adding("ulsan", *VALIDATOR))
        assert state.validator_set != before
        assert list(state.voters())[-1] == consortium.member_key("ulsan").kid
        assert (len(state.validators), state.quorum) == (6, quorum_of("majority", 6))
        apply(state, consortium.incident(consortium.member_key("ulsan")))

    def test_others_change_nothing_about_the_agreement(self, consortium, state):
        before = state.validator_set
        decide(consortium, state, consortium.adding("ulsan", "trainer", "regulator"))
        assert state.validator_set == before

    @pytest.mark.parametrize("name", ["v0", "owner"])
    def test_a_name_is_anybodys_once(self, consortium, state, name):
        proposal = consortium.propose(
            consortium.validators[0], consortium.adding(name, "trainer"), sequence=1
        )
        assert "is or was a member's" in str(refusal(state, proposal))

    def test_the_name_of_a_removed_member_stays_taken(self, consortium, state):
        decide(consortium, state, consortium.removing(consortium.owner))
        proposal = consortium.propose(consortium.validators[0], consortium.adding("owner"))
        assert "is or was a member's" in str(refusal(state, proposal))

    def test_a_key_is_anybodys_once(self, consortium, state, device):
        apply(state, consortium.enrol(device))
        retired, fresh = consortium.trainer, consortium.member_key("fresh")
        decide(consortium, state, consortium.rotating(retired, "trainer", fresh))
        decide(consortium, state, consortium.removing(consortium.owner))
        number = state.next_sequence(consortium.validators[0].kid)
        for key in (device, retired, fresh, consortium.owner, consortium.operator):
            change = consortium.adding("ulsan", "trainer", key=key)
            proposal = consortium.propose(consortium.validators[0], change, sequence=number)
            assert "is or was in use" in str(refusal(state, proposal))
        # Nor can a board take a key that was a member's.
        assert "member's key" in str(refusal(state, consortium.enrol(retired)))

    def test_needs_the_new_keys_own_signature(self, consortium, state):
        stranger, key = consortium.member_key("jeju"), consortium.member_key("ulsan")
        good = consortium.adding("ulsan", "trainer")
        forged = good.proof._replace(signature=consortium.proof(stranger, "ulsan").signature)
        raw = good.proof.raw[: -len(forged.signature)] + forged.signature
        forged = forged._replace(raw=raw)
        proposal = consortium.propose(consortium.validators[0], replace(good, proof=forged))
        with pytest.raises(ProtocolError, match="does not verify"):
            parse_transaction(proposal.raw).verify(
                consortium.validators[0].public, consortium.chain_id
            )
        assert key.kid == good.key.kid

    @pytest.mark.parametrize("wrong", ["name", "key"])
    def test_its_proof_is_for_this_name_and_key(self, consortium, wrong):
        value = consortium.adding("ulsan", "trainer").value()
        if wrong == "name":
            value["name"] = "jeju"
        else:
            value["key"] = consortium.member_key("jeju").public.cose_key
        with pytest.raises(ProtocolError, match=r"proof\.(name|kid)"):
            governance.parse_change(value, "change")


class TestRemoveMember:
    def test_signs_nothing_more(self, consortium, state):
        decide(consortium, state, consortium.removing(consortium.trainer))
        assert state.members[consortium.trainer.kid].status == "revoked"
        assert refusal(state, consortium.release(1)).cause == "revoked_device"

    def test_a_validator_leaves_the_count(self, consortium, state):
        gone = consortium.validators[1]
        decide(consortium, state, consortium.removing(gone))
        assert (len(state.validators), state.quorum) == (4, quorum_of("majority", 4))
        assert gone.kid not in state.voters()

    def test_may_remove_itself(self, consortium, state):
        first = consortium.validators[0]
        decide(consortium, state, consortium.removing(first))
        assert refusal(state, consortium.incident(first)).cause == "revoked_device"

    def test_the_last_validator_stays(self, make_consortium):
        alone = make_consortium(validators=1)
        state = State.at_founding(alone.founding)
        proposal = alone.propose(alone.validators[0], alone.removing(alone.validators[0]))
        assert "leave 0 validators" in str(refusal(state, proposal))

    def test_down_to_one_and_up_again(self, consortium, state):
        for key in consortium.validators[1:]:
            voters = [k for k in consortium.validators if k.kid in state.voters()]
            proposal = consortium.propose(voters[0], consortium.removing(key))
            apply(state, proposal)
            for other in voters[1 : state.quorum]:
                apply(state, consortium.approve(other, proposal))
        assert (len(state.validators), state.quorum) == (1, 1)
        apply(
            state,
            consortium.propose(consortium.validators[0], consortium.adding("ulsan", "validator")),
        )
        assert (len(state.validators), state.quorum) == (2, 2)

    def test_never_leaves_fewer_voters_than_the_quorum(self, consortium, state):
        """With two of five suspended, three vote and three are needed."""
        *_, fourth, fifth = consortium.validators
        first, second, third = consortium.validators[:3]
        apply(state, consortium.evidence(fourth, by=first), consortium.evidence(fifth, by=first))
        assert len(state.voters()) == state.quorum == 3
        # Of four, three are needed: two voters and two suspended cannot go on.
        error = refusal(state, consortium.propose(second, consortium.removing(first), sequence=1))
        assert "no block could follow" in str(error)
        # Removing a suspended one is what helps.
        decide(consortium, state, consortium.removing(fourth), by=[first, second, third])
        assert (len(state.validators), len(state.voters()), state.quorum) == (4, 3, 3)

    def test_what_it_proposed_is_void_and_what_it_approved_does_not_count(self, consortium, state):
        first, second, third, fourth, fifth = consortium.validators
        own = consortium.propose(fifth, consortium.adding("ulsan", "trainer"))
        others = consortium.propose(first, consortium.adding("jeju", "trainer"))
        apply(state, own, others, consortium.approve(fifth, others))
        decide(consortium, state, consortium.removing(fifth), by=[second, third, fourth])
        assert state.membership.proposals[own.id].outcome == "void"
        assert state.membership.proposals[others.id].approvals == (first.kid,)

    def test_twice_is_refused(self, consortium, state):
        decide(consortium, state, consortium.removing(consortium.owner))
        again = consortium.propose(consortium.validators[0], consortium.removing(consortium.owner))
        assert "removed for good" in str(refusal(state, again))


class TestSetRoles:
    def test_makes_and_unmakes_a_validator(self, consortium, state):
        trainer = consortium.trainer.kid
        decide(consortium, state, SetRoles(trainer, frozenset({"trainer", "validator"})))
        assert list(state.voters())[-1] == trainer
        decide(consortium, state, SetRoles(trainer, frozenset({"trainer"})), count=4)
        assert trainer not in state.voters()
        apply(state, consortium.release(1))

    def test_who_comes_back_stands_last(self, consortium, state):
        first = consortium.validators[0]
        by = consortium.validators[1:]
        decide(consortium, state, SetRoles(first.kid, frozenset({"gateway"})), by=by)
        decide(consortium, state, SetRoles(first.kid, VALIDATOR), by=by)
        assert list(state.voters())[-1] == first.kid

    def test_roles_take_effect_on_what_may_be_sent(self, consortium, state, device):
        decide(consortium, state, SetRoles(consortium.operator.kid, frozenset({"trainer"})))
        assert refusal(state, consortium.enrol(device)).cause == "role"
        apply(state, consortium.release(1, by=consortium.operator, sequence=1))

    def test_a_suspended_one_stays_so(self, consortium, state):
        first, *others = consortium.validators
        apply(state, consortium.evidence(first, by=others[0]))
        decide(consortium, state, SetRoles(first.kid, frozenset()), by=others)
        decide(consortium, state, SetRoles(first.kid, VALIDATOR), by=others)
        assert first.kid not in state.voters()
        assert len(state.validators) == 5


class TestRotateKey:
    def test_the_member_goes_on_under_another_key(self, consortium, state):
        first, fresh = consortium.validators[0], consortium.member_key("fresh")
        apply(state, consortium.incident(first))
        decide(consortium, state, consortium.rotating(first, "v0", fresh))
        record = state.member_named("v0")
        assert (record.kid, record.next, record.roles) == (fresh.kid, 1, VALIDATOR)
        assert next(iter(state.voters())) == fresh.kid  # in its old place
        assert refusal(state, consortium.incident(first)).cause == "revoked_device"
        apply(state, consortium.incident(fresh))
        assert state.key_of(first.kid) is None
        assert state.membership.retired[first.kid].successor == fresh.kid

    def test_the_status_stays(self, consortium, state):
        first, *others = consortium.validators
        apply(state, consortium.evidence(first, by=others[0]))
        fresh = consortium.member_key("fresh")
        decide(consortium, state, consortium.rotating(first, "v0", fresh), by=others)
        assert fresh.kid not in state.voters()
        assert state.member_named("v0").status == "suspended"

    def test_needs_the_members_name_under_the_new_keys_signature(self, consortium, state):
        change = consortium.rotating(consortium.trainer, "operator", consortium.member_key("fresh"))
        error = refusal(state, consortium.propose(consortium.validators[0], change))
        assert "proof.name" in str(error)

    def test_an_old_key_does_not_come_back(self, consortium, state):
        old, fresh = consortium.trainer, consortium.member_key("fresh")
        decide(consortium, state, consortium.rotating(old, "trainer", fresh))
        back = consortium.propose(
            consortium.validators[0], consortium.rotating(fresh, "trainer", old)
        )
        assert "is or was in use" in str(refusal(state, back))

    def test_evidence_of_the_old_key_does_not_hurt_the_new_one(self, consortium, state):
        """Whoever stole the key cannot have its owner suspended for it."""
        first, second = consortium.validators[:2]
        fresh = consortium.member_key("fresh")
        decide(consortium, state, consortium.rotating(first, "v0", fresh))
        evidence = consortium.evidence(first, by=second)
        assert "is no validator" in str(refusal(state, evidence))


class TestSetParameters:
    def test_some_of_them(self, consortium, state):
        decide(consortium, state, SetParameters((("heartbeat_ms", 5000), ("stagger_ms", 7))))
        expected = replace(consortium.founding.parameters, heartbeat_ms=5000, stagger_ms=7)
        assert state.parameters == expected
        assert state.quorum_rule == consortium.founding.quorum_rule

    @pytest.mark.parametrize(
        ("parameters", "quorum", "field"),
        [
            ({"enterprise_number": 1}, None, "enterprise_number"),
            ({"speed": 1}, None, "speed"),
            ({"block_interval_ms": 1}, None, "block_interval_ms"),
            ({"rest_ms": 3000}, None, "rest_ms"),
            ({"max_block_transactions": 0}, None, "max_block_transactions"),
            ({"bits": 0x1D00FFFF}, None, "bits"),  # over 16 times harder
            ({"bits": 0xFF000001}, None, "bits"),
            ({}, "all", "quorum"),
        ],
    )
    def test_within_their_ranges(self, consortium, state, parameters, quorum, field):
        change = SetParameters(tuple(parameters.items()), quorum)
        error = refusal(state, consortium.propose(consortium.validators[0], change))
        assert field in str(error)

    def test_a_quorum_that_cannot_be_met(self, consortium, state):
        first, fourth, fifth = (consortium.validators[i] for i in (0, 3, 4))
        apply(state, consortium.evidence(fourth, by=first), consortium.evidence(fifth, by=first))
        change = SetParameters((), "two-thirds")
        error = refusal(state, consortium.propose(first, change))
        assert "no block could follow" in str(error)


class TestRevokeCertificate:
    def test_once(self, consortium, state):
        serial = governance.serial_bytes(0xBADCAFE)
        decide(consortium, state, RevokeCertificate(serial))
        assert serial in state.revoked_certificates
        again = consortium.propose(consortium.validators[0], RevokeCertificate(serial))
        assert "revoked already" in str(refusal(state, again))


class TestReinstate:
    def test_votes_again(self, consortium, state):
        first, *others = consortium.validators
        apply(state, consortium.evidence(first, by=others[0]))
        decide(consortium, state, Reinstate(first.kid), by=others)
        assert first.kid in state.voters()

    def test_the_same_evidence_is_spent(self, consortium, state):
        first, *others = consortium.validators
        evidence = consortium.evidence(first, by=others[0])
        apply(state, evidence)
        for transaction in consortium.decision(Reinstate(first.kid), by=others):
            state.apply(transaction, 9)
        again = consortium.sign(others[1], evidence.body)
        assert "was cleared" in str(refusal(state, again))
        votes = [
            sign_vote(first, 10, 0, PREVOTE, choice, consortium.chain_id)
            for choice in (None, bytes(32))
        ]
        apply(state, consortium.sign(others[1], Evidence(*votes), sequence=again.sequence))
        assert first.kid not in state.voters()

    def test_only_who_lost_something(self, consortium, state):
        change = Reinstate(consortium.validators[1].kid)
        error = refusal(state, consortium.propose(consortium.validators[0], change))
        assert "is active" in str(error)

    def test_an_accused_one(self, consortium, state):
        first, second, third, fourth, fifth = consortium.validators
        for offender in (first, second, third):
            apply(state, consortium.evidence(offender, by=fourth))
        assert state.members[third.kid].status == "accused"
        decide(consortium, state, Reinstate(third.kid), by=[third, fourth, fifth])
        assert state.members[third.kid].status == "active"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("x", "change"),
        ({}, "change.change"),
        ({"change": "abolish"}, "change.change"),
        ({"change": "remove-member"}, "change.member"),
        ({"change": "remove-member", "member": bytes(7)}, "change.member"),
        ({"change": "remove-member", "member": bytes(8), "why": ""}, "change.why"),
        ({"change": "set-roles", "member": bytes(8), "roles": ["king"]}, "change.roles"),
        (
            {"change": "set-roles", "member": bytes(8), "roles": ["trainer", "operator"]},
            "change.roles",
        ),
        ({"change": "set-parameters"}, "change"),
        ({"change": "set-parameters", "rest_ms": "1"}, "change.rest_ms"),
        ({"change": "revoke-certificate", "serial": b""}, "change.serial"),
        ({"change": "revoke-certificate", "serial": b"\x00\x01"}, "change.serial"),
        ({"change": "revoke-certificate", "serial": bytes(21)}, "change.serial"),
        ({"change": "reinstate", "member": None}, "change.member"),
    ],
)
def test_a_change_that_is_not_as_the_spec_says(value, field):
    with pytest.raises(ProtocolError) as caught:
        governance.parse_change(value, "change")
    assert caught.value.field == field


def test_new_keys_prove_themselves_for_one_ledger_only(consortium):
    key = SigningKey.from_secret(77)
    raw = governance.prove_key(key, "ulsan", bytes(32))
    proof, _ = governance.parse_key_proof(raw, key.public, "proof")
    with pytest.raises(ProtocolError, match="does not verify"):
        proof.verify(key.public, consortium.chain_id)
