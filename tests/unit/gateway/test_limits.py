"""Token buckets."""

from __future__ import annotations

from fog_node.gateway.limits import Buckets, Rate


def test_a_burst_then_the_rate():
    buckets = Buckets(Rate(burst=3, per_s=0.5), max_keys=10)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert not buckets.take("a", 1.0)
    assert buckets.take("a", 2.0)
    assert not buckets.take("a", 2.0)


def test_a_long_rest_gives_no_more_than_a_burst():
    buckets = Buckets(Rate(burst=2, per_s=1), max_keys=10)
    assert [buckets.take("a", 1e9) for _ in range(3)] == [True, True, False]


def test_keys_do_not_share():
    buckets = Buckets(Rate(burst=1, per_s=0), max_keys=10)
    assert buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)
    assert not buckets.take("a", 0.0)


def test_the_number_of_keys_is_bounded_and_the_longest_unused_goes():
    buckets = Buckets(Rate(burst=1, per_s=0), max_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 0.0)
    assert len(buckets._buckets) == 2
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)


def test_a_clock_that_goes_back_gives_nothing():
    buckets = Buckets(Rate(burst=1, per_s=1), max_keys=2)
    assert buckets.take("a", 100.0)
    assert not buckets.take("a", 50.0)
