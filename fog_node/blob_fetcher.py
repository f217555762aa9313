"""Fetches the bundles of final releases from the other nodes, piece by piece."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from fog_node.blobs import BlobStore
from fog_node.bundles import check_bundle, missing_bundles
from fog_node.ledger.ledger import Ledger
from fog_node.network import wire
from fog_node.network.peers import Peer
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.transactions import Release

log = logging.getLogger(__name__)

# A peer that does not answer for so long loses the turn to the next one.
ANSWER_TIMEOUT_S = 5.0


@dataclass
class _Download:
    release: Release
    data: bytearray = field(default_factory=bytearray)
    peer: bytes = b""
    deadline: float = 0.0
    tried: set[bytes] = field(default_factory=set)


class BlobFetcher:
    """Holds at most one download per latest release; call `poke` once a second."""

    def __init__(self, ledger: Ledger, blobs: BlobStore) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._downloads: dict[bytes, _Download] = {}

    def poke(self, peers: list[Peer]) -> None:
        """Begin what is missing, and ask another peer where one does not answer."""
        missing = {r.bundle: r for r in missing_bundles(self._ledger.state, self._blobs)}
        self._downloads = {
            sha256: self._downloads.get(sha256) or _Download(release)
            for sha256, release in missing.items()
        }
        now = time.monotonic()
        for download in self._downloads.values():
            if now >= download.deadline:
                self._next_peer(download, peers)

    def serve(self, peer: Peer, request: wire.GetBlob) -> None:
        """Answer a peer that asks for a piece."""
        total = self._blobs.size(request.sha256) or 0
        data = b""
        if request.offset < total:
            data = self._blobs.part(request.sha256, request.offset, wire.BLOB_CHUNK_BYTES)
        peer.send(wire.Blob(request.sha256, request.offset, total, data))

    def take(self, peer: Peer, piece: wire.Blob) -> bool:
        """Take in a piece; returns whether a bundle is complete with it, and stored."""
        download = self._downloads.get(piece.sha256)
        if download is None or download.peer != peer.kid or piece.offset != len(download.data):
            return False
        release = download.release
        if piece.total != release.size or not piece.data:
            download.deadline = 0.0  # it does not hold the bundle
            return False
        download.data += piece.data
        if len(download.data) < release.size:
            self._ask(download, peer)
            return False
        data = bytes(download.data)
        download.data.clear()
        download.deadline = 0.0
        try:
            check_bundle(data, release, self._ledger.state)
        except ProtocolError as error:
            log.warning("peer %s: sent another bundle than was asked for: %s", peer.name, error)
            return False
        self._blobs.put(data)
        del self._downloads[piece.sha256]
        log.info("bundle of %s %d: fetched from %s", release.name, release.version, peer.name)
        return True

    def _next_peer(self, download: _Download, peers: list[Peer]) -> None:
        untried = [peer for peer in peers if peer.kid not in download.tried]
        if not untried:
            download.tried.clear()
            download.deadline = time.monotonic() + ANSWER_TIMEOUT_S
            return
        download.tried.add(untried[0].kid)
        download.peer = untried[0].kid
        download.data.clear()
        self._ask(download, untried[0])

    def _ask(self, download: _Download, peer: Peer) -> None:
        download.deadline = time.monotonic() + ANSWER_TIMEOUT_S
        peer.send(wire.GetBlob(download.release.bundle, len(download.data)))
