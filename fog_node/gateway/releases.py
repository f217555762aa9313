"""Releases: tells boards of what all of their type may run, and hands bundles out in chunks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from fog_node.blobs import BlobError, BlobStore
from fog_node.ledger import Ledger, Offered, ReleaseRecord, age
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.merkle import HASH_BYTES
from fog_node.protocol.transactions import Release
from fog_node.protocol.validate import array, octets, uint

from .limits import Buckets, Rate
from .offers import announcement

log = logging.getLogger(__name__)

MAX_CHUNK_BYTES = 4096
MAX_REQUEST_BYTES = 64
# Requests that wait; a board whose request is dropped asks again.
MAX_REQUESTS = 1024
# Chunks per board, and for all of them together.
BOARD_RATE = Rate(burst=64, per_s=64)
TOTAL_RATE = Rate(burst=512, per_s=512)
MAX_BOARDS = 65536
# What MQTT 3.1.1 section 4.7 does not allow in a topic that is published to.
_NOT_IN_TOPICS = frozenset("+#\0")


@dataclass(frozen=True)
class Request:
    """A board asks for a part of a bundle."""

    board: bytes
    sha256: bytes
    offset: int
    length: int


class Releases:
    """Announces releases whose bundles are here, and answers requests for them."""

    def __init__(
        self,
        ledger: Ledger,
        blobs: BlobStore,
        announce: Callable[[str, bytes], None],
        send: Callable[[bytes, bytes], None],
        monotonic: Callable[[], float],
    ) -> None:
        """Prepare; `run` answers.

        Args:
            ledger: knows the releases.
            blobs: holds the bundles.
            announce: takes a device type and its announcement, to be retained.
            send: takes a board's key id and a chunk for it.
            monotonic: a clock in s that never goes back.
        """
        self._ledger = ledger
        self._blobs = blobs
        self._announce = announce
        self._send = send
        self._monotonic = monotonic
        self._announced: dict[str, bytes] = {}
        self._requests: asyncio.Queue[Request] = asyncio.Queue(MAX_REQUESTS)
        self._boards = Buckets(BOARD_RATE, MAX_BOARDS)
        self._total = Buckets(TOTAL_RATE, 1)
        self.chunks = 0
        self.dropped = 0

    def refresh(self) -> None:
        """Announce what is new: after a block, and when a bundle has arrived."""
        for device_type, data in self._announcements().items():
            if self._announced.get(device_type) != data:
                self._announced[device_type] = data
                self._announce(device_type, data)

    def announce_all(self) -> None:
        """Announce everything: the broker may have forgotten."""
        self._announced.clear()
        self.refresh()

    def announcement(self, device_type: str) -> bytes | None:
        """What is announced for a device type, for a board that has just come."""
        return self._announced.get(device_type)

    def requested(self, board: bytes, data: bytes) -> None:
        """Queue a board's request; dropped and counted where it is over a limit.

        Raises:
            ProtocolError: it is not as README.md says.
        """
        request = _parse_request(board, data)
        device = self._ledger.state.devices.get(board)
        now = self._monotonic()
        if (
            device is None
            or device.status != "active"
            or self._requests.full()
            or not self._boards.take(board, now)
            or not self._total.take(None, now)
        ):
            self.dropped += 1
            return
        self._requests.put_nowait(request)

    async def run(self) -> None:
        """Answer requests, until cancelled."""
        while True:
            request = await self._requests.get()
            total = self._blobs.size(request.sha256)
            if total is None or request.offset >= total:
                self.dropped += 1
                continue
            try:
                data = await asyncio.to_thread(
                    self._blobs.part, request.sha256, request.offset, request.length
                )
            except BlobError as error:
                self.dropped += 1
                log.warning("gateway: a board's request is not answered: %s", error)
                continue
            self.chunks += 1
            self._send(request.board, encode([request.sha256, request.offset, total, data]))

    def _announcements(self) -> dict[str, bytes]:
        state = self._ledger.state
        newest: dict[str, ReleaseRecord] = {}
        for record in state.releases.values():
            device_type = record.release.device_type
            if device_type in state.offers or not self._blobs.has(record.release.bundle):
                continue
            known = newest.get(device_type)
            if known is None or age(record) > age(known):
                newest[device_type] = record
        for_all: dict[str, Release | Offered] = {n: r.release for n, r in newest.items()}
        for name, offer in state.offers.items():
            if offer.stable is not None and self._blobs.has(offer.stable.bundle):
                for_all[name] = offer.stable
        return {
            name: announcement(release)
            for name, release in for_all.items()
            if not _NOT_IN_TOPICS & set(name)
        }


def _parse_request(board: bytes, data: bytes) -> Request:
    sha256, offset, length = array(decode(data, MAX_REQUEST_BYTES, "get"), "get", length=3)
    return Request(
        board=board,
        sha256=octets(sha256, "get.sha256", HASH_BYTES),
        offset=uint(offset, "get.offset"),
        length=uint(length, "get.length", MAX_CHUNK_BYTES, at_least=1),
    )
