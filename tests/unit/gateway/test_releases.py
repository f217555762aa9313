"""Boards are told of the newest bundle that is here, and get it in bounded chunks."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.small_chain import DEVICE_TYPE

from fog_node.blobs import BlobStore
from fog_node.gateway.releases import BOARD_RATE, MAX_CHUNK_BYTES, MAX_REQUESTS, Releases
from fog_node.protocol.cbor import decode, encode
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import SigningKey


class World:
    def __init__(self, chain, blobs, clock):
        self.chain = chain
        self.blobs = blobs
        self.clock = clock
        self.announced: list[tuple[str, dict]] = []
        self.chunks: asyncio.Queue[tuple[bytes, list]] = asyncio.Queue()
        self.releases = Releases(
            chain.ledger,
            blobs,
            lambda name, data: self.announced.append((name, decode(data, 512))),
            lambda kid, data: self.chunks.put_nowait((kid, decode(data, 8192))),
            clock,
        )

    def release(self, version=1, is_here=True):
        transaction, data = self.chain.bundle(version, bytes([version]) * 9000)
        self.chain.seal(transaction)
        if is_here:
            self.blobs.put(data)
        self.releases.refresh()
        return transaction.body, data

    def ask(self, board, sha256, offset=0, length=MAX_CHUNK_BYTES):
        self.releases.requested(board.kid, encode([sha256, offset, length]))

    async def answer(self):
        async with asyncio.timeout(60):
            return await self.chunks.get()


@pytest.fixture
def world(chain, clock, tmp_path):
    return World(chain, BlobStore(tmp_path / "blobs", 1_000_000), clock)


@contextlib.asynccontextmanager
async def running(world):
    task = asyncio.create_task(world.releases.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestAnnouncements:
    def test_a_release_is_announced_once_with_all_a_board_needs(self, world):
        release, data = world.release()
        world.releases.refresh()
        expected = {
            "bundle": release.bundle,
            "size": len(data),
            "name": "anomaly",
            "version": 1,
        }
        assert world.announced == [(DEVICE_TYPE, expected)]

    def test_not_before_its_bundle_is_here(self, world):
        _, data = world.release(is_here=False)
        assert not world.announced
        world.blobs.put(data)
        world.releases.refresh()
        assert len(world.announced) == 1

    def test_a_newer_one_replaces_it(self, world):
        world.release(1)
        world.release(2)
        assert [told["version"] for _, told in world.announced] == [1, 2]

    def test_all_are_announced_again_when_the_broker_is_back(self, world):
        world.release(1)
        world.releases.announce_all()
        assert len(world.announced) == 2


class TestRequests:
    async def test_chunks_add_up_to_the_bundle(self, world, board):
        release, data = world.release()
        async with running(world):
            received = b""
            while len(received) < len(data):
                world.ask(board, release.bundle, len(received))
                kid, (sha256, offset, total, chunk) = await world.answer()
                assert (kid, sha256, offset, total) == (
                    board.kid,
                    release.bundle,
                    len(received),
                    len(data),
                )
                assert 0 < len(chunk) <= MAX_CHUNK_BYTES
                received += chunk
        assert received == data

    async def test_what_is_not_here_is_not_answered_and_stops_nothing(self, world, board):
        release, data = world.release()
        async with running(world):
            world.ask(board, bytes(32))
            world.ask(board, release.bundle, len(data))
            world.ask(board, release.bundle, 1, 5)
            _, (_, offset, _, chunk) = await world.answer()
        assert (offset, chunk) == (1, data[1:6])
        assert world.releases.dropped == 2

    async def test_a_bundle_that_the_disk_damaged_is_not_handed_out(self, world, board):
        release, _ = world.release(1)
        other, _ = world.release(2)
        world.blobs.path(release.bundle).write_bytes(b"damaged")
        async with running(world):
            world.ask(board, release.bundle)
            world.ask(board, other.bundle, 0, 3)
            _, (sha256, *_) = await world.answer()
        assert sha256 == other.bundle

    def test_strangers_and_revoked_boards_get_nothing(self, world, board, chain):
        release, _ = world.release()
        chain.revoke(board.kid)
        world.ask(board, release.bundle)
        world.ask(SigningKey.from_secret(77), release.bundle)
        assert world.releases.dropped == 2

    def test_one_board_cannot_take_all_the_time(self, world, board, other_board):
        release, _ = world.release()
        for _ in range(1000):
            world.ask(board, release.bundle)
        assert world.releases._requests.qsize() == int(BOARD_RATE.burst)
        world.ask(other_board, release.bundle)
        assert world.releases._requests.qsize() == int(BOARD_RATE.burst) + 1

    def test_what_waits_is_bounded(self, world, board):
        release, _ = world.release()
        for _ in range(MAX_REQUESTS + 100):
            world.clock.now_s += 1
            world.ask(board, release.bundle)
        assert world.releases._requests.qsize() == MAX_REQUESTS
        assert world.releases.dropped == 100

    @pytest.mark.parametrize(
        "request_",
        [
            b"",
            b"garbage",
            encode([bytes(32), 0]),
            encode([bytes(31), 0, 1]),
            encode([bytes(32), -1, 1]),
            encode([bytes(32), 0, 0]),
            encode([bytes(32), 0, MAX_CHUNK_BYTES + 1]),
            encode([bytes(32), 0, "1"]),
            bytes(100_000),
        ],
    )
    def test_a_request_that_is_not_one_is_refused(self, world, board, request_):
        with pytest.raises(ProtocolError, match="get"):
            world.releases.requested(board.kid, request_)
