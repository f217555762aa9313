"""Blocks that a node no longer keeps: Parquet files with the original bytes.

One row is a block; `ids`, `signers`, `sequences` and `kinds` list its transactions in order, so
that an archive can be searched without being read. Whatever reads Parquet reads it (DuckDB,
say: `SELECT * FROM 'archive/*.parquet'`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, FogNodeError, StoreError
from .ledger.files import sync_directory, sync_file
from .ledger.proofs import Located, ProofMaker
from .ledger.pruning import ArchivedBlock
from .ledger.stored_block import StoredBlock
from .protocol.errors import ProtocolError
from .protocol.founding import Founding
from .protocol.proof import INTRODUCING, MAX_SUBJECTS, Proof, introduced
from .protocol.transactions import parse_transaction
from .protocol.validators import ValidatorSet

SUFFIX = ".parquet"
COMPRESSION = "zstd"


class ArchiveError(FogNodeError):
    """An archive does not hold what is asked for, or cannot be read or written."""


def check_archiving() -> None:
    """Raise ConfigurationError where archives cannot be written or read here."""
    if find_spec("pyarrow") is None:
        raise ConfigurationError(
            "archive: needs pyarrow; install it with: pip install '.[cloud]', or drop old bodies "
            "for good with --discard"
        )


class ArchiveWriter:
    """Writes a file per group of blocks into a directory."""

    def __init__(self, directory: Path) -> None:
        """Open or make the directory; raises ConfigurationError."""
        check_archiving()
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{directory}: {error.strerror}; choose an archive that this user may write"
            ) from error

    def add(self, blocks: Sequence[ArchivedBlock]) -> None:
        """Keep consecutive blocks; on disk when this returns. Raises ArchiveError."""
        import pyarrow as pa
        from pyarrow import parquet

        columns: dict[str, Any] = {
            "height": pa.array([block.height for block in blocks], pa.int64()),
            "time": pa.array([block.time for block in blocks], pa.timestamp("ms", tz="UTC")),
            "hash": pa.array([block.hash for block in blocks], pa.binary()),
            "block": pa.array([block.raw for block in blocks], pa.large_binary()),
            "certificate": pa.array([block.certificate for block in blocks], pa.binary()),
            "next": pa.array([b.next.raw if b.next else None for b in blocks], pa.binary()),
        }
        lists = {"ids": ("id", pa.binary()), "signers": ("signer", pa.binary())}
        lists |= {"sequences": ("sequence", pa.int64()), "kinds": ("kind", pa.string())}
        for name, (attribute, kind) in lists.items():
            values = [[getattr(place, attribute) for place in block.places] for block in blocks]
            columns[name] = pa.array(values, pa.list_(kind))
        path = self._directory / _name(blocks[0].height, blocks[-1].height)
        fresh = path.with_suffix(".new")
        self._check_unused(path, [block.hash for block in blocks])
        try:
            parquet.write_table(pa.table(columns), fresh, compression=COMPRESSION)
            sync_file(fresh)
            fresh.replace(path)
            sync_directory(self._directory)
        except (OSError, StoreError, pa.ArrowException) as error:
            said = getattr(error, "strerror", None) or error
            raise ArchiveError(
                f"{path}: cannot be written: {said}; mount it, make room there, or choose another "
                "archive"
            ) from error

    def _check_unused(self, path: Path, hashes: list[bytes]) -> None:
        """Raise ArchiveError where a file holds other blocks: another ledger's, say."""
        if path.exists() and _read(path, ["hash"]).column("hash").to_pylist() != hashes:
            raise ArchiveError(
                f"{path}: holds blocks of another ledger; give each ledger an archive of its own"
            )


