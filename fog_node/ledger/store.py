"""One node's ledger on disk: SQLite in WAL mode, each write on the disk before it returns.

One process at a time: a lock file says so. Within it, writes go one after the other, reads
take a connection of their own; both may come from any thread.

The witness file tells when SQLite has dropped commits that were on the disk already; what else
does not fit shows as it is read (`store_reader.py`). Either is a DamagedError.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from fog_node.errors import DamagedError, StoreError
from fog_node.protocol.block import Block
from fog_node.protocol.cbor import encode
from fog_node.protocol.merkle import inclusion_proof
from fog_node.protocol.sealed_header import LightChain, SealedHeader
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import Certificate, Vote

from .block_body import body_of
from .chain import BlockInfo
from .consensus_messages import Lock
from .directory_lock import lock_directory
from .files import sync_directory, sync_file
from .meta import Meta, Sum, check_of, check_of_id
from .places import PLACES, Place, ids_of, kinds_of, prefix_of, runs_of
from .schema import (
    DATABASE,
    SCHEMA_VERSION,
    check_schema,
    connect,
    create_tables,
    is_empty,
)
from .store_reader import Fork, StoredHeader, StoreReader, load_meta
from .waiting_room import WaitingRoom, join_row, split_row
from .witness import WITNESS, Testimony, Witness, create_witness, read_witness

# Beside the database while a repair puts it together.
REPAIR_MARKER = "repairing"


class Store(StoreReader):
    """The database of one data directory."""

    def __init__(self, directory: Path, chain_id: bytes) -> None:
        """Open or create; raises StoreError with what to do about it."""
        self._write_lock = threading.Lock()
        self._failure: StoreError | None = None
        self.path = directory / DATABASE
        witness = directory / WITNESS
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{directory}: {error.strerror}; choose a data directory that this user may write"
            ) from error
        with ExitStack() as stack, self._guarded():
            stack.callback(os.close, lock_directory(directory))
            if (directory / REPAIR_MARKER).exists():
                raise StoreError(
                    f"{directory}: a repair was begun and is not done; run fogline fog repair "
                    "--config fog.toml again"
                )
            testimony = read_witness(witness)
            self._writer = stack.enter_context(closing(self._connect(testimony)))
            meta = self._open(chain_id, testimony)
            self._witness = Witness(witness)
            stack.callback(self._witness.close)
            super().__init__(self.path, stack.enter_context(closing(connect(self.path))), meta)
            # A kill may have left in the system's memory what we are about to build on.
            for name in (f"{DATABASE}-wal", DATABASE):
                sync_file(directory / name)
            self._waiting = WaitingRoom()
            for number, entries in self.waiting_rows().items():
                self._waiting.enter(number, {id_: len(raw) for id_, raw in entries.items()})
            self._after_commit: list[Callable[[], None]] = []
            self.check_promises()
            self._resources = stack.pop_all()

    def close(self) -> None:
        """Close the database and let others open the directory."""
        with self._write_lock, self._read_lock:
            self._resources.close()

    # Blocks

    def commit(
        self,
        block: Block,
        certificate: Certificate,
        changes: Mapping[bytes, bytes | None],
        settled: Iterable[bytes],
        handover: ValidatorSet | None = None,
    ) -> BlockInfo:
        """Write a final block and all that follows from it, at once or not at all.

        Args:
            block: the next one.
            certificate: that makes it final.
            changes: entries of the state by key; None for one that is no more.
            settled: ids that leave the mempool.
            handover: who votes from the next block on, where it is another set.
        """
        info = BlockInfo.of_block(block)
        body = body_of(block)
        with self._transaction() as (database, meta):
            self._insert_block(database, info, block, certificate.encode())
            database.execute(
                "INSERT INTO bodies VALUES (?, ?, ?)", (info.height, check_of(body), body)
            )
            self._insert_places(database, block)
            self._insert_path(database, info.height, inclusion_proof(block.leaves, 0))
            database.execute("DELETE FROM ahead WHERE height <= ?", (info.height,))
            kept = [(key, entry) for key, entry in sorted(changes.items()) if entry is not None]
            gone = [(key,) for key, entry in sorted(changes.items()) if entry is None]
            database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", kept)
            database.executemany("DELETE FROM state WHERE key = ?", gone)
            self._settle(database, meta, settled)
            database.execute("DELETE FROM votes WHERE height <= ?", (info.height,))
            database.execute("DELETE FROM lock WHERE height <= ?", (info.height,))
            meta.votes = _sum(database, "votes")
            meta.locks = _sum(database, "lock")
            if handover is not None:
                self._insert_set(database, meta, info.height + 1, handover)
            meta.head = info.height
            for transaction in block.transactions:
                meta.kinds[transaction.kind] = meta.kinds.get(transaction.kind, 0) + 1
        return info

    # Joining and forgetting

    def adopt(
        self,
        blocks: Sequence[SealedHeader],
        entries: Mapping[bytes, bytes],
        base: int,
        abstain: int,
        *,
        asking: bool,
    ) -> None:
        """Begin with a checkpoint instead of the founding; the store must be new.

        Args:
            blocks: handovers, and the latest blocks without a gap.
            entries: the state after the last of them, by key.
            base: height below the first of those without a gap.
            abstain: up to this height this validator must not vote.
            asking: whether it must not vote before it has heard how far others are.
        """
        head = blocks[-1].height
        with self._transaction() as (database, meta):
            if meta.head:
                raise StoreError(
                    f"{self.path}: holds blocks already; a checkpoint is for a new ledger"
                )
            for sealed in blocks:
                self._insert_sealed(database, sealed)
                if sealed.next is not None:
                    self._insert_set(database, meta, sealed.height + 1, sealed.next)
            database.executemany("INSERT INTO state VALUES (?, ?)", sorted(entries.items()))
            meta.head = meta.joined = head
            meta.base, meta.pruned = base, head + 1
            meta.abstain, meta.asking = abstain, asking

    def save_ahead(self, headers: Sequence[SealedHeader], chain: LightChain) -> None:
        """Keep checked headers of blocks whose bodies are still to come.

        Args:
            headers: consecutive.
            chain: as it stands after the last of them.
        """
        with self._transaction(relied_on=False) as (database, _):
            for sealed in headers:
                raw = sealed.encode()
                after = encode(chain.value()) if sealed.height == chain.height else None
                row = (sealed.height, check_of(sealed.height, raw, after), raw, after)
                database.execute("INSERT OR REPLACE INTO ahead VALUES (?, ?, ?, ?)", row)

    def drop_ahead(self) -> None:
        """Forget the headers of blocks that are still to come."""
        with self._transaction(relied_on=False) as (database, _):
            database.execute("DELETE FROM ahead")

    def prune(self, below: int, kept: Mapping[tuple[int, int], bytes]) -> None:
        """Drop the bodies of all blocks below a height, but for what is kept of them.

        Args:
            below: height of the lowest block whose body stays.
            kept: by height and index, as `StoredBlock.kept` gives it.
        """
        with self._transaction(relied_on=False) as (database, meta):
            rows = ((height * PLACES + index, value) for (height, index), value in kept.items())
            database.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?)",
                ((place, check_of(place, value), value) for place, value in rows),
            )
            database.execute("DELETE FROM bodies WHERE height < ?", (below,))
            meta.pruned = max(meta.pruned, below)

    def shrink(self, pages: int) -> bool:
        """Give at most so many free pages back to the file system; returns whether some are left.

        Others may write between two calls.
        """
        with self._write_lock, self._guarded():
            self._writer.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            return bool(self._writer.execute("PRAGMA freelist_count").fetchone()[0])

    def settle(self) -> None:
        """Bring what is in the write-ahead log into the database file, which shrinks only then."""
        with self._write_lock, self._guarded():
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # Mempool

    def add_pending(self, transactions: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep waiting transactions, (id, bytes) each; on disk together when this returns."""
        with self._transaction() as (database, meta):
            entries = {id_: raw for id_, raw in transactions if id_ not in self._waiting}
            if not entries:
                return
            number = self._waiting.next_number
            row = join_row(entries.values())
            database.execute("INSERT INTO mempool VALUES (?, ?)", (number, row))
            meta.mempool = meta.mempool.plus(*map(check_of_id, entries))
            sizes = {id_: len(raw) for id_, raw in entries.items()}
            self._after_commit.append(partial(self._waiting.enter, number, sizes))

    def remove_pending(self, ids: Iterable[bytes]) -> None:
        """Drop waiting transactions."""
        with self._transaction(relied_on=False) as (database, meta):
            self._settle(database, meta, ids)

    def pending(self) -> list[tuple[bytes, bytes]]:
        """Return waiting transactions, (id, bytes) each, in order of arrival.

        After a start there may be some among them that had left: see `waiting_room`.
        """
        return [
            item
            for entries in self.waiting_rows().values()
            for item in entries.items()
            if item[0] in self._waiting
        ]

    # What this validator has promised

    def save_vote(self, vote: Vote) -> None:
        """Keep an own vote; it is on disk when this returns, and may only then be sent.

        Raises:
            StoreError: another vote for this height, round and step is there, which must
                never be: nothing was signed away if the new one is thrown away now. Or this
                validator must not vote at this height (`asking`, `abstain`).
        """
        if self._meta.asking:
            raise StoreError(
                f"{self.path}: votes: this store is new, and what this validator voted before is "
                "not known; do not send this vote, and wait until other validators have said how "
                "far they are"
            )
        if vote.height <= self._meta.abstain:
            raise StoreError(
                f"{self.path}: votes: what this validator voted up to height {self._meta.abstain} "
                "is lost; do not send this vote, and wait until the others have gone beyond"
            )
        self._insert_vote(vote)

    def save_lock(self, lock: Lock) -> None:
        """Keep what this validator is locked on at a height; on disk when this returns."""
        prevotes = encode([vote.raw for vote in lock.prevotes])
        fields = (lock.block_hash, lock.block, prevotes)
        check = check_of(lock.height, lock.round, *fields)
        with self._transaction() as (database, meta):
            database.execute(
                "INSERT OR REPLACE INTO lock VALUES (?, ?, ?, ?, ?, ?)",
                (lock.height, lock.round, check, *fields),
            )
            meta.locks = _sum(database, "lock")

    def stop_asking(self, abstain: int) -> None:
        """Let this validator vote, above a height; on disk when this returns.

        Args:
            abstain: up to this height it may have voted before this store was made; what is
                known to be higher stays.
        """
        with self._transaction() as (_, meta):
            meta.asking, meta.abstain = False, max(meta.abstain, abstain)

    def take_promises(
        self,
        votes: Iterable[Vote],
        lock: Lock | None,
        voted: int,
        abstain: int,
        *,
        asking: bool = False,
    ) -> None:
        """Take over what this validator had promised by a database that this one replaces.

        Args:
            votes: own votes above the head.
            lock: of the height above the head.
            voted: highest height at which it has voted.
            abstain: up to this height it must not vote.
            asking: that database had not heard how far others are; there are no votes then.
        """
        with self._transaction() as (_, meta):
            meta.voted, meta.abstain, meta.asking = voted, abstain, asking
        for vote in votes:
            self._insert_vote(vote)
        if lock is not None:
            self.save_lock(lock)

    # Forks

    def save_fork(self, block: Block, certificate: Certificate) -> None:
        """Keep a certified block beside the one we hold at its height."""
        fields = (certificate.encode(), block.raw)
        check = check_of(block.height, block.hash, *fields)
        with self._transaction() as (database, meta):
            database.execute(
                "INSERT OR IGNORE INTO forks VALUES (?, ?, ?, ?, ?)",
                (block.height, block.hash, check, *fields),
            )
            meta.forks = _sum(database, "forks")

    # Opening

    def _connect(self, testimony: Testimony | None) -> sqlite3.Connection:
        if testimony is not None and testimony.writes and not self.path.exists():
            raise self.damaged("is missing, while the witness file knows of it")
        return connect(self.path)

    def _open(self, chain_id: bytes, testimony: Testimony | None) -> Meta:
        """Make a new database, or check that the one there is ours and complete."""
        if is_empty(self._writer):
            return self._create(chain_id, testimony)
        check_schema(self.path, self._writer)
        meta = load_meta(self.path, self._writer)
        if meta.chain_id != chain_id:
            raise StoreError(
                f"{self.path}: holds the ledger {meta.chain_id.hex()}, the founding file says "
                f"{chain_id.hex()}; use the founding file it was made with, or another data "
                "directory"
            )
        if testimony is None or testimony.chain_id != chain_id:
            raise DamagedError(
                self.path.parent / WITNESS,
                "is missing, unreadable or another ledger's, so that nobody knows whether the "
                "database is whole",
            )
        if meta.writes < testimony.writes:
            raise self.damaged(
                f"the latest {testimony.writes - meta.writes} of {testimony.writes} writes are "
                f"gone from {DATABASE}-wal, with votes up to height {testimony.voted} and blocks "
                f"up to {testimony.head}"
            )
        return meta

    def _create(self, chain_id: bytes, testimony: Testimony | None) -> Meta:
        if testimony is not None and testimony.writes:
            raise self.damaged("is empty, while the witness file knows of its content")
        meta = Meta(chain_id)
        # Before the database, which without a witness counts as damaged.
        create_witness(self.path.parent / WITNESS, _testimony(meta))
        database = self._writer
        database.execute("BEGIN IMMEDIATE")
        create_tables(database)
        meta.writes = 1
        _save_meta(database, meta)
        database.execute("COMMIT")
        sync_directory(self.path.parent)
        return meta

    # Beneath

    def _insert_block(
        self, database: sqlite3.Connection, info: BlockInfo, block: Block, certificate: bytes
    ) -> None:
        header, coinbase = block.header.encode(), block.coinbase.raw
        fields = (info.transactions, info.size, header, coinbase, certificate)
        self._insert_header(database, info.height, info.hash, fields)

    def _insert_sealed(self, database: sqlite3.Connection, sealed: SealedHeader) -> None:
        """Keep a block whose body was never here; its size is not known."""
        header, coinbase = sealed.header.encode(), sealed.coinbase.raw
        fields = (sealed.size - 1, 0, header, coinbase, sealed.certificate.encode())
        self._insert_header(database, sealed.height, sealed.hash, fields)
        self._insert_path(database, sealed.height, sealed.coinbase_path)

    def _insert_path(
        self, database: sqlite3.Connection, height: int, path: Sequence[bytes]
    ) -> None:
        """Keep the way from the coinbase to the Merkle root, so that headers need no body."""
        place, value = height * PLACES, encode([list(path)])
        row = (place, check_of(place, value), value)
        database.execute("INSERT INTO kept VALUES (?, ?, ?)", row)

    def _insert_header(
        self,
        database: sqlite3.Connection,
        height: int,
        block_hash: bytes,
        fields: tuple[int, int, bytes, bytes, bytes],
    ) -> None:
        transactions, size, *blobs = fields
        check = check_of(height, transactions, size, *blobs)
        database.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (height, prefix_of(block_hash), transactions, size, check, *blobs),
        )

    def _insert_set(
        self, database: sqlite3.Connection, meta: Meta, height: int, voters: ValidatorSet
    ) -> None:
        check = check_of(height, voters.raw)
        row = (height, check, voters.raw)
        database.execute("INSERT INTO validator_sets VALUES (?, ?, ?)", row)
        meta.sets = meta.sets.plus(check)

    def _insert_places(self, database: sqlite3.Connection, block: Block) -> None:
        runs = runs_of(block)
        for run in runs:
            if run.signer not in self._signers:
                row = database.execute("INSERT INTO signers (kid) VALUES (?)", (run.signer,))
                self._signers[run.signer] = row.lastrowid or 0
        database.executemany(
            "INSERT INTO runs VALUES (?, ?, ?, ?)",
            [
                (self._signers[run.signer], run.first, block.height, bytes(run.positions))
                for run in runs
            ],
        )
        database.executemany("INSERT INTO ids VALUES (?, ?)", sorted(ids_of(block)))
        database.executemany("INSERT INTO kinds VALUES (?, ?)", kinds_of(block))

    def _insert_vote(self, vote: Vote) -> None:
        slot = (vote.height, vote.round, vote.step)
        with self._transaction() as (database, meta):
            query = "SELECT hash FROM votes WHERE height = ? AND round = ? AND step = ?"
            row = database.execute(query, slot).fetchone()
            if row is not None:
                if row[0] != vote.block_hash:
                    raise StoreError(
                        f"{self.path}: votes: this validator has voted otherwise at height "
                        f"{vote.height}, round {vote.round}, step {vote.step}; do not send this "
                        "vote, and see that no other node runs with the same key"
                    )
                return
            check = check_of(*slot, vote.block_hash, vote.raw)
            database.execute(
                "INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?)",
                (*slot, vote.block_hash, check, vote.raw),
            )
            meta.votes = meta.votes.plus(check)
            meta.voted = max(meta.voted, vote.height)

    def _settle(self, database: sqlite3.Connection, meta: Meta, ids: Iterable[bytes]) -> None:
        """Take transactions out of the mempool."""
        plan = self._waiting.departure(ids)
        database.executemany(
            "DELETE FROM mempool WHERE number = ?", ((number,) for number in plan.emptied)
        )
        removed = self._waiting.stored(plan.emptied)
        for number, left in plan.wasteful.items():
            query = "SELECT raw FROM mempool WHERE number = ?"
            entries = split_row(database.execute(query, (number,)).fetchone()[0])
            row = join_row(entry for id_, entry in entries.items() if id_ in left)
            database.execute("UPDATE mempool SET raw = ? WHERE number = ?", (row, number))
            removed += [id_ for id_ in entries if id_ not in left]
        meta.mempool = meta.mempool.minus(*map(check_of_id, removed))
        self._after_commit.append(partial(self._waiting.depart, plan))

    @contextmanager
    def _transaction(self, relied_on: bool = True) -> Iterator[tuple[sqlite3.Connection, Meta]]:
        """Change the database and `meta` together, and have the witness told.

        Args:
            relied_on: whether somebody will be told that this was written.
        """
        with self._write_lock, self._guarded():
            if self._failure is not None:
                raise self._failure
            database = self._writer
            meta = self._meta.copy()
            signers = len(self._signers)
            self._after_commit.clear()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database, meta
                meta.writes += 1
                _save_meta(database, meta)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # SQLite itself rolls back after some errors
                    database.execute("ROLLBACK")
                while len(self._signers) > signers:
                    self._signers.popitem()  # the latest ones, which were rolled back
                raise
            self._meta = meta
            for take_note in self._after_commit:
                take_note()
            if relied_on:
                try:
                    self._witness.write(_testimony(meta))
                except StoreError as error:
                    # It is written, but the next start could not tell: nothing more goes in.
                    self._failure = error
                    raise


def _testimony(meta: Meta) -> Testimony:
    return Testimony(meta.chain_id, meta.writes, meta.head, max(meta.voted, meta.abstain))


def _save_meta(database: sqlite3.Connection, meta: Meta) -> None:
    value = meta.encode()
    database.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?)", (check_of(value), value))


def _sum(database: sqlite3.Connection, table: str) -> Sum:
    return Sum.of(row[0] for row in database.execute(f"SELECT crc FROM {table}"))  # noqa: S608


__all__ = ["DATABASE", "SCHEMA_VERSION", "Fork", "Place", "Store", "StoredHeader"]
