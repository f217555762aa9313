"""How waiting transactions lie on the disk: none lost, what has left goes, waste is bounded."""

from __future__ import annotations

import os
import random
import sqlite3

import pytest

from fog_node.errors import StoreError
from fog_node.ledger import waiting_room
from fog_node.ledger.store import DATABASE, Store
from fog_node.ledger.waiting_room import join_row, split_row
from fog_node.protocol.merkle import leaf_hash

CHAIN = bytes(32)


@pytest.fixture
def rng() -> random.Random:
    """A generator whose seed a failing test shows; FOGLINE_SEED=<seed> replays it."""
    seed = int(os.environ.get("FOGLINE_SEED") or random.SystemRandom().getrandbits(32))
    print(f"FOGLINE_SEED={seed}")
    return random.Random(seed)


def made(rng: random.Random, count: int) -> dict[bytes, bytes]:
    entries = (rng.randbytes(rng.randrange(1, 400)) for _ in range(count))
    return {leaf_hash(entry): entry for entry in entries}


def rows_on_disk(directory) -> list[dict[bytes, bytes]]:
    with sqlite3.connect(directory / DATABASE) as database:
        rows = database.execute("SELECT raw FROM mempool ORDER BY number").fetchall()
    database.close()
    return [split_row(row) for (row,) in rows]


def test_a_row_keeps_its_order_and_bytes(rng):
    entries = made(rng, 20)
    assert list(split_row(join_row(entries.values())).items()) == list(entries.items())
    assert split_row(b"") == {}


@pytest.mark.parametrize("row", [b"\0", b"\0\0\0\2a", b"\0\0\0\1a\0\0", b"\xff\xff\xff\xffa"])
def test_a_row_that_is_cut_is_no_row(row):
    with pytest.raises(ValueError, match="ends within"):
        split_row(row)


def test_a_row_goes_with_its_last_transaction(tmp_path, rng):
    store = Store(tmp_path, CHAIN)
    first, second = made(rng, 5), made(rng, 3)
    store.add_pending(first.items())
    store.add_pending(second.items())
    store.remove_pending(list(first)[1:])
    assert store.pending() == [*list(first.items())[:1], *second.items()]
    assert len(rows_on_disk(tmp_path)) == 2
    store.remove_pending([next(iter(first)), bytes(32)])
    assert rows_on_disk(tmp_path) == [second]
    store.add_pending(first.items())
    assert [id_ for id_, _ in store.pending()] == [*second, *first]
    store.close()


def test_much_waste_is_written_anew(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(waiting_room, "MAX_WASTE_BYTES", 500)
    store = Store(tmp_path, CHAIN)
    groups = [made(rng, 10) for _ in range(4)]
    for group in groups:
        store.add_pending(group.items())
    for group in groups[:3]:
        store.remove_pending(list(group)[:9])
    kept = sum(len(entry) for row in rows_on_disk(tmp_path) for entry in row.values())
    waiting = sum(len(raw) for _, raw in store.pending())
    assert kept <= 2 * waiting + 500
    store.close()
    again = Store(tmp_path, CHAIN)
    assert {id_ for id_, _ in again.pending()} >= {list(group)[9] for group in groups[:3]}
    again.close()


def test_a_transaction_that_waits_already_is_not_kept_twice(tmp_path, rng):
    store = Store(tmp_path, CHAIN)
    entries = made(rng, 4)
    store.add_pending(list(entries.items())[:2])
    store.add_pending(entries.items())
    store.add_pending(entries.items())
    assert store.pending() == list(entries.items())
    store.close()
    Store(tmp_path, CHAIN).close()


def test_whatever_comes_and_goes_what_waits_is_there_after_a_start(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(waiting_room, "MAX_WASTE_BYTES", 2000)
    waiting: dict[bytes, bytes] = {}
    left: set[bytes] = set()
    store = Store(tmp_path, CHAIN)
    for _ in range(60):
        fresh = made(rng, rng.randrange(0, 8))
        store.add_pending(fresh.items())
        waiting |= fresh
        gone = rng.sample(list(waiting), rng.randrange(len(waiting) + 1) // 2)
        store.remove_pending(gone)
        left |= set(gone)
        for id_ in gone:
            del waiting[id_]
        assert store.pending() == list(waiting.items())
        if rng.random() < 0.1:
            store.close()
            store = Store(tmp_path, CHAIN)
            found = dict(store.pending())
            assert set(waiting) <= set(found) <= set(waiting) | left
            # The ledger says which ones can no longer become final.
            store.remove_pending(set(found) - set(waiting))
    store.close()


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM mempool WHERE number = 1",
        "UPDATE mempool SET raw = substr(raw, 1, length(raw) - 1) WHERE number = 1",
        "UPDATE mempool SET raw = x'00000001ff' WHERE number = 1",
        "INSERT INTO mempool VALUES (9, x'00000001ff')",
        "UPDATE mempool SET raw = 'text' WHERE number = 2",
    ],
)
def test_a_row_that_is_not_what_was_written_is_damage(tmp_path, rng, harm):
    store = Store(tmp_path, CHAIN)
    store.add_pending(made(rng, 3).items())
    store.add_pending(made(rng, 3).items())
    store.close()
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute(harm)
    database.close()
    with pytest.raises(StoreError, match="mempool"):
        Store(tmp_path, CHAIN)
