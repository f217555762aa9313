"""What a board's numbers mean: no double, no silent gap, and no second holder of its key."""

from __future__ import annotations

import pytest

from fog_node.errors import ConflictError, LedgerError
from fog_node.ledger import Ledger, State
from fog_node.ledger.verification import verify_store
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.proof import RangeClaim
from fog_node.protocol.transactions import MAX_GAP, Clone, Gap, parse_transaction

HEIGHT = 5


@pytest.fixture
def state(consortium, device) -> State:
    state = State.at_founding(consortium.founding)
    state.apply(consortium.enrol(device), HEIGHT)
    return state


@pytest.fixture
def enrolled(consortium, ledger, device):
    """A ledger on which the device's numbers 1 to 4 are final."""
    consortium.seal(ledger, consortium.enrol(device))
    consortium.seal(ledger, *(consortium.pack(device, number) for number in range(1, 5)))
    return ledger


def refusal(state: State, transaction) -> LedgerError:
    before = state.root()
    with pytest.raises(LedgerError) as caught:
        state.apply(transaction, HEIGHT)
    assert state.root() == before
    return caught.value


# The board's next number is 5; 7 waits. What is sent, and what is said of it.
NUMBERS = [
    ("the next one", "pack", 5, "admitted"),
    ("one that comes early", "pack", 6, "admitted"),
    ("the latest that may wait", "pack", 5 + 1023, "admitted"),
    ("one too far ahead", "pack", 5 + 1024, "sequence"),
    ("a copy of what is final", "copy", 4, "final"),
    ("a copy of what waits", "copy", 7, "waiting"),
    ("something else than what is final", "pack", 4, "conflict"),
    ("something else than what waits", "pack", 7, "conflict"),
    ("a gap from the next one", "gap 5", 9, "admitted"),
    ("a gap over what waits", "gap 5", 100_000, "admitted"),
    ("a gap from a later one", "gap 6", 9, "admitted"),
    ("a gap from a final one", "gap 4", 9, "sequence"),
    ("a gap with a number that waits", "gap 5", 7, "conflict"),
    ("a gap with a number that is final", "gap 2", 4, "conflict"),
]


@pytest.mark.parametrize(("what", "kind", "number", "outcome"), NUMBERS, ids=str)
def test_each_number(consortium, enrolled, device, what, kind, number, outcome):
    waiting = consortium.pack(device, 7)
    (result,) = consortium.admit(enrolled, waiting)
    assert result.status == "admitted"
    if kind == "copy":
        found = enrolled.transaction_at(device.kid, number)
        assert found is not None
        sent = parse_transaction(found.raw)
    elif kind == "pack":
        sent = consortium.pack(device, number, value=9.5)
    else:
        sent = consortium.gap(device, int(kind.split()[1]), number)
    (result,) = consortium.admit(enrolled, sent)
    assert (result.error.cause if result.error else result.status) == outcome, what
    assert isinstance(result.error, ConflictError) == (outcome == "conflict")


