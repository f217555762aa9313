"""A disk that is full at any write of the store: nothing promised is lost, and it goes on."""

from __future__ import annotations

import pytest

from fog_node.errors import DiskFullError
from fog_node.ledger import Ledger
from fog_node.ledger.consensus_messages import Lock
from fog_node.ledger.verification import verify_store
from fog_node.protocol.votes import PREVOTE, sign_vote
from tests.support.power_cut import recording

CHECKPOINT_PAGES = 24


def steps(ledger, consortium, device):
    """What a validator's store does, each step as something that can be tried again."""
    yield lambda: ledger.stop_asking(0)
    yield lambda: ledger.admit([consortium.enrol(device, sequence=1)])
    yield from seal(ledger, consortium)
    for first in (1, 7, 13):
        packs = [consortium.pack(device, sequence=n, rows=20) for n in range(first, first + 6)]
        yield lambda packs=packs: ledger.admit(packs)
        yield from seal(ledger, consortium)


def seal(ledger, consortium):
    block = consortium.next_block(ledger)
    slot = (block.height, 0, PREVOTE, block.hash, consortium.chain_id)
    votes = tuple(sign_vote(key, *slot) for key in consortium.validators[:3])
    lock = Lock(block.height, 0, block.hash, block.raw, votes)
    yield lambda: ledger.save_vote(votes[0])
    yield lambda: ledger.save_lock(lock)
    yield lambda: ledger.commit(block, consortium.certify(block))
    assert ledger.height == block.height


@pytest.mark.parametrize("every", [1, 2, 3, 5, 8, 13, 21, 34])
def test_each_step_fails_cleanly_and_succeeds_when_there_is_room(
    consortium, device, tmp_path, every
):
    """Room runs out after `every` writes, again and again."""
    data = tmp_path / "data"
    with recording(data) as recorder:
        ledger = Ledger.open(data, consortium.founding)
        ledger._store._writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        refusals = 0
        for step in steps(ledger, consortium, device):
            before = (ledger.height, ledger.waiting, ledger.saved())
            recorder.room = every
            while True:
                try:
                    step()
                except DiskFullError as error:
                    said = str(error)
                    refusals += 1
                    assert (ledger.height, ledger.waiting, ledger.saved()) == before
                    recorder.room = None if refusals % 2 else every
                else:
                    break
            recorder.room = None
        assert not refusals or "make room on the disk" in said
        assert refusals or every > 20
        root = ledger.state.root()
        ledger.close()
    again = Ledger.open(data, consortium.founding)
    assert again.height == 4
    assert again.state.root() == root
    assert again.waiting == 0
    again.close()
    assert not verify_store(data, consortium.founding).damages
