"""Rollouts, from what is final alone: groups, thresholds, approvals, silence and the way back."""

from __future__ import annotations

import random
from dataclasses import replace

import cbor2
import pytest

from fog_node.errors import LedgerError
from fog_node.ledger import Ledger, State
from fog_node.ledger.rollouts import deal
from fog_node.protocol import senml
from fog_node.protocol.cbor import encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import parse_founding
from fog_node.protocol.governance import SetParameters
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.rollouts import Group, Named
from fog_node.protocol.transactions import (
    DatasetReference,
    PackBody,
    Release,
    Revoke,
    RolloutApprove,
    RolloutControl,
    RolloutReport,
)

START_MS = 1_700_000_000_000
TYPE = "water-circulation"
NEW, OLD = bytes(range(32)), b"\xee" * 32
BUNDLES = {1: b"\x01" * 32, 2: b"\x02" * 32, 3: b"\x03" * 32, 4: b"\x04" * 32, 5: b"\x05" * 32}
ALL = Group(100, (), 80, 20)
SILENT_MS = 3_600_000
HEARTBEAT_MS = 600_000


class World:
    """A state with boards whose type runs version 1; version 2 and its way back 3 are released."""

    def __init__(self, consortium, boards=8, first=True):
        self.consortium = consortium
        self.state = State.at_founding(consortium.founding)
        self.height = 1
        self.boards = sorted(
            (SigningKey.from_secret(9000 + i) for i in range(boards)), key=lambda key: key.kid
        )
        self.seal(*(consortium.enrol(board) for board in self.boards))
        self.rollout_id = None
        if first:
            self.release(1)
            self.propose(version=1, back=None)
            self.approve()
            for board in self.boards:
                self.pack(board, NEW, verdicts=4)
            assert self.offer.stable.version == 1
        self.release(2)
        if first:
            self.release(3, "anomaly-back")

    # What becomes final

    def sign(self, key, body):
        """Under the next number as the state has it: what was refused took none."""
        return self.consortium.sign(key, body, self.state.next_sequence(key.kid))

    def seal(self, *transactions, seconds=1):
        """A block with these; its state is checked to survive being stored."""
        after = self.state.copy()
        self.height += 1
        after.advance(self.height, after.time + seconds * 1000)
        for transaction in transactions:
            after.check(transaction, self.height)
            after.apply(transaction, self.height)
        after.root()
        self.state = after

    def release(self, version, name="anomaly"):
        dataset = DatasetReference(bytes(32), 0, 0, 0)
        body = Release(name, version, TYPE, bytes(32), BUNDLES[version], 9, (), dataset, START_MS)
        self.seal(self.sign(self.consortium.trainer, body))

    def propose(self, version=2, back=3, model=NEW, by=None, **other):
        named = Named("anomaly", version, BUNDLES[version])
        way_back = back and Named("anomaly-back", back, BUNDLES[back])
        key = by or self.consortium.trainer
        transaction = self.consortium.rollout(
            key,
            self.state.next_sequence(key.kid),
            release=named,
            back=way_back,
            model=model,
            **other,
        )
        self.seal(transaction)
        self.rollout_id = transaction.id

    def approve(self, by=None):
        by = by or self.consortium.operator
        self.seal(self.sign(by, RolloutApprove(self.rollout_id)))

    def control(self, action, reason="why", by=None):
        body = RolloutControl(self.rollout_id, action, reason)
        self.seal(self.sign(by or self.consortium.operator, body))

    def report(self, board, outcome="refused", by=0, rollout=None):
        body = RolloutReport(rollout or self.rollout_id, board.kid, outcome, "why", START_MS)
        self.seal(self.sign(self.consortium.validators[by], body))

    def pack(self, board, model, verdicts=1, anomalies=0, seconds=1):
        time = START_MS // 1000
        judged = [senml.Verdict(time, 1, i < anomalies, bytes(8)) for i in range(verdicts)]
        rows = [(0, [("pressure", "bar", 1.0)])]
        payload = senml.encode_pack(
            32473, board.kid, time, rows, judged, model[:8] if verdicts else None
        )
        self.seal(self.sign(board, PackBody.decode(payload)), seconds=seconds)

    def all_do_well(self, model=NEW):
        for board in sorted(self.boards, key=lambda board: self.how(board).group):
            self.pack(board, model, verdicts=4)

    def enrol(self, board):
        operator = self.consortium.operator
        number = self.state.next_sequence(operator.kid)
        self.seal(self.consortium.enrol(board, sequence=number))

    def revoke(self, board):
        self.seal(self.sign(self.consortium.operator, Revoke(board.kid, "lost", START_MS)))

    # What came of it

    @property
    def offer(self):
        return self.state.offers[TYPE]

    @property
    def rollout(self):
        return self.offer.rollout

    def group(self, number):
        """Boards of a group, from 1."""
        return [b for b in self.boards if self.how(b).group == number - 1]

    def how(self, board):
        return self.state.rollout_boards[board.kid]

    def offered(self, board):
        found = self.state.offered(self.state.devices[board.kid])
        return None if found is None else found.version


