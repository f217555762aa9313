"""What is on disk: after a crash, on a full disk, and in a file that is not ours."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fog_node.errors import StoreError
from fog_node.ledger import Ledger
from fog_node.ledger.consensus_messages import Lock
from fog_node.ledger.store import DATABASE, SCHEMA_VERSION, Store
from fog_node.protocol.votes import PRECOMMIT, PREVOTE, sign_vote

CHILD = Path(__file__).parent / "isolated" / "commit_forever.py"
ROOT = Path(__file__).parents[3]
CHILD_LIMIT_S = 60
KILLS = 12
# Statements from the start of a child to beyond its third commit.
STATEMENTS = 90


@pytest.fixture
def data(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data, consortium):
    store = Store(data, consortium.chain_id)
    store.stop_asking(0)
    yield store
    store.close()


def refusal(data, consortium) -> str:
    """What opening says; the message must name the file."""
    with pytest.raises(StoreError) as caught:
        Ledger.open(data, consortium.founding)
    assert str(data) in str(caught.value)
    return str(caught.value)


def made(data, consortium, device):
    """A ledger of two blocks in `data`, closed."""
    ledger = Ledger.open(data, consortium.founding)
    consortium.seal(ledger, consortium.enrol(device))
    consortium.seal(ledger, consortium.pack(device))
    ledger.close()


class TestOpening:
    def test_one_process_at_a_time(self, data, consortium, ledger, tmp_path):
        in_use = refusal(tmp_path / "data", consortium)
        assert f"process {os.getpid()}" in in_use
        ledger.close()
        Ledger.open(tmp_path / "data", consortium.founding).close()

    def test_refuses_another_ledgers_directory(self, data, consortium, make_consortium, device):
        made(data, consortium, device)
        other = make_consortium(validators=3)
        said = refusal(data, other)
        assert consortium.chain_id.hex() in said
        assert "founding file" in said

    def test_refuses_another_programs_database(self, data, consortium):
        data.mkdir()
        with sqlite3.connect(data / DATABASE) as database:
            database.execute("CREATE TABLE other (a)")
        database.close()
        assert "another program" in refusal(data, consortium)

    def test_refuses_what_is_no_database(self, data, consortium):
        data.mkdir()
        (data / DATABASE).write_bytes(b"not a database at all" * 500)
        assert "is damaged" in refusal(data, consortium)

    def test_refuses_another_releases_schema(self, data, consortium, device):
        made(data, consortium, device)
        with sqlite3.connect(data / DATABASE) as database:
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        database.close()
        assert f"schema {SCHEMA_VERSION + 1}" in refusal(data, consortium)

    @pytest.mark.parametrize(
        "harm",
        [
            "UPDATE state SET entry = (SELECT entry FROM state ORDER BY key DESC LIMIT 1)",
            "DELETE FROM state",
            "UPDATE state SET entry = x'00'",
            "UPDATE bodies SET body = x'8180'",
            "UPDATE blocks SET coinbase = (SELECT coinbase FROM blocks WHERE height = 1)",
            "UPDATE blocks SET certificate = (SELECT certificate FROM blocks WHERE height = 1)",
            "DELETE FROM blocks WHERE height = 2",
            "INSERT INTO mempool VALUES (1, x'00')",
            "INSERT INTO mempool VALUES (1, 'text')",
            "UPDATE meta SET crc = crc + 1",
            "UPDATE meta SET value = (SELECT coinbase FROM blocks)",
            "DELETE FROM meta",
            "DROP TABLE meta",
            "DROP TABLE votes",
        ],
    )
    def test_refuses_what_does_not_fit_together(self, data, consortium, device, harm):
        made(data, consortium, device)
        with sqlite3.connect(data / DATABASE) as database:
            database.execute(harm)
        database.close()
        refusal(data, consortium)

    def test_refuses_damaged_pages(self, data, consortium, device):
        made(data, consortium, device)
        content = bytearray((data / DATABASE).read_bytes())
        for page in range(4096, len(content), 4096):
            content[page : page + 512] = random.Random(page).randbytes(512)
        (data / DATABASE).write_bytes(content)
        assert "is damaged" in refusal(data, consortium)

    def test_a_directory_that_cannot_be_made(self, tmp_path, consortium):
        (tmp_path / "file").write_text("")
        assert "data directory" in refusal(tmp_path / "file" / "data", consortium)


class TestPromises:
    def vote(self, consortium, height=1, round_=0, step=PREVOTE, block_hash=None):
        key = consortium.validators[0]
        return sign_vote(key, height, round_, step, block_hash, consortium.chain_id)

    def test_votes_come_back_in_order(self, store, consortium, data):
        votes = [
            self.vote(consortium, round_=r, step=s, block_hash=bytes([r]) * 32)
            for r in (0, 1)
            for s in (PREVOTE, PRECOMMIT)
        ]
        for vote in reversed(votes):
            store.save_vote(vote)
        store.save_vote(votes[0])
        assert store.votes(1) == votes
        assert store.votes(2) == []

    @pytest.mark.parametrize("hashes", [(None, bytes(32)), (bytes(32), None)])
    def test_a_contradiction_is_not_written(self, store, consortium, hashes):
        first, second = (self.vote(consortium, block_hash=value) for value in hashes)
        store.save_vote(first)
        with pytest.raises(StoreError, match="voted otherwise"):
            store.save_vote(second)
        assert store.votes(1) == [first]

    def test_the_latest_lock_counts(self, store, consortium):
        for round_ in (0, 2):
            prevotes = tuple(
                sign_vote(key, 1, round_, PREVOTE, bytes(32), consortium.chain_id)
                for key in consortium.validators[:3]
            )
            lock = Lock(1, round_, bytes(32), b"block", prevotes)
            store.save_lock(lock)
        assert store.lock(1) == lock
        assert store.lock(2) is None

    def test_a_new_store_takes_no_vote_before_others_were_asked(self, consortium, data):
        vote = self.vote(consortium)
        for _ in range(2):
            ledger = Ledger.open(data, consortium.founding)
            assert ledger.asking
            assert ledger.height_setting().abstains
            with pytest.raises(StoreError, match="this store is new"):
                ledger.save_vote(vote)
            ledger.close()
        ledger = Ledger.open(data, consortium.founding)
        ledger.stop_asking(1)
        ledger.close()
        ledger = Ledger.open(data, consortium.founding)
        assert not ledger.asking
        assert ledger.height_setting().abstains
        with pytest.raises(StoreError, match="up to height 1 is lost"):
            ledger.save_vote(vote)
        consortium.seal(ledger)
        assert not ledger.height_setting().abstains
        ledger.save_vote(self.vote(consortium, height=2))
        ledger.close()

    def test_a_higher_abstention_stays(self, store):
        store.stop_asking(7)
        store.stop_asking(3)
        assert store.meta.abstain == 7

    def test_a_commit_ends_them(self, consortium, ledger):
        old = self.vote(consortium, height=1)
        new = self.vote(consortium, height=2)
        ledger.stop_asking(0)
        for vote in (old, new):
            ledger.save_vote(vote)
        ledger.save_lock(Lock(1, 0, bytes(32), b"block", ()))
        assert ledger.saved()[0] == [old]
        consortium.seal(ledger)
        assert ledger.saved() == ([new], None)
        assert ledger._store.votes(1) == []
        assert ledger._store.lock(1) is None

    def test_they_survive(self, consortium, data):
        ledger = Ledger.open(data, consortium.founding)
        ledger.stop_asking(0)
        vote = self.vote(consortium)
        lock = Lock(1, 0, bytes(32), b"block", (vote,))
        ledger.save_vote(vote)
        ledger.save_lock(lock)
        ledger.close()
        ledger = Ledger.open(data, consortium.founding)
        assert ledger.saved() == ([vote], lock)
        ledger.close()


class TestFullDisk:
    @pytest.fixture
    def full(self, ledger):
        """Let the database file grow no further, and then again."""
        database = ledger._store._writer

        def limit(pages: int | None) -> None:
            now = database.execute("PRAGMA page_count").fetchone()[0]
            database.execute(f"PRAGMA max_page_count = {pages or now}").fetchone()

        return limit

    def test_a_commit_changes_nothing(self, consortium, ledger, device, full, tmp_path):
        consortium.seal(ledger, consortium.enrol(device))
        packs = [consortium.pack(device, rows=120) for _ in range(10)]
        consortium.admit(ledger, *packs)
        block = consortium.next_block(ledger)
        before = ledger.snapshot
        full(None)
        with pytest.raises(StoreError, match="make room on the disk"):
            ledger.commit(block, consortium.certify(block))
        assert ledger.snapshot is before
        assert ledger.find(packs[0].id) is None
        assert ledger.waiting == 10
        full(10**6)
        ledger.commit(block, consortium.certify(block))
        assert ledger.height == 2
        ledger.close()
        again = Ledger.open(tmp_path / "data", consortium.founding)
        assert again.height == 2
        assert again.state.root() == block.coinbase.state
        again.close()

    def test_nothing_is_admitted(self, consortium, ledger, device, full):
        consortium.seal(ledger, consortium.enrol(device))
        waiting = consortium.pack(device)
        consortium.admit(ledger, waiting)
        packs = [consortium.pack(device, rows=120) for _ in range(10)]
        full(None)
        with pytest.raises(StoreError):
            ledger.admit([waiting, *packs])
        assert ledger.waiting == 1
        full(10**6)
        results = ledger.admit([waiting, *packs])
        assert [item.status for item in results] == ["waiting", *["admitted"] * 10]


class TestListings:
    @pytest.fixture
    def sealed(self, consortium, ledger, device):
        """Incidents in four blocks, a pack before each."""
        consortium.seal(ledger, consortium.enrol(device))
        incidents = []
        for _ in range(4):
            pair = [consortium.incident(key) for key in consortium.validators[:2]]
            consortium.seal(ledger, consortium.pack(device), *pair)
            incidents += [place.id for place in ledger.list_kind("incident", None, 2)][::-1]
        return incidents

    def test_by_kind_page_by_page(self, ledger, sealed):
        found, before = [], None
        while page := ledger.list_kind("incident", before, limit=3):
            found += page
            before = (page[-1].height, page[-1].index)
        assert [place.id for place in found] == sealed[::-1]
        assert [place.height for place in found] == [5, 5, 4, 4, 3, 3, 2, 2]

    def test_by_signer_page_by_page(self, ledger, sealed, device):
        first = ledger.list_signer(device.kid, None, limit=3)
        assert [place.sequence for place in first] == [4, 3, 2]
        rest = ledger.list_signer(device.kid, first[-1].sequence, limit=3)
        assert [place.sequence for place in rest] == [1]
        assert {place.kind for place in (*first, *rest)} == {"pack"}

    def test_packs_are_listed_by_signer_only(self, ledger):
        with pytest.raises(ValueError, match="by their signer"):
            ledger.list_kind("pack")

    def test_bytes_are_those_of_the_block(self, consortium, ledger, device):
        """At the lengths where the head of a CBOR byte string or array grows."""
        consortium.seal(ledger, consortium.enrol(device))
        for rows in (1, 2, 5, 100, 120):
            packs = [consortium.pack(device, rows=rows) for _ in range(30)]
            consortium.seal(ledger, *packs)
            for pack in packs:
                place = ledger.find(pack.id)
                assert place == ledger.find_sequence(device.kid, pack.sequence)
                assert place.raw == pack.raw

    def test_counts(self, ledger, sealed):
        assert ledger.counts() == {"enrol": 1, "incident": 8, "all": 13}

    def test_blocks(self, ledger, sealed):
        infos = ledger.infos(2, 4)
        assert [info.height for info in infos] == [2, 3, 4]
        assert ledger.info_by_hash(infos[0].hash) == ledger.info(2) == infos[0]
        assert ledger.info(0).hash == ledger.founding.genesis.hash
        assert ledger.info(6) is ledger.block(6) is None


def test_kill_minus_nine_loses_nothing_that_was_told(make_consortium, tmp_path):
    """Twelve children die before any SQL statement, or at any moment; each goes on."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    founding = _founding_of_one(make_consortium(validators=1))
    (tmp_path / "founding").write_bytes(founding.raw)
    data = tmp_path / "data"
    told: dict[str, set[tuple[str, ...]]] = {"admitted": set(), "voted": set(), "committed": set()}
    for kill in range(KILLS):
        own = kill % 2 == 0
        statement = chance.randint(1, STATEMENTS) if own else 0
        lines = _run_until_killed(data, tmp_path / "founding", statement, chance.randint(1, 9))
        for word, *rest in lines:
            told[word].add(tuple(rest))
        ledger = Ledger.open(data, founding)  # compares the state's root with the head's
        try:
            _check(ledger, told)
        finally:
            ledger.close()
    assert told["committed"]


