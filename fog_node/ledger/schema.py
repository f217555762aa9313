"""The SQLite database: its tables, how a connection is opened, and what its errors mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fog_node.errors import DamagedError, DiskFullError, StoreError

DATABASE = "ledger.sqlite3"
SCHEMA_VERSION = 7
# "FogL": tells our databases from others' (SQLite's application_id).
APPLICATION_ID = 0x466F674C
BUSY_TIMEOUT_S = 10.0
# The write-ahead log is cut back to this after a checkpoint.
JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024
# What waits for a block is gone before the log is copied into the database, the later the more of
# it: with SQLite's usual 1,000 pages of 4 KiB a group of long packs takes a quarter more time.
CHECKPOINT_PAGES = JOURNAL_LIMIT_BYTES // 4096
# Pages of one connection that stay in memory.
CACHE_KIB = 4096

# Numbers in place of what repeats, to keep a pack's share of the disk small: a signer's is a
# row of `signers`; a place is height and position in one; `prefix` is the first 8 bytes of an
# id or hash. `runs` has a row for each unbroken run of a signer's numbers within a block, with
# 2 bytes of position for each. `crc` is meta.check_of over the row's other fields. `mempool`
# has a row for each group of transactions that were admitted together; see waiting_room.
SCHEMA = """
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), crc INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE TABLE blocks (
    height INTEGER PRIMARY KEY, prefix INTEGER NOT NULL, transactions INTEGER NOT NULL,
    size INTEGER NOT NULL, crc INTEGER NOT NULL, header BLOB NOT NULL, coinbase BLOB NOT NULL,
    certificate BLOB NOT NULL
);
CREATE INDEX blocks_by_hash ON blocks (prefix);
CREATE TABLE bodies (height INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE kept (place INTEGER PRIMARY KEY, crc INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE signers (number INTEGER PRIMARY KEY, kid BLOB NOT NULL UNIQUE);
CREATE TABLE runs (
    signer INTEGER NOT NULL, first INTEGER NOT NULL, height INTEGER NOT NULL,
    positions BLOB NOT NULL, PRIMARY KEY (signer, first)
) WITHOUT ROWID;
CREATE TABLE ids (
    prefix INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (prefix, place)
) WITHOUT ROWID;
CREATE TABLE kinds (
    kind TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (kind, place)
) WITHOUT ROWID;
CREATE TABLE state (key BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE mempool (number INTEGER PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE votes (
    height INTEGER NOT NULL, round INTEGER NOT NULL, step INTEGER NOT NULL,
    hash BLOB, crc INTEGER NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (height, round, step)
) WITHOUT ROWID;
CREATE TABLE lock (
    height INTEGER PRIMARY KEY, round INTEGER NOT NULL, crc INTEGER NOT NULL,
    hash BLOB NOT NULL, block BLOB NOT NULL, prevotes BLOB NOT NULL
);
CREATE TABLE forks (
    height INTEGER NOT NULL, hash BLOB NOT NULL, crc INTEGER NOT NULL,
    certificate BLOB NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (height, hash)
);
CREATE TABLE validator_sets (height INTEGER PRIMARY KEY, crc INTEGER NOT NULL, raw BLOB NOT NULL);
CREATE TABLE ahead (
    height INTEGER PRIMARY KEY, crc INTEGER NOT NULL, sealed BLOB NOT NULL, chain BLOB
);
"""

# Our statements are right, so what SQLite finds wrong with one is not as we left it.
_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_TOOBIG,
)
# Of a damaged schema SQLite's message may be no text at all.
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)


def connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection; raises sqlite3.Error, StoreError."""
    target = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    database = sqlite3.connect(
        target, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        # Takes effect in a database without tables only; lets a pruned file shrink in place.
        if not read_only:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        (mode,) = database.execute(f"PRAGMA journal_mode{'' if read_only else ' = WAL'}").fetchone()
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}").fetchone()
        database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}").fetchone()
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    except DATABASE_ERRORS:
        database.close()
        raise
    if mode != "wal":
        database.close()
        raise StoreError(
            f"{path}: this file system cannot hold a write-ahead log; choose a data directory on "
            "a local disk"
        )
    return database


def is_empty(database: sqlite3.Connection) -> bool:
    """Whether there is no table in it; raises sqlite3.Error."""
    return not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def create_tables(database: sqlite3.Connection) -> None:
    """Make the tables, within the caller's transaction; raises sqlite3.Error."""
    script = f"{SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
    script += f"PRAGMA user_version = {SCHEMA_VERSION}"
    for statement in script.split(";"):
        database.execute(statement)


def check_schema(path: Path, database: sqlite3.Connection) -> None:
    """Raise StoreError unless this is a database of ours and of this release."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(
            f"{path}: is another program's database; choose another data directory, or, where it "
            "was the ledger's, run fogline fog repair --config fog.toml"
        )
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: has schema {version}, this release reads {SCHEMA_VERSION}; run the release "
            "that wrote it, or fetch all blocks anew with fogline fog repair --config fog.toml"
        )


def explain(path: Path, error: Exception) -> StoreError:
    """Return the error that says what one of DATABASE_ERRORS means, and what to do about it."""
    if isinstance(error, UnicodeDecodeError):
        return DamagedError(path, "schema: cannot be read")
    number = getattr(error, "sqlite_errorcode", None)
    code = (number or 0) & 0xFF
    # Without a number it is Python's own: text that is none.
    if code in _DAMAGE or (number is None and isinstance(error, sqlite3.OperationalError)):
        return DamagedError(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError(f"{path}: {error}; nothing was written: make room on the disk")
    remedy = "look at the disk and the system's log, then start again"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        remedy = (
            "let this user write in the data directory; where it may, the file is damaged: run "
            "fogline fog repair --config fog.toml"
        )
    return StoreError(f"{path}: {error}; {remedy}")