@pytest.fixture
def make_world(make_consortium):
    def make(boards=8, first=True, staged=1, **parameters):
        consortium = make_consortium(
            staged_releases=staged, heartbeat_ms=HEARTBEAT_MS, **parameters
        )
        return World(consortium, boards, first)

    return make


@pytest.fixture
def world(make_world):
    """A rollout of version 2 that waits for its approval: a quarter, half, all."""
    world = make_world()
    world.propose(groups=(Group(25, (), 100, 50), Group(50, (), 50, 50), ALL))
    return world


def refused(match):
    return pytest.raises(LedgerError, match=match)


class TestApproval:
    def test_nothing_is_offered_before_a_second_member_approves(self, world):
        assert {world.offered(board) for board in world.boards} == {1}
        with refused("was proposed by trainer; another member"):
            world.approve(by=world.consortium.trainer)
        world.approve()
        assert [world.offered(b) for b in world.boards].count(2) == 2
        with refused("is running, not proposed"):
            world.approve(by=world.consortium.second_operator)

    def test_a_new_key_makes_nobody_a_second_member(self, world):
        new = SigningKey.from_secret(77)
        change = world.consortium.rotating(world.consortium.trainer, "trainer", new)
        world.seal(*world.consortium.decision(change))
        with refused("was proposed by trainer"):
            world.approve(by=new)

    def test_an_operator_may_propose_and_a_trainer_approve(self, make_world):
        world = make_world()
        world.propose(by=world.consortium.operator)
        world.approve(by=world.consortium.trainer)
        assert world.rollout.status == "running"

    def test_one_at_a_time(self, world):
        with refused("has the open rollout"):
            world.propose()
        world.control("rollback")
        assert (world.rollout.status, world.rollout.reason) == ("withdrawn", "why")
        world.propose()
        assert {world.offered(board) for board in world.boards} == {1}

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"version": 1}, "rollout.release: is not the latest release"),
            ({"back": None}, "rollout.back: names none"),
            ({"device_type": "fan"}, "no release that waits for a rollout"),
            ({"groups": (Group(None, (bytes(8),), 80, 20), ALL)}, "is no board of water"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, make_world, changes, match):
        world = make_world()
        with refused(match):
            world.propose(**changes)

    def test_the_first_of_a_device_type_has_no_way_back(self, make_world):
        world = make_world(first=False)
        world.release(3, "anomaly-back")
        with refused("rollout.back: is given, and there was nothing before"):
            world.propose()
        world.propose(back=None)
        assert {world.offered(board) for board in world.boards} == {None}

    def test_a_version_that_boards_would_refuse(self, make_world):
        world = make_world()
        world.propose()
        world.approve()
        world.control("rollback")
        named = Named("anomaly", 2, BUNDLES[2])
        trainer = world.consortium.trainer
        number = world.state.next_sequence(trainer.kid)
        with refused("rollout.release.version: is not above 3, which boards may run"):
            world.seal(world.consortium.rollout(trainer, number, release=named, back=None))


