"""What may wait, in which order it goes into a block, and what is too much."""

from __future__ import annotations

from collections import Counter

import pytest

from fog_node.errors import ConflictError, LedgerError
from fog_node.ledger import Limits, State
from fog_node.ledger.mempool import ENTRY_OVERHEAD_BYTES, PARSED_BYTES, Mempool
from fog_node.protocol.keys import SigningKey

NO_LIMIT = 10**9
DEVICES = [SigningKey.from_secret(1000 + i) for i in range(5)]


@pytest.fixture
def state(consortium) -> State:
    state = State.at_founding(consortium.founding)
    for device in DEVICES:
        state.apply(consortium.enrol(device), 1)
    return state


@pytest.fixture
def pool() -> Mempool:
    return Mempool()


def order(transactions):
    return [(item.signer, item.sequence) for item in transactions]


def choose(pool, state, max_bytes=NO_LIMIT, max_count=NO_LIMIT):
    return list(pool.candidates(state, max_bytes, max_count))


def test_takes_each_once(consortium, pool):
    pack = consortium.pack(DEVICES[0])
    assert pool.add(pack)
    assert not pool.add(pack)
    assert len(pool) == 1
    assert pool.size == len(pack.raw)
    assert pool.has(pack.id)
    assert pool.get(pack.id) == pool.at(pack.signer, 1) == pack


def test_reports_what_it_conflicts_with(consortium, pool):
    first = consortium.pack(DEVICES[0], 1)
    pool.add(first)
    with pytest.raises(ConflictError) as caught:
        pool.add(consortium.pack(DEVICES[0], 1, value=2.5))
    assert caught.value.cause == "conflict"
    assert caught.value.existing == first
    assert len(pool) == 1


def test_gives_unbroken_runs_only(consortium, pool, state):
    first, second = DEVICES[:2]
    for sequence in (2, 1, 4, 3, 6):
        pool.add(consortium.pack(first, sequence))
    pool.add(consortium.pack(second, 2))
    assert [seq for kid, seq in order(choose(pool, state))] == [1, 2, 3, 4]
    assert pool.is_ready(state)
    assert pool.next_sequence(first.kid, state) == 5
    assert pool.next_sequence(second.kid, state) == 1


def test_is_not_ready_while_all_wait_for_others(consortium, pool, state):
    pool.add(consortium.pack(DEVICES[0], 2))
    assert not pool.is_ready(state)
    assert choose(pool, state) == []


def test_gives_every_signer_its_share(consortium, pool, state):
    for _ in range(20):
        pool.add(consortium.pack(DEVICES[0]))
    for device in DEVICES[1:]:
        for _ in range(2):
            pool.add(consortium.pack(device))
    chosen = Counter(item.signer for item in choose(pool, state, max_count=10))
    assert set(chosen.values()) == {2}
    everything = Counter(item.signer for item in choose(pool, state))
    assert everything[DEVICES[0].kid] == 20


def test_serves_next_who_waited_longest(consortium, pool, state):
    for device in DEVICES:
        for _ in range(2):
            pool.add(consortium.pack(device))
    served = choose(pool, state, max_count=2)
    for item in served:
        state.apply(item, 2)
    pool.remove(item.id for item in served)
    first_again = [item.signer for item in choose(pool, state, max_count=5)]
    assert first_again == [device.kid for device in (*DEVICES[2:], *DEVICES[:2])]


def test_revocations_and_enrolments_go_first(consortium, pool, state):
    for device in DEVICES:
        pool.add(consortium.pack(device))
    incident = consortium.incident(consortium.validators[0])
    revoke = consortium.revoke(DEVICES[0].kid, by=consortium.second_operator)
    for item in (incident, revoke):
        pool.add(item)
    assert choose(pool, state)[0] == revoke
    assert choose(pool, state, max_count=1) == [revoke]


def test_an_urgent_one_brings_what_its_signer_numbered_before_it(consortium, pool, state):
    gateway = consortium.validators[0]
    pool.add(consortium.pack(DEVICES[0]))
    incident, evidence, later = (
        consortium.incident(gateway),
        consortium.evidence(consortium.validators[1], by=gateway),
        consortium.incident(gateway),
    )
    for item in (later, evidence, incident):
        pool.add(item)
    assert choose(pool, state)[:2] == [incident, evidence]
    assert len(choose(pool, state)) == 4


def test_fills_a_block_to_the_byte(consortium, pool, state):
    packs = [consortium.pack(device) for device in DEVICES[:3]]
    for pack in packs:
        pool.add(pack)
    room = sum(len(pack.raw) + ENTRY_OVERHEAD_BYTES for pack in packs)
    assert len(choose(pool, state, max_bytes=room)) == 3
    assert len(choose(pool, state, max_bytes=room - 1)) == 2


class TestBounds:
    def refused(self, pool, transaction):
        size = (len(pool), pool.size)
        with pytest.raises(LedgerError) as caught:
            pool.add(transaction)
        assert caught.value.cause == "full"
        assert (len(pool), pool.size) == size

    def test_of_a_signer(self, consortium):
        pack = consortium.pack(DEVICES[0])
        pool = Mempool(Limits(signer_bytes=2 * len(pack.raw)))
        pool.add(pack)
        pool.add(consortium.pack(DEVICES[0]))
        self.refused(pool, consortium.pack(DEVICES[0]))
        pool.add(consortium.pack(DEVICES[1]))

    @pytest.mark.parametrize("by", ["count", "total_bytes"])
    def test_in_all_leave_room_for_a_revocation(self, consortium, by):
        packs = [consortium.pack(DEVICES[i % 5]) for i in range(9)]
        limits = {"count": 8, "total_bytes": 8 * len(packs[0].raw)}
        pool = Mempool(Limits(**{by: limits[by]}))
        for pack in packs[:7]:
            pool.add(pack)
        self.refused(pool, packs[7])
        pool.add(consortium.revoke(DEVICES[0].kid))
        if by == "count":
            self.refused(pool, consortium.revoke(DEVICES[0].kid))

    def test_room_comes_back(self, consortium):
        packs = [consortium.pack(DEVICES[0]) for _ in range(8)]
        pool = Mempool(Limits(count=8))
        for pack in packs[:7]:
            pool.add(pack)
        pool.remove([packs[0].id, packs[1].id, b"unknown"])
        assert pool.size == sum(len(pack.raw) for pack in packs[2:7])
        pool.add(packs[7])
        assert pool.at(DEVICES[0].kid, 1) is None

    def test_what_is_not_kept_parsed_is_the_same_in_the_end(self, consortium, state):
        packs = [consortium.pack(DEVICES[0]) for _ in range(3)]
        pool = Mempool(Limits(parsed_bytes=PARSED_BYTES + len(packs[0].raw)))
        for pack in packs:
            pool.add(pack)
        assert choose(pool, state) == packs
        assert pool.get(packs[2].id) == packs[2]
        pool.remove([packs[0].id])
        newer = consortium.pack(DEVICES[0])
        pool.add(newer)
        assert pool.get(newer.id) is newer


def test_forgets_a_signer(consortium, pool, state):
    for _ in range(3):
        pool.add(consortium.pack(DEVICES[0]))
    assert len(pool.waiting_of(DEVICES[0].kid, below=3)) == 2
    pool.remove(pool.waiting_of(DEVICES[0].kid))
    assert len(pool) == pool.size == 0
    assert pool.waiting_of(DEVICES[0].kid) == []
    assert choose(pool, state) == []
