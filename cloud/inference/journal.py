"""What was judged, and what of it is sealed: SQLite, so that a power cut forgets nothing."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cloud.errors import JournalError, JournalFullError
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.predictions import Subject, parse_subject

from .folder import Stamp

FORMAT = 3
_BUSY_S = 10.0
# SQLite's error codes have a primary one in their last byte.
_PRIMARY = 0xFF
# With less room than this an error of the disk is that it is full.
_ROOM_BYTES = 64 * 1024
_SCHEMA = """
CREATE TABLE chain (id BLOB NOT NULL);
CREATE TABLE seen (
  path TEXT NOT NULL, model BLOB NOT NULL, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL,
  subject BLOB, problem TEXT, PRIMARY KEY (path, model)
) WITHOUT ROWID;
CREATE TABLE batch (id INTEGER PRIMARY KEY, raw BLOB NOT NULL, final INTEGER NOT NULL);
CREATE TABLE verdict (
  id INTEGER PRIMARY KEY, model BLOB NOT NULL, name TEXT NOT NULL, source BLOB NOT NULL,
  subject BLOB NOT NULL, said TEXT, score REAL NOT NULL, batch INTEGER REFERENCES batch,
  UNIQUE (model, source, subject)
);
CREATE INDEX verdict_batch ON verdict (batch);
"""
_FORGET_BATCHES = (
    "DELETE FROM batch WHERE final = 1 AND NOT EXISTS "
    "(SELECT 1 FROM verdict WHERE verdict.batch = batch.id)"
)
MAX_SUBJECT_BYTES = 512


@dataclass(frozen=True)
class Said:
    """What a model says of an image, or of a thing that a file names.

    Attributes:
        subject: what is judged.
        said: a class, or None.
        score: the model's number.
    """

    subject: Subject
    said: str | None
    score: float


class Batch(NamedTuple):
    """Verdicts of one model that are sealed together; `raw`: the signed transaction."""

    id: int
    raw: bytes


class Waiting(NamedTuple):
    """Verdicts of one model that no transaction holds yet; `source`: of things, their file's."""

    model: bytes
    name: str
    source: bytes | None
    ids: tuple[int, ...]
    said: tuple[Said, ...]