def _founding_of_one(consortium):
    member = replace(
        consortium.founding.members[0], roles=frozenset({"validator", "gateway", "operator"})
    )
    return replace(consortium.founding, members=(member,))


def _run_until_killed(data, founding, statement: int, lines: int) -> list[list[str]]:
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(data), str(founding), str(statement)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    told = []
    watchdog = threading.Timer(CHILD_LIMIT_S, child.kill)
    watchdog.start()
    try:
        for line in child.stdout:
            told.append(line.split())
            if not statement and len(told) == lines:
                child.kill()
    finally:
        child.kill()
        child.stdout.close()
        code = child.wait(CHILD_LIMIT_S)
        hung = not watchdog.is_alive()
        watchdog.cancel()
    assert not hung
    assert code == -signal.SIGKILL
    return told


def _check(ledger: Ledger, told) -> None:
    committed = max((int(height) for (height,) in told["committed"]), default=0)
    assert ledger.height in (committed, committed + 1)
    assert all(ledger.block(height) for height in range(1, ledger.height + 1))
    for signer, sequence in told["admitted"]:
        assert ledger.transaction_at(bytes.fromhex(signer), int(sequence)) is not None
    votes = {(v.round, v.step): v.block_hash for v in ledger.saved()[0]}
    for height, round_, step, block_hash in told["voted"]:
        if int(height) == ledger.height + 1:
            assert votes[int(round_), int(step)].hex() == block_hash
