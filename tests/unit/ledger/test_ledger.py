"""The ledger as the rest of the node uses it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from fog_node.errors import ConflictError, ForkError, LedgerError, StoreError
from fog_node.ledger import Ledger
from fog_node.ledger.template import BLOCK_OVERHEAD_BYTES
from fog_node.protocol.block import Block
from fog_node.protocol.founding import parse_founding
from fog_node.protocol.governance import SetParameters, SetRoles
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.proof import parse_proof
from fog_node.protocol.transactions import parse_transaction
from fog_node.protocol.votes import make_certificate, parse_certificate

WAIT_S = 60


@pytest.fixture
def other_device() -> SigningKey:
    return SigningKey.from_secret(1001)


@pytest.fixture
def enrolled(consortium, ledger, device) -> Ledger:
    """A ledger with one block, in which `device` was enrolled."""
    consortium.seal(ledger, consortium.enrol(device))
    return ledger


def admit_one(ledger, transaction, durable=False):
    (result,) = ledger.admit([transaction], durable)
    return result


class TestAdmission:
    def test_of_the_same_bytes_again(self, consortium, enrolled, device):
        pack = consortium.pack(device)
        assert admit_one(enrolled, pack).status == "admitted"
        assert admit_one(enrolled, pack).status == "waiting"
        consortium.seal(enrolled)
        assert admit_one(enrolled, pack).status == "final"
        consortium.seal(enrolled, consortium.revoke(device.kid))
        assert admit_one(enrolled, pack).status == "final"

    @pytest.mark.parametrize("sealed", [False, True])
    def test_of_a_second_content_under_one_number(self, consortium, enrolled, device, sealed):
        first = consortium.pack(device, 1)
        admit_one(enrolled, first)
        if sealed:
            consortium.seal(enrolled)
        result = admit_one(enrolled, consortium.pack(device, 1, value=2.5))
        assert result.status == "refused"
        assert isinstance(result.error, ConflictError)
        assert result.error.existing == first
        assert enrolled.transaction_at(device.kid, 1) == first

    def test_a_forged_one_is_no_conflict(self, consortium, enrolled, device):
        first = consortium.pack(device, 1)
        consortium.seal(enrolled, first)
        second = consortium.pack(device, 1, value=2.5)
        forged = parse_transaction(second.raw[:-1] + bytes([second.raw[-1] ^ 1]))
        assert admit_one(enrolled, forged).error.cause == "bad_signature"

    def test_in_one_batch(self, consortium, enrolled, device, other_device):
        good = [consortium.pack(device) for _ in range(3)]
        bad = consortium.pack(device, 4, value=1e6)
        stranger = consortium.pack(other_device)
        results = enrolled.admit([good[2], bad, good[0], stranger, good[1], good[0]])
        assert [item.status for item in results] == [
            "admitted",
            "refused",
            "admitted",
            "refused",
            "admitted",
            "waiting",
        ]
        assert [item.error.cause for item in results if item.error] == [
            "implausible",
            "unknown_device",
        ]
        assert enrolled.next_sequence(device.kid) == 4

    def test_a_number_can_be_used_again_after_a_refusal(self, consortium, enrolled, device):
        assert admit_one(enrolled, consortium.pack(device, 1, value=1e6)).error
        assert admit_one(enrolled, consortium.pack(device, 1)).status == "admitted"

    def test_only_what_was_asked_for_survives(self, consortium, enrolled, device, tmp_path):
        durable, relayed, both = (consortium.pack(device) for _ in range(3))
        admit_one(enrolled, durable, durable=True)
        admit_one(enrolled, relayed)
        admit_one(enrolled, both)
        assert admit_one(enrolled, both, durable=True).status == "waiting"
        enrolled.close()
        again = Ledger.open(tmp_path / "data", consortium.founding)
        assert again.has(durable.id)
        assert not again.has(relayed.id)
        assert again.get_waiting(both.id) == both
        assert again.next_sequence(device.kid) == 2
        consortium.seal(again, relayed)
        assert again.state.next_sequence(device.kid) == 4
        again.close()

    def test_a_members_own_are_numbered_in_one_place(self, consortium, ledger):
        gateway = consortium.validators[0]
        bodies = [consortium.incident(gateway, sequence=1).body] * 3
        threads = [threading.Thread(target=ledger.submit, args=(gateway, bodies)) for _ in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        consortium.seal(ledger)
        assert ledger.state.next_sequence(gateway.kid) == 10

    def test_what_became_final_elsewhere_is_not_taken_up_again(
        self, consortium, enrolled, device, tmp_path
    ):
        packs = [consortium.pack(device) for _ in range(2)]
        enrolled.admit(packs)
        consortium.seal(enrolled)
        enrolled.close()
        again = Ledger.open(tmp_path / "data", consortium.founding)
        assert again.waiting == 0
        assert not again.work_available(again.head.time)
        again.close()


class TestTemplate:
    def test_has_what_waits(self, consortium, enrolled, device):
        packs = [consortium.pack(device) for _ in range(3)]
        consortium.admit(enrolled, *packs)
        block = consortium.next_block(enrolled)
        assert list(block.transactions) == packs
        assert block.height == 2
        enrolled.validate(block, block.coinbase.time)
        assert enrolled.height == 1

    def test_leaves_out_what_a_revocation_forbids(self, consortium, enrolled, device):
        pack, revoke = consortium.pack(device), consortium.revoke(device.kid)
        consortium.admit(enrolled, pack, revoke)
        assert list(consortium.next_block(enrolled).transactions) == [revoke]

    def test_leaves_out_the_second_of_two_that_exclude_each_other(
        self, consortium, ledger, device, other_device
    ):
        first = consortium.enrol(device)
        second = consortium.enrol(device, by=consortium.second_operator)
        after_second = consortium.enrol(other_device, by=consortium.second_operator)
        consortium.admit(ledger, first, second, after_second)
        assert list(consortium.next_block(ledger).transactions) == [first]
        done = consortium.seal(ledger)
        assert done.evicted == (second.id,)
        # The operator signs something else under the number that has become free.
        assert ledger.next_sequence(consortium.second_operator.kid) == 1
        replacement = consortium.revoke(device.kid, by=consortium.second_operator, sequence=1)
        consortium.seal(ledger, replacement)
        assert other_device.kid in ledger.state.devices

    def test_needs_a_validator_in_good_standing(self, consortium, enrolled):
        consortium.seal(
            enrolled,
            consortium.evidence(consortium.validators[0], by=consortium.validators[1]),
            miner=1,
        )
        for key in (consortium.validators[0], consortium.operator):
            with pytest.raises(LedgerError) as caught:
                enrolled.template(key, 0, enrolled.head.time)
            assert caught.value.cause == "not_eligible"

    def test_respects_mining_diversity(self, make_consortium, tmp_path):
        consortium = make_consortium(mining_diversity=1000)
        ledger = Ledger.open(tmp_path / "data", consortium.founding)
        miners = []
        for turn in range(6):
            assert ledger.height_setting().recent_miners == tuple(miners[-2:])
            for key in consortium.validators:
                if key.kid in miners[-2:]:
                    with pytest.raises(LedgerError, match="may not mine"):
                        ledger.template(key, 0, 0)
                else:
                    ledger.template(key, 0, 0)
            consortium.seal(ledger, miner=turn % 3)
            miners.append(consortium.validators[turn % 3].kid)
        ledger.close()

    def test_stays_within_the_blocks_limits(self, make_consortium, device, tmp_path):
        consortium = make_consortium(max_block_bytes=64 * 1024)
        ledger = Ledger.open(tmp_path / "data", consortium.founding)
        consortium.seal(ledger, consortium.enrol(device))
        packs = [consortium.pack(device, rows=120) for _ in range(40)]
        consortium.admit(ledger, *packs)
        block = consortium.next_block(ledger)
        ledger.validate(ledger.parse_block(block.raw), None)
        unused = 64 * 1024 - len(block.raw)
        assert unused < len(packs[0].raw) + BLOCK_OVERHEAD_BYTES
        ledger.close()

    def test_retargets_from_what_is_stored(self, make_consortium, tmp_path):
        consortium = make_consortium(retarget_blocks=4, block_interval_ms=4000)
        ledger = Ledger.open(tmp_path / "data", consortium.founding)
        for _ in range(5):
            consortium.seal(ledger)  # each one second after the last
        bits = [info.bits for info in ledger.infos(1, 5)]
        assert bits[:3] == [consortium.founding.parameters.bits] * 3
        assert bits[3] == bits[4] == 0x201FFFFF  # a quarter of the target
        ledger.close()


class TestWork:
    def test_is_there_when_something_waits(self, consortium, enrolled, device):
        now = enrolled.head.time + 1
        assert not enrolled.work_available(now)
        consortium.admit(enrolled, consortium.pack(device, 2))
        assert not enrolled.work_available(now)
        consortium.admit(enrolled, consortium.pack(device, 1))
        assert enrolled.work_available(now)

    def test_is_there_when_a_heartbeat_is_due(self, enrolled):
        beat = enrolled.founding.parameters.heartbeat_ms
        assert not enrolled.work_available(enrolled.head.time + beat - 1)
        assert enrolled.work_available(enrolled.head.time + beat)

    def test_rests(self, make_consortium, tmp_path):
        consortium = make_consortium(rest_ms=300)
        ledger = Ledger.open(tmp_path / "data", consortium.founding)
        assert ledger.earliest_ms() == consortium.founding.time + 300
        ledger.close()


class TestCommit:
    def test_moves_the_head(self, consortium, enrolled, device):
        before = enrolled.snapshot
        pack = consortium.pack(device)
        done = consortium.seal(enrolled, pack)
        assert enrolled.head == done.info == enrolled.info(2)
        assert enrolled.waiting == 0
        assert enrolled.state.root() == enrolled.head.state
        assert (enrolled.find(pack.id).height, enrolled.find(pack.id).index) == (2, 1)
        assert before.state.next_sequence(device.kid) == 1
        raw, certificate = enrolled.block(2)
        assert enrolled.parse_block(raw).hash == done.info.hash
        assert parse_certificate(certificate).height == 2

    def test_once_more_changes_nothing(self, consortium, enrolled):
        raw, certificate = enrolled.block(1)
        head = enrolled.head
        done = enrolled.commit(enrolled.parse_block(raw), parse_certificate(certificate))
        assert done.info == enrolled.head == head

    def test_needs_a_quorum(self, consortium, enrolled):
        block = consortium.next_block(enrolled)
        with pytest.raises(LedgerError) as caught:
            enrolled.commit(block, consortium.certify(block, consortium.validators[:2]))
        assert caught.value.cause == "certificate"
        assert enrolled.height == 1

    def test_needs_votes_that_verify(self, consortium, enrolled):
        block = consortium.next_block(enrolled)
        certificate = consortium.certify(block)
        vote = certificate.votes[0]
        forged = replace(vote, raw=vote.raw[:-1] + bytes([vote.raw[-1] ^ 1]))
        with pytest.raises(LedgerError) as caught:
            enrolled.commit(block, make_certificate([forged, *certificate.votes[1:]]))
        assert caught.value.cause == "certificate"

    def test_needs_votes_for_this_very_block(self, consortium, enrolled, device):
        first = consortium.next_block(enrolled)
        consortium.admit(enrolled, consortium.pack(device))
        second = consortium.next_block(enrolled)
        with pytest.raises(LedgerError, match="another block"):
            enrolled.commit(second, consortium.certify(first))

    def test_takes_no_certificate_of_a_round_before_the_block(self, consortium, enrolled):
        block = consortium.next_block(enrolled, round_=3)
        early = replace(block, coinbase=replace(block.coinbase, round=2))
        with pytest.raises(LedgerError, match="before the block was mined"):
            enrolled.commit(block, consortium.certify(early))

    def test_takes_no_vote_of_a_suspended_validator(self, consortium, enrolled):
        offender, witness = consortium.validators[:2]
        block_with = consortium.seal(enrolled, consortium.evidence(offender, by=witness))
        assert block_with.info.height == 2  # its own certificate may still hold the vote
        block = consortium.next_block(enrolled, miner=1)
        with pytest.raises(LedgerError) as caught:
            enrolled.commit(block, consortium.certify(block))
        assert caught.value.cause == "certificate"
        enrolled.commit(block, consortium.certify(block, consortium.validators[1:]))

    def test_drops_what_can_no_longer_become_final(
        self, consortium, enrolled, device, other_device, tmp_path
    ):
        consortium.seal(enrolled, consortium.enrol(other_device))
        ours, lasting = consortium.pack(device, 1), consortium.pack(device, 2)
        doomed = consortium.pack(other_device)
        enrolled.admit([ours, lasting, doomed])
        elsewhere = Ledger.open(tmp_path / "elsewhere", consortium.founding)
        for height in (1, 2):
            raw, certificate = enrolled.block(height)
            elsewhere.commit(elsewhere.parse_block(raw), parse_certificate(certificate))
        theirs = consortium.pack(device, 1, value=2.5)
        consortium.seal(elsewhere, theirs, consortium.revoke(other_device.kid))
        raw, certificate = elsewhere.block(3)
        done = enrolled.commit(enrolled.parse_block(raw), parse_certificate(certificate))
        assert set(done.evicted) == {ours.id, doomed.id}
        assert enrolled.get_waiting(lasting.id) == lasting
        assert enrolled.waiting == 1
        elsewhere.close()
        enrolled.close()
        again = Ledger.open(tmp_path / "data", consortium.founding)
        assert again.waiting == 1
        again.close()

    def test_another_node_comes_to_the_same_state(self, consortium, enrolled, device, tmp_path):
        for _ in range(3):
            consortium.seal(enrolled, consortium.pack(device))
        other = Ledger.open(tmp_path / "other", consortium.founding)
        for height in range(1, enrolled.height + 1):
            raw, certificate = enrolled.block(height)
            other.commit(other.parse_block(raw), parse_certificate(certificate))
        assert other.head == enrolled.head
        assert other.state.root() == enrolled.state.root()
        other.close()

    def test_skips_no_height(self, consortium, enrolled, tmp_path):
        consortium.seal(enrolled)
        empty = Ledger.open(tmp_path / "empty", consortium.founding)
        raw, certificate = enrolled.block(2)
        with pytest.raises(LedgerError, match=r"coinbase.height"):
            empty.commit(empty.parse_block(raw), parse_certificate(certificate))
        empty.close()


class TestVotes:
    """What a decision changes about a ledger: from the next height on, and at once what waits."""

    def decide(self, consortium, ledger, *changes, by=None, count=None):
        proposal, *approvals = consortium.decision(*changes, by=by, count=count)
        consortium.seal(ledger, proposal)
        return consortium.seal(ledger, *approvals)

    def test_the_next_height_has_the_new_voters(self, consortium, enrolled):
        before = enrolled.height_setting()
        self.decide(consortium, enrolled, consortium.adding("ulsan", "validator"))
        after = enrolled.height_setting()
        new = consortium.member_key("ulsan").kid
        assert after.validators == (*before.validators, new)
        assert (before.quorum, after.quorum) == (3, 4)

    def test_the_next_block_keeps_the_new_parameters(self, consortium, enrolled, device):
        change = SetParameters(
            (("max_block_transactions", 1), ("mining_diversity", 1000), ("rest_ms", 500))
        )
        self.decide(consortium, enrolled, change)
        packs = [consortium.pack(device) for _ in range(3)]
        consortium.admit(enrolled, *packs)
        assert enrolled.height_setting().spacing == 2
        assert enrolled.earliest_ms() == enrolled.head.time + 500
        with pytest.raises(LedgerError) as caught:
            consortium.next_block(enrolled)  # its miner mined the ones before
        assert caught.value.cause == "not_eligible"
        assert len(consortium.next_block(enrolled, miner=1).transactions) == 1

    def test_what_a_former_key_has_waiting_goes(self, consortium, enrolled):
        first, second = consortium.validators[:2]
        fresh = consortium.member_key("fresh")
        by = consortium.validators[2:]
        waiting = [consortium.incident(key, sequence=2) for key in (first, second)]
        consortium.admit(enrolled, *waiting)
        committed = self.decide(
            consortium,
            enrolled,
            consortium.rotating(first, "v0", fresh),
            consortium.removing(second),
            by=by,
        )
        assert set(committed.evicted) == {item.id for item in waiting}

    def test_what_waits_without_the_role_goes_when_its_turn_comes(self, consortium, enrolled):
        waiting = consortium.release(1)
        consortium.admit(enrolled, waiting)
        change = SetRoles(consortium.trainer.kid, frozenset({"provider"}))
        proposal, *approvals = consortium.decision(change)
        consortium.admit(enrolled, proposal)
        block = consortium.next_block(enrolled)
        assert waiting in block.transactions  # it was in time
        enrolled.commit(block, consortium.certify(block))
        late = consortium.release(2)
        consortium.admit(enrolled, *approvals)
        decided = consortium.next_block(enrolled)
        consortium.admit(enrolled, late)
        committed = enrolled.commit(decided, consortium.certify(decided))
        assert committed.evicted == (late.id,)

    def test_all_of_it_comes_back_after_a_start(self, consortium, enrolled, tmp_path):
        self.decide(
            consortium,
            enrolled,
            consortium.adding("ulsan", "validator"),
            consortium.rotating(consortium.trainer, "trainer", consortium.member_key("fresh")),
            consortium.removing(consortium.owner),
            SetParameters((("stagger_ms", 9),), "two-thirds"),
        )
        open_one = consortium.propose(consortium.validators[0], consortium.adding("jeju"))
        consortium.admit(enrolled, open_one)
        block = consortium.next_block(enrolled)
        enrolled.commit(block, consortium.certify(block, consortium.validators, count=5))
        before = enrolled.state
        setting = enrolled.height_setting()
        enrolled.close()
        again = Ledger.open(tmp_path / "data", consortium.founding)
        assert again.state.root() == before.root()
        assert again.state.membership == before.membership
        assert again.height_setting() == setting
        assert again.state.time == before.time
        again.close()


class TestFork:
    @pytest.fixture
    def rival(self, consortium, enrolled, device) -> Block:
        """Another block of height 2 than the one that is final."""
        rival = consortium.next_block(enrolled, miner=1)
        consortium.seal(enrolled, consortium.pack(device))
        return rival

    def test_keeps_both_and_takes_nothing_more(self, consortium, enrolled, rival, device, tmp_path):
        head = enrolled.head
        voters = consortium.validators[2:]
        pack = consortium.pack(device)
        for _ in range(2):
            with pytest.raises(ForkError) as caught:
                enrolled.commit(rival, consortium.certify(rival, voters))
            assert caught.value.height == 2
            assert caught.value.hashes == (head.hash, rival.hash)
        assert enrolled.head == head
        enrolled.close()

        again = Ledger.open(tmp_path / "data", consortium.founding)
        assert again.fork.hashes == (head.hash, rival.hash)
        (fork,) = again.forks()
        assert (fork.height, fork.block) == (2, rival.raw)
        parse_certificate(fork.certificate)
        for refused in (
            lambda: again.admit([pack]),
            lambda: again.template(consortium.validators[0], 0, head.time),
        ):
            with pytest.raises(ForkError):
                refused()
        assert again.block(2) is not None  # reading goes on
        again.close()

    def test_is_judged_by_the_voters_of_its_height(self, consortium, enrolled, rival):
        first = consortium.validators[0]
        proposal, *approvals = consortium.decision(consortium.removing(first))
        consortium.seal(enrolled, proposal)
        consortium.seal(enrolled, *approvals)
        block = consortium.next_block(enrolled, miner=1)
        enrolled.commit(block, consortium.certify(block, consortium.validators[1:]))
        assert first.kid in enrolled.validator_set_at(4).by_kid
        assert first.kid not in enrolled.validator_set_at(5).by_kid
        assert enrolled.validator_set_at(6) == enrolled.state.validator_set
        assert enrolled.handovers(5) == [4]
        assert enrolled.handovers(3) == []
        with pytest.raises(ForkError):
            enrolled.commit(rival, consortium.certify(rival, consortium.validators[:3]))

    def test_is_none_without_a_certificate(self, consortium, enrolled, rival):
        with pytest.raises(LedgerError) as caught:
            enrolled.commit(rival, consortium.certify(rival, consortium.validators[:2]))
        assert caught.value.cause == "certificate"
        assert enrolled.fork is None
        assert enrolled.forks() == []


class TestProof:
    def test_holds_with_the_founding_file_alone(self, consortium, enrolled, device):
        packs = [consortium.pack(device) for _ in range(5)]
        consortium.seal(enrolled, *packs)
        founding = parse_founding(consortium.founding.raw)
        for pack in packs:
            proof = parse_proof(enrolled.prove(pack.id).encode())
            proof.verify(founding)
            assert proof.subject.transaction == pack
            assert [i.block.height for i in proof.introductions] == [1]

    def test_of_a_members_transaction(self, consortium, enrolled):
        incident = consortium.incident(consortium.validators[0])
        consortium.seal(enrolled, incident)
        proof = enrolled.prove(incident.id)
        proof.verify(consortium.founding)
        assert proof.introductions == ()

    def test_there_is_none_of_what_only_waits(self, consortium, enrolled, device):
        pack = consortium.pack(device)
        consortium.admit(enrolled, pack)
        assert enrolled.prove(pack.id) is None


def test_closed_ledger_says_so(consortium, tmp_path):
    ledger = Ledger.open(tmp_path / "data", consortium.founding)
    ledger.close()
    with pytest.raises(StoreError):
        ledger.block(1)


def test_many_threads_lose_nothing(consortium, enrolled):
    """Three threads admit, one reads, and this one seals meanwhile."""
    devices = [SigningKey.from_secret(2000 + i) for i in range(3)]
    consortium.seal(enrolled, *[consortium.enrol(device) for device in devices])
    packs = [[consortium.pack(device) for _ in range(30)] for device in devices]
    failures: list[Exception] = []
    done = threading.Event()

    def guarded(work):
        def run():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - told by the main thread
                failures.append(error)

        return threading.Thread(target=run)

    def admit(batch, durable):
        for pack in batch:
            assert enrolled.admit([pack], durable)[0].status == "admitted"

    def read():
        while not done.is_set():
            snapshot = enrolled.snapshot
            if snapshot.head.height:
                assert snapshot.state.root() == snapshot.head.state
                assert enrolled.block(snapshot.head.height) is not None

    workers = [guarded(lambda b=batch, i=i: admit(b, i != 0)) for i, batch in enumerate(packs)]
    reader = guarded(read)
    for thread in (*workers, reader):
        thread.start()
    end = time.monotonic() + WAIT_S
    while any(worker.is_alive() for worker in workers) and time.monotonic() < end:
        consortium.seal(enrolled)
    for worker in workers:
        worker.join(max(0, end - time.monotonic()))
    consortium.seal(enrolled)
    done.set()
    reader.join(WAIT_S)
    assert not failures
    assert enrolled.waiting == 0
    for device in devices:
        assert enrolled.state.next_sequence(device.kid) == 31
        assert len(enrolled.list_signer(device.kid, limit=100)) == 30
