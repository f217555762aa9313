"""Reading one node's ledger from its database; nothing that is read back is believed.

A row carries a check over its fields, a transaction is compared with its id, and `meta` holds
sums over the tables whose rows must never vanish unseen (votes, lock, mempool, forks,
validator_sets). What does not fit is a DamagedError.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from types import NoneType
from typing import Any

from fog_node.errors import DamagedError, PrunedError, StoreError
from fog_node.protocol.block import Header, parse_coinbase
from fog_node.protocol.cbor import decode
from fog_node.protocol.cose import CHAIN_ID_BYTES
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.sealed_header import MAX_PATH, LightChain, SealedHeader
from fog_node.protocol.transactions import KINDS, MAX_TRANSACTION_BYTES
from fog_node.protocol.validate import array
from fog_node.protocol.validators import MAX_SET_BYTES, ValidatorSet
from fog_node.protocol.votes import MAX_CERTIFICATE_BYTES, Vote, parse_vote

from .block_body import join_block, split_body
from .chain import BlockInfo
from .consensus_messages import Lock
from .meta import Meta, Sum, check_of, check_of_id
from .places import PLACES, Place, position_in, prefix_of
from .schema import (
    DATABASE,
    DATABASE_ERRORS,
    check_schema,
    connect,
    explain,
)
from .waiting_room import split_row

MAX_KEPT_BYTES = MAX_TRANSACTION_BYTES + MAX_PATH * (HASH_BYTES + 2) + 64
MAX_LIGHT_CHAIN_BYTES = MAX_SET_BYTES + 1024
# The latest blocks are looked back to with each new one; some KiB each.
MAX_PARSED_HEADERS = 128
_BLOCK = "SELECT height, prefix, transactions, size, crc, header, coinbase, certificate FROM blocks"
_BLOCK_TYPES = "iiiiibbb"
_TYPES: dict[str, tuple[type, ...]] = {
    "i": (int,),
    "b": (bytes,),
    "t": (str,),
    "o": (bytes, NoneType),
}


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


class StoreReader:
    """The database of one data directory, to read from."""

    def __init__(self, path: Path, reader: sqlite3.Connection, meta: Meta) -> None:
        """Read through a connection of our own; `inspect_store` and `Store` are the usual ways."""
        self.path = path
        self._reader = reader
        self._read_lock = threading.Lock()
        self._meta = meta
        self._signers = self._load_signers()

    @property
    def meta(self) -> Meta:
        """What the store knows of itself, as of the latest commit."""
        return self._meta

    @contextmanager
    def snapshot(self) -> Iterator[Meta]:
        """Have all that is read meanwhile be of one moment, even where another process writes."""
        with self._guarded():
            self._reader.execute("BEGIN")
            try:
                self._meta = load_meta(self.path, self._reader)
                yield self._meta
            finally:
                self._reader.execute("ROLLBACK")

    def stored_meta(self) -> Meta:
        """Read `meta` from the disk; raises DamagedError."""
        with self._read_lock, self._guarded():
            return load_meta(self.path, self._reader)

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
        rows = self.rows(f"{_BLOCK} WHERE prefix = ?", (prefix_of(block_hash),), _BLOCK_TYPES)
        infos = [self._parse_header(row).info for row in rows]
        return next((info for info in infos if info.hash == block_hash), None)

    def infos(self, first: int, last: int) -> list[BlockInfo]:
        """Return the blocks from height `first` to `last`, both included, lowest first."""
        return [found.info for found in self.headers(first, last)]

    def times(self, first: int, last: int) -> list[int]:
        """Return times in ms of these blocks, lowest first."""
        return [info.time for info in self.infos(first, last)]

    def header(self, height: int) -> StoredHeader | None:
        """Return what is kept of the block at this height even where its body is not."""
        rows = self.rows(f"{_BLOCK} WHERE height = ?", (height,), _BLOCK_TYPES)
        return self._parse_header(rows[0]) if rows else None

    def headers(self, first: int, last: int) -> list[StoredHeader]:
        """Return the same of the blocks from height `first` to `last`, lowest first."""
        query = f"{_BLOCK} WHERE height BETWEEN ? AND ? ORDER BY height"
        return [self._parse_header(row) for row in self.rows(query, (first, last), _BLOCK_TYPES)]

    def block(self, height: int) -> tuple[bytes, bytes] | None:
        """Bytes of the block at this height and of its certificate.

        Raises:
            PrunedError: its body is no longer here.
        """
        found = self.header(height)
        if found is None:
            return None
        raw = join_block(found.header, found.coinbase, found.info.transactions, self.body(height))
        if len(raw) != found.info.size:
            raise self.damaged(f"block {height}: has not the size that it had")
        return raw, found.certificate

    def validator_set(self, height: int) -> ValidatorSet | None:
        """Return who votes at this height; None where it still is the founding's set."""
        query = "SELECT raw FROM validator_sets WHERE height <= ? ORDER BY height DESC LIMIT 1"
        for (raw,) in self.rows(query, (height,), "b"):
            with self.readable("validator_sets"):
                return ValidatorSet.decode(raw)
        return None

    def handovers(self, last: int) -> list[int]:
        """Heights up to `last` of the blocks after which another set votes, lowest first."""
        query = "SELECT height - 1 FROM validator_sets WHERE height <= ? ORDER BY height"
        return [row[0] for row in self.rows(query, (last + 1,), "i")]

    def state_entries(self) -> list[bytes]:
        """Return the state's entries that differ from the founding."""
        return [row[0] for row in self.rows("SELECT entry FROM state ORDER BY key", (), "b")]

    def ahead(self, height: int) -> SealedHeader | None:
        """Return the checked header of a block whose body is still to come."""
        query = "SELECT crc, sealed, chain FROM ahead WHERE height = ?"
        for check, raw, chain in self.rows(query, (height,), "ibo"):
            if check_of(height, raw, chain) != check:
                raise self.damaged(f"ahead: block {height} is not what was written")
            with self.readable("ahead"):
                return SealedHeader.decode(raw)
        return None

    def ahead_chain(self) -> LightChain | None:
        """Return how the chain stands after the last of these headers."""
        query = (
            "SELECT crc, height, sealed, chain FROM ahead WHERE chain IS NOT NULL "
            "ORDER BY height DESC LIMIT 1"
        )
        for check, height, raw, chain in self.rows(query, (), "iibb"):
            if check_of(height, raw, chain) != check:
                raise self.damaged(f"ahead: block {height} is not what was written")
            with self.readable("ahead"):
                return LightChain.from_value(decode(chain, MAX_LIGHT_CHAIN_BYTES, "ahead"))
        return None

    # Transactions

    def find(self, transaction_id: bytes) -> Place | None:
        """Return the final transaction with this id; raises PrunedError."""
        query = "SELECT place FROM ids WHERE prefix = ?"
        pruned: PrunedError | None = None
        for (place,) in self.rows(query, (prefix_of(transaction_id),), "i"):
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
        for first, height, positions in self.rows(
            query, (self._signers.get(signer), sequence), "iib"
        ):
            if position := position_in(positions, sequence - first):
                return height, position
        return None

    def first_above(self, signer: bytes, sequence: int) -> Place | None:
        """Return a signer's lowest final transaction above this number; raises PrunedError."""
        query = (
            "SELECT height, positions FROM runs WHERE signer = ? AND first > ? "
            "ORDER BY first LIMIT 1"
        )
        for height, positions in self.rows(query, (self._signers.get(signer), sequence), "ib"):
            return self._place(height, position_in(positions, 0))
        return None

    def has_id_at(self, transaction_id: bytes, spot: tuple[int, int]) -> bool:
        """Whether the transaction at this spot has this id, as far as the index tells."""
        height, position = spot
        query = "SELECT count(*) FROM ids WHERE prefix = ? AND place = ?"
        arguments = (prefix_of(transaction_id), height * PLACES + position)
        return bool(self.rows(query, arguments, "i")[0][0])

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
        rows = self.rows(query, (kind, height * PLACES + index, limit), "i")
        return self._listed(divmod(place, PLACES) for (place,) in rows)

    def list_signer(self, signer: bytes, before: int | None, limit: int) -> list[Place]:
        """Return final transactions of one signer, latest first, with numbers under `before`."""
        end = 2**62 if before is None else before
        query = (
            "SELECT first, height, positions FROM runs WHERE signer = ? AND first < ? "
            "ORDER BY first DESC LIMIT ?"
        )
        spots: list[tuple[int, int]] = []
        for first, height, positions in self.rows(
            query, (self._signers.get(signer), end, limit), "iib"
        ):
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

    # What waits, and what this validator has promised

    def waiting_rows(self) -> dict[int, dict[bytes, bytes]]:
        """Rows of waiting transactions by number, each with bytes by id; see `waiting_room`.

        Raises:
            DamagedError: one is not what was written, or missing.
        """
        rows = self.rows("SELECT number, raw FROM mempool ORDER BY number", (), "ib")
        found = {}
        for number, row in rows:
            try:
                found[number] = split_row(row)
            except (ValueError, TypeError) as error:
                raise self.damaged(f"mempool: row {number} {error}") from error
        checks = (check_of_id(id_) for entries in found.values() for id_ in entries)
        if Sum.of(checks) != self._meta.mempool:
            raise self.damaged("mempool: transactions that waited here are missing or changed")
        return found

    def sound_waiting(self) -> Iterator[bytes]:
        """Of a damaged mempool, what can be read; that it verifies is left to the caller."""
        with self._read_lock, self._guarded():
            for (row,) in self._reader.execute("SELECT raw FROM mempool ORDER BY number"):
                with suppress(ValueError, TypeError):
                    yield from split_row(row).values()

    def votes(self, height: int) -> list[Vote]:
        """Own votes of this height, in order of round and step."""
        query = "SELECT raw FROM votes WHERE height = ? ORDER BY round, step"
        with self.readable("votes"):
            return [parse_vote(row[0]) for row in self.rows(query, (height,), "b")]

    def lock(self, height: int) -> Lock | None:
        """Return what this validator is locked on at this height."""
        query = "SELECT round, hash, block, prevotes FROM lock WHERE height = ?"
        for round_, block_hash, block, prevotes in self.rows(query, (height,), "ibbb"):
            with self.readable("lock"):
                votes = array(decode(prevotes, MAX_CERTIFICATE_BYTES, "prevotes"), "prevotes")
                parsed = tuple(parse_vote(vote) for vote in votes)
            return Lock(height, round_, block_hash, block, parsed)
        return None

    def check_promises(self) -> None:
        """Compare the rows that must never vanish or change with their checks and sums."""
        queries = {
            "votes": ("SELECT crc, height, round, step, hash, raw FROM votes", "iiiiob"),
            "lock": ("SELECT crc, height, round, hash, block, prevotes FROM lock", "iiibbb"),
            "forks": ("SELECT crc, height, hash, certificate, raw FROM forks", "iibbb"),
            "validator_sets": ("SELECT crc, height, raw FROM validator_sets", "iib"),
        }
        meta = self._meta
        known = {
            "votes": meta.votes,
            "lock": meta.locks,
            "forks": meta.forks,
            "validator_sets": meta.sets,
        }
        for table, (query, types) in queries.items():
            rows = self.rows(query, (), types)
            if any(check_of(*fields) != check for check, *fields in rows):
                raise self.damaged(f"{table}: a row is not what was written")
            if Sum.of(row[0] for row in rows) != known[table]:
                raise self.damaged(f"{table}: rows are missing, or too many")

    def forks(self) -> list[Fork]:
        """Certified blocks beside ours, lowest first."""
        query = "SELECT height, hash, raw, certificate FROM forks ORDER BY height, hash"
        return [Fork(*row) for row in self.rows(query, (), "ibbb")]

    def damaged(self, what: str) -> DamagedError:
        """Return the error for content that does not fit together."""
        return DamagedError(self.path, what)

    # Beneath

    def _load_signers(self) -> dict[bytes, int]:
        return {
            kid: number for number, kid in self.rows("SELECT number, kid FROM signers", (), "ib")
        }

    def _parse_header(self, row: tuple[Any, ...]) -> StoredHeader:
        try:
            return _header_of(row)
        except (ProtocolError, _MisfitError) as error:
            raise self.damaged(f"block {row[0]}: {error}") from error

    def body(self, height: int) -> bytes:
        """Return what follows the coinbase in a block's bytes; raises PrunedError."""
        rows = self.rows("SELECT crc, body FROM bodies WHERE height = ?", (height,), "ib")
        if not rows:
            if height < self._meta.pruned:
                raise PrunedError(height)
            raise self.damaged(f"block {height}: its body is missing")
        check, body = rows[0]
        if not isinstance(body, bytes) or check_of(body) != check:
            raise self.damaged(f"block {height}: its body is not what was written")
        return body

    def entries(self, height: int) -> list[bytes]:
        """Bytes of each transaction of a block; raises PrunedError."""
        found = self.header(height)
        if found is None:
            raise self.damaged(f"block {height}: is missing")
        with self.readable(f"block {height}"):
            return split_body(self.body(height), found.info.transactions)

    def kept(self, height: int) -> dict[int, bytes]:
        """What stayed of a pruned block, by index; see `stored_block`."""
        query = "SELECT place, crc, value FROM kept WHERE place BETWEEN ? AND ?"
        start = height * PLACES
        rows = self.rows(query, (start, start + PLACES - 1), "iib")
        if any(check_of(place, value) != check for place, check, value in rows):
            raise self.damaged(f"kept: a row of block {height} is not what was written")
        return {place - start: value for place, _, value in rows}

    def _place(self, height: int, index: int) -> Place:
        return self._listed_in(height, [index])[0]

    def _listed_in(self, height: int, indexes: Sequence[int]) -> list[Place]:
        try:
            found = dict(enumerate(self.entries(height), start=1))
        except PrunedError:
            found = self._kept_entries(height)
            if not found.keys() >= set(indexes):
                raise
        if not found.keys() >= set(indexes):
            raise self.damaged(f"block {height}: the index points beyond it")
        with self.readable(f"block {height}"):
            return [Place.of(found[index], height, index) for index in indexes]

    def _kept_entries(self, height: int) -> dict[int, bytes]:
        with self.readable(f"block {height}"):
            return {
                index: array(decode(value, MAX_KEPT_BYTES, "kept"), "kept", length=2)[1]
                for index, value in self.kept(height).items()
                if index
            }

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

    def rows(self, query: str, arguments: Sequence[Any], types: str) -> list[Any]:
        """Ask the database.

        Args:
            query: SQL.
            arguments: of the query.
            types: of the columns, a letter each: `i`nteger, `b`lob, `t`ext; `o`: a blob or
                nothing. A damaged page may hold anything.
        """
        with self._read_lock, self._guarded():
            found = self._reader.execute(query, arguments).fetchall()
        expected = _rows_of(types)
        if not all(tuple(map(type, row)) in expected for row in found):
            raise self.damaged(f"{query.partition(' FROM ')[2]}: a field is of another type")
        return found

    def _guarded(self) -> _Guard:
        return _Guard(self.path)

    @contextmanager
    def readable(self, table: str) -> Iterator[None]:
        """Have what does not parse be damage."""
        try:
            yield
        except ProtocolError as error:
            raise self.damaged(f"{table}: {error}") from error


