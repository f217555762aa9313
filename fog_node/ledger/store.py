"""One node's ledger on disk: SQLite in WAL mode, each write on the disk before it returns.

Tables: `blocks` with their certificates, `transactions` (where each one is), `state` (the
entries of the state's tree), `mempool`, `votes` and `lock` (what this validator has
promised at the present height), `forks`, `validator_sets` (from which height on each votes).

One process at a time: a lock file says so. Within it, writes go one after the other, reads
take a connection of their own; both may come from any thread.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fog_node.errors import StoreError
from fog_node.protocol.block import HEADER_BYTES, Block
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.transactions import KINDS
from fog_node.protocol.validate import array
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import MAX_CERTIFICATE_BYTES, Certificate, Vote, parse_vote

from .chain import BlockInfo
from .consensus_messages import Lock
from .directory_lock import lock_directory

DATABASE = "ledger.sqlite3"
SCHEMA_VERSION = 2
# "FogL": tells our databases from others' (SQLite's application_id).
APPLICATION_ID = 0x466F674C
BUSY_TIMEOUT_S = 10.0
# The write-ahead log is cut back to this after a checkpoint.
JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024

_SCHEMA = """
CREATE TABLE chain (id BLOB NOT NULL);
CREATE TABLE blocks (
    height INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, previous BLOB NOT NULL,
    time INTEGER NOT NULL, bits INTEGER NOT NULL, round INTEGER NOT NULL,
    miner BLOB NOT NULL, state BLOB NOT NULL, transactions INTEGER NOT NULL,
    size INTEGER NOT NULL, certificate BLOB NOT NULL, raw BLOB NOT NULL
);
CREATE TABLE transactions (
    signer BLOB NOT NULL, sequence INTEGER NOT NULL, id BLOB NOT NULL UNIQUE,
    kind INTEGER NOT NULL, height INTEGER NOT NULL, position INTEGER NOT NULL,
    start INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (signer, sequence)
) WITHOUT ROWID;
CREATE INDEX transactions_by_kind ON transactions (kind, height, position) WHERE kind > 0;
CREATE TABLE state (key BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE mempool (id BLOB PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE votes (
    height INTEGER NOT NULL, round INTEGER NOT NULL, step INTEGER NOT NULL,
    hash BLOB, raw BLOB NOT NULL, PRIMARY KEY (height, round, step)
) WITHOUT ROWID;
CREATE TABLE lock (
    height INTEGER PRIMARY KEY, round INTEGER NOT NULL, hash BLOB NOT NULL,
    block BLOB NOT NULL, prevotes BLOB NOT NULL
);
CREATE TABLE forks (
    height INTEGER NOT NULL, hash BLOB NOT NULL, certificate BLOB NOT NULL,
    raw BLOB NOT NULL, PRIMARY KEY (height, hash)
);
CREATE TABLE validator_sets (height INTEGER PRIMARY KEY, raw BLOB NOT NULL);
"""
_INFO = (
    "SELECT height, hash, previous, time, bits, round, miner, state, transactions, size FROM blocks"
)
_PLACE = (
    "SELECT t.id, t.signer, t.sequence, t.kind, t.height, t.position, "
    "substr(b.raw, t.start + 1, t.size) "
    "FROM transactions t JOIN blocks b ON b.height = t.height"
)


@dataclass(frozen=True)
class Place:
    """Where a final transaction is.

    Attributes:
        index: position in its block, from 1, as in proofs.
        raw: its bytes.
    """

    id: bytes
    signer: bytes
    sequence: int
    kind: str
    height: int
    index: int
    raw: bytes


@dataclass(frozen=True)
class Fork:
    """A certified block beside the one that we hold at its height."""

    height: int
    hash: bytes
    block: bytes
    certificate: bytes


class Store:
    """The database of one data directory."""

    def __init__(self, directory: Path, chain_id: bytes) -> None:
        """Open or create; raises StoreError with what to do about it."""
        self.path = directory / DATABASE
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{directory}: {error.strerror}; choose a data directory that this user may write"
            ) from error
        with ExitStack() as stack, self._guarded():
            stack.callback(os.close, lock_directory(directory))
            self._writer = stack.enter_context(closing(self._connect()))
            self._open_schema(chain_id)
            self._reader = stack.enter_context(closing(self._connect()))
            self._resources = stack.pop_all()

    def close(self) -> None:
        """Close the database and let others open the directory."""
        with self._write_lock, self._read_lock:
            self._resources.close()

    # Blocks

    def head(self) -> BlockInfo | None:
        """Return the latest block; None where only the founding is known."""
        return self._info(f"{_INFO} ORDER BY height DESC LIMIT 1", ())

    def info(self, height: int) -> BlockInfo | None:
        """Return the block at this height."""
        return self._info(f"{_INFO} WHERE height = ?", (height,))

    def info_by_hash(self, block_hash: bytes) -> BlockInfo | None:
        """Return the block with this hash (internal byte order)."""
        return self._info(f"{_INFO} WHERE hash = ?", (block_hash,))

    def infos(self, first: int, last: int) -> list[BlockInfo]:
        """Return the blocks from height `first` to `last`, both included, lowest first."""
        query = f"{_INFO} WHERE height BETWEEN ? AND ? ORDER BY height"
        return [BlockInfo(*row) for row in self._rows(query, (first, last))]

    def times(self, first: int, last: int) -> list[int]:
        """Return times in ms of these blocks, lowest first."""
        query = "SELECT time FROM blocks WHERE height BETWEEN ? AND ? ORDER BY height"
        return [row[0] for row in self._rows(query, (first, last))]

    def block(self, height: int) -> tuple[bytes, bytes] | None:
        """Bytes of the block at this height and of its certificate."""
        rows = self._rows("SELECT raw, certificate FROM blocks WHERE height = ?", (height,))
        return (rows[0][0], rows[0][1]) if rows else None

    def commit(
        self,
        block: Block,
        certificate: Certificate,
        changes: Mapping[bytes, bytes],
        settled: Iterable[bytes],
        handover: ValidatorSet | None = None,
    ) -> BlockInfo:
        """Write a final block and all that follows from it, at once or not at all.

        Args:
            block: the next one.
            certificate: that makes it final.
            changes: entries of the state by key.
            settled: ids that leave the mempool.
            handover: who votes from the next block on, where it is another set.
        """
        info = BlockInfo.of_block(block)
        with self._transaction() as database:
            database.execute(
                "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    info.height, info.hash, info.previous, info.time, info.bits, info.round,
                    info.miner, info.state, info.transactions, info.size,
                    certificate.encode(), block.raw,
                ),
            )  # fmt: skip
            database.executemany(
                "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _index_rows(block)
            )
            database.executemany(
                "INSERT OR REPLACE INTO state VALUES (?, ?)", sorted(changes.items())
            )
            database.executemany("DELETE FROM mempool WHERE id = ?", ((item,) for item in settled))
            database.execute("DELETE FROM votes WHERE height <= ?", (info.height,))
            database.execute("DELETE FROM lock WHERE height <= ?", (info.height,))
            if handover is not None:
                row = (info.height + 1, handover.raw)
                database.execute("INSERT INTO validator_sets VALUES (?, ?)", row)
        return info

    def validator_set(self, height: int) -> ValidatorSet | None:
        """Return who votes at this height; None where it still is the founding's set."""
        query = "SELECT raw FROM validator_sets WHERE height <= ? ORDER BY height DESC LIMIT 1"
        for (raw,) in self._rows(query, (height,)):
            with self._readable("validator_sets"):
                return ValidatorSet.decode(raw)
        return None

    def handovers(self, last: int) -> list[int]:
        """Heights up to `last` of the blocks after which another set votes, lowest first."""
        query = "SELECT height - 1 FROM validator_sets WHERE height <= ? ORDER BY height"
        return [row[0] for row in self._rows(query, (last + 1,))]

    def state_entries(self) -> list[bytes]:
        """Return the state's entries that differ from the founding."""
        return [row[0] for row in self._rows("SELECT entry FROM state ORDER BY key", ())]

    # Transactions

    def find(self, transaction_id: bytes) -> Place | None:
        """Return the final transaction with this id."""
        query = f"{_PLACE} WHERE t.id = ?"
        return next(iter(self._places(query, (transaction_id,))), None)

    def find_sequence(self, signer: bytes, sequence: int) -> Place | None:
        """Return the final transaction with this signer and number."""
        query = f"{_PLACE} WHERE t.signer = ? AND t.sequence = ?"
        return next(iter(self._places(query, (signer, sequence))), None)

    def list_kind(self, kind: str, before: tuple[int, int] | None, limit: int) -> list[Place]:
        """Return final transactions of one kind, latest first.

        Args:
            kind: one of KINDS but `pack`, which are listed by signer.
            before: (height, index) to go on below; None for the latest.
            limit: at most so many.
        """
        if kind == "pack" or kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is not listed; list packs by their signer")
        height, index = before or (2**62, 0)
        query = (
            f"{_PLACE} WHERE t.kind > 0 AND t.kind = ? "
            "AND (t.height, t.position) < (?, ?) ORDER BY t.height DESC, t.position DESC LIMIT ?"
        )
        return self._places(query, (KINDS.index(kind), height, index, limit))

    def list_signer(self, signer: bytes, before: int | None, limit: int) -> list[Place]:
        """Return final transactions of one signer, latest first, with numbers under `before`."""
        query = f"{_PLACE} WHERE t.signer = ? AND t.sequence < ? ORDER BY t.sequence DESC LIMIT ?"
        return self._places(query, (signer, 2**62 if before is None else before, limit))

    def count_kinds(self) -> dict[str, int]:
        """How many final transactions there are of each kind but packs, and in all (`all`)."""
        query = "SELECT kind, count(*) FROM transactions WHERE kind > 0 GROUP BY kind"
        counts = {KINDS[kind]: count for kind, count in self._rows(query, ())}
        in_all = self._rows("SELECT total(transactions) FROM blocks", ())[0][0]
        return {**counts, "all": int(in_all)}

    # Mempool

    def add_pending(self, transactions: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep waiting transactions, (id, bytes) each; on disk together when this returns."""
        with self._transaction() as database:
            database.executemany("INSERT OR IGNORE INTO mempool VALUES (?, ?)", transactions)

    def remove_pending(self, ids: Iterable[bytes]) -> None:
        """Drop waiting transactions."""
        with self._transaction() as database:
            database.executemany("DELETE FROM mempool WHERE id = ?", ((item,) for item in ids))

    def pending(self) -> list[tuple[bytes, bytes]]:
        """Return waiting transactions, (id, bytes) each, in order of arrival."""
        return self._rows("SELECT id, raw FROM mempool ORDER BY rowid", ())

    # What this validator has promised

    def save_vote(self, vote: Vote) -> None:
        """Keep an own vote; it is on disk when this returns, and may only then be sent.

        Raises:
            StoreError: another vote for this height, round and step is there, which must
                never be: nothing was signed away if the new one is thrown away now.
        """
        slot = (vote.height, vote.round, vote.step)
        with self._transaction() as database:
            query = "SELECT hash FROM votes WHERE height = ? AND round = ? AND step = ?"
            row = database.execute(query, slot).fetchone()
            if row is not None and row[0] != vote.block_hash:
                raise StoreError(
                    f"{self.path}: votes: this validator has voted otherwise at height "
                    f"{vote.height}, round {vote.round}, step {vote.step}; do not send this vote, "
                    "and see that no other node runs with the same key"
                )
            database.execute(
                "INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?)",
                (*slot, vote.block_hash, vote.raw),
            )

    def save_lock(self, lock: Lock) -> None:
        """Keep what this validator is locked on at a height; on disk when this returns."""
        prevotes = encode([vote.raw for vote in lock.prevotes])
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO lock VALUES (?, ?, ?, ?, ?)",
                (lock.height, lock.round, lock.block_hash, lock.block, prevotes),
            )

    def votes(self, height: int) -> list[Vote]:
        """Own votes of this height, in order of round and step."""
        query = "SELECT raw FROM votes WHERE height = ? ORDER BY round, step"
        with self._readable("votes"):
            return [parse_vote(row[0]) for row in self._rows(query, (height,))]

    def lock(self, height: int) -> Lock | None:
        """Return what this validator is locked on at this height."""
        query = "SELECT round, hash, block, prevotes FROM lock WHERE height = ?"
        for round_, block_hash, block, prevotes in self._rows(query, (height,)):
            with self._readable("lock"):
                votes = array(decode(prevotes, MAX_CERTIFICATE_BYTES, "prevotes"), "prevotes")
                parsed = tuple(parse_vote(vote) for vote in votes)
            return Lock(height, round_, block_hash, block, parsed)
        return None

    # Forks

    def save_fork(self, block: Block, certificate: Certificate) -> None:
        """Keep a certified block beside the one we hold at its height."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO forks VALUES (?, ?, ?, ?)",
                (block.height, block.hash, certificate.encode(), block.raw),
            )

    def forks(self) -> list[Fork]:
        """Certified blocks beside ours, lowest first."""
        query = "SELECT height, hash, raw, certificate FROM forks ORDER BY height, hash"
        return [Fork(*row) for row in self._rows(query, ())]

    # Beneath

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}").fetchone()
        except sqlite3.Error:
            database.close()
            raise
        if mode != "wal":
            database.close()
            raise StoreError(
                f"{self.path}: this file system cannot hold a write-ahead log; choose a data "
                "directory on a local disk"
            )
        return database

    def _open_schema(self, chain_id: bytes) -> None:
        database = self._writer
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            script = f"{_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            script += f"PRAGMA user_version = {SCHEMA_VERSION};"
            with self._transaction():
                for statement in script.split(";"):
                    database.execute(statement)
                database.execute("INSERT INTO chain VALUES (?)", (chain_id,))
            return
        if application != APPLICATION_ID:
            raise StoreError(
                f"{self.path}: is another program's database; choose another data directory"
            )
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: has schema {version}, this release reads {SCHEMA_VERSION}; run "
                "the release that wrote it, or an empty data directory to fetch all blocks anew"
            )
        (found,) = database.execute("SELECT id FROM chain").fetchone()
        if found != chain_id:
            raise StoreError(
                f"{self.path}: holds the ledger {found.hex()}, the founding file says "
                f"{chain_id.hex()}; use the founding file it was made with, or another data "
                "directory"
            )

    def _info(self, query: str, arguments: Sequence[Any]) -> BlockInfo | None:
        rows = self._rows(query, arguments)
        return BlockInfo(*rows[0]) if rows else None

    def _places(self, query: str, arguments: Sequence[Any]) -> list[Place]:
        return [
            Place(id_, signer, sequence, KINDS[kind], height, index, raw)
            for id_, signer, sequence, kind, height, index, raw in self._rows(query, arguments)
        ]

    def _rows(self, query: str, arguments: Sequence[Any]) -> list[Any]:
        with self._read_lock, self._guarded():
            return self._reader.execute(query, arguments).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, self._guarded():
            database = self._writer
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # SQLite itself rolls back after some errors
                    database.execute("ROLLBACK")
                raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}; {_remedy(error)}") from error

    @contextmanager
    def _readable(self, table: str) -> Iterator[None]:
        try:
            yield
        except ProtocolError as error:
            raise damaged(self.path, f"{table}: {error}") from error


