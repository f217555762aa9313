"""Counting votes: each validator once, within bounds, contradictions told."""

from __future__ import annotations

import pytest

from fog_node.ledger.vote_book import (
    MAX_ROUNDS_AHEAD,
    MAX_ROUNDS_BEHIND,
    VoteBook,
    find_equivocations,
    prevotes_for,
    vote_tags,
    votes_not_tagged,
)
from fog_node.protocol.votes import NO_ROUND, PRECOMMIT, PREVOTE, Vote

A, B, C, D = VALIDATORS = (b"a", b"b", b"c", b"d")
X, Y = b"x" * 32, b"y" * 32
HEIGHT = 7


def vote(validator, round_=0, step=PREVOTE, block_hash=X):
    return Vote(validator, HEIGHT, round_, step, block_hash, b"")


@pytest.fixture
def book():
    return VoteBook(VALIDATORS, 3)


def add_all(book, *votes):
    return [book.add(one) for one in votes]


def test_quorum_of_prevotes_is_a_polka_and_of_precommits_a_decision(book):
    add_all(book, vote(A), vote(B))
    assert not book.polkas
    add_all(book, vote(C), *(vote(who, 1, PRECOMMIT) for who in (A, B, C)))
    assert (book.polkas, book.decisions, book.highest_polka) == ({0: X}, {1: X}, 0)


def test_a_vote_that_comes_again_counts_once(book):
    assert add_all(book, vote(A), vote(A), vote(A), vote(B), vote(B)) == [None] * 5
    assert not book.polkas
    assert book.votes_for(0, PREVOTE, X) == (vote(A), vote(B))


def test_a_contradicting_vote_is_told_and_not_counted(book):
    add_all(book, vote(A, block_hash=Y), vote(B), vote(C))
    assert book.add(vote(A)) == vote(A, block_hash=Y)
    assert not book.polkas


def test_votes_for_no_block_agree_on_nothing(book):
    add_all(book, *(vote(who, step=PRECOMMIT, block_hash=None) for who in VALIDATORS))
    assert not book.decisions


def test_strangers_do_not_count(book):
    add_all(book, vote(A), vote(B), vote(b"stranger"))
    assert not book.polkas
    assert b"stranger" not in book.latest


@pytest.mark.parametrize(
    ("blocks", "possible"),
    [
        ((), True),
        ((X, Y), True),
        ((X, Y, None), False),
        ((X, X, Y, None), False),
        ((X, X, Y), True),
    ],
)
def test_whether_a_round_can_still_agree(book, blocks, possible):
    for who, block_hash in zip(VALIDATORS, blocks, strict=False):
        book.add(vote(who, block_hash=block_hash))
    assert book.can_agree(0, PREVOTE) is possible


def test_only_rounds_of_the_window_are_kept_but_progress_is_known(book):
    far = MAX_ROUNDS_AHEAD + 1
    add_all(book, vote(A, far), vote(B, 10**6), vote(C, far))
    assert not book.votes(far, PREVOTE)
    assert book.round_reached_by(1, me=None) == 10**6
    assert book.round_reached_by(2, me=None) == far
    assert book.round_reached_by(2, me=A) == far
    assert book.round_reached_by(4, me=None) == NO_ROUND


def test_moving_on_forgets_old_rounds(book):
    add_all(book, *(vote(who) for who in VALIDATORS))
    add_all(book, *(vote(who, step=PRECOMMIT) for who in VALIDATORS))
    book.move_window(MAX_ROUNDS_BEHIND)
    assert book.polkas
    assert book.decisions
    book.move_window(MAX_ROUNDS_BEHIND + 1)
    assert not book.polkas
    assert not book.decisions
    assert not book.votes(0, PREVOTE)
    add_all(book, *(vote(who) for who in VALIDATORS))
    assert not book.polkas


def test_a_later_vote_shows_that_its_validator_is_past(book):
    add_all(book, vote(A), vote(B, step=PRECOMMIT), vote(C, 3))
    assert (book.has_passed(0, PREVOTE), book.has_passed(0, PRECOMMIT)) == (3, 2)


def test_tags_show_what_a_peer_lacks_or_knows_otherwise(book):
    theirs = VoteBook(VALIDATORS, 3)
    add_all(book, vote(A), vote(B), vote(C, block_hash=None))
    add_all(theirs, vote(A), vote(C, block_hash=Y))
    tags = vote_tags(VALIDATORS, theirs.votes(0, PREVOTE))
    lacking = votes_not_tagged(VALIDATORS, book.votes(0, PREVOTE), tags)
    assert [one.validator for one in lacking] == [B, C]


def test_equivocations_between_two_certificates():
    one = [vote(who, step=PRECOMMIT) for who in (A, B, C)]
    two = [vote(who, step=PRECOMMIT, block_hash=Y) for who in (B, C, D)]
    assert find_equivocations([*one, *two]) == [(one[1], two[0]), (one[2], two[1])]
    assert not find_equivocations([*one, *one])


@pytest.mark.parametrize(
    ("votes", "justified"),
    [
        ([vote(A), vote(B), vote(C)], True),
        ([vote(A), vote(B), vote(B)], False),
        ([vote(A), vote(B), vote(b"stranger")], False),
        ([vote(A), vote(B), vote(C, 1)], False),
        ([vote(A), vote(B), vote(C, step=PRECOMMIT)], False),
        ([vote(A), vote(B), vote(C, block_hash=Y)], False),
        ([vote(A), vote(B), vote(C, block_hash=None)], False),
        ([], False),
    ],
)
def test_what_justifies_a_block(votes, justified):
    assert (len(prevotes_for(votes, VALIDATORS, (HEIGHT, 0), X)) == 3) is justified


def test_a_justification_is_stripped_of_what_does_not_count():
    votes = [vote(C), vote(B, 1), vote(A), vote(A), vote(b"stranger"), vote(D, block_hash=Y)]
    assert prevotes_for(votes, VALIDATORS, (HEIGHT, 0), X) == (vote(A), vote(C))
