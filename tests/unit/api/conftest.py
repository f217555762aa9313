"""The API over a chain that the test seals by hand."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace

import httpx
import pytest
from support.small_chain import GATEWAY_NAME, START_MS, SmallChain

from fog_node.api.app import create_app
from fog_node.api.feed import BlockFeed
from fog_node.api.server import ApiServer
from fog_node.api.services import BannedCondition, Condition, PeerCondition, Services
from fog_node.blobs import BlobStore
from fog_node.payloads import PayloadStore
from fog_node.protocol.keys import SigningKey

HOST = "127.0.0.1"


@dataclass
class World:
    """A node as its API sees it."""

    chain: SmallChain
    blobs: BlobStore
    payloads: PayloadStore
    feed: BlockFeed
    submitted: list = field(default_factory=list)
    stored: int = 0
    wanted: list = field(default_factory=list)

    def services(self) -> Services:
        async def submit(transaction):
            (admission,) = await asyncio.to_thread(self.chain.ledger.admit, [transaction])
            self.submitted.append(transaction)
            return admission

        def stored():
            self.stored += 1

        peers = (PeerCondition("busan", bytes(8), 7, 12.5, 3, 1.5),)
        banned = (BannedCondition(bytes([1] * 8), "sends junk", 3600.0, 2),)
        return Services(
            member=GATEWAY_NAME,
            version="1.2.3",
            ledger=self.chain.ledger,
            blobs=self.blobs,
            payloads=self.payloads,
            feed=self.feed,
            submit=submit,
            stored=stored,
            want=self.wanted.append,
            condition=lambda: Condition(3, peers, {"boards": 4}, banned, 5, START_MS),
        )

    def seal(self, *transactions):
        block = self.chain.seal(*transactions)
        self.feed.announce(block.height)
        return block

    @contextlib.asynccontextmanager
    async def served(self, port=0, feed=None, tls=None):
        """Serve over a real socket; gives the base address."""
        services = replace(self.services(), feed=feed or self.feed)
        server = ApiServer(services, HOST, port, tls)
        task = asyncio.create_task(server.run())
        try:
            yield f"{'https' if tls else 'http'}://{HOST}:{server.port}"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def board() -> SigningKey:
    return SigningKey.from_secret(1000)


@pytest.fixture
def chain(tmp_path, board):
    """`board` is enrolled in block 1."""
    chain = SmallChain(tmp_path / "ledger")
    chain.enrol(board)
    yield chain
    chain.ledger.close()


@pytest.fixture
def world(chain, tmp_path):
    return make_world(chain, tmp_path)


def make_world(chain, directory) -> World:
    """A node with empty stores in this directory."""
    return World(
        chain,
        BlobStore(directory / "blobs", 1_000_000),
        PayloadStore(directory / "payloads", 300_000, 200_000),
        BlockFeed(chain.ledger.height),
    )


@pytest.fixture
async def http(world):
    """A client that talks to the application without a socket."""
    transport = httpx.ASGITransport(create_app(world.services()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
