"""Beginning with a checkpoint: what it takes, what it refuses, and that the chain goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fog_node.errors import LedgerError, PrunedError, StoreError
from fog_node.ledger import Ledger, pruning, validation
from fog_node.ledger.checkpoints import begin_with
from fog_node.ledger.verification import verify_store
from fog_node.protocol.checkpoint import parse_checkpoint
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.proof import parse_proof
from fog_node.protocol.votes import parse_certificate

BLOCKS = 12


@pytest.fixture
def consortium(make_consortium, monkeypatch):
    monkeypatch.setattr(validation, "MIN_LOOK_BACK", 1)  # or the chain would have to be longer
    return make_consortium(retarget_blocks=4, mining_diversity=700)


@pytest.fixture
def grown(consortium, ledger, device):
    consortium.seal(ledger, consortium.enrol(device))
    for number in range(BLOCKS):
        consortium.seal(ledger, consortium.pack(device), miner=(number + 1) % 4)
    return ledger


@pytest.fixture
def joined(consortium, grown, tmp_path):
    checkpoint = parse_checkpoint(grown.checkpoint().encode())
    begin_with(checkpoint, tmp_path / "joined", consortium.founding)
    ledger = Ledger.open(tmp_path / "joined", consortium.founding)
    yield ledger
    ledger.close()


def follow(ledger, other):
    """Take the blocks that another ledger has above our head."""
    for height in range(ledger.height + 1, other.height + 1):
        block, certificate = other.block(height)
        ledger.commit(ledger.parse_block(block), parse_certificate(certificate))


def test_it_is_where_the_other_is_and_goes_on(consortium, grown, joined, device, tmp_path):
    assert joined.head == replace(grown.head, size=0)
    assert joined.state.root() == grown.state.root()
    assert joined.height_setting() == grown.height_setting()
    for number in range(6):  # across a change of the difficulty
        consortium.seal(grown, consortium.pack(device), miner=(BLOCKS + 1 + number) % 4)
    follow(joined, grown)
    assert joined.head == grown.head
    assert joined.state.root() == grown.state.root()
    joined.close()
    again = Ledger.open(tmp_path / "joined", consortium.founding)
    assert again.head == grown.head
    again.close()
    assert not verify_store(tmp_path / "joined", consortium.founding).damages


def test_what_came_before_is_not_here_and_not_taken_twice(consortium, grown, joined, device):
    old = grown.find_sequence(device.kid, 3)
    with pytest.raises(PrunedError):
        joined.block(1)
    with pytest.raises(PrunedError):
        joined.sealed_header(1)
    assert joined.find(old.id) is None
    assert joined.info(1) is None
    (again,) = joined.admit([joined.parse_transaction(old.raw)])
    assert again.status == "refused"
    assert isinstance(again.error, LedgerError)
    assert "checkpoint" in str(again.error)
    with pytest.raises(PrunedError):
        joined.prove_enrolment(device.kid)


def test_what_comes_after_is_proved(consortium, grown, joined):
    new = SigningKey.from_secret(1001)
    consortium.seal(grown, consortium.enrol(new), miner=1)
    pack = consortium.pack(new)
    consortium.seal(grown, pack, miner=2)
    follow(joined, grown)
    assert joined.prove(pack.id).encode() == grown.prove(pack.id).encode()
    parse_proof(joined.prove(pack.id).encode()).verify(consortium.founding)


def test_a_checkpoint_of_one_that_joined_or_pruned(
    consortium, grown, joined, monkeypatch, tmp_path
):
    assert joined.checkpoint() == grown.checkpoint()
    monkeypatch.setattr(pruning, "MIN_KEPT_BLOCKS", 1)
    grown.prune(2**62, None)
    assert grown.checkpoint() == joined.checkpoint()


def test_across_changed_validators(consortium, grown, tmp_path):
    """Handovers lead from the founding's set to the one that votes now."""
    offender, accuser = consortium.validators[4], consortium.validators[1]
    consortium.seal(grown, consortium.evidence(offender, by=accuser), miner=1)
    consortium.seal(grown, miner=2)
    checkpoint = grown.checkpoint()
    assert any(block.next is not None for block in checkpoint.blocks)
    begin_with(checkpoint, tmp_path / "joined", consortium.founding)
    ledger = Ledger.open(tmp_path / "joined", consortium.founding)
    assert ledger.validator_set_at(ledger.height + 1) == grown.validator_set_at(grown.height + 1)
    consortium.seal(grown, miner=3)
    follow(ledger, grown)
    assert ledger.head == grown.head
    ledger.close()


HARMS = {
    "another ledger": lambda c: replace(c, chain_id=bytes(32)),
    "an entry changed": lambda c: replace(c, entries=(*c.entries[:-1], c.entries[0])),
    "an entry left out": lambda c: replace(c, entries=c.entries[1:]),
    "too few blocks": lambda c: replace(c, blocks=c.blocks[-2:]),
    "a block left out": lambda c: replace(c, blocks=(*c.blocks[:-2], c.blocks[-1])),
    "another order": lambda c: replace(c, blocks=c.blocks[::-1]),
    "votes left out": lambda c: replace(
        c,
        blocks=(
            *c.blocks[:-1],
            replace(
                c.head, certificate=replace(c.head.certificate, votes=c.head.certificate.votes[1:])
            ),
        ),
    ),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_what_does_not_hold_is_refused(consortium, grown, tmp_path, harm):
    with pytest.raises((ProtocolError, StoreError)):
        begin_with(harm(grown.checkpoint()), tmp_path / "joined", consortium.founding)
    assert not (tmp_path / "joined" / "ledger.sqlite3").exists()


def test_a_ledger_that_is_there_stays(consortium, grown, tmp_path):
    checkpoint = grown.checkpoint()
    grown.close()
    with pytest.raises(StoreError, match="for a new ledger"):
        begin_with(checkpoint, tmp_path / "data", consortium.founding)


def test_the_first_blocks_make_one_too(consortium, ledger, tmp_path):
    with pytest.raises(StoreError, match="no block yet"):
        ledger.checkpoint()
    consortium.seal(ledger)
    begin_with(ledger.checkpoint(), tmp_path / "joined", consortium.founding)
    joined = Ledger.open(tmp_path / "joined", consortium.founding)
    for miner in (1, 2, 3, 1, 2):
        consortium.seal(ledger, miner=miner)
    follow(joined, ledger)
    assert joined.state.root() == ledger.state.root()
    joined.close()