class TestGap:
    def test_gives_up_what_is_lost_and_goes_on(self, consortium, state, device):
        state.apply(consortium.pack(device, 1), HEIGHT)
        state.apply(consortium.gap(device, 2, 9), HEIGHT)
        assert state.next_sequence(device.kid) == 10
        assert state.devices[device.kid].dropped == 9
        assert refusal(state, consortium.pack(device, 9)).cause == "sequence"
        state.apply(consortium.pack(device, 10), HEIGHT)

    @pytest.mark.parametrize(("first", "number"), [(1, 9), (3, 9)])
    def test_begins_at_the_next_number(self, consortium, state, device, first, number):
        state.apply(consortium.pack(device, 1), HEIGHT)
        assert refusal(state, consortium.gap(device, first, number)).cause == "sequence"

    @pytest.mark.parametrize(("first", "number"), [(5, 5), (6, 5), (1, MAX_GAP + 2), (0, 5)])
    def test_its_length_is_bounded(self, consortium, device, first, number):
        with pytest.raises(ProtocolError, match=r"gap\.from"):
            consortium.gap(device, first, number)

    def test_is_for_boards_only(self, consortium, state):
        error = refusal(state, consortium.sign(consortium.operator, Gap(1, "x"), 2, 2))
        assert error.cause == "role"

    def test_is_sealed_in_its_turn_and_takes_away_what_waited(self, consortium, enrolled, device):
        given_up = consortium.pack(device, 7)
        behind = consortium.pack(device, 10)
        consortium.admit(enrolled, given_up, behind)
        consortium.admit(enrolled, consortium.gap(device, 5, 9))
        block = consortium.next_block(enrolled)
        assert [item.sequence for item in block.transactions] == [9, 10]
        committed = enrolled.commit(block, consortium.certify(block))
        assert committed.evicted == (given_up.id,)
        assert enrolled.state.next_sequence(device.kid) == 11

    def test_what_was_not_lost_after_all_comes_first(self, consortium, enrolled, device):
        gap, pack = consortium.gap(device, 5, 9), consortium.pack(device, 5)
        consortium.admit(enrolled, gap, pack)
        block = consortium.next_block(enrolled)
        assert list(block.transactions) == [pack]
        committed = enrolled.commit(block, consortium.certify(block))
        assert committed.evicted == (gap.id,)

    def test_a_gap_that_waits_comes_back_after_a_start(
        self, consortium, enrolled, device, tmp_path
    ):
        gap = consortium.gap(device, 5, 9)
        enrolled.admit([gap], durable=True)
        enrolled.close()
        again = Ledger.open(tmp_path / "data", consortium.founding)
        assert again.work_available(0)
        assert list(consortium.next_block(again).transactions) == [gap]
        again.close()

    def test_what_was_given_up_is_never_taken(self, consortium, enrolled, device):
        consortium.seal(enrolled, consortium.gap(device, 5, 9))
        for number in range(5, 9):
            (result,) = consortium.admit(enrolled, consortium.pack(device, number))
            assert result.error.cause == "sequence"
            assert "given up as lost" in str(result.error)

    def test_a_range_over_it_is_complete(self, consortium, enrolled, device):
        consortium.seal(enrolled, consortium.gap(device, 5, 9))
        consortium.seal(enrolled, consortium.pack(device, 10))
        for first, last, numbers in (
            (1, 10, [1, 2, 3, 4, 9, 10]),
            (4, 7, [4, 9]),
            (6, 7, [9]),
            (6, 10, [9, 10]),
            (9, 9, [9]),
        ):
            proof = enrolled.prove_range(device.kid, first, last)
            assert proof.claim == RangeClaim(device.kid, first, last)
            assert [item.transaction.sequence for item in proof.subjects] == numbers
            proof.verify(consortium.founding)
        assert enrolled.prove_range(device.kid, 9, 11) is None

    def test_the_store_is_found_whole(self, consortium, enrolled, device, tmp_path):
        consortium.seal(enrolled, consortium.gap(device, 5, 9))
        consortium.seal(enrolled, consortium.pack(device, 10))
        enrolled.close()
        findings = verify_store(tmp_path / "data", consortium.founding)
        assert not findings.damages


