"""Who may mine, and in which order, must be the same everywhere and never stop a quorum."""

from __future__ import annotations

import itertools

import pytest

from fog_node.ledger.mining_order import MiningOrder, mining_spacing
from fog_node.protocol.founding import QUORUM_RULES, quorum_of

VALIDATORS = tuple(b"validator%d" % i for i in range(5))


def order(recent=(), spacing=0, parent=b"p" * 32, candidates=VALIDATORS):
    return MiningOrder(parent, candidates, recent, spacing)


@pytest.mark.parametrize(
    ("miners", "quorum", "permille", "expected"),
    [
        (10, 10, 300, 2),  # MultiChain's own example: spacing 3, so 2 blocks are others'
        (5, 3, 0, 0),
        (5, 3, 200, 0),
        (5, 3, 201, 1),  # rounded up
        (5, 3, 400, 1),
        (5, 3, 600, 2),
        (5, 3, 1000, 2),  # MultiChain's 4 would need all five
        (5, 4, 1000, 3),
        (3, 3, 1000, 2),  # two of five are suspended
        (1, 1, 1000, 0),
    ],
)
def test_spacing_is_that_of_multichain_but_below_the_quorum(miners, quorum, permille, expected):
    assert mining_spacing(miners, quorum, permille) == expected


@pytest.mark.parametrize("rule", QUORUM_RULES)
@pytest.mark.parametrize("count", [3, 4, 5])
def test_any_quorum_has_somebody_who_may_mine(rule, count):
    quorum = quorum_of(rule, count)
    spacing = mining_spacing(count, quorum, 1000)
    validators = VALIDATORS[:count]
    for recent in itertools.product(validators, repeat=spacing):
        draw = order(recent, spacing, candidates=validators)
        for connected in itertools.combinations(validators, quorum):
            assert any(draw.may_mine(validator, 0) for validator in connected)


def test_a_recent_miner_waits_until_its_blocks_are_old():
    draw = order(recent=(VALIDATORS[0], VALIDATORS[1], VALIDATORS[2]), spacing=2)
    assert [draw.may_mine(validator, 0) for validator in VALIDATORS] == [1, 0, 0, 1, 1]


def test_each_round_forgives_one_block_of_spacing():
    draw = order(recent=(VALIDATORS[0], VALIDATORS[1]), spacing=2)
    assert [draw.may_mine(VALIDATORS[0], round_) for round_ in range(3)] == [False, True, True]
    assert [draw.may_mine(VALIDATORS[1], round_) for round_ in range(3)] == [False, False, True]


def test_strangers_and_suspended_validators_may_not_mine():
    assert not order(candidates=VALIDATORS[1:]).may_mine(VALIDATORS[0], 99)


def test_ranks_are_a_permutation_drawn_anew_per_parent_and_round():
    draws = {
        tuple(order(parent=parent).rank(validator, round_) for validator in VALIDATORS)
        for parent in (b"p" * 32, b"q" * 32)
        for round_ in range(20)
    }
    assert all(sorted(draw) == list(range(5)) for draw in draws)
    assert len(draws) > 20
    assert {draw.index(0) for draw in draws} == set(range(5))


def test_ranks_close_up_over_those_who_may_not_mine():
    draw = order(recent=(VALIDATORS[2],), spacing=1)
    may = [validator for validator in VALIDATORS if validator != VALIDATORS[2]]
    assert sorted(draw.rank(validator, 0) for validator in may) == [0, 1, 2, 3]