class Journal:
    """One worker's journal; open it once.

    Each method raises JournalError where the file cannot be used any more, and what changes it
    JournalFullError where the disk is full; nothing of the change is there then.
    """

    def __init__(self, path: Path, chain_id: bytes) -> None:
        """Open or begin one; raises JournalError, also where it is another consortium's."""
        # Judging and sealing are in threads of their own; a transaction is of one of them.
        self._lock = threading.RLock()
        self._path = path
        remedy = "give another file, or end the worker that uses this one"
        with self._guarded("cannot be used as a journal", remedy):
            self._db = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._begin(chain_id)
            except BaseException:
                self._db.close()
                raise

    def _begin(self, chain_id: bytes) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA}")
            self._db.execute("INSERT INTO chain VALUES (?)", (chain_id,))
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
            self._db.execute("COMMIT")
        # Takes the lock now, not at the first verdict.
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("COMMIT")
        if version not in (0, FORMAT):
            raise JournalError(f"{self._path}: is of format {version}", "give another file")
        # What is sealed in one consortium is not, in another.
        ((own,),) = self._db.execute("SELECT id FROM chain").fetchall()
        if own != chain_id:
            raise JournalError(
                f"{self._path}: is of the chain {own.hex()}, not {chain_id.hex()}",
                "give each consortium its own file",
            )

    def close(self) -> None:
        """Close it; what was noted is on the disk already."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        remedy = "see whether its disk is well; what it holds is not lost with this command"
        with self._guarded("cannot be written", remedy), self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _guarded(self, problem: str, remedy: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if self._is_full(error):
                raise JournalFullError(
                    f"{self._path}: no room on the disk",
                    "make room; what was noted before still stands",
                ) from error
            raise JournalError(f"{self._path}: {problem} ({error})", remedy) from error

    def _is_full(self, error: sqlite3.Error) -> bool:
        code = getattr(error, "sqlite_errorcode", 0)
        # Of files beside the journal SQLite says no more than that they cannot be written.
        return code == sqlite3.SQLITE_FULL or (
            code & _PRIMARY == sqlite3.SQLITE_IOERR
            and shutil.disk_usage(self._path.absolute().parent).free < _ROOM_BYTES
        )

    def _rows(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        with self._guarded("cannot be read", "see whether its disk is well"), self._lock:
            return self._db.execute(question, values).fetchall()

    def is_new(self, path: Path, model: bytes, stamp: Stamp) -> bool:
        """Whether this model has not seen this file as it is now."""
        rows = self._rows(
            "SELECT mtime_ns, size FROM seen WHERE path = ? AND model = ?", str(path), model
        )
        return not rows or Stamp(*rows[0]) != stamp

    def note(
        self, model: bytes, name: str, files: Sequence[tuple[Path, Stamp]], said: Sequence[Said]
    ) -> int:
        """Keep what a model says of files; returns how many of the images it had not judged."""
        with self._change():
            new = self._add(model, name, None, said)
            self._db.executemany(
                "REPLACE INTO seen VALUES (?, ?, ?, ?, ?, NULL)",
                [
                    (str(path), model, *stamp, _key(item.subject))
                    for (path, stamp), item in zip(files, said, strict=True)
                ],
            )
        return new

    def note_things(
        self, model: bytes, name: str, source: bytes, said: Sequence[Said], files_kept: int
    ) -> int:
        """Keep what a model says of things that a file names; returns how many are new.

        Args:
            model, name: SHA-256 of the model, and its name.
            source: SHA-256 of the file.
            said: of its things.
            files_kept: of what was said of earlier files, and is sealed, the latest are kept.
        """
        with self._change():
            new = self._add(model, name, source, said)
            old = self._db.execute(
                "SELECT model, source FROM verdict WHERE source != x'' GROUP BY model, source "
                "ORDER BY max(id) DESC LIMIT -1 OFFSET ?",
                (files_kept,),
            ).fetchall()
            self._db.executemany(
                "DELETE FROM verdict WHERE model = ? AND source = ? AND "
                "batch IN (SELECT id FROM batch WHERE final = 1)",
                old,
            )
            self._db.execute(_FORGET_BATCHES)
        return new

    def _add(self, model: bytes, name: str, source: bytes | None, said: Sequence[Said]) -> int:
        before = self._db.total_changes
        self._db.executemany(
            "INSERT INTO verdict (model, name, source, subject, said, score) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(model, name, source or b"", _key(i.subject), i.said, i.score) for i in said],
        )
        return self._db.total_changes - before

    def note_damaged(self, model: bytes, path: Path, stamp: Stamp, problem: str) -> None:
        """Keep that a file is no image; it is not asked for again until it changes."""
        with self._change():
            self._db.execute(
                "REPLACE INTO seen VALUES (?, ?, ?, ?, NULL, ?)",
                (str(path), model, *stamp, problem),
            )

    def waiting(self, at_most: int) -> Waiting | None:
        """Verdicts of the model that has waited longest, oldest first."""
        first = self._rows(
            "SELECT model, name, source FROM verdict WHERE batch IS NULL ORDER BY id LIMIT 1"
        )
        if not first:
            return None
        ((model, name, source),) = first
        rows = self._rows(
            "SELECT id, subject, said, score FROM verdict WHERE batch IS NULL AND model = ? "
            "AND source = ? ORDER BY id LIMIT ?",
            model,
            source,
            at_most,
        )
        return Waiting(
            model,
            name,
            source or None,
            tuple(row[0] for row in rows),
            tuple(Said(_subject(row[1]), *row[2:]) for row in rows),
        )

    def count_waiting(self) -> int:
        """Verdicts that are not sealed yet."""
        ((count,),) = self._rows(
            "SELECT count(*) FROM verdict WHERE batch IS NULL "
            "OR batch IN (SELECT id FROM batch WHERE final = 0)"
        )
        return int(count)

    def keep(self, waiting: Waiting, raw: bytes) -> Batch:
        """Keep a transaction over these verdicts, before it is sent."""
        with self._change():
            cursor = self._db.execute("INSERT INTO batch (raw, final) VALUES (?, 0)", (raw,))
            assert cursor.lastrowid is not None
            self._db.executemany(
                "UPDATE verdict SET batch = ? WHERE id = ?",
                [(cursor.lastrowid, id_) for id_ in waiting.ids],
            )
        return Batch(cursor.lastrowid, raw)

    def unsealed(self) -> Batch | None:
        """The transaction that was signed and is not known to be final."""
        rows = self._rows("SELECT id, raw FROM batch WHERE final = 0 ORDER BY id LIMIT 1")
        return Batch(*rows[0]) if rows else None

    def replace(self, batch: Batch, raw: bytes) -> Batch:
        """Keep another transaction over the same verdicts: the first one's number is taken."""
        with self._change():
            self._db.execute("UPDATE batch SET raw = ? WHERE id = ?", (raw, batch.id))
        return Batch(batch.id, raw)

    def sealed(self, batch: Batch) -> None:
        """A transaction is final."""
        with self._change():
            self._db.execute("UPDATE batch SET final = 1 WHERE id = ?", (batch.id,))

    def forget(self, folders: Iterable[Path], present: Iterable[Path]) -> None:
        """Let go of what is sealed of files that are gone from these folders."""
        kept, watched = {str(path) for path in present}, {str(path) for path in folders}
        with self._change():
            gone = [
                (path, model)
                for path, model in self._db.execute("SELECT path, model FROM seen").fetchall()
                if path not in kept and str(Path(path).parent) in watched
            ]
            if not gone:
                return
            self._db.executemany("DELETE FROM seen WHERE path = ? AND model = ?", gone)
            self._db.execute(
                "DELETE FROM verdict WHERE batch IN (SELECT id FROM batch WHERE final = 1) AND "
                "source = x'' AND NOT EXISTS (SELECT 1 FROM seen WHERE seen.model = verdict.model "
                "AND seen.subject = verdict.subject)"
            )
            self._db.execute(_FORGET_BATCHES)


def _key(subject: Subject) -> bytes:
    return encode(subject.value)


def _subject(key: bytes) -> Subject:
    return parse_subject(decode(key, MAX_SUBJECT_BYTES, "subject"), "subject")