class TestGroups:
    def test_percentages_are_of_all_boards_and_rounded_up(self, world):
        world.approve()
        assert [len(world.group(n)) for n in (1, 2, 3)] == [2, 2, 4]
        assert [count.boards for count in world.rollout.counts] == [2, 2, 4]

    def test_anybody_can_compute_them(self, world):
        world.approve()
        again = deal(world.rollout.body, [board.kid for board in reversed(world.boards)])
        assert again == {board.kid: world.how(board).group for board in world.boards}

    def test_who_is_first_differs_from_release_to_release(self, world):
        body = world.rollout.body
        kids = [board.kid for board in world.boards]
        firsts = set()
        for seed in range(30):
            bundle = random.Random(seed).randbytes(32)
            dealt = deal(replace(body, release=Named("anomaly", 2, bundle)), kids)
            firsts.add(tuple(sorted(kid for kid, group in dealt.items() if group == 0)))
        assert len(firsts) > 10

    def test_boards_that_are_named_are_in_their_group(self, make_world):
        world = make_world()
        chosen = world.boards[5]
        world.propose(groups=(Group(25, (), 80, 20), Group(None, (chosen.kid,), 80, 20), ALL))
        world.approve()
        assert world.how(chosen).group == 1
        assert len(world.group(2)) == 1

    def test_a_small_share_of_few_boards_is_one_board(self, make_world):
        world = make_world(boards=3)
        world.propose(groups=(Group(5, (), 80, 20), Group(25, (), 80, 20), ALL))
        world.approve()
        # The second has none, so it holds nobody up.
        assert [count.boards for count in world.rollout.counts] == [1, 0, 2]
        world.pack(*world.group(1), NEW, verdicts=4)
        assert world.rollout.group == 2

    def test_without_boards_it_is_finished_at_once(self, make_world):
        world = make_world(boards=0)
        world.propose()
        world.approve()
        assert (world.rollout.status, world.offer.stable.version) == ("finished", 2)

    def test_a_board_that_was_enrolled_meanwhile_waits_for_the_end(self, world):
        world.approve()
        late = SigningKey.from_secret(9999)
        world.enrol(late)
        assert world.offered(late) == 1
        world.all_do_well()
        assert world.rollout.status == "finished"
        assert world.offered(late) == 2


class TestSuccess:
    def test_a_group_begins_when_the_one_before_has_done_well(self, world):
        world.approve()
        first, second = world.group(1)
        world.pack(first, NEW, verdicts=4)
        assert world.rollout.group == 0
        world.pack(second, NEW, verdicts=3)
        world.pack(second, NEW, verdicts=1)
        assert world.rollout.group == 1
        assert [world.offered(b) for b in world.group(2)] == [2, 2]
        assert {world.offered(b) for b in world.group(3)} == {1}
        world.pack(world.group(2)[0], NEW, verdicts=4)  # half of them is enough here
        assert world.rollout.group == 2
        for board in world.group(3):
            world.pack(board, NEW, verdicts=4)
        assert world.rollout.status == "finished"
        assert (world.offer.stable.version, world.offer.back) == (2, None)
        assert {world.offered(board) for board in world.boards} == {2}

    def test_verdicts_of_another_model_and_packs_without_do_not_count(self, world):
        world.approve()
        board = world.group(1)[0]
        world.pack(board, OLD, verdicts=20)
        world.pack(board, NEW, verdicts=0)
        assert (world.how(board).state, world.how(board).verdicts) == ("waiting", 0)

    def test_time_may_be_asked_for_too(self, make_world):
        world = make_world(boards=1)
        world.propose(soak_s=600)
        world.approve()
        (board,) = world.boards
        world.pack(board, NEW, verdicts=9)
        world.pack(board, NEW, seconds=599)
        assert world.how(board).state == "trying"
        world.pack(board, NEW)
        assert world.rollout.status == "finished"

    def test_what_a_board_did_before_its_turn_does_not_count(self, world):
        world.approve()
        early = world.group(3)[0]
        world.pack(early, NEW, verdicts=9)
        assert world.how(early).state == "waiting"

    def test_a_paused_one_begins_no_group_until_it_goes_on(self, world):
        world.approve()
        world.control("pause", "the night shift")
        assert (world.rollout.status, world.rollout.reason) == ("paused", "the night shift")
        for board in world.group(1):
            assert world.offered(board) == 2
            world.pack(board, NEW, verdicts=4)
        assert world.rollout.group == 0
        with refused("pause of a rollout that is paused; it must be running"):
            world.control("pause")
        world.control("resume")
        assert (world.rollout.status, world.rollout.group) == ("running", 1)
        with refused("resume of a rollout that is running"):
            world.control("resume")


