"""Whom a node asks for the blocks it lacks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.small_chain import SmallChain

from fog_node.agreement import Agreement
from fog_node.miner import Miner
from fog_node.network import wire


class Ahead:
    """A peer that is a few blocks ahead, and what it was sent."""

    def __init__(self) -> None:
        self.kid = id(self).to_bytes(8, "big")
        self.status = SimpleNamespace(height=3)
        self.misses = 0
        self.lowest = 1
        self.sent: list[wire.Message] = []

    def send(self, message: wire.Message) -> None:
        self.sent.append(message)


@pytest.fixture
def agreement(tmp_path):
    chain = SmallChain(tmp_path / "ledger")
    miner = Miner("python", 1)
    yield Agreement(chain.ledger, None, miner, lambda *_: None, lambda _: None)
    miner.close()
    chain.ledger.close()


async def test_another_peer_is_asked_at_once_when_the_one_that_was_asked_is_gone(agreement):
    one, other = Ahead(), Ahead()
    network = SimpleNamespace(peers=[one])
    agreement.connect(network)
    agreement._catch_up()
    network.peers.append(other)
    agreement._catch_up()
    assert (len(one.sent), len(other.sent)) == (1, 0)
    network.peers.remove(one)
    agreement._catch_up()
    assert other.sent == [wire.GetBlocks(1)]
