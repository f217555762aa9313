"""The rules that keep a long chain cheap: few bytes per pack, and no reading that grows with it."""

from __future__ import annotations

import re
import sqlite3

import pytest

from fog_node.ledger import Ledger
from fog_node.ledger.schema import DATABASE
from fog_node.ledger.verifier import MAX_VERIFIED, Verifier
from tools.bench.chain import GrowingChain
from tools.bench.growth import LIMIT

PACKS = 1200
READINGS = 10
# Tables whose size does not follow from the chain's length.
SMALL = {
    "meta", "signers", "state", "mempool", "votes", "lock", "forks", "validator_sets",
    "sqlite_master",
}  # fmt: skip


@pytest.fixture
def grown(tmp_path):
    with GrowingChain(tmp_path / "data", boards=4) as chain:
        size = chain.grow(PACKS, READINGS, 100, lambda _: None)
        yield chain, size, tmp_path / "data"


def test_a_pack_takes_little_more_than_its_bytes(grown):
    chain, size, directory = grown
    chain.ledger.close()
    assert (directory / DATABASE).stat().st_size <= LIMIT * size
    chain.ledger = Ledger.open(directory, chain.founding)
    assert chain.ledger.counts()["all"] == PACKS + 4


def test_nothing_that_is_asked_scans_the_chain(grown):
    """Not at a start, not in look-ups, not in a commit: each query finds its rows by a key."""
    chain, _, directory = grown
    chain.ledger.close()
    queries: set[str] = set()
    real = sqlite3.connect

    def connect(*args, **kwargs):
        database = real(*args, **kwargs)
        database.set_trace_callback(queries.add)
        return database

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        ledger = chain.ledger = Ledger.open(directory, chain.founding)
        (pack,) = ledger.list_signer(chain.boards[0].key.kid, limit=1)
        assert ledger.find(pack.id) == ledger.find_sequence(pack.signer, pack.sequence)
        assert ledger.prove(pack.id) is not None
        assert ledger.block(pack.height) is not None
        assert ledger.info_by_hash(ledger.head.hash) == ledger.head
        assert ledger.infos(1, 3)
        assert ledger.counts()["all"]
        assert ledger.list_kind("enrol")
        chain.seal(chain.packs(4, READINGS))
    asked = {query for query in queries if re.match(r"(SELECT|DELETE|UPDATE)\b", query)}
    assert len(asked) > 10
    for query in asked:
        for *_, step in ledger._store._reader.execute(f"EXPLAIN QUERY PLAN {query}"):
            if scanned := re.match(r"SCAN (\w+)", step):
                assert scanned[1] in SMALL, query


def test_what_is_remembered_is_bounded():
    verifier = Verifier(bytes(32), limit=100)
    for number in range(1000):
        verifier.remember(number.to_bytes(32, "big"))
    assert len(verifier._ids) == 100
    assert MAX_VERIFIED <= 2**17