class TestFailure:
    def test_refusals_stop_it_and_lead_back(self, world):
        world.approve()
        first, second = world.group(1)
        world.pack(first, NEW, verdicts=4)
        world.report(second)
        assert world.rollout.status == "stopped"
        assert world.rollout.reason == "group 1: 1 of 2 boards failed"
        assert {world.offered(board) for board in world.boards} == {3}
        assert world.offer.stable.version == 1
        world.pack(first, OLD)
        assert world.how(first).state == "returned"

    def test_below_the_threshold_it_goes_on_without_who_refused(self, make_world):
        world = make_world(boards=6)
        world.propose(groups=(Group(100, (), 80, 50),))
        world.approve()
        refuser, *others = world.boards
        world.report(refuser)
        assert world.how(refuser).cause == "refused"
        assert (world.offered(refuser), world.offered(others[0])) == (1, 2)
        for board in others:
            world.pack(board, NEW, verdicts=4)
        assert world.rollout.status == "finished"

    def test_a_board_that_goes_back_by_itself_has_failed_even_after_doing_well(self, world):
        world.approve()
        board = world.group(1)[0]
        world.pack(board, NEW, verdicts=4)
        assert world.rollout.counts[0].done == 1
        world.pack(board, NEW, verdicts=0)
        world.pack(board, OLD)
        assert (world.how(board).state, world.how(board).cause) == ("failed", "rolled-back")
        assert world.rollout.status == "stopped"

    def test_too_many_anomalies_are_a_failure(self, make_world):
        world = make_world(boards=2)
        world.propose(anomalies=25, groups=(Group(100, (), 100, 100),))
        world.approve()
        good, bad = world.boards
        world.pack(good, NEW, verdicts=4, anomalies=1)
        world.pack(bad, NEW, verdicts=4, anomalies=2)
        assert world.how(good).state == "done"
        assert (world.how(bad).state, world.how(bad).cause) == ("failed", "anomalies")

    def test_a_board_that_falls_silent_has_failed(self, world):
        world.approve()
        alive, silent = world.group(1)
        world.pack(silent, OLD)
        heard = world.state.time
        while world.state.time <= heard + SILENT_MS - 300_000:
            world.pack(alive, NEW, verdicts=0, seconds=300)
        assert world.how(silent).state == "waiting"
        world.pack(alive, NEW, verdicts=0, seconds=300)
        world.pack(alive, NEW, verdicts=0, seconds=300)
        assert (world.how(silent).state, world.how(silent).cause) == ("failed", "silent")
        assert world.rollout.status == "stopped"

    def test_a_board_that_was_never_heard_is_late_and_nothing_else(self, world):
        world.approve()
        alive, late = world.group(1)
        for _ in range(20):
            world.pack(alive, NEW, verdicts=0, seconds=600)
        assert world.how(late).state == "waiting"
        world.pack(alive, NEW, verdicts=4)
        assert (world.rollout.status, world.rollout.group) == ("running", 0)
        world.pack(late, NEW, verdicts=4)
        assert world.rollout.group == 1

    def test_nobody_is_silent_while_the_chain_stands_still(self, world):
        world.approve()
        alive, other = world.group(1)
        world.pack(other, OLD)
        world.pack(alive, NEW, verdicts=0, seconds=10 * 3600)
        assert world.how(other).state == "waiting"
        assert world.how(other).heard == world.state.time
        for _ in range(13):
            world.pack(alive, NEW, verdicts=0, seconds=300)
        assert world.how(other).cause == "silent"

    def test_heartbeats_are_no_pause(self, make_world):
        world = make_world(boards=1)
        world.propose(silent_s=900)
        world.approve()
        world.pack(world.boards[0], NEW)
        world.seal(seconds=600)
        assert world.rollout.status == "running"
        world.seal(seconds=600)
        assert world.rollout.status == "stopped"

    def test_several_gateways_may_say_the_same_and_late(self, world):
        world.approve()
        first, second = world.group(1)
        world.report(first, by=0)
        before = world.rollout
        for by in (1, 2):
            world.report(first, by=by)
        world.report(second, rollout=bytes(32))
        world.report(SigningKey.from_secret(5))
        world.report(world.group(3)[0])
        assert world.rollout == before
        assert world.how(second).state == "waiting"

    def test_a_revoked_board_belongs_to_no_group(self, world):
        world.approve()
        first, second = world.group(1)
        world.pack(first, NEW, verdicts=4)
        world.revoke(second)
        assert second.kid not in world.state.rollout_boards
        assert world.rollout.counts[0].boards == 1
        assert world.rollout.group == 1
        world.report(second)
        assert world.rollout.status == "running"