class TestClone:
    def pair(self, consortium, device, number=1):
        return consortium.pack(device, number), consortium.pack(device, number, value=9.5)

    def test_quarantines_the_board(self, consortium, state, device):
        one, other = self.pair(consortium, device)
        state.apply(consortium.clone(consortium.validators[0], one, other), HEIGHT)
        record = state.devices[device.kid]
        assert (record.status, record.disputed) == ("quarantined", 1)
        assert refusal(state, consortium.pack(device, 1)).cause == "quarantined"

    def test_several_gateways_may_say_it(self, consortium, state, device):
        one, other = self.pair(consortium, device)
        for gateway in consortium.validators[:2]:
            state.apply(consortium.clone(gateway, one, other), HEIGHT)
        later = self.pair(consortium, device, 4)
        state.apply(consortium.clone(consortium.validators[2], *later), HEIGHT)
        assert state.devices[device.kid].disputed == 4

    def test_both_must_be_signed_by_the_board(self, consortium, ledger, device):
        consortium.seal(ledger, consortium.enrol(device))
        one, other = self.pair(consortium, device)
        forged = bytearray(other.raw)
        forged[-1] ^= 1
        clone = consortium.clone(consortium.validators[0], one, parse_transaction(bytes(forged)))
        (result,) = consortium.admit(ledger, clone)
        assert result.error.cause == "rule"
        assert "clone.messages" in str(result.error)

    def test_is_for_gateways(self, consortium, state, device):
        clone = consortium.clone(consortium.operator, *self.pair(consortium, device))
        assert refusal(state, clone).cause == "role"

    def test_of_an_unknown_or_a_revoked_board(self, consortium, state, device):
        stranger = consortium.member_key("stranger")
        pair = [consortium.pack(stranger, 1, value=v) for v in (1.0, 2.0)]
        clone = consortium.clone(consortium.validators[0], *pair, sequence=1)
        assert refusal(state, clone).cause == "rule"
        state.apply(consortium.revoke(device.kid), HEIGHT)
        clone = consortium.clone(
            consortium.validators[0], *self.pair(consortium, device), sequence=1
        )
        assert "is revoked" in str(refusal(state, clone))

    @pytest.mark.parametrize("wrong", ["same", "number", "board", "order", "kind", "nested"])
    def test_is_about_two_messages_with_one_number(self, consortium, device, wrong):
        one, other = sorted(self.pair(consortium, device), key=lambda item: item.id)
        second = {
            "same": one,
            "number": consortium.pack(device, 2),
            "board": consortium.pack(consortium.member_key("x"), 1),
            "order": one,
            "kind": consortium.incident(device, sequence=1),
            "nested": consortium.clone(device, one, other, sequence=1),
        }[wrong]
        first = other if wrong == "order" else one
        with pytest.raises(ProtocolError, match=r"clone\.messages"):
            consortium.sign(consortium.validators[0], Clone(first, second))

    def test_the_largest_packs_fit(self, consortium, device):
        pair = [consortium.pack(device, 1, value=v, rows=120) for v in (1.0, 2.0)]
        clone = consortium.clone(consortium.validators[0], *pair)
        assert parse_transaction(clone.raw).body == clone.body

    def test_what_waits_of_the_board_goes(self, consortium, enrolled, device):
        waiting = [consortium.pack(device, number) for number in (5, 6, 8)]
        consortium.admit(enrolled, *waiting)
        other = consortium.pack(device, 5, value=9.5)
        clone = consortium.clone(consortium.validators[0], waiting[0], other)
        consortium.admit(enrolled, clone)
        block = consortium.next_block(enrolled)
        assert list(block.transactions) == [clone]  # before what it stops
        committed = enrolled.commit(block, consortium.certify(block))
        assert set(committed.evicted) == {item.id for item in waiting}
        assert enrolled.waiting == 0


class TestReinstating:
    @pytest.fixture
    def clone(self, consortium, state, device):
        clone = consortium.clone(
            consortium.validators[0],
            consortium.pack(device, 3),
            consortium.pack(device, 3, value=9.5),
        )
        state.apply(consortium.pack(device, 1), HEIGHT)
        state.apply(clone, HEIGHT)
        return clone

    def test_the_board_goes_on(self, consortium, state, device, clone):
        state.apply(consortium.reinstate(device.kid), HEIGHT)
        assert state.devices[device.kid].status == "active"
        state.apply(consortium.pack(device, 2), HEIGHT)

    def test_old_pairs_are_settled(self, consortium, state, device, clone):
        state.apply(consortium.reinstate(device.kid), HEIGHT)
        again = consortium.sign(consortium.validators[1], clone.body)
        assert "was reinstated" in str(refusal(state, again))
        newer = consortium.clone(
            consortium.validators[1],
            consortium.pack(device, 4),
            consortium.pack(device, 4, value=9.5),
            sequence=again.sequence,
        )
        state.apply(newer, HEIGHT)
        assert state.devices[device.kid].status == "quarantined"

    def test_needs_an_operator_and_a_quarantine(self, consortium, state, device, clone):
        by_trainer = consortium.reinstate(device.kid, by=consortium.trainer)
        assert refusal(state, by_trainer).cause == "role"
        state.apply(consortium.reinstate(device.kid), HEIGHT)
        number = state.next_sequence(consortium.operator.kid)
        for kid in (device.kid, bytes(8), consortium.trainer.kid):
            error = refusal(state, consortium.reinstate(kid, sequence=number))
            assert "is not quarantined" in str(error)

    def test_or_the_board_is_revoked(self, consortium, state, device, clone):
        state.apply(consortium.revoke(device.kid), HEIGHT)
        assert state.devices[device.kid].status == "revoked"
