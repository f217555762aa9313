"""A power cut at every write and every sync of the store, and again during the recovery.

The workload is recorded once, with every write that SQLite and the witness make. Then the disk
is put together as it is after each of them: with what was not synced still there (which is
SIGKILL as well), gone, or torn by the sector. From each of these disks the ledger must come up
by itself with all that it had promised by then, and go on.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fog_node.errors import ForkError, PrunedError
from fog_node.ledger import Ledger, pruning
from fog_node.ledger.consensus_messages import Lock
from fog_node.protocol.votes import PRECOMMIT, PREVOTE, Vote, sign_vote
from tests.support.power_cut import Disk, Recorder, lay_out, recording

MEMORY = Path("/dev/shm")
# Cuts within the recovery, for each cut of the workload; FOGLINE_EXHAUSTIVE=1 takes them all.
CUTS_OF_RECOVERY = 1
EVERY_CUT = bool(os.environ.get("FOGLINE_EXHAUSTIVE"))
# So small that the workload meets several checkpoints.
CHECKPOINT_PAGES = 24


@dataclass
class Told:
    """What the ledger has promised so far."""

    opened: bool = False
    admitted: list[bytes] = field(default_factory=list)
    final: dict[int, bytes] = field(default_factory=dict)
    votes: list[Vote] = field(default_factory=list)
    lock: Lock | None = None
    fork: bool = False
    pruning: bool = False

    def take(self, what: tuple) -> None:
        name, value = what
        match name:
            case "admitted":
                self.admitted += value
            case "final":
                self.final[value.height] = value.hash
                self.votes = [vote for vote in self.votes if vote.height > value.height]
                self.lock = None
            case "vote":
                self.votes.append(value)
            case "lock":
                self.lock = value
            case "fork":
                self.fork = True
            case "pruning":
                self.pruning = True
            case _:
                self.opened = True

    def check(self, ledger: Ledger) -> None:
        """Hold a ledger that has been opened again to what was told."""
        for height, block_hash in self.final.items():
            info = ledger.info(height)
            assert info is not None
            assert info.hash == block_hash
        assert self.pruning or not ledger.pruned
        for height in range(max(1, ledger.pruned), ledger.height + 1):
            assert ledger.block(height) is not None
        for transaction_id in self.admitted:
            if not ledger.has(transaction_id):
                try:
                    assert ledger.find(transaction_id)
                except PrunedError as error:
                    assert error.height < ledger.pruned  # noqa: PT017 - one of two good ends
        for height in range(1, ledger.height + 1):
            assert ledger.sealed_header(height).hash == ledger.info(height).hash
        assert len(self.final) <= ledger.height <= len(self.final) + 1
        if ledger.height == len(self.final):
            votes, lock = ledger.saved()
            assert set(self.votes) <= set(votes)
            assert len(votes) <= len(self.votes) + 1
            if self.lock is not None:
                assert lock is not None
                assert (lock.round, lock.block) >= (self.lock.round, self.lock.block)
        if self.fork:
            assert ledger.fork is not None


def work(directory: Path, consortium, device, recorder: Recorder) -> None:
    """Everything that a validator's store does: admit, vote, lock, commit, drop, fork."""
    ledger = Ledger.open(directory, consortium.founding)
    ledger._store._writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    recorder.tell("opened", None)
    ledger.stop_asking(0)

    def admit(*transactions) -> None:
        for result in ledger.admit(transactions):
            assert result.error is None
        recorder.tell("admitted", [item.id for item in transactions])

    def seal(rounds: int = 1) -> None:
        me = consortium.validators[0]
        for round_ in range(rounds):
            block = consortium.next_block(ledger, round_=round_)
            for step in (PREVOTE, PRECOMMIT):
                if step == PRECOMMIT:
                    prevotes = tuple(
                        sign_vote(
                            key, block.height, round_, PREVOTE, block.hash, consortium.chain_id
                        )
                        for key in consortium.validators[:3]
                    )
                    lock = Lock(block.height, round_, block.hash, block.raw, prevotes)
                    ledger.save_lock(lock)
                    recorder.tell("lock", lock)
                vote = sign_vote(me, block.height, round_, step, block.hash, consortium.chain_id)
                ledger.save_vote(vote)
                recorder.tell("vote", vote)
        ledger.commit(block, consortium.certify(block))
        recorder.tell("final", block)

    admit(consortium.enrol(device))
    seal()
    packs = [consortium.pack(device, rows=8) for _ in range(4)]
    admit(*packs[:3])
    seal(rounds=2)
    admit(packs[3], consortium.pack(device))
    # What waits is ruled out by a revocation, and dropped from the disk.
    late = consortium.pack(device, sequence=9)
    ledger.admit([late])
    seal()
    first = ledger.parse_block(ledger.block(1)[0])
    recorder.tell("pruning", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "MIN_KEPT_BLOCKS", 1)
        patch.setattr(pruning, "MAX_CHUNK_BLOCKS", 2)
        assert ledger.prune(2**62, None).blocks
    other = consortium.rival(first)
    with pytest.raises(ForkError):
        ledger.commit(other, consortium.certify(other))
    recorder.tell("fork", None)
    ledger.close()


@pytest.fixture
def memory(tmp_path):
    """A directory in memory, where there is such a thing: thousands of disks are laid out there."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


@pytest.fixture
def recorded(consortium, device, memory):
    with recording(memory / "data") as recorder:
        work(memory / "data", consortium, device, recorder)
    return recorder


def recover(directory: Path, consortium, told: Told) -> None:
    ledger = Ledger.open(directory, consortium.founding)
    try:
        told.check(ledger)
    finally:
        ledger.close()


def test_at_every_operation_and_during_recovery(consortium, recorded, memory):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    scratch = memory / "cut"
    disk, told = Disk(recorded.directory), Told()
    recoveries = 0
    assert {operation.path.name for operation in recorded.operations} >= {
        "ledger.sqlite3", "ledger.sqlite3-wal", "witness",
    }  # fmt: skip
    for operation in recorded.operations:
        if operation.kind == "told":
            told.take(operation.told)
            continue
        disk.take(operation)
        for mode in ("kept", "lost", "torn"):
            image = disk.image(mode, chance)
            with recording(lay_out(image, scratch)) as recovery:
                recover(scratch, consortium, told)
            shutil.rmtree(scratch)
            operations = recovery.operations
            cuts = range(1, len(operations) + 1)
            if not EVERY_CUT:
                cuts = chance.sample(cuts, min(CUTS_OF_RECOVERY, len(cuts)))
            for cut in cuts:
                again = Disk(scratch, image)
                for step in operations[:cut]:
                    again.take(step)
                lay_out(again.image(chance.choice(("kept", "lost", "torn")), chance), scratch)
                recover(scratch, consortium, told)
                shutil.rmtree(scratch)
                recoveries += 1
    assert told.fork
    assert recoveries


def test_it_goes_on_after_a_cut(consortium, recorded, memory):
    """From a disk whose unsynced writes are torn, new blocks follow and are kept."""
    chance = random.Random(7)
    disk = Disk(recorded.directory)
    cuts = [i for i, o in enumerate(recorded.operations) if o.told and o.told[0] == "final"]
    for index, operation in enumerate(recorded.operations):
        if operation.kind != "told":
            disk.take(operation)
        if index not in cuts[1:]:
            continue
        scratch = lay_out(disk.image("torn", chance), memory / f"cut{index}")
        for _ in range(2):
            ledger = Ledger.open(scratch, consortium.founding)
            height = ledger.height
            consortium.seal(ledger)
            assert ledger.height == height + 1
            ledger.close()