class TestTheWayBack:
    def test_a_member_may_roll_back_at_any_time(self, world):
        world.approve()
        world.control("rollback", "false alarms")
        assert (world.rollout.status, world.rollout.reason) == ("stopped", "false alarms")
        assert {world.offered(board) for board in world.boards} == {3}
        with refused("rollback of a rollout that is stopped"):
            world.control("rollback")

    def test_even_after_the_end(self, make_world):
        world = make_world(boards=1)
        world.propose()
        world.approve()
        world.pack(*world.boards, NEW, verdicts=4)
        assert world.offered(*world.boards) == 2
        world.control("rollback")
        assert (world.offer.stable.version, world.offer.back) == (3, None)
        world.pack(*world.boards, OLD)
        assert world.how(*world.boards).state == "returned"

    def test_a_first_release_has_nothing_to_go_back_to(self, make_world):
        world = make_world(boards=2, first=False)
        world.propose(back=None, groups=(Group(50, (), 100, 100), ALL))
        world.approve()
        world.control("rollback")
        assert world.rollout.status == "stopped"
        assert {world.offered(board) for board in world.boards} == {None}

    def test_a_late_board_is_led_back_until_the_next_rollout_reaches_it(self, world):
        world.approve()
        runs_it = world.group(1)[0]
        world.pack(runs_it, NEW, verdicts=1)
        world.control("rollback")
        world.release(4)
        world.release(5, "anomaly-back")
        world.propose(version=4, back=5, model=OLD, groups=(Group(10, (), 100, 100), ALL))
        assert world.offered(runs_it) == 3
        world.approve()
        last = world.group(2)
        assert {world.offered(board) for board in last} == {3}
        world.all_do_well(OLD)
        assert world.rollout.status == "finished"
        assert {world.offered(board) for board in world.boards} == {4}


class TestTheParameter:
    def test_a_founding_file_may_have_it(self, make_consortium):
        founding = make_consortium(staged_releases=1).founding
        assert parse_founding(founding.raw).parameters.staged_releases == 1

    def test_it_is_left_out_where_it_is_0(self, make_consortium):
        raw = make_consortium().founding.raw
        assert b"staged_releases" not in raw
        assert parse_founding(raw).parameters.staged_releases == 0
        value = cbor2.loads(raw)
        value["parameters"]["staged_releases"] = 0
        with pytest.raises(ProtocolError, match="is left out then"):
            parse_founding(encode(value))


class TestReleasesWithoutARollout:
    def test_where_releases_are_not_staged_nothing_changes(self, make_world):
        world = make_world(first=False, staged=0)
        assert not world.state.offers
        with refused("no release that waits for a rollout"):
            world.propose(back=None)

    def test_what_all_boards_had_before_is_what_they_keep(self, make_world):
        world = make_world(first=False, staged=0)
        decision = world.consortium.decision(SetParameters((("staged_releases", 1),)))
        world.seal(*decision)
        assert not world.state.offers
        world.release(4)
        assert world.offer.stable.version == 2

    def test_once_they_are_for_all_again_they_do_not_overtake_a_rollout(self, world):
        decision = world.consortium.decision(SetParameters((("staged_releases", 0),)))
        world.seal(*decision)
        with refused("has an open rollout"):
            world.release(4)
        world.control("rollback")
        world.release(4)
        assert {world.offered(board) for board in world.boards} == {4}


