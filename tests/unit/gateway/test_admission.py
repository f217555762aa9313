"""Each message gets the outcome, and each refusal the cause, that SPEC.md says."""

from __future__ import annotations

import random

import cbor2
import pytest

from fog_node.errors import StoreError
from fog_node.gateway.admission import Admission, Message, printable
from fog_node.ledger import MAX_SEQUENCE_AHEAD
from fog_node.protocol import senml
from fog_node.protocol.cbor import encode
from fog_node.protocol.cose import sign1
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import (
    MAX_PLAIN_BYTES,
    MAX_TEXT_CHARS,
    Clone,
    Gap,
    Incident,
    ReinstateDevice,
)


@pytest.fixture
def admission(chain):
    return Admission(chain.ledger)


def judge(admission, data, claimed, redelivered=False):
    (outcome,) = admission.process([Message(data, claimed, redelivered)])
    return outcome


def cause(admission, data, claimed, **other):
    outcome = judge(admission, data, claimed, **other)
    assert outcome.kind == "refused", outcome
    assert printable(outcome.refusal.detail)
    return outcome.refusal.cause


def altered(transaction, payload):
    """The same envelope and signature over another payload."""
    tag = cbor2.loads(transaction.raw)
    protected, _, _, signature = tag.value
    return encode(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def another_payload(chain, board, value=9.0):
    readings = [(0, [("pressure", "bar", value)])]
    return senml.encode_pack(32473, board.kid, 1_700_000_000, readings)


def with_bad_signature(transaction):
    tag = cbor2.loads(transaction.raw)
    protected, _, payload, signature = tag.value
    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    return encode(cbor2.CBORTag(18, [protected, {}, payload, changed]))


def test_a_good_pack_waits_on_disk(chain, board, admission):
    pack = chain.pack(board, 1)
    outcome = judge(admission, pack.raw, board.kid)
    assert (outcome.kind, outcome.device) == ("admitted", board.kid)
    assert outcome.transaction.id == pack.id
    assert chain.ledger.has(pack.id)


def test_an_alert_is_taken_as_a_pack_is(chain, board, admission):
    packs = [chain.pack(board, 1).raw, chain.alert(board, 2).raw]
    outcomes = admission.process([Message(raw, board.kid) for raw in packs])
    assert [outcome.kind for outcome in outcomes] == ["admitted", "admitted"]


def test_a_pack_that_only_names_failed_sensors_is_taken(chain, board, admission):
    time_s = 1_700_000_000
    faults = [senml.Fault(time_s, "pump", "absent"), senml.Fault(time_s + 1, "clamp", "crc")]
    payload = senml.encode_pack(32473, board.kid, time_s, [], faults=faults)
    raw = sign1(board, senml.CONTENT_TYPE, payload, chain.founding.chain_id, 1, 0)
    assert judge(admission, raw, board.kid).kind == "admitted"


def test_a_group_is_judged_in_order_and_with_one_write(chain, board, admission, monkeypatch):
    admitted = []
    admit = chain.ledger.admit

    def counted(transactions, durable=True):
        admitted.append(len(transactions))
        return admit(transactions, durable)

    monkeypatch.setattr(chain.ledger, "admit", counted)
    good = [chain.pack(board, n).raw for n in (1, 2, 3)]
    messages = [good[0], b"garbage", good[1], good[0], good[2]]
    outcomes = admission.process([Message(raw, board.kid) for raw in messages])
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds == ["admitted", "refused", "admitted", "repeated", "admitted"]
    assert admitted == [4]


def test_nothing_is_lost_in_silence_when_the_disk_is_full(chain, board, admission, monkeypatch):
    def full(transactions, durable=True):
        raise StoreError("ledger.sqlite3: disk is full")

    monkeypatch.setattr(chain.ledger, "admit", full)
    with pytest.raises(StoreError):
        judge(admission, chain.pack(board, 1).raw, board.kid)


class TestCauses:
    def test_oversized(self, board, admission):
        data = bytes(MAX_PLAIN_BYTES + 1)
        outcome = judge(admission, data, board.kid)
        assert outcome.refusal.cause == "oversized"
        assert str(MAX_PLAIN_BYTES) in outcome.refusal.detail

    def test_malformed_garbage(self, board, admission):
        seed = 20260101
        print(f"seed {seed}")
        generator = random.Random(seed)
        for size in (0, 1, 2, 10, 1000, MAX_PLAIN_BYTES):
            assert cause(admission, generator.randbytes(size), board.kid) == "malformed"

    def test_malformed_though_the_board_signed_it(self, chain, board, admission):
        raw = sign1(board, senml.CONTENT_TYPE, b"\x80", chain.founding.chain_id, 1, 0)
        assert cause(admission, raw, board.kid) == "malformed"

    def test_malformed_for_another_enterprise_number(self, chain, board, admission):
        raw = chain.pack(board, 1, enterprise_number=7).raw
        assert cause(admission, raw, board.kid) == "malformed"

    def test_malformed_for_a_kind_that_no_board_may_sign(self, chain, board, admission):
        body = Incident("malformed", None, None, bytes(32), 0, "", 1)
        raw = chain.sign(board, body, 1).raw
        assert cause(admission, raw, board.kid) == "malformed"

    def test_unknown_device(self, chain, admission):
        stranger = SigningKey.from_secret(77)
        outcome = judge(admission, chain.pack(stranger, 3).raw, stranger.kid)
        refusal = outcome.refusal
        assert refusal.cause == "unknown_device"
        assert (refusal.device, refusal.sequence) == (stranger.kid, 3)

    def test_a_board_that_is_unknown_while_the_node_catches_up_is_not_accused(self, chain):
        current = False
        admission = Admission(chain.ledger, lambda: current)
        late = SigningKey.from_secret(78)
        pack = chain.pack(late, 1).raw
        outcome = judge(admission, pack, late.kid)
        assert (outcome.kind, outcome.refusal) == ("deferred", None)
        chain.enrol(late)
        assert judge(admission, pack, late.kid).kind == "admitted"
        current = True
        assert cause(admission, chain.pack(SigningKey.from_secret(79), 1).raw, None) == (
            "unknown_device"
        )

    def test_a_member_is_no_device(self, chain, admission):
        raw = chain.incident().raw
        assert cause(admission, raw, chain.gateway.kid) == "unknown_device"

    def test_conflict_shows_both_messages(self, chain, board, admission):
        first, second = chain.pack(board, 1), chain.pack(board, 1, value=2.5)
        assert judge(admission, first.raw, board.kid).kind == "admitted"
        outcome = judge(admission, second.raw, board.kid)
        assert outcome.refusal.cause == "conflict"
        assert outcome.clone == (second, first)

    def test_quarantined(self, chain, board, admission):
        pair = chain.pack(board, 1), chain.pack(board, 1, value=2.5)
        chain.seal(chain.sign(chain.gateway, Clone.of(*pair)))
        for message in (*pair, chain.pack(board, 2)):
            assert cause(admission, message.raw, board.kid) == "quarantined"
        chain.seal(chain.sign(chain.operator, ReinstateDevice(board.kid, "found", 1)))
        assert judge(admission, pair[0].raw, board.kid).kind == "admitted"

    def test_a_gap_is_admitted(self, chain, board, admission):
        chain.seal(chain.pack(board, 1))
        gap = chain.sign(board, Gap(2, "flash was erased"), 9, 9)
        assert judge(admission, gap.raw, board.kid).kind == "admitted"
        chain.seal()
        assert chain.ledger.state.next_sequence(board.kid) == 10
        # What the broker still held of the numbers that were given up.
        assert judge(admission, chain.pack(board, 3).raw, board.kid).kind == "deferred"

    def test_revoked_device(self, chain, board, admission):
        chain.revoke(board.kid)
        assert cause(admission, chain.pack(board, 1).raw, board.kid) == "revoked_device"

    def test_bad_signature(self, chain, board, admission):
        raw = with_bad_signature(chain.pack(board, 1))
        assert cause(admission, raw, board.kid) == "bad_signature"

    def test_bad_signature_of_a_key_that_only_claims_the_kid(self, chain, board, admission):
        pack = chain.pack(board, 1)
        forged = altered(pack, another_payload(chain, board))
        assert cause(admission, forged, board.kid) == "bad_signature"

    def test_bad_signature_for_another_ledger(self, board, chain, admission):
        payload = another_payload(chain, board)
        raw = sign1(board, senml.CONTENT_TYPE, payload, bytes(32), 1, 0)
        assert cause(admission, raw, board.kid) == "bad_signature"

    @pytest.mark.parametrize("is_final", [False, True])
    def test_tampered(self, chain, board, admission, is_final):
        pack = chain.pack(board, 1)
        judge(admission, pack.raw, board.kid)
        if is_final:
            chain.seal()
        forged = altered(pack, another_payload(chain, board))
        outcome = judge(admission, forged, board.kid)
        assert outcome.refusal.cause == "tampered"
        assert (outcome.refusal.device, outcome.refusal.sequence) == (board.kid, 1)

    def test_tampered_so_that_it_does_not_even_parse(self, chain, board, admission):
        pack = chain.pack(board, 1)
        judge(admission, pack.raw, board.kid)
        assert cause(admission, altered(pack, b"\x80"), board.kid) == "tampered"

    @pytest.mark.parametrize("is_final", [False, True])
    def test_conflict(self, chain, board, admission, is_final):
        judge(admission, chain.pack(board, 1).raw, board.kid)
        if is_final:
            chain.seal()
        second = chain.pack(board, 1, value=2.0).raw
        assert cause(admission, second, board.kid) == "conflict"

    def test_implausible(self, chain, board, admission):
        raw = chain.pack(board, 1, value=10.5).raw
        assert cause(admission, raw, board.kid) == "implausible"

    def test_wrong_topic(self, chain, board, other_board, admission):
        pack = chain.pack(board, 1)
        assert cause(admission, pack.raw, other_board.kid) == "wrong_topic"
        assert not chain.ledger.has(pack.id)

    def test_wrong_topic_that_names_no_board(self, chain, board, admission):
        assert cause(admission, chain.pack(board, 1).raw, None) == "wrong_topic"

    def test_a_bad_signature_is_worse_than_a_wrong_topic(
        self, chain, board, other_board, admission
    ):
        raw = with_bad_signature(chain.pack(board, 1))
        assert cause(admission, raw, other_board.kid) == "bad_signature"


class TestRepetitions:
    def test_a_copy_is_harmless_while_the_board_may_still_send_it(self, chain, board, admission):
        pack = chain.pack(board, 1)
        judge(admission, pack.raw, board.kid)
        assert judge(admission, pack.raw, board.kid).kind == "repeated"
        chain.seal()
        outcome = judge(admission, pack.raw, board.kid)
        assert (outcome.kind, outcome.device) == ("repeated", board.kid)

    def test_a_copy_below_a_waiting_watermark_is_a_replay(self, chain, board, admission):
        first = chain.pack(board, 1)
        judge(admission, first.raw, board.kid)
        judge(admission, chain.pack(board, 2, dropped=2).raw, board.kid)
        assert cause(admission, first.raw, board.kid) == "replayed"

    def test_a_copy_below_a_final_watermark_is_a_replay(self, chain, board, admission):
        first, second = chain.pack(board, 1), chain.pack(board, 2, dropped=2)
        chain.seal(first, second)
        assert judge(admission, second.raw, board.kid).kind == "repeated"
        assert cause(admission, first.raw, board.kid) == "replayed"
        assert judge(admission, second.raw, board.kid).kind == "repeated"

    def test_a_copy_that_was_long_under_way_is_no_replay(self, chain, board, admission):
        # The board has turned to another gateway, and dropped there what is on its way to us.
        first, second = chain.pack(board, 1), chain.pack(board, 2, dropped=2)
        chain.seal(first, second)
        assert judge(admission, first.raw, board.kid).kind == "repeated"

    def test_a_watermark_that_was_refused_does_not_count(self, chain, board, admission):
        first = chain.pack(board, 1)
        judge(admission, first.raw, board.kid)
        refused = with_bad_signature(chain.pack(board, 2, dropped=2))
        assert cause(admission, refused, board.kid) == "bad_signature"
        assert judge(admission, first.raw, board.kid).kind == "repeated"

    def test_a_copy_under_another_topic_is_a_replay(self, chain, board, other_board, admission):
        pack = chain.pack(board, 1)
        judge(admission, pack.raw, board.kid)
        assert cause(admission, pack.raw, other_board.kid) == "replayed"

    def test_what_the_broker_repeats_after_a_reconnect_is_no_replay(
        self, chain, board, other_board, admission
    ):
        first = chain.pack(board, 1)
        chain.seal(first, chain.pack(board, 2, dropped=2))
        for claimed in (board.kid, other_board.kid):
            outcome = judge(admission, first.raw, claimed, redelivered=True)
            assert outcome.kind == "repeated"

    def test_watermarks_are_bounded(self, chain, board, other_board, admission, monkeypatch):
        monkeypatch.setattr("fog_node.gateway.admission.MAX_WATERMARKS", 1)
        for key in (board, other_board):
            judge(admission, chain.pack(key, 1, dropped=1).raw, key.kid)
        assert list(admission._dropped) == [other_board.kid]


class TestSequenceWindow:
    def test_what_comes_early_waits(self, chain, board, admission):
        early = chain.pack(board, MAX_SEQUENCE_AHEAD).raw
        assert judge(admission, early, board.kid).kind == "admitted"

    def test_what_comes_far_too_early_is_left_to_be_sent_again(self, chain, board, admission):
        outcome = judge(admission, chain.pack(board, MAX_SEQUENCE_AHEAD + 1).raw, board.kid)
        assert (outcome.kind, outcome.device) == ("deferred", board.kid)


@pytest.mark.parametrize("detail", ["", "x" * 500, "a\nb\x00c\u202e"])
def test_a_detail_fits_into_an_incident(detail):
    incident = Incident("malformed", None, None, bytes(32), 0, printable(detail), 1)
    assert Incident.decode(incident.encode()) == incident
    assert len(incident.detail) <= MAX_TEXT_CHARS


def test_random_changes_to_a_pack_never_get_in_and_never_break_the_gateway(chain, board, admission):
    seed = 20260102
    print(f"seed {seed}")
    generator = random.Random(seed)
    pack = chain.pack(board, 1)
    judge(admission, pack.raw, board.kid)
    for _ in range(300):
        data = bytearray(pack.raw)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        if generator.random() < 0.2:
            del data[generator.randrange(len(data)) :]
        outcome = judge(admission, bytes(data), board.kid)
        assert outcome.kind == "refused"
    assert chain.ledger.waiting == 1
