"""Each board is told of what its rollout has come to, and what it refuses is sealed."""

from __future__ import annotations

import hashlib

import pytest
from support.small_chain import START_MS, SmallChain

from fog_node.blobs import BlobStore
from fog_node.gateway.offers import AGAIN_S, MAX_AT_ONCE, Offers
from fog_node.gateway.releases import Releases
from fog_node.gateway.statuses import Status, Update, parse_status
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.rollouts import Group
from fog_node.protocol.transactions import RolloutControl

OLD, NEW = b"the old model", b"the new model"
ALL = Group(100, (), 100, 100)


def model_id(payload):
    return hashlib.sha256(payload).digest()[:8]


class Gateway:
    """What a gateway sends of releases; several may look at one chain."""

    def __init__(self, chain, blobs, clock):
        self.chain = chain
        self.told: list[tuple[bytes, int]] = []
        self.for_all: list[int] = []
        self.reports = []
        self.offers = Offers(
            chain.ledger,
            blobs,
            lambda kid, data: self.told.append((kid, decode(data, 512)["version"])),
            self.reports.append,
            clock,
            lambda: START_MS,
        )
        self.releases = Releases(
            chain.ledger,
            blobs,
            lambda _, data: self.for_all.append(decode(data, 512)["version"]),
            lambda *_: None,
            clock,
        )

    def refresh(self):
        self.releases.refresh()
        self.offers.refresh()

    def here(self, board, payload=None, update=None):
        model = None if payload is None else model_id(payload)
        self.offers.here(board.kid, Status(bytes(8), model, update))

    def heard(self):
        """Versions that boards were told since the last call, by key id."""
        told, self.told = dict(self.told), []
        return told


class World:
    """Version 1 runs on all boards; 2 is released, with its way back 3."""

    def __init__(self, chain: SmallChain, blobs, clock, boards):
        self.chain, self.blobs, self.clock, self.boards = chain, blobs, clock, boards
        chain.stage_releases()
        first = self.release(1, OLD)
        chain.rollout(first, OLD)
        for board in boards:
            chain.seal(chain.judged_pack(board, OLD))
        self.new = self.release(2, NEW)
        self.back = self.release(3, OLD, "anomaly-back")

    def release(self, version, payload, name="anomaly"):
        transaction, data = self.chain.bundle(version, payload, name)
        self.chain.seal(transaction)
        self.blobs.put(data)
        return transaction

    def gateway(self):
        return Gateway(self.chain, self.blobs, self.clock)

    def roll_out(self, *groups):
        """The first board is alone in the first group."""
        groups = groups or (Group(None, (self.boards[0].kid,), 100, 100), ALL)
        self.rollout = self.chain.rollout(self.new, NEW, self.back, groups)

    def roll_back(self):
        body = RolloutControl(self.rollout.id, "rollback", "")
        self.chain.seal(self.chain.sign(self.chain.operator, body))


@pytest.fixture
def world(chain, clock, tmp_path, board, other_board):
    return World(chain, BlobStore(tmp_path / "blobs", 10_000_000), clock, [board, other_board])


