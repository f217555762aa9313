"""Looking through a node's ledger and repairing it, from its configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

from fog_node.archive import ArchiveWriter
from fog_node.client import Client, ClientError, SealedBlock
from fog_node.config import Config, load, split_address
from fog_node.credentials import Credentials
from fog_node.errors import NetworkError, StoreError
from fog_node.identity import load_founding, load_key
from fog_node.ledger import Ledger
from fog_node.ledger.checkpoints import begin_with, make_checkpoint
from fog_node.ledger.repair import UNKNOWN_AHEAD, BlockSource, NoSource, repair_store
from fog_node.ledger.schema import DATABASE
from fog_node.ledger.store_reader import inspect_store
from fog_node.ledger.verification import verify_store
from fog_node.network import certificates, wire
from fog_node.network.visit import VISIT_TIMEOUT_S, Visit
from fog_node.protocol.block import hash_hex
from fog_node.protocol.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint, parse_checkpoint
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.small_files import read_small

from .errors import ToolError, UsageError
from .outputs import write_out

LEDGER = "ledger"
DAY_MS = 24 * 3600 * 1000
T = TypeVar("T")
Progress = Callable[[int, int], None]


def verify(config_file: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Look through the ledger of a node, which may run; raises ToolError naming the damage."""
    config = load(config_file)
    founding = load_founding(config.node.founding)
    findings = verify_store(config.node.data_dir / LEDGER, founding, progress)
    if findings.damages:
        listed = "; ".join(damage.what for damage in findings.damages)
        raise ToolError(
            f"{config.node.data_dir / LEDGER}: {len(findings.damages)} damaged: {listed}; stop "
            f"the node and run: fogline fog repair --config {config_file}"
        )
    return {
        "height": findings.head,
        "blocks": findings.blocks,
        "without_body": findings.pruned,
        "transactions": findings.transactions,
        "damaged": 0,
    }


def repair(
    config_file: Path,
    sources: Sequence[str],
    *,
    checkpoint: str | None = None,
    forget_votes: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Repair the ledger of a node that is stopped.

    Args:
        config_file: the node's.
        sources: addresses of APIs, or names of members in `[peer] peers`; all peers of the
            configuration where there are none.
        checkpoint: a file, or the address of a node's API, to begin with.
        forget_votes: see `repair_store`.
        progress: is told how many blocks of how many are done.

    Raises:
        StoreError: it cannot be repaired with what there is.
        UsageError: a source is neither an address nor a configured peer.
    """
    config = load(config_file)
    founding = load_founding(config.node.founding)
    directory = config.node.data_dir / LEDGER
    if not directory.is_dir():
        raise StoreError(f"{directory}: is missing; start the node to begin a ledger")
    asked = [*(sources or config.peer.peers), *_addresses(checkpoint)]
    with OtherNodes.of(config, founding, asked) as nodes:
        found = None if checkpoint is None else _checkpoint(checkpoint, nodes)
        result = repair_store(
            directory,
            founding,
            nodes or NoSource(),
            votes=True,  # whether it is, or ever was, a validator, only the whole chain tells
            forget_votes=forget_votes,
            checkpoint=found,
            progress=progress,
        )
    shown = asdict(result)
    shown["aside"] = str(result.aside)
    if result.lost is None:
        del shown["lost"]
    return shown


def prune(
    config_file: Path,
    keep: str | None,
    archive: Path | None,
    *,
    discard: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Drop old bodies of a node that is stopped; what is not given, the configuration says.

    Raises:
        UsageError: how long, or whereto, is said nowhere.
        StoreError: the node runs, or the disk is full.
    """
    config = load(config_file)
    storage = config.storage
    if archive is not None and discard:
        raise UsageError("--archive and --discard: choose one")
    archive = archive or (None if discard else storage.archive)
    if archive is None and not (discard or storage.discard):
        raise UsageError("give --archive DIR, or --discard to drop bodies for good")
    if keep is None and storage.keep_days is None:
        raise UsageError("--keep: say how long, as in 90d, or set [storage] keep_days")
    days = storage.keep_days if keep is None else _days(keep)
    assert days is not None  # one of the two says so
    directory = config.node.data_dir / LEDGER
    writer = None if archive is None else ArchiveWriter(archive)
    before = _size(directory)
    founding = load_founding(config.node.founding)
    with closing(Ledger.open(directory, founding)) as ledger:
        now_ms = time.time_ns() // 1_000_000
        done = ledger.prune(now_ms - days * DAY_MS, writer, progress)
    return {
        "bodies_below": done.below,
        "blocks": done.blocks,
        "bytes": done.size,
        "disk_before": before,
        "disk_after": _size(directory),
        "archive": str(archive) if archive else None,
    }


def checkpoint(config_file: Path, out: Path) -> dict[str, Any]:
    """Write what a new node can begin with, as of the latest block; the node may run.

    Raises:
        StoreError: there is no block yet.
        ToolError: the file cannot be written.
    """
    config = load(config_file)
    founding = load_founding(config.node.founding)
    with inspect_store(config.node.data_dir / LEDGER) as reader, reader.snapshot():
        made = make_checkpoint(reader, founding)
    data = made.encode()
    write_out(out, data)
    return {
        "checkpoint": str(out),
        "height": made.head.height,
        "block": hash_hex(made.head.hash),
        "bytes": len(data),
    }


def join(
    config_file: Path, source: str, sources: Sequence[str], *, forget_votes: bool = False
) -> dict[str, Any]:
    """Begin the ledger of a new node with a checkpoint.

    Args:
        config_file: the node's.
        source: a file, or the address of a node's API.
        sources: other nodes, to learn how long a validator must abstain: see `repair`.
        forget_votes: let it vote at once; for a validator that has never run.

    Raises:
        StoreError: there is a ledger already, or nobody says how long to abstain.
        ToolError: the checkpoint cannot be had, or does not hold.
    """
    config = load(config_file)
    founding = load_founding(config.node.founding)
    member = load_key(config.node.key)
    directory = config.node.data_dir / LEDGER
    if (directory / DATABASE).exists():
        with inspect_store(directory) as reader:
            if reader.meta.head or reader.meta.voted:
                raise UsageError(
                    f"{directory}: holds a ledger; a checkpoint is for a new node: move that away "
                    "first"
                )
    asked = [*(sources or config.peer.peers), *_addresses(source)]
    with OtherNodes.of(config, founding, asked) as nodes:
        found = _checkpoint(source, nodes)
        heads = nodes.heads()
    try:
        validators = found.verify(founding)
        abstain = 0
        if member.kid in validators.by_kid and not forget_votes:
            if not heads:
                raise StoreError(
                    "join: this validator may have voted before, and no other node answers to say "
                    "how far the chain is; name some with --from, or, where it has never run, "
                    "give --forget-votes"
                )
            abstain = max(*heads, found.head.height) + UNKNOWN_AHEAD
        begin_with(found, directory, founding, abstain, asking=not forget_votes)
    except ProtocolError as error:
        raise ToolError(f"{source}: does not hold: {error}") from error
    return {
        "height": found.head.height,
        "block": hash_hex(found.head.hash),
        "agreed_by": len(found.head.certificate.votes),
        "abstain": abstain,
    }


def _addresses(source: str | None) -> list[str]:
    return [source] if source is not None and "://" in source else []


def _checkpoint(source: str, nodes: OtherNodes) -> Checkpoint:
    """Get a checkpoint of a file or a node; raises ToolError."""
    data = nodes.checkpoint(source) if _addresses(source) else _read_checkpoint(Path(source))
    try:
        return parse_checkpoint(data)
    except ProtocolError as error:
        raise ToolError(f"{source}: does not hold: {error}") from error


def _read_checkpoint(path: Path) -> bytes:
    try:
        return read_small(path, MAX_CHECKPOINT_BYTES)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; give a checkpoint file") from error


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isascii() or not number.isdigit() or number == text or int(number) < 0:
        raise UsageError(f"--keep {text}: give days, as in 90d")
    return int(number)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob(f"{DATABASE}*"))


