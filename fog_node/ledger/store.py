"""One node's ledger on disk: SQLite in WAL mode, each write on the disk before it returns.

One process at a time: a lock file says so. Within it, writes go one after the other, reads
take a connection of their own; both may come from any thread.

Nothing that is read back is believed: a row carries a check over its fields, a transaction is
compared with its id, and `meta` holds sums over the tables whose rows must never vanish unseen
(votes, lock, mempool, forks). The witness file tells when SQLite has dropped commits that were
on the disk already. What does not fit is a DamagedError.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fog_node.errors import DamagedError, PrunedError, StoreError
from fog_node.protocol.block import Block, Header, parse_coinbase
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.transactions import KINDS
from fog_node.protocol.validate import array
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import MAX_CERTIFICATE_BYTES, Certificate, Vote, parse_vote

from .block_body import body_of, join_block, split_body
from .chain import BlockInfo
from .consensus_messages import Lock
from .directory_lock import lock_directory
from .meta import Meta, Sum, check_of, check_of_id
from .places import PLACES, Place, ids_of, kinds_of, position_in, prefix_of, runs_of
from .schema import (
    DATABASE,
    SCHEMA_VERSION,
    check_schema,
    connect,
    create_tables,
    explain,
    is_empty,
)
from .waiting_room import WaitingRoom, join_row, split_row
from .witness import (
    WITNESS,
    Testimony,
    Witness,
    create_witness,
    open_witness,
    read_witness,
    sync_directory,
)

_BLOCK = "SELECT height, prefix, transactions, size, crc, header, coinbase, certificate FROM blocks"


@dataclass(frozen=True)
class Fork:
    """A certified block beside the one that we hold at its height."""

    height: int
    hash: bytes
    block: bytes
    certificate: bytes


@dataclass(frozen=True)
class StoredHeader:
    """What is kept of a block whether its body is or not.

    Attributes:
        header, coinbase, certificate: bytes.
        transactions: how many the block has.
    """

    info: BlockInfo
    header: bytes
    coinbase: bytes
    certificate: bytes


class Store:
    """The database of one data directory."""

    def __init__(self, directory: Path, chain_id: bytes) -> None:
        """Open or create; raises StoreError with what to do about it."""
        self.path = directory / DATABASE
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._failure: StoreError | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{directory}: {error.strerror}; choose a data directory that this user may write"
            ) from error
        with ExitStack() as stack, self._guarded():
            stack.callback(os.close, lock_directory(directory))
            testimony = read_witness(directory / WITNESS)
            self._writer = stack.enter_context(closing(self._connect(testimony)))
            self._meta = self._open(chain_id, testimony)
            self._witness: Witness = open_witness(directory / WITNESS)
            stack.callback(self._witness.close)
            self._reader = stack.enter_context(closing(connect(self.path)))
            self._sync()
            self._signers = self._load_signers()
            self._waiting = self._load_waiting()
            self._after_commit: list[Callable[[], None]] = []
            self._check_promises()
            self._resources = stack.pop_all()

    def close(self) -> None:
        """Close the database and let others open the directory."""
        with self._write_lock, self._read_lock:
            self._resources.close()

    @property
    def meta(self) -> Meta:
        """What the store knows of itself, as of the latest commit."""
        return self._meta

    # Blocks

    def head(self) -> BlockInfo | None:
        """Return the latest block; None where only the founding is known."""
        height = self._meta.head
        if not height:
            return None
        info = self.info(height)
        if info is None:
            raise self.damaged(f"block {height}: is missing")
        return info

    def info(self, height: int) -> BlockInfo | None:
        """Return the block at this height."""
        found = self.header(height)
        return None if found is None else found.info

    def info_by_hash(self, block_hash: bytes) -> BlockInfo | None:
        """Return the block with this hash (internal byte order)."""
        rows = self._rows(f"{_BLOCK} WHERE prefix = ?", (prefix_of(block_hash),))
        infos = [self._stored_header(row).info for row in rows]
        return next((info for info in infos if info.hash == block_hash), None)

    def infos(self, first: int, last: int) -> list[BlockInfo]:
        """Return the blocks from height `first` to `last`, both included, lowest first."""
        return [found.info for found in self.headers(first, last)]

    def times(self, first: int, last: int) -> list[int]:
        """Return times in ms of these blocks, lowest first."""
        return [info.time for info in self.infos(first, last)]

    def header(self, height: int) -> StoredHeader | None:
        """Return what is kept of the block at this height even where its body is not."""
        rows = self._rows(f"{_BLOCK} WHERE height = ?", (height,))
        return self._stored_header(rows[0]) if rows else None

    def headers(self, first: int, last: int) -> list[StoredHeader]:
        """Return the same of the blocks from height `first` to `last`, lowest first."""
        query = f"{_BLOCK} WHERE height BETWEEN ? AND ? ORDER BY height"
        return [self._stored_header(row) for row in self._rows(query, (first, last))]

    def block(self, height: int) -> tuple[bytes, bytes] | None:
        """Bytes of the block at this height and of its certificate.

        Raises:
            PrunedError: its body is no longer here.
        """
        found = self.header(height)
        if found is None:
            return None
        raw = join_block(found.header, found.coinbase, found.info.transactions, self._body(height))
        if len(raw) != found.info.size:
            raise self.damaged(f"block {height}: has not the size that it had")
        return raw, found.certificate

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
        body = body_of(block)
        with self._transaction() as (database, meta):
            self._insert_block(database, info, block, certificate.encode())
            database.execute(
                "INSERT INTO bodies VALUES (?, ?, ?)", (info.height, check_of(body), body)
            )
            self._insert_places(database, block)
            database.executemany(
                "INSERT OR REPLACE INTO state VALUES (?, ?)", sorted(changes.items())
            )
            self._settle(database, meta, settled)
            database.execute("DELETE FROM votes WHERE height <= ?", (info.height,))
            database.execute("DELETE FROM lock WHERE height <= ?", (info.height,))
            meta.votes = _sum(database, "votes")
            meta.locks = _sum(database, "lock")
            if handover is not None:
                row = (info.height + 1, check_of(info.height + 1, handover.raw), handover.raw)
                database.execute("INSERT INTO validator_sets VALUES (?, ?, ?)", row)
                meta.sets = meta.sets.plus(row[1])
            meta.head = info.height
            for transaction in block.transactions:
                meta.kinds[transaction.kind] = meta.kinds.get(transaction.kind, 0) + 1
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
        """Return the final transaction with this id; raises PrunedError."""
        query = "SELECT place FROM ids WHERE prefix = ?"
        pruned: PrunedError | None = None
        for (place,) in self._rows(query, (prefix_of(transaction_id),)):
            try:
                found = self._place(*divmod(place, PLACES))
            except PrunedError as error:
                pruned = error
                continue
            if found.id == transaction_id:
                return found
        if pruned is not None:
            raise pruned
        return None

    def find_sequence(self, signer: bytes, sequence: int) -> Place | None:
        """Return the final transaction with this signer and number; raises PrunedError."""
        spot = self.spot(signer, sequence)
        if spot is None:
            return None
        found = self._place(*spot)
        if (found.signer, found.sequence) != (signer, sequence):
            raise self.damaged(f"runs: number {sequence} of {signer.hex()} is another transaction")
        return found

    def spot(self, signer: bytes, sequence: int) -> tuple[int, int] | None:
        """Height and position of a signer's final transaction, be its body here or not."""
        query = (
            "SELECT first, height, positions FROM runs WHERE signer = ? AND first <= ? "
            "ORDER BY first DESC LIMIT 1"
        )
        for first, height, positions in self._rows(query, (self._signers.get(signer), sequence)):
            if position := position_in(positions, sequence - first):
                return height, position
        return None

    def has_id_at(self, transaction_id: bytes, spot: tuple[int, int]) -> bool:
        """Whether the transaction at this spot has this id, as far as the index tells."""
        height, position = spot
        query = "SELECT count(*) FROM ids WHERE prefix = ? AND place = ?"
        arguments = (prefix_of(transaction_id), height * PLACES + position)
        return bool(self._rows(query, arguments)[0][0])

    def list_kind(self, kind: str, before: tuple[int, int] | None, limit: int) -> list[Place]:
        """Return final transactions of one kind, latest first.

        Args:
            kind: one of KINDS but `pack`, which are listed by signer.
            before: (height, index) to go on below; None for the latest.
            limit: at most so many.
        """
        if kind == "pack" or kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is not listed; list packs by their signer")
        height, index = before or (2**47, 0)
        query = "SELECT place FROM kinds WHERE kind = ? AND place < ? ORDER BY place DESC LIMIT ?"
        rows = self._rows(query, (kind, height * PLACES + index, limit))
        return self._listed(divmod(place, PLACES) for (place,) in rows)

    def list_signer(self, signer: bytes, before: int | None, limit: int) -> list[Place]:
        """Return final transactions of one signer, latest first, with numbers under `before`."""
        end = 2**62 if before is None else before
        query = (
            "SELECT first, height, positions FROM runs WHERE signer = ? AND first < ? "
            "ORDER BY first DESC LIMIT ?"
        )
        spots: list[tuple[int, int]] = []
        for first, height, positions in self._rows(query, (self._signers.get(signer), end, limit)):
            count = min(len(positions) // 2, end - first)
            spots += [(height, position_in(positions, i)) for i in reversed(range(count))]
            if len(spots) >= limit:
                break
        return self._listed(spots[:limit])

    def count_kinds(self) -> dict[str, int]:
        """How many final transactions there are of each kind but packs, and in all (`all`)."""
        kinds = self._meta.kinds
        listed = {kind: count for kind, count in kinds.items() if kind != "pack"}
        return {**listed, "all": sum(kinds.values())}

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
        rows = self._rows("SELECT raw FROM mempool ORDER BY number", ())
        return [
            item for (row,) in rows for item in split_row(row).items() if item[0] in self._waiting
        ]

    # What this validator has promised

    def save_vote(self, vote: Vote) -> None:
        """Keep an own vote; it is on disk when this returns, and may only then be sent.

        Raises:
            StoreError: another vote for this height, round and step is there, which must
                never be: nothing was signed away if the new one is thrown away now. Or this
                validator must not vote at this height (`abstain`).
        """
        slot = (vote.height, vote.round, vote.step)
        with self._transaction() as (database, meta):
            if vote.height <= meta.abstain:
                raise StoreError(
                    f"{self.path}: votes: what this validator voted up to height {meta.abstain} "
                    "is lost; do not send this vote, and wait until the others have gone beyond"
                )
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
        fields = (certificate.encode(), block.raw)
        check = check_of(block.height, block.hash, *fields)
        with self._transaction() as (database, meta):
            database.execute(
                "INSERT OR IGNORE INTO forks VALUES (?, ?, ?, ?, ?)",
                (block.height, block.hash, check, *fields),
            )
            meta.forks = _sum(database, "forks")

    def forks(self) -> list[Fork]:
        """Certified blocks beside ours, lowest first."""
        query = "SELECT height, hash, raw, certificate FROM forks ORDER BY height, hash"
        return [Fork(*row) for row in self._rows(query, ())]

    def damaged(self, what: str) -> DamagedError:
        """Return the error for content that does not fit together."""
        return DamagedError(self.path, what)

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
        meta = self._load_meta()
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

    def _sync(self) -> None:
        """Put on the disk what a kill may have left in the system's memory, and we now build on."""
        wal = self.path.with_name(f"{DATABASE}-wal")
        for path in (wal, self.path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"{path}: {error.strerror}; look at the disk") from error

    def _load_meta(self) -> Meta:
        row = self._writer.execute("SELECT crc, value FROM meta WHERE id = 1").fetchone()
        if row is None or not isinstance(row[1], bytes) or check_of(row[1]) != row[0]:
            raise self.damaged("meta: is missing, or not what was written")
        with self._readable("meta"):
            return Meta.decode(row[1])

    def _load_signers(self) -> dict[bytes, int]:
        return {kid: number for number, kid in self._rows("SELECT number, kid FROM signers", ())}

    def _load_waiting(self) -> WaitingRoom:
        room = WaitingRoom()
        checks: list[int] = []
        for number, row in self._rows("SELECT number, raw FROM mempool ORDER BY number", ()):
            try:
                entries = split_row(row)
            except (ValueError, TypeError) as error:
                raise self.damaged(f"mempool: row {number} {error}") from error
            room.enter(number, {id_: len(raw) for id_, raw in entries.items()})
            checks += map(check_of_id, entries)
        if Sum.of(checks) != self._meta.mempool:
            raise self.damaged("mempool: transactions that waited here are missing or changed")
        return room

    def _check_promises(self) -> None:
        """Compare the rows that must never vanish or change with their checks and sums."""
        queries = {
            "votes": "SELECT crc, height, round, step, hash, raw FROM votes",
            "lock": "SELECT crc, height, round, hash, block, prevotes FROM lock",
            "forks": "SELECT crc, height, hash, certificate, raw FROM forks",
            "validator_sets": "SELECT crc, height, raw FROM validator_sets",
        }
        meta = self._meta
        known = {
            "votes": meta.votes,
            "lock": meta.locks,
            "forks": meta.forks,
            "validator_sets": meta.sets,
        }
        for table, query in queries.items():
            rows = self._rows(query, ())
            if any(check_of(*fields) != check for check, *fields in rows):
                raise self.damaged(f"{table}: a row is not what was written")
            if Sum.of(row[0] for row in rows) != known[table]:
                raise self.damaged(f"{table}: rows are missing, or too many")

    # Beneath

    def _insert_block(
        self, database: sqlite3.Connection, info: BlockInfo, block: Block, certificate: bytes
    ) -> None:
        header, coinbase = block.header.encode(), block.coinbase.raw
        check = check_of(info.height, info.transactions, info.size, header, coinbase, certificate)
        database.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                info.height, prefix_of(info.hash), info.transactions, info.size, check,
                header, coinbase, certificate,
            ),
        )  # fmt: skip

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

    def _stored_header(self, row: Sequence[Any]) -> StoredHeader:
        height, prefix, transactions, size, check, header, coinbase, certificate = row
        if check_of(height, transactions, size, header, coinbase, certificate) != check:
            raise self.damaged(f"block {height}: is not what was written")
        with self._readable(f"block {height}"):
            parsed, mined = Header.decode(header), parse_coinbase(coinbase)
        if prefix_of(parsed.hash) != prefix or mined.height != height:
            raise self.damaged(f"block {height}: is another block")
        info = BlockInfo(
            height=height,
            hash=parsed.hash,
            previous=parsed.previous,
            time=mined.time,
            bits=parsed.bits,
            round=mined.round,
            miner=mined.miner,
            state=mined.state,
            transactions=transactions,
            size=size,
        )
        return StoredHeader(info, header, coinbase, certificate)

    def _body(self, height: int) -> bytes:
        rows = self._rows("SELECT crc, body FROM bodies WHERE height = ?", (height,))
        if not rows:
            if height < self._meta.pruned:
                raise PrunedError(height)
            raise self.damaged(f"block {height}: its body is missing")
        check, body = rows[0]
        if not isinstance(body, bytes) or check_of(body) != check:
            raise self.damaged(f"block {height}: its body is not what was written")
        return body

    def _entries(self, height: int) -> list[bytes]:
        found = self.header(height)
        if found is None:
            raise self.damaged(f"block {height}: is missing")
        with self._readable(f"block {height}"):
            return split_body(self._body(height), found.info.transactions)

    def _place(self, height: int, index: int) -> Place:
        return self._listed_in(height, [index])[0]

    def _listed_in(self, height: int, indexes: Sequence[int]) -> list[Place]:
        entries = self._entries(height)
        if not all(0 < index <= len(entries) for index in indexes):
            raise self.damaged(f"block {height}: the index points beyond it")
        with self._readable(f"block {height}"):
            return [Place.of(entries[index - 1], height, index) for index in indexes]

    def _listed(self, spots: Iterable[tuple[int, int]]) -> list[Place]:
        """Read transactions, each block once; the list ends where bodies were pruned."""
        by_height: dict[int, list[int]] = {}
        for height, index in spots:
            by_height.setdefault(height, []).append(index)
        found: list[Place] = []
        for height, indexes in by_height.items():
            try:
                found += self._listed_in(height, indexes)
            except PrunedError:
                break
        return found

    def _rows(self, query: str, arguments: Sequence[Any]) -> list[Any]:
        with self._read_lock, self._guarded():
            return self._reader.execute(query, arguments).fetchall()

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

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(self.path, error) from error

    @contextmanager
    def _readable(self, table: str) -> Iterator[None]:
        try:
            yield
        except ProtocolError as error:
            raise self.damaged(f"{table}: {error}") from error


def _testimony(meta: Meta) -> Testimony:
    return Testimony(meta.chain_id, meta.writes, meta.head, max(meta.voted, meta.abstain))


def _save_meta(database: sqlite3.Connection, meta: Meta) -> None:
    value = meta.encode()
    database.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?)", (check_of(value), value))


def _sum(database: sqlite3.Connection, table: str) -> Sum:
    return Sum.of(row[0] for row in database.execute(f"SELECT crc FROM {table}"))  # noqa: S608


__all__ = ["DATABASE", "SCHEMA_VERSION", "Fork", "Place", "Store", "StoredHeader"]
