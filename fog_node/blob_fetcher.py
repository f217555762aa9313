"""Fetches from the other nodes, piece by piece, what the chain names and this node lacks."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fog_node.blobs import BlobError, BlobStore
from fog_node.bundles import check_bundle, missing_bundles
from fog_node.ledger import Offered
from fog_node.ledger.ledger import Ledger
from fog_node.network import wire
from fog_node.network.peers import Peer
from fog_node.payloads import Payload, PayloadStore
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.transactions import Release

log = logging.getLogger(__name__)

# A peer that does not answer for so long loses the turn to the next one.
ANSWER_TIMEOUT_S = 5.0
# Where none of the peers holds it, they are all asked again after so long.
PAUSE_S = 1.0
# Payloads that are wanted; a further one takes the place of the oldest, and is wanted again
# when somebody asks for it.
MAX_WANTED_PAYLOADS = 4096
# Payloads that are on their way at once; releases come beside them.
MAX_PAYLOAD_DOWNLOADS = 8


@dataclass
class _Download:
    """One file on its way.

    Attributes:
        keep: stores the whole file; raises ProtocolError where it is another one than was
            asked for, BlobError where it cannot be stored.
    """

    name: str
    sha256: bytes
    size: int
    keep: Callable[[bytes], None]
    is_bundle: bool
    data: bytearray = field(default_factory=bytearray)
    peer: bytes = b""
    deadline: float = 0.0
    tried: set[bytes] = field(default_factory=set)


class BlobFetcher:
    """Bundles of the latest releases, and payloads of final transactions.

    Call `poke` once a second.
    """

    def __init__(self, ledger: Ledger, blobs: BlobStore, payloads: PayloadStore) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._payloads = payloads
        self._wanted: dict[tuple[bytes, bytes], Payload] = {}
        self._downloads: dict[bytes, _Download] = {}
        self._peers: list[Peer] = []

    def want(self, payload: Payload) -> bool:
        """Fetch a payload unless it is held here; whether that is new. From any thread."""
        if self._payloads.has(payload):
            return False
        key = (payload.owner, payload.content.sha256)
        if key in self._wanted:
            return False
        if len(self._wanted) >= MAX_WANTED_PAYLOADS:
            self._wanted.pop(next(iter(self._wanted)), None)
        self._wanted[key] = payload
        return True

    def poke(self, peers: list[Peer]) -> None:
        """Begin what is missing, and ask another peer where one does not answer."""
        missing = {r.bundle: r for r in missing_bundles(self._ledger.state, self._blobs)}
        downloads = {sha256: self._of_bundle(release) for sha256, release in missing.items()}
        room = MAX_PAYLOAD_DOWNLOADS
        for key, payload in list(self._wanted.items()):
            if self._payloads.has(payload):
                self._wanted.pop(key, None)
            elif room and payload.content.sha256 not in downloads:
                downloads[payload.content.sha256] = self._of_payload(payload)
                room -= 1
        self._downloads = {
            sha256: self._downloads.get(sha256, download) for sha256, download in downloads.items()
        }
        self._peers = peers
        now = time.monotonic()
        for download in self._downloads.values():
            if now >= download.deadline:
                self._next_peer(download)

    def answer(self, request: wire.GetBlob) -> wire.Blob:
        """The piece that a peer asks for; blocks, while connections are the event loop's."""
        total = self._blobs.size(request.sha256)
        data = b""
        if total is not None:
            if request.offset < total:
                data = self._blobs.part(request.sha256, request.offset, wire.BLOB_CHUNK_BYTES)
        elif (whole := self._payloads.find(request.sha256)) is not None:
            total = len(whole)
            data = whole[request.offset : request.offset + wire.BLOB_CHUNK_BYTES]
        return wire.Blob(request.sha256, request.offset, total or 0, data)

    def take(self, peer: Peer, piece: wire.Blob) -> bool:
        """Take in a piece; returns whether a bundle is complete with it, and stored."""
        download = self._downloads.get(piece.sha256)
        if download is None or download.peer != peer.kid or piece.offset != len(download.data):
            return False
        if piece.total != download.size or not piece.data:
            self._next_peer(download)  # it does not hold the file
            return False
        download.data += piece.data
        if len(download.data) < download.size:
            self._ask(download, peer)
            return False
        data = bytes(download.data)
        download.data.clear()
        download.deadline = 0.0
        try:
            download.keep(data)
        except ProtocolError as error:
            log.warning("peer %s: sent something else than was asked for: %s", peer.name, error)
            return False
        except BlobError as error:
            # Room may come: it is tried again, and not at once.
            log.warning("%s: cannot be kept: %s", download.name, error)
            download.deadline = time.monotonic() + ANSWER_TIMEOUT_S
            return False
        del self._downloads[piece.sha256]
        log.info("%s: fetched from %s", download.name, peer.name)
        return download.is_bundle

    def _of_bundle(self, release: Release | Offered) -> _Download:
        def keep(data: bytes) -> None:
            check_bundle(data, release, self._ledger.state)
            self._blobs.put(data)

        name = f"bundle of {release.name} {release.version}"
        return _Download(name, release.bundle, release.size, keep, is_bundle=True)

    def _of_payload(self, payload: Payload) -> _Download:
        def keep(data: bytes) -> None:
            self._payloads.put(payload, data)

        name = f"payload {payload.content.sha256.hex()}"
        return _Download(name, payload.content.sha256, payload.content.size, keep, is_bundle=False)

    def _next_peer(self, download: _Download) -> None:
        download.data.clear()
        untried = [peer for peer in self._peers if peer.kid not in download.tried]
        if not untried:
            download.tried.clear()
            download.peer = b""
            download.deadline = time.monotonic() + PAUSE_S
            return
        # By chance: else all nodes would turn to the same one first.
        peer = random.choice(untried)  # noqa: S311 - no secret
        download.tried.add(peer.kid)
        download.peer = peer.kid
        self._ask(download, peer)

    def _ask(self, download: _Download, peer: Peer) -> None:
        download.deadline = time.monotonic() + ANSWER_TIMEOUT_S
        peer.send(wire.GetBlob(download.sha256, len(download.data)))
