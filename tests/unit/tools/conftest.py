"""A node's API over a chain that seals at once what is sent in."""

from __future__ import annotations

import functools

import httpx
import pytest
from support.small_chain import SmallChain

from fog_node.api.app import create_app
from fog_node.api.feed import BlockFeed
from fog_node.api.services import Condition, Services
from fog_node.blobs import BlobStore
from fog_node.client import Client
from fog_node.payloads import PayloadStore
from fog_node.protocol.transactions import Revoke
from tools import nodes as node_tools


@pytest.fixture
def chain(tmp_path):
    small = SmallChain(tmp_path / "ledger")
    yield small
    small.ledger.close()


class Seals:
    """Seals at once what is admitted; `rival` signs with the same key just before."""

    def __init__(self, chain: SmallChain) -> None:
        self._chain = chain
        self.rivals: list[Revoke] = []
        self.is_sealing = True

    async def submit(self, transaction):
        if self.rivals:
            self._chain.seal(self._chain.sign(self._chain.operator, self.rivals.pop()))
        (result,) = self._chain.ledger.admit([transaction])
        if result.status == "admitted" and self.is_sealing:
            block, certificate = self._chain.next_block()
            self._chain.ledger.commit(block, certificate)
        return result


@pytest.fixture
def node(chain, tmp_path, monkeypatch):
    """An API over the chain; `devices` talks to it wherever it is told to."""
    seals = Seals(chain)
    services = Services(
        member="seoul",
        version="0",
        ledger=chain.ledger,
        blobs=BlobStore(tmp_path / "blobs", 2**20),
        payloads=PayloadStore(tmp_path / "payloads", 2**20, 2**20),
        feed=BlockFeed(chain.ledger.height),
        submit=seals.submit,
        stored=lambda: None,
        want=lambda payload: None,
        condition=lambda: Condition(0),
    )
    transport = httpx.ASGITransport(create_app(services))
    monkeypatch.setattr(node_tools, "Client", functools.partial(Client, transport=transport))
    return seals
