"""Topics between a gateway and its boards."""

from __future__ import annotations

import pytest

from fog_node.gateway.topics import Topics

KID = bytes.fromhex("0123456789abcdef")


@pytest.fixture
def topics():
    return Topics("seoul")


def test_what_boards_send_is_subscribed_to(topics):
    assert set(topics.filters) == {
        "fogline/seoul/up/+",
        "fogline/seoul/get/+",
        "fogline/seoul/status/+",
    }


@pytest.mark.parametrize("kind", ["up", "get", "status"])
def test_a_board_is_named_by_its_topic(topics, kind):
    assert topics.parse(f"fogline/seoul/{kind}/0123456789abcdef") == (kind, KID)


@pytest.mark.parametrize(
    "last", ["", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef00", "no hex digits!!!"]
)
def test_another_last_level_names_no_board(topics, last):
    assert topics.parse(f"fogline/seoul/up/{last}") == ("up", None)


@pytest.mark.parametrize(
    "topic",
    ["", "up", "fogline/busan/up/0123456789abcdef", "fogline/seoul/receipt/0123456789abcdef"],
)
def test_other_topics_are_not_ours(topics, topic):
    assert topics.parse(topic) is None


def test_answers_go_where_boards_listen(topics):
    assert topics.receipt(KID) == "fogline/seoul/receipt/0123456789abcdef"
    assert topics.blob(KID) == "fogline/seoul/blob/0123456789abcdef"
    assert topics.offer(KID) == "fogline/seoul/offer/0123456789abcdef"
    assert topics.release("water-circulation") == "fogline/seoul/release/water-circulation"