class TestOnDisk:
    def test_a_rollout_survives_a_restart_in_any_state(self, make_consortium, tmp_path):
        consortium = make_consortium(staged_releases=1)
        ledger = Ledger.open(tmp_path / "data", consortium.founding)
        board = SigningKey.from_secret(1)
        release = consortium.release(1)
        rollout = consortium.rollout(release=Named("anomaly", 1, bytes(32)))
        steps = [
            consortium.enrol(board),
            release,
            rollout,
            consortium.sign(consortium.operator, RolloutApprove(rollout.id)),
            consortium.sign(
                consortium.operator, RolloutControl(rollout.id, "pause", "for the night")
            ),
            consortium.revoke(board.kid),
        ]
        for step in steps:
            consortium.seal(ledger, step)
            before = ledger.state
            ledger.close()
            ledger = Ledger.open(tmp_path / "data", consortium.founding)
            assert ledger.state.root() == before.root()
            assert dict(ledger.state.offers) == dict(before.offers)
            assert dict(ledger.state.rollout_boards) == dict(before.rollout_boards)
        assert ledger.state.offers[TYPE].rollout.status == "paused"
        ledger.close()


SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_and_offers_hold_whatever_comes(make_world, seed):
    """Random boards, reports, members and times; what must hold is checked after each step."""
    rng = random.Random(seed)
    print("seed", seed)
    world = make_world(boards=rng.randint(1, 7))
    groups = (Group(20, (), 60, 60), Group(60, (), 60, 60), Group(100, (), 90, 60))
    world.propose(groups=groups, soak_s=rng.choice([0, 30]))
    if rng.random() < 0.9:
        world.approve()
    revoked = set()
    for _ in range(60):
        board = rng.choice(world.boards)
        what = rng.random()
        if board.kid in revoked:
            world.seal(seconds=rng.choice([1, 400]))
        elif what < 0.7:
            model = NEW if rng.random() < 0.85 else OLD
            world.pack(board, model, rng.randint(0, 3), 0, seconds=rng.choice([1, 60, 400]))
        elif what < 0.8:
            world.report(board, rng.choice(["refused", "rolled-back"]), by=rng.randrange(5))
        elif what < 0.83:
            world.revoke(board)
            revoked.add(board.kid)
        else:
            action = rng.choice(["pause", "resume", "pause", "resume", "rollback"])
            wanted = {"pause": "running", "resume": "paused"}.get(action, world.rollout.status)
            if world.rollout.is_open and world.rollout.status == wanted:
                world.control(action)
        check(world)


def check(world):
    rollout = world.rollout
    again = State.from_entries(
        world.consortium.founding,
        [record.entry() for record in every_record(world.state)],
        world.state.time,
    )
    assert again.root() == world.state.copy().root()
    if not rollout.approver:
        assert {world.offered(board) for board in world.boards} <= {1}
        return
    records = list(world.state.rollout_boards.values())
    if rollout.is_offered:
        for number, count in enumerate(rollout.counts):
            states = [record.state for record in records if record.group == number]
            found = (len(states), states.count("done"), states.count("failed"))
            assert found == (count.boards, count.done, count.failed)
            assert (count.since > 0) == (number <= rollout.group)
    for record in records:
        version = world.state.offered(world.state.devices[record.kid]).version
        if rollout.status in ("running", "paused"):
            assert version in ((1, 2) if record.group <= rollout.group else (1,))
        elif rollout.status == "stopped":
            assert version == 3


def every_record(state):
    return [
        *state.membership.records(),
        *state.devices.values(),
        *state.releases.values(),
        *state.offers.values(),
        *state.rollout_boards.values(),
    ]
