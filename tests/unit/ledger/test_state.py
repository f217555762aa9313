"""The rules that each kind of transaction must keep, and the root over what they make."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fog_node.errors import LedgerError
from fog_node.ledger import MemberRecord, State, records
from fog_node.ledger.tree import SortedTree
from fog_node.protocol import merkle
from fog_node.protocol.dataset_reference import DatasetQuery
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.labels import Image, PackSpan, TimeSpan
from fog_node.protocol.predictions import Thing
from fog_node.protocol.rig_reports import ReleasedAs, ReportedBoard
from fog_node.protocol.training_rounds import SiteUpdate
from fog_node.protocol.transactions import Alert, DatasetReference, Release

HEIGHT = 5
DEVICES = [SigningKey.from_secret(1000 + i) for i in range(4)]


@pytest.fixture
def state(consortium) -> State:
    return State.at_founding(consortium.founding)


def refusal(state: State, transaction, height: int = HEIGHT) -> LedgerError:
    """The error that `apply` raises; the state must be as before."""
    before = state.root()
    with pytest.raises(LedgerError) as caught:
        state.apply(transaction, height)
    assert state.root() == before
    return caught.value


def decide(consortium, state: State, *changes) -> None:
    """Have the validators decide on changes."""
    for transaction in consortium.decision(*changes):
        state.apply(transaction, HEIGHT)


def alert(consortium, device, pack: int, sequence: int | None = None):
    return consortium.sign(device, Alert(1_700_000_000, bytes(32), 9, 8, pack), sequence)


class TestEnrol:
    def test_puts_the_device_on_the_chain(self, consortium, state, device):
        enrol = consortium.enrol(device)
        before = state.root()
        state.apply(enrol, HEIGHT)
        record = state.devices[device.kid]
        assert (record.owner, record.type, record.board) == ("owner", "water-circulation", "unix")
        assert (record.status, record.next, record.enrolled_height) == ("active", 1, HEIGHT)
        assert record.enrolment_id == enrol.id
        assert state.key_of(device.kid) == device.public
        assert state.next_sequence(consortium.operator.kid) == 2
        assert state.root() != before

    def test_needs_an_operator(self, consortium, state, device):
        assert refusal(state, consortium.enrol(device, by=consortium.trainer)).cause == "role"
        assert refusal(state, consortium.enrol(device, by=device)).cause == "unknown_device"

    def test_refuses_a_key_that_is_enrolled(self, consortium, state, device):
        state.apply(consortium.enrol(device), HEIGHT)
        error = refusal(state, consortium.enrol(device))
        assert error.cause == "rule"
        assert "active already" in str(error)

    def test_refuses_a_key_that_was_revoked(self, consortium, state, device):
        state.apply(consortium.enrol(device), HEIGHT)
        state.apply(consortium.revoke(device.kid), HEIGHT)
        assert "revoked already" in str(refusal(state, consortium.enrol(device)))

    def test_refuses_a_members_key(self, consortium, state):
        assert "member's key" in str(refusal(state, consortium.enrol(consortium.owner)))

    def test_refuses_an_owner_who_is_no_member(self, consortium, state, device):
        assert "enrol.owner" in str(refusal(state, consortium.enrol(device, owner="nobody")))

    def test_refuses_a_revoked_owner(self, consortium, state, device):
        decide(consortium, state, consortium.removing(consortium.owner))
        assert "enrol.owner" in str(refusal(state, consortium.enrol(device)))


class TestRevoke:
    def test_a_device_signs_nothing_more(self, consortium, state, device):
        state.apply(consortium.enrol(device), HEIGHT)
        state.apply(consortium.pack(device), HEIGHT)
        state.apply(consortium.revoke(device.kid), HEIGHT)
        assert state.devices[device.kid].status == "revoked"
        assert refusal(state, consortium.pack(device)).cause == "revoked_device"

    def test_is_not_for_members(self, consortium, state):
        for subject in (consortium.trainer, consortium.validators[0], consortium.operator):
            error = refusal(state, consortium.revoke(subject.kid, sequence=1))
            assert error.cause == "rule"
            assert "removed by vote" in str(error)

    def test_refuses_the_unknown_and_the_revoked(self, consortium, state, device):
        revoke = consortium.revoke(device.kid)
        assert "is no device" in str(refusal(state, revoke))
        state.apply(consortium.enrol(device, sequence=1), HEIGHT)
        state.apply(consortium.revoke(device.kid, sequence=2), HEIGHT)
        again = consortium.revoke(device.kid, sequence=3)
        assert "revoked already" in str(refusal(state, again))


class TestPack:
    @pytest.fixture(autouse=True)
    def _enrolled(self, consortium, state, device):
        state.apply(consortium.enrol(device), HEIGHT)

    def test_is_counted(self, consortium, state, device):
        state.apply(consortium.pack(device), HEIGHT)
        state.apply(consortium.pack(device, dropped=2), HEIGHT)
        record = state.devices[device.kid]
        assert (record.next, record.dropped) == (3, 2)

    @pytest.mark.parametrize("value", [-1.0, 10.0, 0.0])
    def test_takes_the_bounds_of_the_range(self, consortium, state, device, value):
        state.apply(consortium.pack(device, value=value), HEIGHT)

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            ({"value": 10.5}, "plausible"),
            ({"value": -1.5}, "plausible"),
            ({"name": "torque"}, "not a channel"),
            ({"unit": "Pa"}, "'Pa'"),
        ],
    )
    def test_refuses_what_was_not_enrolled(self, consortium, state, device, content, word):
        error = refusal(state, consortium.pack(device, **content))
        assert error.cause == "implausible"
        assert word in str(error)

    def test_refuses_another_enterprise_number(self, consortium, state, device):
        pack = consortium.pack(device, enterprise_number=1)
        assert refusal(state, pack).cause == "malformed"

    def test_refuses_a_watermark_above_its_own_number(self, consortium, state, device):
        assert refusal(state, consortium.pack(device, dropped=2)).cause == "malformed"

    @pytest.mark.parametrize("sequence", [2, 7])
    def test_refuses_a_gap(self, consortium, state, device, sequence):
        assert refusal(state, consortium.pack(device, sequence)).cause == "sequence"

    def test_refuses_a_repetition(self, consortium, state, device):
        pack = consortium.pack(device)
        state.apply(pack, HEIGHT)
        assert refusal(state, pack).cause == "sequence"

    def test_is_not_for_members(self, consortium, state):
        assert refusal(state, consortium.pack(consortium.validators[0])).cause == "role"

    def test_alert_names_an_earlier_number(self, consortium, state, device):
        assert refusal(state, alert(consortium, device, 1, sequence=1)).cause == "malformed"
        state.apply(consortium.pack(device), HEIGHT)
        assert refusal(state, alert(consortium, device, 2, sequence=2)).cause == "malformed"
        assert refusal(state, alert(consortium, device, 0, sequence=2)).cause == "malformed"
        state.apply(alert(consortium, device, 1), HEIGHT)

    def test_a_device_signs_nothing_else(self, consortium, state, device):
        assert refusal(state, consortium.incident(device)).cause == "role"


class TestMembers:
    def test_incident_needs_a_gateway(self, consortium, state):
        assert refusal(state, consortium.incident(consortium.trainer)).cause == "role"
        state.apply(consortium.incident(consortium.validators[0]), HEIGHT)

    def test_release_needs_a_trainer(self, consortium, state):
        assert refusal(state, consortium.release(1, by=consortium.operator)).cause == "role"

    def test_release_versions_rise(self, consortium, state):
        state.apply(consortium.release(3), HEIGHT)
        assert "release.version" in str(refusal(state, consortium.release(3, sequence=2)))
        assert "release.version" in str(refusal(state, consortium.release(2, sequence=2)))
        newer = consortium.release(4, sequence=2)
        state.apply(newer, HEIGHT)
        latest = state.releases["water-circulation", "anomaly"]
        assert (latest.release.version, latest.id, latest.height) == (4, newer.id, HEIGHT)

    def test_release_names_earlier_blocks(self, consortium, state):
        assert "release.dataset" in str(refusal(state, consortium.release(1, last=HEIGHT)))


class TestEvidence:
    def test_suspends_the_offender(self, consortium, state):
        offender, witness = consortium.validators[:2]
        state.apply(consortium.evidence(offender, by=witness), HEIGHT)
        assert state.members[offender.kid].status == "suspended"
        assert state.suspended == {offender.kid}
        assert offender.kid not in state.voters()

    def test_a_suspended_validator_keeps_its_other_roles(self, consortium, state):
        offender, witness = consortium.validators[:2]
        state.apply(consortium.evidence(offender, by=witness), HEIGHT)
        state.apply(consortium.incident(offender), HEIGHT)
        assert refusal(state, consortium.evidence(witness, by=offender)).cause == "role"

    def test_once_is_enough(self, consortium, state):
        offender, witness = consortium.validators[:2]
        state.apply(consortium.evidence(offender, by=witness), HEIGHT)
        assert refusal(state, consortium.evidence(offender, by=witness)).cause == "rule"

    def test_needs_validators_on_both_sides(self, consortium, state):
        offender = consortium.validators[0]
        assert refusal(state, consortium.evidence(offender, by=consortium.owner)).cause == "role"
        error = refusal(state, consortium.evidence(consortium.owner, by=offender))
        assert "is no validator" in str(error)

    def test_only_accuses_where_the_quorum_needs_the_offender(self, consortium, state):
        for offender in consortium.validators[:2]:
            state.apply(consortium.evidence(offender, by=consortium.validators[4]), HEIGHT)
        third = consortium.validators[2]
        state.apply(consortium.evidence(third, by=consortium.validators[4]), HEIGHT)
        assert state.members[third.kid].status == "accused"
        assert third.kid in state.voters()
        assert len(state.voters()) == consortium.founding.quorum


class TestRequests:
    """Who may ask, whom, and who may answer."""

    @pytest.mark.parametrize("named", [True, False])
    def test_a_customer_asks_and_a_provider_answers(self, consortium, state, named):
        provider = consortium.owner.kid if named else None
        request = consortium.request(provider)
        state.apply(request, HEIGHT)
        state.apply(consortium.response(request.id), HEIGHT)
        assert state.next_sequence(consortium.customer.kid) == 2
        assert state.next_sequence(consortium.owner.kid) == 2

    def test_only_members_with_the_role_do(self, consortium, state):
        request = consortium.request(None, by=consortium.trainer)
        assert refusal(state, request).cause == "role"
        response = consortium.response(request.id, by=consortium.customer)
        assert refusal(state, response).cause == "role"

    def test_nobody_is_asked_who_cannot_answer(self, consortium, state):
        for kid in (consortium.trainer.kid, bytes(8)):
            error = refusal(state, consortium.request(kid, sequence=1))
            assert "request.provider" in str(error)
        decide(consortium, state, consortium.removing(consortium.owner))
        error = refusal(state, consortium.request(consortium.owner.kid, sequence=1))
        assert "request.provider" in str(error)


# One step of a random history: what is done, by whom (an index), to whom.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enrol", "revoke", "pack", "incident", "release", "evidence"]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=25,
)


def transaction_for(consortium, state: State, step):
    kind, who, whom = step
    device = DEVICES[whom]
    validator = consortium.validators[whom]
    signer = {
        "enrol": [consortium.operator, consortium.second_operator, consortium.owner][who % 3],
        "revoke": [consortium.operator, consortium.second_operator, device][who % 3],
        "pack": device,
        "incident": consortium.validators[who],
        "release": consortium.trainer,
        "evidence": consortium.validators[who],
    }[kind]
    sequence = state.next_sequence(signer.kid)
    if kind == "enrol":
        return consortium.enrol(device, by=signer, sequence=sequence)
    if kind == "revoke":
        return consortium.revoke(device.kid, by=signer, sequence=sequence)
    if kind == "pack":
        return consortium.pack(device, sequence, value=4.0 * who)
    if kind == "release":
        return consortium.release(1 + whom, sequence=sequence)
    if kind == "evidence":
        unsigned = consortium.evidence(validator, by=signer)
        return consortium.sign(signer, unsigned.body, sequence)
    return consortium.incident(signer, sequence=sequence)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_any_history_keeps_what_is_final(consortium, steps):
    state = State.at_founding(consortium.founding)
    entries: dict[bytes, bytes] = {}
    for height, step in enumerate(steps, start=1):
        transaction = transaction_for(consortium, state, step)
        before, state = state, state.copy()
        root = before.root()
        try:
            state.apply(transaction, height)
        except LedgerError:
            assert state.root() == root
            assert not state.changes()
        else:
            assert state.root() != root
            signer = transaction.signer
            assert state.next_sequence(signer) == before.next_sequence(signer) + 1
        assert before.root() == root
        assert len(state.voters()) >= consortium.founding.quorum
        assert set(state.voters()) <= set(before.voters())
        for kid, record in {**before.members, **before.devices}.items():
            if record.status == "revoked":
                assert state.signer(kid).status == "revoked"
            assert state.next_sequence(kid) >= record.next
        entries.update(state.changes())
    loaded = State.from_entries(consortium.founding, entries.values(), state.time)
    assert loaded.root() == state.root()
    assert dict(loaded.devices) == dict(state.devices)
    assert dict(loaded.releases) == dict(state.releases)


def test_only_touched_entries_are_encoded_again(consortium, state, monkeypatch):
    devices = [SigningKey.from_secret(5000 + i) for i in range(200)]
    for device in devices:
        state.apply(consortium.enrol(device), 1)
    state.root()
    encoded = []
    for record in (records.Device, MemberRecord):
        entry = record.entry
        monkeypatch.setattr(
            record, "entry", lambda self, entry=entry: encoded.append(self.kid) or entry(self)
        )
    after = state.copy()
    after.apply(consortium.pack(devices[7]), 2)
    after.apply(consortium.pack(devices[7]), 2)
    after.apply(consortium.pack(devices[90]), 2)
    after.root()
    assert sorted(encoded) == sorted([devices[7].kid, devices[90].kid])


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=2), st.binary(min_size=32, max_size=32)),
        max_size=40,
    ),
    st.sets(st.integers(0, 40)),
)
def test_tree_equals_the_root_over_all_leaves(puts, pauses):
    tree, leaves = SortedTree(), {}
    for i, (key, leaf) in enumerate(puts):
        tree.set(key, leaf)
        leaves[key] = leaf
        if i in pauses:
            assert tree.root() == merkle.root([leaves[key] for key in sorted(leaves)])
            tree = tree.copy()
    assert tree.root() == merkle.root([leaves[key] for key in sorted(leaves)])


class TestTestReport:
    FIRMWARE = "firmware/pico"

    def released(self, consortium, state, version: int, bundle: bytes) -> None:
        body = Release(
            "fogline",
            version,
            self.FIRMWARE,
            bytes(32),
            bundle,
            9,
            (),
            DatasetReference(bytes(32), 0, 0, 0),
            1_700_000_000_000,
        )
        state.apply(consortium.sign(consortium.operator, body), HEIGHT)

    def test_changes_nothing_but_the_signers_number(self, consortium, state):
        state.apply(consortium.test_report(), HEIGHT)
        assert state.next_sequence(consortium.operator.kid) == 2

    def test_names_boards_that_there_are_or_were(self, consortium, state, device):
        board = ReportedBoard("bench/1", "Raspberry Pi Pico W", device.kid)
        error = refusal(state, consortium.test_report(board=board, sequence=1))
        assert error.cause == "rule"
        assert "test-report.board.kid" in str(error)
        state.apply(consortium.enrol(device, sequence=1), HEIGHT)
        state.apply(consortium.test_report(board=board, sequence=2), HEIGHT)
        state.apply(consortium.revoke(device.kid, sequence=3), HEIGHT)
        state.apply(consortium.test_report(board=board, sequence=4), HEIGHT)

    @pytest.mark.parametrize(
        ("version", "bundle", "field"),
        [
            (1, bytes(32), None),  # an earlier one, whose bundle the state has forgotten
            (2, bytes([2]) * 32, None),
            (2, bytes(32), "test-report.release.bundle"),
            (3, bytes([2]) * 32, "test-report.release"),
        ],
    )
    def test_names_releases_that_were_made(self, consortium, state, version, bundle, field):
        self.released(consortium, state, 1, bytes([1]) * 32)
        self.released(consortium, state, 2, bytes([2]) * 32)
        release = ReleasedAs("fogline", self.FIRMWARE, version, bundle)
        report = consortium.test_report(release=release)
        if field is None:
            state.apply(report, HEIGHT)
            return
        error = refusal(state, report)
        assert error.cause == "rule"
        assert str(error).startswith(f"{field}:") or f" {field}:" in str(error)

    def test_names_no_release_that_never_was(self, consortium, state):
        release = ReleasedAs("fogline", self.FIRMWARE, 1, bytes(32))
        assert "is not released" in str(refusal(state, consortium.test_report(release=release)))


class TestLabels:
    def test_change_nothing_but_the_signers_number(self, consortium, state, device):
        state.apply(consortium.enrol(device), HEIGHT)
        after = state.copy()
        after.apply(consortium.label(TimeSpan(device.kid, 0, 9), Image(bytes(32))), HEIGHT)
        trainer = after.members[consortium.trainer.kid]
        assert trainer.next == 2
        assert after.changes().keys() == {trainer.entry_key}

    def test_are_of_boards_that_there_are_or_were(self, consortium, state, device):
        span = TimeSpan(device.kid, 0, 9)
        error = refusal(state, consortium.label(Image(bytes(32)), span, sequence=1))
        assert error.cause == "rule"
        assert "label.labels[1].target.device" in str(error)
        state.apply(consortium.enrol(device), HEIGHT)
        state.apply(consortium.label(span, sequence=1), HEIGHT)
        state.apply(consortium.revoke(device.kid), HEIGHT)
        state.apply(consortium.label(span, sequence=2), HEIGHT)

    def test_are_of_packs_that_are_final(self, consortium, state, device):
        state.apply(consortium.enrol(device), HEIGHT)
        state.apply(consortium.pack(device), HEIGHT)
        state.apply(consortium.label(PackSpan(device.kid, 1, 1), sequence=1), HEIGHT)
        error = refusal(state, consortium.label(PackSpan(device.kid, 1, 2), sequence=2))
        assert error.cause == "rule"
        assert "label.labels[0].target.last" in str(error)


class TestPredictions:
    def test_change_nothing_but_the_signers_number(self, consortium, state, device):
        state.apply(consortium.enrol(device), HEIGHT)
        after = state.copy()
        subjects = (TimeSpan(device.kid, 0, 9), Image(bytes(32)), Thing("unit 7"))
        after.apply(consortium.prediction(*subjects), HEIGHT)
        after.apply(consortium.drift(), HEIGHT)
        trainer = after.members[consortium.trainer.kid]
        assert trainer.next == 3
        assert after.changes().keys() == {trainer.entry_key}

    def test_are_of_packs_that_are_final(self, consortium, state, device):
        subjects = (Thing("unit 7"), PackSpan(device.kid, 1, 2))
        error = refusal(state, consortium.prediction(*subjects, sequence=1))
        assert error.cause == "rule"
        assert "prediction.verdicts[1].subject.device" in str(error)
        state.apply(consortium.enrol(device), HEIGHT)
        state.apply(consortium.pack(device), HEIGHT)
        error = refusal(state, consortium.prediction(*subjects, sequence=1))
        assert "prediction.verdicts[1].subject.last" in str(error)
        state.apply(consortium.prediction(PackSpan(device.kid, 1, 1), sequence=1), HEIGHT)


def test_a_release_asks_for_what_was_there_before_it(consortium, state):
    for height, is_refused in ((HEIGHT, True), (HEIGHT - 1, False)):
        reference = DatasetReference(bytes(32), 0, 0, 0, DatasetQuery(height))
        body = replace(consortium.release(1, sequence=1).body, dataset=reference)
        release = consortium.sign(consortium.trainer, body, 1)
        if is_refused:
            assert "release.dataset.query.height" in str(refusal(state, release))
        else:
            state.apply(release, HEIGHT)


class TestTrainingRound:
    def test_changes_nothing_but_the_signers_number(self, consortium, state):
        state.apply(consortium.training_round(), HEIGHT)
        assert state.next_sequence(consortium.trainer.kid) == 2

    def test_names_members_that_there_are(self, consortium, state, device):
        def named(kid):
            update = SiteUpdate("busan", kid, bytes(32), None)
            return consortium.training_round(updates=(update,), sequence=1)

        error = refusal(state, named(device.kid))
        assert error.cause == "rule"
        assert "training-round.updates" in str(error)
        state.apply(named(consortium.validators[0].kid), HEIGHT)