class OtherNodes(BlockSource):
    """Nodes that are asked over HTTP or as peers; a context manager."""

    def __init__(self, clients: Sequence[Client], visits: Sequence[Visit]) -> None:
        self._clients = clients
        self._visits = visits
        self._open: list[Visit] = []
        self._runner = asyncio.Runner()

    @classmethod
    def of(cls, config: Config, founding: Founding, sources: Sequence[str]) -> OtherNodes:
        """Those that were named, or all configured peers; raises UsageError."""
        peers = config.peer.peers
        names = [name for name in sources if "://" not in name] if sources else list(peers)
        for name in names:
            if name not in peers:
                raise UsageError(
                    f"--from {name}: is neither http://HOST:PORT nor one of [peer] peers "
                    f"({', '.join(peers) or 'none'})"
                )
        paths = (config.peer.certificate, config.peer.tls_key)
        credentials = Credentials(*paths, founding.authority)
        clients = [Client([url], credentials=credentials) for url in sources if "://" in url]
        context = certificates.client_context(founding.authority, *paths)
        hello = wire.Hello(wire.PROTOCOL_VERSION, founding.chain_id, config.node.member)
        visits = [
            Visit(name, split_address(peers[name]), context, hello)
            for name in names
            if name != config.node.member
        ]
        return cls(clients, visits)

    def __enter__(self) -> Self:
        """Connect to all that answer."""
        self._runner.__enter__()
        for client in self._clients:
            self._run(client.__aenter__())
        for visit in self._visits:
            if self._answer(visit.__aenter__()) is not None:
                self._open.append(visit)
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        for client in self._clients:
            self._run(client.__aexit__(None, None, None))
        for visit in self._open:
            self._run(visit.__aexit__(None, None, None))
        self._runner.close()

    def heads(self) -> list[int]:
        """Height of the latest block of each node that answers."""
        statuses = [self._answer(client.status()) for client in self._clients]
        return [
            *(status.height for status in statuses if status is not None),
            *(visit.head for visit in self._open),
        ]

    def checkpoint(self, url: str) -> bytes:
        """A checkpoint of the node at this address, which must be one of the sources."""
        client = next(client for client in self._clients if url.rstrip("/") in client.urls)
        return self._run(client.checkpoint())

    def blocks_at(self, height: int) -> Iterator[tuple[bytes, bytes]]:
        """A block as each node has it."""
        for visit in self._open:
            found = self._answer(visit.blocks(height))
            if found:
                yield found[0]
        for client in self._clients:
            sealed = self._answer(_sealed_block(client, height))
            if sealed is not None:
                yield sealed.block, sealed.certificate

    def _answer(self, question: Coroutine[Any, Any, T]) -> T | None:
        """Ask; None of a node that does not answer, or says no."""
        try:
            return self._run(question)
        except (ClientError, NetworkError, TimeoutError):
            return None

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)


async def _sealed_block(client: Client, height: int) -> SealedBlock | None:
    async with asyncio.timeout(VISIT_TIMEOUT_S), aclosing(client.stream(height, 0.0)) as blocks:
        return await anext(blocks)