def damaged(path: Path, what: str) -> StoreError:
    """Return the error for a database whose content does not fit together."""
    return StoreError(f"{path}: {what}; {_RESTORE}")


_RESTORE = (
    "the file is damaged: move the data directory away and start with an empty one, which "
    "fetches all blocks anew; a validator first waits until the others are one block further, "
    "as what it voted for is lost"
)


def _remedy(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _RESTORE
    if code == sqlite3.SQLITE_FULL:
        return "nothing was written: make room on the disk"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return "let this user write in the data directory"
    return "look at the disk and the system's log, then start again"


def _index_rows(block: Block) -> Iterator[tuple[bytes, int, bytes, int, int, int, int, int]]:
    """Rows of `transactions`, with where in the block's bytes each transaction begins."""
    count = len(block.transactions) + 1
    start = 1 + _head_bytes(HEADER_BYTES) + HEADER_BYTES + _head_bytes(count)
    start += _head_bytes(len(block.coinbase.raw)) + len(block.coinbase.raw)
    for position, transaction in enumerate(block.transactions, start=1):
        size = len(transaction.raw)
        start += _head_bytes(size)
        yield (
            transaction.signer,
            transaction.sequence,
            transaction.id,
            KINDS.index(transaction.kind),
            block.height,
            position,
            start,
            size,
        )
        start += size


def _head_bytes(length: int) -> int:
    """Bytes of the head of a CBOR array or byte string of this length (RFC 8949 section 3)."""
    if length < 24:
        return 1
    return 2 if length < 2**8 else 3 if length < 2**16 else 5