class ArchiveReader:
    """Finds final blocks in an archive: a source of proofs, offline."""

    def __init__(self, directory: Path, founding: Founding) -> None:
        """Look through the directory; raises ArchiveError, ConfigurationError."""
        check_archiving()
        self.founding = founding
        self._directory = directory
        self._files = sorted(directory.glob(f"blocks-*{SUFFIX}"))
        if not self._files:
            raise ArchiveError(f"{directory}: holds no {SUFFIX} files of an archive")

    def prove(self, transaction_id: bytes) -> Proof:
        """Make the proof of an archived transaction; raises ArchiveError."""
        import pyarrow as pa
        from pyarrow import compute

        for table in self._tables(["height", "ids", "signers"]):
            ids = table.column("ids").combine_chunks()
            at = compute.index(ids.flatten(), pa.scalar(transaction_id, pa.binary())).as_py()
            if at < 0:
                continue
            row, index = _row_of(ids, at)
            signer = table.column("signers")[row].as_py()[index]
            place = Located(table.column("height")[row].as_py(), index + 1)
            return ProofMaker(self).transaction(transaction_id, signer, place)
        raise ArchiveError(f"{self._directory}: does not hold {transaction_id.hex()}")

    def prove_range(self, signer: bytes, first: int, last: int) -> Proof:
        """Make the proof of all that a signer numbered `first` to `last`; raises ArchiveError."""
        if not 1 <= first <= last < first + MAX_SUBJECTS:
            raise ArchiveError(f"{first} to {last}: one proof holds up to {MAX_SUBJECTS} numbers")
        found: dict[int, Located] = {}
        for table in self._tables(["height", "signers", "sequences"]):
            for row in table.to_pylist():
                numbered = zip(row["signers"], row["sequences"], strict=True)
                for index, (who, number) in enumerate(numbered, start=1):
                    if who == signer and first <= number <= last:
                        found[number] = Located(row["height"], index)
        if first not in found or last not in found:
            raise ArchiveError(f"{self._directory}: does not hold all numbers {first} to {last}")
        places = [found[number] for number in sorted(found)]
        return ProofMaker(self).range(signer, first, last, places)

    def stored_block(self, height: int) -> StoredBlock:
        """Return a block; raises ArchiveError."""
        for file in self._files:
            first, last = _heights(file)
            if first <= height <= last:
                for row in _read(file, ["block", "certificate"], height).to_pylist():
                    try:
                        return StoredBlock(row["block"], row["certificate"])
                    except ProtocolError as error:
                        raise ArchiveError(f"{file}: block {height} is damaged: {error}") from error
        raise ArchiveError(
            f"{self._directory}: lacks block {height}, which the proof needs; put the files of "
            "all blocks from the first one into it"
        )

    def validator_set_at(self, height: int) -> ValidatorSet:
        """Return who votes on the block at this height."""
        before = [at for at in self._sets if at < height]
        return self._sets[max(before)] if before else self.founding.validator_set

    def handovers(self, last: int) -> list[int]:
        """Heights up to `last` of the blocks after which another set votes."""
        return [height for height in sorted(self._sets) if height <= last]

    def introduction(self, kid: bytes) -> tuple[Located, bytes] | None:
        """Where a key came in that the founding file lacks, and who signed that."""
        return self._introductions.get(kid)

    @cached_property
    def _sets(self) -> dict[int, ValidatorSet]:
        """Sets by the height of the block after which they vote."""
        return {
            row["height"]: ValidatorSet.decode(row["next"])
            for table in self._tables(["height", "next"])
            for row in table.to_pylist()
            if row["next"] is not None
        }

    @cached_property
    def _introductions(self) -> dict[bytes, tuple[Located, bytes]]:
        found: dict[bytes, tuple[Located, bytes]] = {}
        for table in self._tables(["height", "kinds"]):
            for row in table.to_pylist():
                height = row["height"]
                indexes = [
                    index for index, kind in enumerate(row["kinds"], start=1) if kind in INTRODUCING
                ]
                stored = self.stored_block(height) if indexes else None
                for index in indexes:
                    assert stored is not None
                    transaction = parse_transaction(stored.entry(index))
                    for key in introduced(transaction, "archive"):
                        found.setdefault(key.kid, (Located(height, index), transaction.signer))
        return found

    def _tables(self, columns: list[str]) -> Iterator[Any]:
        for file in self._files:
            yield _read(file, columns)


def _read(file: Path, columns: list[str], height: int | None = None) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    filters = None if height is None else [("height", "==", height)]
    try:
        return parquet.read_table(file, columns=columns, filters=filters)
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(f"{file}: cannot be read: {error}; move it away") from error


def _name(first: int, last: int) -> str:
    return f"blocks-{first:012d}-{last:012d}{SUFFIX}"


def _heights(file: Path) -> tuple[int, int]:
    try:
        first, last = file.stem.split("-")[1:]
        return int(first), int(last)
    except ValueError as error:
        raise ArchiveError(f"{file}: is not named blocks-FIRST-LAST{SUFFIX}") from error


def _row_of(lists: Any, at: int) -> tuple[int, int]:
    """Row and index within it of the entry `at` of flattened lists."""
    offsets = lists.offsets.to_pylist()
    row = next(i for i in range(len(offsets) - 1) if offsets[i] <= at < offsets[i + 1])
    return row, at - offsets[row]