class _Guard:
    """Has SQLite's errors be told as ours; no generator, as it is around every query."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, DATABASE_ERRORS):
            raise explain(self._path, error) from error


@cache
def _rows_of(types: str) -> frozenset[tuple[type, ...]]:
    """What the types of a row's fields may be, where `rows` is told so."""
    return frozenset(product(*(_TYPES[letter] for letter in types)))


class _MisfitError(Exception):
    """A row whose fields do not fit together."""


@lru_cache(MAX_PARSED_HEADERS)
def _header_of(row: tuple[Any, ...]) -> StoredHeader:
    """Check and parse a row of `blocks`; raises ProtocolError, _MisfitError."""
    height, prefix, transactions, size, check, header, coinbase, certificate = row
    if check_of(height, transactions, size, header, coinbase, certificate) != check:
        raise _MisfitError("is not what was written")
    parsed, mined = Header.decode(header), parse_coinbase(coinbase)
    if prefix_of(parsed.hash) != prefix or mined.height != height:
        raise _MisfitError("is another block")
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


def load_meta(path: Path, database: sqlite3.Connection) -> Meta:
    """Read what the store knows of itself; raises DamagedError, sqlite3.Error."""
    row = database.execute("SELECT crc, value FROM meta WHERE id = 1").fetchone()
    if row is None or not isinstance(row[1], bytes) or check_of(row[1]) != row[0]:
        raise DamagedError(path, "meta: is missing, or not what was written")
    try:
        return Meta.decode(row[1])
    except ProtocolError as error:
        raise DamagedError(path, f"meta: {error}") from error


@contextmanager
def inspect_store(directory: Path) -> Iterator[StoreReader]:
    """Read a database that may be in use, changing nothing; raises StoreError."""
    path = directory / DATABASE
    if not path.exists():
        raise StoreError(f"{path}: is missing; name a data directory that a node has used")
    try:
        with closing(connect(path, read_only=True)) as database:
            check_schema(path, database)
            yield StoreReader(path, database, load_meta(path, database))
    except DATABASE_ERRORS as error:
        raise explain(path, error) from error


@contextmanager
def salvage_store(directory: Path) -> Iterator[StoreReader | None]:
    """Read what can be read of a damaged database; None where nothing can."""
    path = directory / DATABASE
    with ExitStack() as stack:
        reader = None
        with suppress(StoreError, *DATABASE_ERRORS):
            database = stack.enter_context(closing(connect(path, read_only=True)))
            try:
                meta = load_meta(path, database)
            except StoreError:
                meta = Meta(bytes(CHAIN_ID_BYTES))
            reader = StoreReader(path, database, meta)
        yield reader