class TestOffers:
    def test_only_the_boards_of_the_group_are_told(self, world):
        first, second = world.boards
        gateway = world.gateway()
        world.roll_out()
        gateway.refresh()
        assert gateway.for_all == [1]
        for board in world.boards:
            gateway.here(board, OLD)
        assert gateway.heard() == {first.kid: 2}
        world.chain.seal(world.chain.judged_pack(first, NEW))
        gateway.refresh()
        assert gateway.heard() == {second.kid: 2}
        world.chain.seal(world.chain.judged_pack(second, NEW))
        gateway.refresh()
        assert gateway.for_all == [1, 2]  # boards that know no offers of their own, too

    def test_who_runs_it_is_left_alone(self, world):
        gateway = world.gateway()
        world.roll_out()
        gateway.refresh()
        gateway.here(world.boards[0], NEW)
        assert gateway.heard() == {}

    def test_two_gateways_and_one_that_starts_anew_say_the_same(self, world):
        world.roll_out()
        for _ in range(3):
            gateway = world.gateway()
            gateway.refresh()
            for board in world.boards:
                gateway.here(board, OLD)
            assert gateway.heard() == {world.boards[0].kid: 2}

    def test_a_late_board_is_told_when_it_comes(self, world):
        first = world.boards[0]
        gateway = world.gateway()
        world.roll_out()
        gateway.refresh()
        assert gateway.heard() == {}
        gateway.here(first)
        assert gateway.heard() == {first.kid: 2}

    def test_it_is_told_again_when_it_was_away_or_much_later(self, world):
        first = world.boards[0]
        gateway = world.gateway()
        world.roll_out()
        gateway.here(first, OLD)
        gateway.here(first, OLD)
        assert gateway.told == [(first.kid, 2)]
        gateway.offers.gone(first.kid)
        gateway.here(first, OLD)
        assert len(gateway.told) == 2
        world.clock.now_s += AGAIN_S
        gateway.here(first, OLD)
        assert len(gateway.told) == 3
        gateway.offers.forget(())
        gateway.here(first, OLD)
        assert len(gateway.told) == 4

    def test_not_before_the_bundle_is_here(self, world, tmp_path):
        gateway = Gateway(world.chain, BlobStore(tmp_path / "empty", 10_000_000), world.clock)
        world.roll_out()
        gateway.here(world.boards[0], OLD)
        assert gateway.heard() == {}
        gateway.offers._blobs.put(world.blobs.get(world.new.body.bundle))
        gateway.offers.bundle_arrived()
        assert gateway.heard() == {world.boards[0].kid: 2}

    def test_the_way_back_goes_to_those_who_run_what_was_rolled_back(self, world):
        first, second = world.boards
        gateway = world.gateway()
        world.roll_out()
        gateway.here(first, NEW)
        gateway.here(second, OLD)
        world.roll_back()
        gateway.refresh()
        assert gateway.heard() == {first.kid: 3}
        assert gateway.for_all == [1]
        gateway.here(first, OLD)  # it has gone back
        world.clock.now_s += AGAIN_S
        gateway.here(first, OLD)
        assert gateway.heard() == {}

    def test_strangers_and_revoked_boards_are_told_nothing(self, world):
        first = world.boards[0]
        gateway = world.gateway()
        world.roll_out()
        world.chain.revoke(first.kid)
        gateway.here(first, OLD)
        gateway.here(SigningKey.from_secret(5), OLD)
        gateway.refresh()
        assert gateway.heard() == {}

    def test_many_boards_are_told_block_by_block(self, world):
        boards = [SigningKey.from_secret(50_000 + i) for i in range(MAX_AT_ONCE + 10)]
        world.chain.enrol(*boards)
        gateway = world.gateway()
        for board in boards:
            gateway.here(board, OLD)
        assert gateway.heard() == {}
        world.roll_out(ALL)
        gateway.refresh()
        assert len(gateway.heard()) == MAX_AT_ONCE
        gateway.refresh()
        assert len(gateway.heard()) == 10


class TestReports:
    def update(self, world, release=None, outcome="refused"):
        bundle = (release or world.new).body.bundle[:8]
        return Update(bundle, outcome, "update.selftest: vector 0")

    def test_what_a_board_refuses_is_sealed_once(self, world):
        first = world.boards[0]
        world.roll_out()
        gateway = world.gateway()
        for _ in range(3):
            gateway.here(first, OLD, self.update(world))
        (report,) = gateway.reports
        assert (report.rollout, report.device) == (world.rollout.id, first.kid)
        assert (report.outcome, report.reason) == ("refused", "update.selftest: vector 0")
        world.chain.seal(world.chain.sign(world.chain.gateway, report))
        assert world.chain.ledger.state.offers["water-circulation"].rollout.status == "stopped"
        again = world.gateway()
        again.here(first, OLD, self.update(world))
        assert not again.reports

    def test_of_other_bundles_boards_and_times_nothing_is_said(self, world):
        first, second = world.boards
        gateway = world.gateway()
        gateway.here(first, OLD, self.update(world))
        world.roll_out()
        gateway.here(first, OLD, self.update(world, world.back))
        gateway.here(second, OLD, self.update(world))
        gateway.here(SigningKey.from_secret(5), None, self.update(world))
        world.roll_back()
        gateway.here(first, OLD, self.update(world))
        assert not gateway.reports


STATUS = {"state": "online", "next": 3, "model": None, "firmware": "1.0", "nonce": bytes(8)}


class TestStatuses:
    def test_what_boards_say(self):
        assert parse_status(encode(STATUS)) == Status(bytes(8), None, None)
        assert parse_status(encode(STATUS | {"model": b"m" * 8})).model == b"m" * 8
        offline = {"state": "offline", "nonce": None}
        assert parse_status(encode(STATUS | offline)) is None
        told = parse_status(encode(STATUS | {"update": [b"b" * 8, "rolled_back", "a\nb"]}))
        assert told.update == Update(b"b" * 8, "rolled-back", "a?b")

    @pytest.mark.parametrize(
        "change",
        [
            {"state": "asleep"},
            {"nonce": bytes(7)},
            {"model": bytes(7)},
            {"extra": 1},
            {"update": None},
            {"update": [bytes(8), "rejected"]},
            {"update": [bytes(7), "rejected", ""]},
            {"update": [bytes(8), "active", ""]},
            {"update": [bytes(8), ["rejected"], ""]},
            {"update": [bytes(8), "rejected", b"why"]},
            {"update": [bytes(8), "rejected", "r" * 256]},
        ],
    )
    def test_what_is_none_is_refused(self, change):
        with pytest.raises(ProtocolError, match="status"):
            parse_status(encode(STATUS | change))
