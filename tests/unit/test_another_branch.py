"""A node that is behind, and is sent the blocks of the other branch of a fork."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.small_chain import SmallChain

from fog_node.agreement import Agreement
from fog_node.errors import ForkError
from fog_node.miner import Miner
from fog_node.network import wire
from fog_node.protocol.keys import SigningKey


class Ahead(SimpleNamespace):
    """A peer that is farther, as Agreement sees it; it fails where it is blamed."""

    def __init__(self, key: SigningKey) -> None:
        super().__init__(
            kid=key.kid, name="ahead", status=None, lowest=1, misses=0, is_closed=False
        )
        self.sent = []
        self.kept = set()

    def offend(self, offence, reason) -> None:
        pytest.fail(f"{offence.name}: {reason}")

    ban = offend

    def send(self, message) -> None:
        self.sent.append(message)

    def may_send_again(self, key) -> bool:
        is_new = key not in self.kept
        self.kept.add(key)
        return is_new


def answer(chain: SmallChain, height: int) -> wire.Blocks:
    return wire.Blocks(height, [list(chain.ledger.block(height))])


@pytest.fixture
def branches(tmp_path):
    """Two ledgers of one founding, which differ from block 1 on; the second one is farther."""
    ours, theirs = SmallChain(tmp_path / "ours"), SmallChain(tmp_path / "theirs")
    ours.enrol(SigningKey.from_secret(1))
    theirs.enrol(SigningKey.from_secret(2))
    theirs.enrol(SigningKey.from_secret(3))
    yield ours, theirs
    ours.ledger.close()
    theirs.ledger.close()


async def test_it_looks_into_the_block_below_and_stops_there(branches):
    ours, theirs = branches
    peer = Ahead(ours.validators[1])
    miner = Miner("python", 1)
    agreement = Agreement(ours.ledger, None, miner, lambda *_: None, lambda _: None, lambda: 0)
    agreement.connect(SimpleNamespace(peers=[peer]))
    try:
        await agreement._take_message(peer, answer(theirs, 2))
        assert peer.sent == [wire.GetBlocks(1)]
        with pytest.raises(ForkError):
            await agreement._take_message(peer, answer(theirs, 1))
    finally:
        miner.close()
    assert ours.ledger.height == 1
    (fork,) = ours.ledger.forks()
    assert fork.hash == theirs.ledger.infos(1, 1)[0].hash
