"""Who is asked for what by a node that is far behind: a pure plan, played out without a network."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fog_node.catch_up import (
    ANSWER_TIMEOUT_S,
    FEW_BLOCKS,
    MAX_EMPTY,
    MAX_HELD_BYTES,
    MAX_PIECES_PER_PEER,
    PIECE_BLOCKS,
    WINDOW_BLOCKS,
    AskBodies,
    AskHeaders,
    CatchUp,
    Source,
    is_far,
)

A, B, C = b"peer-a", b"peer-b", b"peer-c"
HEIGHT = 1000
PER_ANSWER = 128


def bodies(asks):
    return [ask for ask in asks if isinstance(ask, AskBodies)]


def test_no_body_before_the_headers_are_known():
    plan = CatchUp(0)
    sources = [Source(A, HEIGHT), Source(B, HEIGHT)]
    for top in range(0, HEIGHT, 100):
        asks, _ = plan.plan(0.0, 0, sources)
        assert asks == [AskHeaders(A, top + 1)]
        assert plan.plan(0.0, 0, sources) == ([], [])
        plan.take_headers(A, top + 100)
    asks, _ = plan.plan(0.0, 0, sources)
    assert bodies(asks) == asks
    assert {ask.kid for ask in asks} == {A, B}


def test_bodies_come_from_all_that_have_them():
    plan = CatchUp(HEIGHT)
    sources = [Source(A, HEIGHT), Source(B, HEIGHT, lowest=500), Source(C, 20)]
    asks, _ = plan.plan(0.0, 0, sources)
    assert asks == [AskBodies(A, 1, PIECE_BLOCKS), AskBodies(A, 17, PIECE_BLOCKS)]
    asks, _ = plan.plan(0.0, 0, [*sources, Source(C, HEIGHT)])
    assert asks == [AskBodies(C, 33, PIECE_BLOCKS), AskBodies(C, 49, PIECE_BLOCKS)]
    plan = CatchUp(HEIGHT)
    asks, _ = plan.plan(0.0, 600, sources)
    assert Counter(ask.kid for ask in asks) == {A: MAX_PIECES_PER_PEER, B: MAX_PIECES_PER_PEER}


def test_who_does_not_answer_is_replaced():
    plan = CatchUp(HEIGHT)
    sources = [Source(A, HEIGHT)]
    first, _ = plan.plan(0.0, 0, sources)
    assert plan.plan(ANSWER_TIMEOUT_S - 1, 0, sources) == ([], [])
    both = [Source(A, HEIGHT, misses=1), Source(B, HEIGHT)]
    asks, late = plan.plan(ANSWER_TIMEOUT_S, 0, both)
    assert late == [A] * len(first)
    assert asks[0] == AskBodies(B, first[0].first, first[0].count)
    # One whose connection is gone is not late.
    asks, late = plan.plan(ANSWER_TIMEOUT_S, 0, [Source(A, HEIGHT)])
    assert late == []
    assert asks == []


def test_what_was_not_asked_for_is_not_held():
    plan = CatchUp(HEIGHT)
    (ask, *_), _ = plan.plan(0.0, 0, [Source(A, HEIGHT)])
    assert plan.take_bodies(B, ask.first, [b"x"], 0) == 0
    assert plan.take_bodies(A, ask.first + 1, [b"x"], 0) == 0
    assert plan.take_bodies(A, ask.first, [b"x"] * (ask.count + 5), 0) == ask.count
    assert plan.take_bodies(A, ask.first, [b"x"], 0) == 0
    assert plan.held_bytes == ask.count


def test_what_is_held_is_bounded():
    plan = CatchUp(HEIGHT)
    big = bytes(MAX_HELD_BYTES // 8)
    sources = [Source(kid, HEIGHT) for kid in (A, B, C)]
    asks, _ = plan.plan(0.0, 0, sources)
    for ask in asks[1:]:
        plan.take_bodies(ask.kid, ask.first, [big] * 4, 0)
    asks, _ = plan.plan(0.0, 0, sources)
    assert plan.held_bytes > MAX_HELD_BYTES
    assert bodies(asks) == []
    # What is needed next is asked for whatever is held.
    asks, _ = plan.plan(ANSWER_TIMEOUT_S, 0, sources)
    assert [ask.first for ask in asks] == [1]


def test_a_peer_that_lies_of_its_height_holds_nobody_up():
    plan = CatchUp(HEIGHT)
    liar, honest = Source(A, 10**9), Source(B, HEIGHT)
    asks, _ = plan.plan(0.0, 0, [liar, honest])
    assert bodies(asks) == asks != []
    assert plan.is_over(HEIGHT, [liar, honest])
    assert not is_far(HEIGHT, [liar, honest], Counter())


@pytest.mark.parametrize("answers", [True, False])
def test_peers_that_lie_together_hold_nobody_up_for_long(answers):
    empty = Counter()
    plan = CatchUp(HEIGHT, empty)
    sources = [Source(A, 10**9), Source(B, 10**9), Source(C, HEIGHT)]
    now = 0.0
    for _ in range(2 * MAX_EMPTY):
        asks, _ = plan.plan(now, 0, sources)
        if bodies(asks):
            break
        if answers:
            plan.take_headers(asks[0].kid, HEIGHT)
        now += ANSWER_TIMEOUT_S
    assert bodies(plan.plan(now, 0, sources)[0]) or bodies(asks)
    assert not is_far(HEIGHT, sources, empty)
    assert is_far(HEIGHT, [Source(C, HEIGHT + FEW_BLOCKS + 1)], empty)


@pytest.mark.parametrize("seed", range(20))
def test_all_arrives_in_order_whatever_peers_do(seed):
    """Peers that answer late, in part, not at all, or with garbage, as long as one is good."""
    chance = random.Random(seed)
    print(f"seed {seed}")
    kids = [bytes([65 + i]) * 4 for i in range(4)]
    lowest = {kid: chance.choice((1, 1, 300)) for kid in kids} | {kids[0]: 1}
    misses = Counter()
    head, now = 0, 0.0
    plan = CatchUp(0)
    open_questions = []
    for _ in range(20_000):
        sources = [Source(kid, HEIGHT, lowest[kid], misses[kid]) for kid in kids]
        if plan.is_over(head, sources):
            break
        asks, late = plan.plan(now, head, sources)
        misses.update(late)
        open_questions += asks
        assert len(open_questions) < 1000
        chance.shuffle(open_questions)
        for ask in open_questions[: chance.randint(0, 3)]:
            open_questions.remove(ask)
            good = ask.kid == kids[0] or chance.random() < 0.6
            if isinstance(ask, AskHeaders):
                top = min(HEIGHT, ask.first + chance.randint(1, PER_ANSWER) - 1)
                plan.take_headers(ask.kid, top if good else ask.first - 1)
            elif good and lowest[ask.kid] <= ask.first:
                count = chance.randint(1, ask.count)
                sent = [b"%d" % height for height in range(ask.first, ask.first + count)]
                plan.take_bodies(ask.kid, ask.first, sent, head)
            elif chance.random() < 0.5:
                plan.take_bodies(ask.kid, ask.first, [], head)
                misses[ask.kid] += 1
            while (body := plan.next_body(head)) is not None:
                assert body.raw == b"%d" % (head + 1)
                head += 1
        now += chance.uniform(0, 2)
    assert head == HEIGHT
    assert plan.held_bytes == 0
    assert PIECE_BLOCKS <= WINDOW_BLOCKS
