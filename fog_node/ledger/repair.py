"""Makes a damaged ledger whole: keeps what is sound, fetches the rest, and never votes twice.

The old files are moved aside and a new database is built from their blocks, in order, through
the very rules a node keeps; a block that is damaged is fetched from another node and judged like
any that arrives. What waited is taken over as far as it is sound. Own votes and the lock are
taken over only where they are known to be complete; otherwise this validator abstains up to the
highest height at which it can have voted.

A repair that is interrupted is taken up again: until it is done, a marker keeps the ledger from
being opened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from fog_node.errors import ForkError, LedgerError, StoreError
from fog_node.protocol.checkpoint import Checkpoint
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.transactions import parse_transaction
from fog_node.protocol.votes import Vote, parse_certificate

from .checkpoints import begin_with
from .consensus_messages import Lock
from .directory_lock import lock_directory
from .files import put_file, read_file, remove_file, sync_directory
from .ledger import Ledger
from .schema import DATABASE
from .store import REPAIR_MARKER, Store
from .store_reader import StoreReader, inspect_store, salvage_store
from .witness import WITNESS, Testimony, read_witness

ASIDE = "damaged"
REBUILT = "rebuilt"
FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", WITNESS)
MAX_ASIDE = 1000
# Where the own votes are lost and no witness tells: a validator at height h may have voted
# there, and of any quorum some validator is at most one block behind it.
UNKNOWN_AHEAD = 2
_PLACING = b"placing "

Progress = Callable[[int, int], None]


class BlockSource(Protocol):
    """Other nodes, asked for what is damaged here."""

    def heads(self) -> list[int]:
        """Height of the latest block of each node that answers."""

    def blocks_at(self, height: int) -> Iterable[tuple[bytes, bytes]]:
        """Bytes of a final block and its certificate, as each node that has them says."""


class NoSource:
    """No other node at all."""

    def heads(self) -> list[int]:
        """None."""
        return []

    def blocks_at(self, height: int) -> Iterable[tuple[bytes, bytes]]:
        """None."""
        del height
        return ()


@dataclass
class Repaired:
    """What became of the ledger.

    Attributes:
        head: height of its latest block now; a node fetches those above from its peers.
        kept: how many blocks were sound.
        fetched: heights of those that came from other nodes.
        lost: the first height that no node could give, where there is one.
        waiting: how many waiting transactions were kept; `waiting_lost` whether some are lost.
        votes_kept: whether own votes and lock are as they were.
        abstain: up to this height this validator does not vote.
        asking: whether it does not vote before others have said how far they are, since it was
            not known before the repair either.
        aside: where the old files are.
    """

    head: int = 0
    kept: int = 0
    fetched: list[int] = field(default_factory=list)
    lost: int | None = None
    waiting: int = 0
    waiting_lost: bool = False
    votes_kept: bool = True
    abstain: int = 0
    asking: bool = False
    aside: Path = Path()


@dataclass(frozen=True)
class _Promises:
    votes: list[Vote]
    lock: Lock | None
    voted: int
    abstain: int
    complete: bool
    asking: bool = False


def repair_store(
    directory: Path,
    founding: Founding,
    source: BlockSource,
    *,
    votes: bool,
    forget_votes: bool = False,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Repaired:
    """Repair the ledger in a data directory; no node may run on it meanwhile.

    Args:
        directory: with the database.
        founding: of its ledger.
        source: other nodes.
        votes: whether this node's member is a validator.
        forget_votes: let it vote again where nobody can tell what it voted, also in a ledger
            that is sound but new; only for one whose votes nobody else has seen.
        checkpoint: to begin with instead of the first block, where no node that answers keeps
            the bodies of the oldest blocks.
        progress: is told how many blocks of how many are done.

    Raises:
        StoreError: it cannot be repaired with what there is; the old files are kept.
    """
    with ExitStack() as stack:
        stack.callback(os.close, lock_directory(directory))
        aside = _move_aside(directory)
        rebuilt = directory / REBUILT
        if not _is_placing(directory):
            if checkpoint is not None:
                begin_with(checkpoint, rebuilt, founding)
            result = _rebuild(aside, rebuilt, founding, source, votes, forget_votes, progress)
            put_file(directory / REPAIR_MARKER, _PLACING + aside.name.encode())
        else:
            result = Repaired(aside=aside)
        for name in FILES:
            with suppress(FileNotFoundError):
                (rebuilt / name).replace(directory / name)
        sync_directory(directory)
        shutil.rmtree(rebuilt, ignore_errors=True)
        remove_file(directory / REPAIR_MARKER)
        with inspect_store(directory) as reader:
            result.head, result.abstain = reader.meta.head, reader.meta.abstain
            result.asking = reader.meta.asking
        return result


def _is_placing(directory: Path) -> bool:
    return (read_file(directory / REPAIR_MARKER) or b"").startswith(_PLACING)


def _move_aside(directory: Path) -> Path:
    """Move the damaged files into a directory of their own; goes on where it was interrupted."""
    marker = read_file(directory / REPAIR_MARKER)
    if marker is not None:
        aside = directory / os.fsdecode(marker.removeprefix(_PLACING))
        if marker.startswith(_PLACING):
            return aside
    else:
        taken = (directory / f"{ASIDE}-{number}" for number in range(1, MAX_ASIDE))
        free = next((path for path in taken if not path.exists()), None)
        if free is None:
            raise StoreError(f"{directory}: {MAX_ASIDE} damaged copies are there; remove old ones")
        aside = free
        put_file(directory / REPAIR_MARKER, aside.name.encode())
    aside.mkdir(exist_ok=True)
    for name in FILES:
        with suppress(FileNotFoundError):
            (directory / name).replace(aside / name)
    sync_directory(aside)
    sync_directory(directory)
    shutil.rmtree(directory / REBUILT, ignore_errors=True)
    return aside


def _rebuild(
    aside: Path,
    rebuilt: Path,
    founding: Founding,
    source: BlockSource,
    votes: bool,
    forget_votes: bool,
    progress: Progress | None,
) -> Repaired:
    result = Repaired(aside=aside)
    with ExitStack() as stack:
        old = stack.enter_context(salvage_store(aside))
        promises = _promises(old, read_witness(aside / WITNESS))
        store = Store(rebuilt, founding.chain_id)
        ledger = stack.enter_context(closing(Ledger(founding, store)))
        _take_blocks(ledger, old, source, result, progress)
        if result.lost is not None and old is not None and result.lost < old.meta.pruned:
            raise StoreError(
                f"{aside}: the body of block {result.lost} was pruned, and no other node that "
                "answers keeps it; name one that does with --from, or begin with a checkpoint: "
                "fogline fog repair --checkpoint FILE|URL"
            )
        result.votes_kept = promises.complete or not votes
        if votes and forget_votes:
            promises = replace(promises, abstain=0, asking=False)
        elif votes and not promises.complete:
            promises = replace(promises, abstain=_abstain(promises, source, result))
        elif votes and result.lost is not None:
            # It has voted for the blocks that are lost, and must not for others in their place.
            last = max(_last_height(old), promises.abstain)
            promises = replace(promises, abstain=last)
        store.take_promises(
            promises.votes,
            promises.lock,
            promises.voted,
            promises.abstain,
            asking=promises.asking,
        )
        if old is not None:
            _take_waiting(ledger, old, result)
            _take_forks(ledger, old)
    return result


def _promises(old: StoreReader | None, testimony: Testimony | None) -> _Promises:
    """What this validator has promised, as far as it can be known."""
    told = testimony.voted if testimony is not None else None
    if old is None:
        return _Promises([], None, told or 0, told or 0, complete=False)
    try:
        meta = old.stored_meta()
    except StoreError:
        return _Promises([], None, told or 0, told or 0, complete=False)
    voted = max(meta.voted, meta.abstain, told or 0)
    if testimony is None or meta.writes < testimony.writes:
        return _Promises([], None, voted, voted if testimony is not None else 0, complete=False)
    try:
        old.check_promises()
        height = meta.head + 1
        return _Promises(
            old.votes(height),
            old.lock(height),
            meta.voted,
            meta.abstain,
            complete=True,
            asking=meta.asking,
        )
    except StoreError:
        return _Promises([], None, voted, voted, complete=False)


def _abstain(promises: _Promises, source: BlockSource, result: Repaired) -> int:
    """Up to which height this validator can have voted."""
    if promises.abstain:
        return promises.abstain
    heads = source.heads()
    if not heads:
        raise StoreError(
            f"{result.aside}: what this validator voted is lost, and no other node answers to say "
            "how far the chain is; name some with --from, or, where no other node ever saw its "
            "votes, let it vote again with --forget-votes"
        )
    return max(*heads, result.head, promises.voted) + UNKNOWN_AHEAD


def _take_blocks(
    ledger: Ledger,
    old: StoreReader | None,
    source: BlockSource,
    result: Repaired,
    progress: Progress | None,
) -> None:
    last = _last_height(old)
    for height in range(ledger.height + 1, last + 1):
        if _commit(ledger, _read(old, height)):
            result.kept += 1
        elif any(_commit(ledger, found) for found in source.blocks_at(height)):
            result.fetched.append(height)
        else:
            result.lost = height
            break
        if progress is not None:
            progress(height, last)
    result.head = ledger.height


def _last_height(old: StoreReader | None) -> int:
    if old is None:
        return 0
    with suppress(StoreError):
        return int(old.rows("SELECT ifnull(max(height), 0) FROM blocks", (), "i")[0][0])
    return 0


def _read(old: StoreReader | None, height: int) -> tuple[bytes, bytes] | None:
    with suppress(StoreError):
        return old.block(height) if old is not None else None
    return None


def _commit(ledger: Ledger, found: tuple[bytes, bytes] | None) -> bool:
    """Make a block final here, if it is sound."""
    if found is None:
        return False
    try:
        block, certificate = ledger.parse_block(found[0]), parse_certificate(found[1])
        if block.height != ledger.height + 1:
            return False
        ledger.commit(block, certificate)
    except (ProtocolError, LedgerError):
        return False
    return True


def _take_waiting(ledger: Ledger, old: StoreReader, result: Repaired) -> None:
    """Admit again what waited, as far as it can be read and verifies."""
    try:
        found = [item for row in old.waiting_rows().values() for item in row.values()]
    except StoreError:
        result.waiting_lost = True
        found = list(_readable_waiting(old))
    transactions = []
    for raw in found:
        with suppress(ProtocolError):
            transactions.append(parse_transaction(raw))
    ledger.admit(transactions)
    result.waiting = ledger.waiting


def _readable_waiting(old: StoreReader) -> Iterator[bytes]:
    with suppress(StoreError):
        yield from old.sound_waiting()


def _take_forks(ledger: Ledger, old: StoreReader) -> None:
    with suppress(StoreError):
        for fork in old.forks():
            with suppress(ProtocolError, LedgerError, ForkError):
                ledger.commit(ledger.parse_block(fork.block), parse_certificate(fork.certificate))
