"""Budgets, points, bans and the gate: what a peer may cost, with the time as an argument."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from fog_node.network import score, wire
from fog_node.network.score import Gate, LogLimit, Offence, Scores, group_of

KID, OTHER = bytes(8), bytes([1] * 8)
KINDS = sorted(kind.KIND for kind in get_args(wire.Message))


@pytest.fixture
def scores() -> Scores:
    return Scores()


# Points and bans


def test_who_breaks_the_protocol_is_banned_at_once_and_nobody_else(scores) -> None:
    ban = scores.offend(KID, Offence.PROTOCOL, "no CBOR", 1000.0)
    assert ban is not None
    assert (ban.kid, ban.reason, ban.until, ban.times) == (KID, "no CBOR", 1000 + score.BAN_S, 1)
    assert scores.is_banned(KID, 1000 + score.BAN_S - 1)
    assert not scores.is_banned(KID, 1000 + score.BAN_S)
    assert not scores.is_banned(OTHER, 1000.0)
    assert scores.banned(1000.0) == [ban]
    assert scores.banned(1000 + score.BAN_S) == []


def test_each_ban_lasts_twice_as_long_up_to_a_limit_and_is_forgiven_in_time(scores) -> None:
    now, lasted = 0.0, []
    for _ in range(12):
        ban = scores.offend(KID, Offence.PROTOCOL, "again", now)
        lasted.append(ban.until - now)
        now = ban.until + 1
    doubled = [score.BAN_S * 2**times for times in range(12)]
    assert lasted == [min(duration, score.BAN_LIMIT_S) for duration in doubled]
    now += score.FORGIVE_S
    assert scores.offend(KID, Offence.PROTOCOL, "again", now).until - now == score.BAN_S


def test_lesser_offences_add_up_and_fade(scores) -> None:
    times = int(score.BAN_POINTS // Offence.BAD_BLOCK.value)
    for second in range(times):
        assert scores.offend(KID, Offence.BAD_BLOCK, "bad", float(second)) is None
    assert scores.offend(KID, Offence.BAD_BLOCK, "bad", float(times)) is not None
    # As often, but far enough apart, they lead to nothing.
    gap = Offence.BAD_BLOCK.value / score.FADE_POINTS_PER_S
    for number in range(50):
        assert scores.offend(OTHER, Offence.BAD_BLOCK, "bad", number * gap) is None
    assert scores.points(OTHER, 50 * gap) == 0


# Budgets


def test_a_flood_is_shed_and_read_slowly_but_never_banned(scores) -> None:
    now, taken, waited = 0.0, 0, 0.0
    for _ in range(100_000):
        taken += scores.take(KID, "votes", 100, now)
        pause = scores.pause_s(KID, now)
        waited += pause
        now += pause
    rate, burst = score.KINDS["votes"]
    assert taken <= burst + rate * now + 1
    # All the messages went through the budget for messages of any kind.
    rate, burst = score.MESSAGES
    assert waited == pytest.approx((100_000 - burst) / rate, rel=0.01)
    assert scores.points(KID, now) == 0
    assert scores.of(KID, now).shed == 100_000 - taken
    assert scores.take(OTHER, "votes", 100, now)
    assert scores.pause_s(OTHER, now) == 0


def test_bytes_are_paid_for_by_waiting(scores) -> None:
    for _ in range(100):
        scores.take(KID, "proposal", wire.MAX_FRAME_BYTES, 0.0)
    rate, burst = score.BYTES
    assert scores.pause_s(KID, 0.0) == pytest.approx((100 * wire.MAX_FRAME_BYTES - burst) / rate)


def test_signatures_and_useless_transactions_use_up_budgets_of_their_own(scores) -> None:
    scores.verified(KID, int(score.VERIFICATIONS[1]) + 1, 0.0)
    assert not scores.take(KID, "votes", 1, 0.0)
    assert scores.take(KID, "transactions", 1, 0.0)
    scores.useless(KID, int(score.USELESS[1] / score.REFUSED_COST), 1, 0.0)
    assert not scores.take(KID, "transactions", 1, 0.0)
    assert scores.take(KID, "status", 1, 0.0)
    assert scores.take(KID, "blocks", 1, 0.0)
    assert scores.take(KID, "votes", 1, 1.0)
    assert scores.take(KID, "transactions", 1, 1.0)


def test_what_an_honest_node_sends_is_within_every_budget(scores) -> None:
    """A minute of 128 validators at three blocks a second, one peer passing on everything."""
    chance = random.Random(5)
    for tenth in range(600):
        now = tenth / 10 + chance.uniform(0, 0.05)
        for kind, per_second in (("status", 5), ("votes", 60), ("proposal", 5), ("candidate", 3)):
            for _ in range(per_second // 10 + (chance.random() < per_second % 10 / 10)):
                assert scores.take(KID, kind, 2000, now)
        scores.verified(KID, 256 * 3 // 10, now)
        assert scores.take(KID, "transactions", 100_000, now)
        assert scores.pause_s(KID, now) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_message_is_bounded(scores, kind) -> None:
    taken = sum(scores.take(KID, kind, 1, 0.0) for _ in range(20_000))
    assert taken == score.KINDS.get(kind, score.ANY_KIND)[1]


def test_the_kinds_with_a_budget_exist() -> None:
    assert set(score.KINDS) <= set(KINDS)


def test_who_connects_again_and_again_has_to_wait(scores) -> None:
    rate, burst = score.JOINS
    assert sum(scores.may_join(KID, 0.0) for _ in range(1000)) == burst
    assert scores.may_join(KID, 1 / rate)
    assert scores.may_join(OTHER, 0.0)


# The gate


def test_one_address_cannot_take_all_places() -> None:
    gate = Gate(0.0)
    refused = [gate.enter("192.0.2.1", 0.0) for _ in range(100)]
    assert refused.count(None) == score.MAX_GREETING_PER_ADDRESS
    assert gate.enter("192.0.2.2", 0.0) is None
    gate.leave("192.0.2.1")
    assert gate.enter("192.0.2.1", 0.0) is None
    assert gate.refused == 100 - score.MAX_GREETING_PER_ADDRESS


def test_places_are_bounded_in_all_and_come_back() -> None:
    gate = Gate(0.0)
    entered = [f"192.0.2.{n}" for n in range(200) if gate.enter(f"192.0.2.{n}", 0.0) is None]
    assert len(entered) == gate.greeting == score.MAX_GREETING
    for address in entered:
        gate.leave(address)
    assert gate.greeting == 0


def test_connections_a_second_are_bounded_per_address_and_in_all() -> None:
    gate = Gate(0.0)

    def storm(address: str, now: float) -> bool:
        entered = gate.enter(address, now) is None
        if entered:
            gate.leave(address)
        return entered

    assert sum(storm("192.0.2.1", 0.0) for _ in range(5000)) == score.CONNECTS_PER_ADDRESS[1]
    others = sum(storm(f"10.0.{n >> 8}.{n & 255}", 0.0) for n in range(5000))
    assert others == score.CONNECTS[1] - score.CONNECTS_PER_ADDRESS[1]
    assert len(gate._addresses) <= score.MAX_ADDRESSES
    assert storm("192.0.2.9", 1.0)


def test_addresses_are_grouped_as_their_holders_have_them() -> None:
    assert group_of("192.0.2.1") == group_of("::ffff:192.0.2.1") != group_of("192.0.2.2")
    assert group_of("2001:db8::1") == group_of("2001:db8::ffff:1") != group_of("2001:db8:0:1::1")
    assert group_of("fe80::1%eth0") == group_of("fe80::2%eth0")
    assert group_of("not an address") == "not an address"


def test_a_flood_of_refusals_does_not_fill_the_log() -> None:
    limit = LogLimit(0.0)
    lines = [limit.line(0.0) for _ in range(1000)]
    assert [line for line in lines if line is not None] == [""] * int(score.LINES[1])
    left_out = 1000 - int(score.LINES[1])
    assert limit.line(1 / score.LINES[0]) == f" ({left_out} such lines left out)"
