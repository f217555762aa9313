"""Whatever validators propose and approve, in whatever order: the consortium can always go on."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from fog_node.errors import LedgerError
from fog_node.ledger import State
from fog_node.ledger.tree import SortedTree
from fog_node.protocol import merkle
from fog_node.protocol.decisions import MAX_CLOSED, MAX_OPEN_PER_PROPOSER
from fog_node.protocol.founding import QUORUM_RULES, quorum_of
from fog_node.protocol.governance import (
    Reinstate,
    RemoveMember,
    RevokeCertificate,
    SetParameters,
    SetRoles,
)
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.membership import Membership
from fog_node.protocol.transactions import Evidence
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import PREVOTE, sign_vote

from .conftest import START_MS, Consortium

NEW_NAMES = ("ulsan", "jeju", "gwangju")
ROLE_SETS = (frozenset(), frozenset({"validator"}), frozenset({"gateway", "validator"}))
TERM_MS = 60_000
BLOCK_MS = 5_000


class Governance(RuleBasedStateMachine):
    """One state, and the keys of all who are or were in it."""

    proposals = Bundle("proposals")

    @initialize(count=st.integers(1, 5), rule_=st.sampled_from(QUORUM_RULES))
    def found(self, count, rule_):
        self.consortium = Consortium(validators=count)
        self.consortium.founding = replace(self.consortium.founding, quorum_rule=rule_)
        self.state = State.at_founding(self.consortium.founding)
        held = [key for key in vars(self.consortium).values() if isinstance(key, SigningKey)]
        self.keys = {key.kid: key for key in (*self.consortium.validators, *held)}
        self.height = 1
        self.entries: dict[bytes, bytes] = {}
        self.fresh = 0
        self.gone: set[bytes] = set()

    # What somebody may do

    def pick(self, index: int) -> SigningKey:
        """One of the validators, voting or not."""
        kids = [record.kid for record in self.state.validators]
        return self.keys[kids[index % len(kids)]]

    def anybody(self, index: int) -> bytes:
        """A member's key id, or a former one's."""
        kids = [*self.state.members, *sorted(self.state.membership.retired)]
        return kids[index % len(kids)]

    def new_key(self) -> SigningKey:
        self.fresh += 1
        key = SigningKey.from_secret(500_000 + self.fresh)
        self.keys[key.kid] = key
        return key

    def apply(self, transaction) -> bool:
        """Apply as a block of its own would; a refusal must leave no trace."""
        before = self.state
        after = before.copy()
        after.advance(self.height, self.state.time + 1)
        root = after.root()
        try:
            after.apply(transaction, self.height)
        except LedgerError:
            assert after.root() == root
            return False
        self._take(after)
        return True

    def _take(self, after: State) -> None:
        before = self.state
        for key, entry in after.changes().items():
            if entry is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = entry
        for kid, record in before.members.items():
            if record.status == "revoked":
                self.gone.add(kid)
        self.gone |= set(before.membership.retired)
        self.state = after
        self.height += 1

    def sign(self, key: SigningKey, body):
        return self.consortium.sign(key, body, self.state.next_sequence(key.kid))

    @rule(target=proposals, who=st.integers(0, 9), what=st.integers(0, 6), whom=st.integers(0, 20),
          roles=st.sampled_from(ROLE_SETS), pair=st.booleans())  # fmt: skip
    def propose(self, who, what, whom, roles, pair):
        change = self._change(what, whom, roles)
        changes = (change, self._change((what + 1) % 7, whom + 1, roles)) if pair else (change,)
        signer = self.pick(who)
        transaction = self.consortium.propose(
            signer, *changes, until=self.state.time + TERM_MS,
            sequence=self.state.next_sequence(signer.kid),
        )  # fmt: skip
        return transaction if self.apply(transaction) else multiple()

    def _change(self, what, whom, roles):
        kid = self.anybody(whom)
        record = self.state.members.get(kid)
        if what == 0:
            return self.consortium.adding(NEW_NAMES[whom % 3], *roles, key=self.new_key())
        if what == 1:
            return RemoveMember(kid)
        if what == 2:
            return SetRoles(kid, roles)
        if what == 3:
            name = record.name if record else "v0"
            return self.consortium.rotating(self.keys[kid], name, self.new_key())
        if what == 4:
            return SetParameters(
                (("stagger_ms", 100 + whom),), QUORUM_RULES[whom % 2] if whom > 10 else None
            )
        if what == 5:
            return RevokeCertificate(bytes([1 + whom]))
        return Reinstate(kid)

    @rule(proposal=proposals, who=st.integers(0, 9))
    def approve(self, proposal, who):
        signer = self.pick(who)
        number = self.state.next_sequence(signer.kid)
        self.apply(self.consortium.approve(signer, proposal, sequence=number))

    @rule(proposal=proposals)
    def all_approve(self, proposal):
        for record in list(self.state.validators):
            if record.kid not in {validator.kid for validator in self.state.validators}:
                continue
            number = self.state.next_sequence(record.kid)
            self.apply(self.consortium.approve(self.keys[record.kid], proposal, sequence=number))

    @rule(proposal=consumes(proposals), who=st.integers(0, 9))
    def withdraw(self, proposal, who):
        signer = self.pick(who)
        number = self.state.next_sequence(signer.kid)
        self.apply(self.consortium.withdraw(signer, proposal, sequence=number))

    @rule(who=st.integers(0, 9), whom=st.integers(0, 9), height=st.integers(1, 40))
    def accuse(self, who, whom, height):
        witness, offender = self.pick(who), self.pick(whom)
        votes = [
            sign_vote(offender, height, 0, PREVOTE, choice, self.consortium.chain_id)
            for choice in (None, bytes(32))
        ]
        self.apply(self.sign(witness, Evidence(*votes)))

    @rule(blocks=st.integers(1, 15))
    def time_passes(self, blocks):
        after = self.state.copy()
        after.advance(self.height, self.state.time + blocks * BLOCK_MS)
        self._take(after)

    # What must always hold

    @invariant()
    def it_can_go_on(self):
        state = self.state
        assert len(state.validators) >= 1
        assert state.quorum == quorum_of(state.quorum_rule, len(state.validators))
        assert len(state.voters()) >= state.quorum
        assert len(state.validators) < 2 * state.quorum <= 2 * len(state.validators)
        found = ValidatorSet.decode(state.validator_set.raw)
        assert list(found.by_kid) == list(state.voters())

    @invariant()
    def names_and_keys_are_anybodys_once(self):
        members = self.state.members
        names = [record.name for record in members.values()]
        assert len(set(names)) == len(names)
        assert not set(members) & set(self.state.membership.retired)
        orders = [record.order for record in self.state.validators]
        assert len(set(orders)) == len(orders)
        assert 0 not in orders

    @invariant()
    def what_is_retired_never_returns(self):
        for kid in self.gone:
            record = self.state.members.get(kid)
            assert record is None or record.status == "revoked"
            assert kid not in self.state.voters()

    @invariant()
    def proposals_are_bounded_and_decided(self):
        membership = self.state.membership
        open_ = membership.open_proposals()
        validators = {record.kid for record in membership.validators}
        for record in open_:
            assert record.proposer in validators
            assert set(record.approvals) <= validators
            assert record.body.until >= self.state.time
        for kid in validators:
            assert sum(record.proposer == kid for record in open_) <= MAX_OPEN_PER_PROPOSER
        assert len(membership.proposals) - len(open_) <= MAX_CLOSED

    @invariant()
    def the_root_is_that_of_the_entries_in_any_order(self):
        state = self.state
        chance = random.Random(self.height)
        entries = list(self.entries.values())
        chance.shuffle(entries)
        loaded = State.from_entries(self.consortium.founding, entries, state.time)
        assert loaded.root() == state.root()
        assert loaded.membership == state.membership
        assert list(loaded.voters()) == list(state.voters())
        records = state.membership.records()
        chance.shuffle(records)
        leaves = {record.entry_key: merkle.leaf_hash(record.entry()) for record in records}
        assert SortedTree(leaves).root() == state.root()
        again = Membership.from_entries(record.entry() for record in records)
        assert again == state.membership


Governance.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    # A failing history is replayed from its seed; making it shorter would take minutes.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TestGovernance = Governance.TestCase


def test_the_time_of_the_founding_is_the_first(consortium):
    assert State.at_founding(consortium.founding).time == START_MS
