"""Looks through everything that one node's ledger has on disk; changes nothing.

What a start leaves out because it grows with the chain is done here: every page, every block
against its hash, its certificate and the block below, every body against its Merkle root, every
row of the index. The node may run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fog_node.errors import DamagedError, StoreError
from fog_node.protocol.block import Header, parse_coinbase
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.merkle import leaf_hash, root
from fog_node.protocol.votes import parse_certificate

from .block_body import split_body
from .places import PLACES, Place, Run, runs_of_places
from .schema import DATABASE
from .state import State
from .store_reader import StoredHeader, StoreReader, inspect_store
from .stored_block import PrunedBlock
from .witness import WITNESS, read_witness

# Further findings of SQLite's own check are left out.
MAX_FINDINGS = 20

T = TypeVar("T")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Damage:
    """Something on disk that is not what was written.

    Attributes:
        part: `file`, `witness`, `meta`, `promises`, `mempool`, `block`, `index` or `state`.
        height: of the block, where it is one's.
    """

    part: str
    what: str
    height: int | None = None


@dataclass
class Findings:
    """What was looked through, and what is wrong with it.

    Attributes:
        head: height of the latest block.
        blocks: how many were checked, of them `pruned` without their bodies.
        transactions: how many were checked.
    """

    head: int = 0
    blocks: int = 0
    pruned: int = 0
    transactions: int = 0
    damages: list[Damage] = field(default_factory=list)

    def add(self, part: str, what: str, height: int | None = None) -> None:
        """Note a damage."""
        self.damages.append(Damage(part, what, height))


def verify_store(directory: Path, founding: Founding, progress: Progress | None = None) -> Findings:
    """Look through a data directory.

    Args:
        directory: with the database.
        founding: of its ledger.
        progress: is told how many blocks of how many are done.

    Raises:
        StoreError: it cannot be read at all, for another reason than damage.
    """
    findings = Findings()
    try:
        testimony = read_witness(directory / WITNESS)
        if testimony is None or testimony.chain_id != founding.chain_id:
            findings.add("witness", f"{WITNESS}: is missing, unreadable or another ledger's")
        with inspect_store(directory) as reader:
            _check_pages(reader, findings)
            if reader.meta.chain_id != founding.chain_id:
                findings.add("meta", "meta: is of another ledger than the founding file's")
            if testimony is not None and reader.meta.writes < testimony.writes:
                lost = testimony.writes - reader.meta.writes
                findings.add("file", f"{DATABASE}-wal: the latest {lost} writes are gone")
            _Verification(reader, founding, findings, progress).run()
    except DamagedError as error:
        findings.add("file", error.what)
    return findings


def _check_pages(reader: StoreReader, findings: Findings) -> None:
    query = f"PRAGMA integrity_check({MAX_FINDINGS})"
    try:
        for (said,) in reader.rows(query, (), "t"):
            if said != "ok":
                findings.add("file", f"{DATABASE}: {said.strip()}")
    except DamagedError as error:
        findings.add("file", error.what)


class _Verification:
    def __init__(
        self,
        reader: StoreReader,
        founding: Founding,
        findings: Findings,
        progress: Progress | None,
    ) -> None:
        self._reader = reader
        self._founding = founding
        self._findings = findings
        self._progress = progress

    def run(self) -> None:
        reader, findings = self._reader, self._findings
        with reader.snapshot() as meta:
            self._note("promises", reader.check_promises)
            self._note("mempool", reader.waiting_rows)
            self._note("state", self._check_state)
            self._note("index", self._check_counts)
            findings.head = meta.head
        previous = self._founding.genesis.hash if not meta.base else None
        for height in range(meta.base + 1, meta.head + 1):
            found = self._check_block(height, previous)
            previous = found.info.hash if found else None
            if self._progress is not None:
                self._progress(height - meta.base, meta.head - meta.base)

    def _check_state(self) -> None:
        head = self._reader.head()
        if head is None:
            return
        state = State.from_entries(self._founding, self._reader.state_entries(), head.time)
        if state.root() != head.state:
            raise self._reader.damaged(f"state: is not the one after block {head.height}")

    def _check_counts(self) -> None:
        """Compare how many rows there are; that each one is there, its block's check finds."""
        meta = self._reader.meta
        expected = sum(meta.kinds.values())
        queries = {
            "ids": "SELECT count(*) FROM ids",
            "runs": "SELECT ifnull(sum(length(positions) / 2), 0) FROM runs",
            "blocks": "SELECT ifnull(sum(transactions), 0) FROM blocks WHERE height > ?",
        }
        for table, query in queries.items():
            arguments = (meta.joined,) if "?" in query else ()
            count = self._reader.rows(query, arguments, "i")[0][0]
            if count != expected:
                raise self._reader.damaged(f"{table}: {count} of {expected} are there")
        listed = self._reader.rows("SELECT count(*) FROM kinds", (), "i")[0][0]
        if listed != expected - meta.kinds.get("pack", 0):
            raise self._reader.damaged("kinds: rows are missing, or too many")

    def _check_block(self, height: int, previous: bytes | None) -> StoredHeader | None:
        found = self._note("block", lambda: self._check_header(height, previous), height)
        if found is None:
            return None
        self._findings.blocks += 1
        if height < self._reader.meta.pruned:
            self._findings.pruned += 1
            self._note("block", lambda: PrunedBlock(found, self._reader.kept(height)), height)
            return found
        entries = self._note("block", lambda: self._check_body(found), height)
        if entries is not None:
            self._note("index", lambda: self._check_index(found, entries), height)
        return found

    def _check_header(self, height: int, previous: bytes | None) -> StoredHeader:
        found = self._reader.header(height)
        if found is None:
            raise self._reader.damaged(f"block {height}: is missing")
        header, coinbase = Header.decode(found.header), parse_coinbase(found.coinbase)
        if previous is not None and header.previous != previous:
            raise self._reader.damaged(f"block {height}: does not follow on the one below")
        header.check_work()
        certificate = parse_certificate(found.certificate)
        if (certificate.block_hash, certificate.height) != (header.hash, height):
            raise self._reader.damaged(f"block {height}: its certificate is for another block")
        voters = self._reader.validator_set(height) or self._founding.validator_set
        if voters.hash != coinbase.validators:
            raise self._reader.damaged(f"block {height}: is of other validators")
        voters.verify(certificate, self._founding.chain_id)
        return found

    def _check_body(self, found: StoredHeader) -> list[bytes]:
        height = found.info.height
        entries = split_body(self._reader.body(height), found.info.transactions)
        leaves = [leaf_hash(found.coinbase), *(leaf_hash(entry) for entry in entries)]
        if root(leaves) != Header.decode(found.header).merkle_root:
            raise self._reader.damaged(f"block {height}: its body is another block's")
        self._findings.transactions += len(entries)
        return entries

    def _check_index(self, found: StoredHeader, entries: list[bytes]) -> None:
        reader, height = self._reader, found.info.height
        by_hash = reader.info_by_hash(found.info.hash)
        if by_hash is None or by_hash.height != height:
            raise reader.damaged(f"blocks: block {height} is not found by its hash")
        places = [Place.of(raw, height, i) for i, raw in enumerate(entries, start=1)]
        for place in places:
            if not reader.has_id_at(place.id, (height, place.index)):
                raise reader.damaged(f"ids: {place.id.hex()} of block {height} is missing")
            query = "SELECT count(*) FROM kinds WHERE kind = ? AND place = ?"
            arguments = (place.kind, height * PLACES + place.index)
            if place.kind != "pack" and not reader.rows(query, arguments, "i")[0][0]:
                raise reader.damaged(f"kinds: {place.id.hex()} of block {height} is missing")
        for run in runs_of_places(places):
            if not self._has_run(run, height):
                raise reader.damaged(
                    f"runs: numbers {run.first} to {run.end - 1} of {run.signer.hex()} are missing"
                )

    def _has_run(self, run: Run, height: int) -> bool:
        spots = (self._reader.spot(run.signer, number) for number in range(run.first, run.end))
        return all(
            spot == (height, position) for spot, position in zip(spots, run.spots(), strict=True)
        )

    def _note(self, part: str, check: Callable[[], T], height: int | None = None) -> T | None:
        """Do a check; what it raises is a finding."""
        try:
            return check()
        except DamagedError as error:
            self._findings.add(part, error.what, height)
        except (ProtocolError, StoreError) as error:
            where = part if height is None else f"block {height}"
            self._findings.add(part, f"{where}: {error}", height)
        return None
