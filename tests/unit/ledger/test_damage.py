"""Damage long after the writing: flipped bits, cut and torn ends of every file, and their repair.

Whatever is harmed, the ledger comes up with everything that it had promised, or refuses and names
the damage and the command that repairs it. What a start does not look at is found when it is read,
or by `verify_store` where it is only missing.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fog_node.errors import DamagedError, StoreError
from fog_node.ledger import Ledger
from fog_node.ledger.consensus_messages import Lock
from fog_node.ledger.repair import NoSource, repair_store
from fog_node.ledger.schema import DATABASE
from fog_node.ledger.verification import verify_store
from fog_node.ledger.witness import WITNESS
from fog_node.protocol.block import Block
from fog_node.protocol.votes import PREVOTE, Vote, sign_vote

MEMORY = Path("/dev/shm")
WAL = f"{DATABASE}-wal"
MIB = 1024 * 1024
FLIPS = 60
CUTS = 12
REPAIRS = 4


@dataclass
class World:
    """A ledger whose content is known, and its files: after a close, and after a kill."""

    consortium: object
    blocks: list[Block]
    waiting: list[bytes]
    vote: Vote
    lock: Lock
    closed: dict[str, bytes]
    killed: dict[str, bytes]

    def heads(self) -> list[int]:
        """As another node that has all blocks."""
        return [len(self.blocks)]

    def blocks_at(self, height: int) -> Iterator[tuple[bytes, bytes]]:
        """As a node that lies, and another one that has all blocks."""
        block = self.blocks[height - 1]
        other = self.blocks[height % len(self.blocks)]
        yield other.raw, self.consortium.certify(other).encode()
        yield block.raw, self.consortium.certify(block).encode()


def files_of(directory: Path) -> dict[str, bytes]:
    names = (DATABASE, WAL, WITNESS)
    return {name: (directory / name).read_bytes() for name in names if (directory / name).exists()}


@pytest.fixture
def memory(tmp_path):
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


@pytest.fixture
def world(consortium, device, memory) -> World:
    directory = memory / "world"
    ledger = Ledger.open(directory, consortium.founding)
    ledger.stop_asking(0)
    blocks = []

    def seal(*transactions) -> None:
        ledger.admit(transactions)
        block = consortium.next_block(ledger)
        ledger.commit(block, consortium.certify(block))
        blocks.append(block)

    seal(consortium.enrol(device))
    for _ in range(3):
        seal(*(consortium.pack(device, rows=20) for _ in range(12)))
    seal(consortium.incident(consortium.validators[0]))
    # What is below is in the database file, what is above in the write-ahead log.
    ledger._store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    seal(consortium.pack(device))
    waiting = [consortium.pack(device) for _ in range(3)]
    ledger.admit(waiting)
    block = consortium.next_block(ledger)
    slot = (block.height, 0, PREVOTE, block.hash, consortium.chain_id)
    lock = Lock(
        block.height, 0, block.hash, block.raw,
        tuple(sign_vote(key, *slot) for key in consortium.validators[:3]),
    )  # fmt: skip
    ledger.save_lock(lock)
    vote = sign_vote(consortium.validators[0], *slot)
    ledger.save_vote(vote)
    killed = files_of(directory)
    ledger.close()
    assert set(killed) == {DATABASE, WAL, WITNESS}
    waiting_ids = [item.id for item in waiting]
    return World(consortium, blocks, waiting_ids, vote, lock, files_of(directory), killed)


def lay_out(files: dict[str, bytes], directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def read_everything(ledger: Ledger, world: World) -> bool:
    """Whether all is as it was; anything else must raise DamagedError or be missing."""
    whole = ledger.height == len(world.blocks)
    for block in world.blocks:
        try:
            found = ledger.block(block.height)
            whole &= found is not None
            assert found is None or found[0] == block.raw
            info = ledger.info_by_hash(block.hash)
            whole &= info is not None
            assert info is None or info.hash == block.hash
        except DamagedError:
            whole = False
        for transaction in block.transactions:
            lookups = (
                lambda t=transaction: ledger.find(t.id),
                lambda t=transaction: ledger.find_sequence(t.signer, t.sequence),
            )
            for look_up in lookups:
                try:
                    place = look_up()
                    whole &= place is not None
                    assert place is None or place.raw == transaction.raw
                except DamagedError:
                    whole = False
    return whole


def judge(directory: Path, world: World) -> str:
    """Open a harmed ledger; returns what came of it."""
    try:
        ledger = Ledger.open(directory, world.consortium.founding)
    except StoreError as error:
        refusal = str(error)
    else:
        return judge_opened(ledger, directory, world)
    assert "fogline fog repair" in refusal
    assert str(directory) in refusal
    return "refused"


def judge_opened(ledger: Ledger, directory: Path, world: World) -> str:
    try:
        # What was promised is there, whatever else is not.
        assert ledger.saved() == ([world.vote], world.lock)
        assert all(ledger.has(item) for item in world.waiting)
        assert ledger.waiting == len(world.waiting)
        if read_everything(ledger, world):
            return "whole"
    finally:
        ledger.close()
    assert verify_store(directory, world.consortium.founding).damages
    return "found"


def flipped(content: bytes, bit: int) -> bytes:
    harmed = bytearray(content)
    harmed[bit // 8] ^= 1 << bit % 8
    return bytes(harmed)


@pytest.fixture
def chance():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("state", ["closed", "killed"])
@pytest.mark.parametrize("name", [DATABASE, WAL, WITNESS])
def test_a_flipped_bit(world, chance, memory, state, name):
    image = getattr(world, state)
    if name not in image:
        assert (state, name) == ("closed", WAL)
        return
    content = image[name]
    # The first 100 bytes say what the whole file is.
    bits = [chance.randrange(8 * 100) for _ in range(FLIPS // 4)]
    bits += [chance.randrange(8 * len(content)) for _ in range(FLIPS)]
    outcomes = set()
    for bit in bits:
        lay_out({**image, name: flipped(content, bit)}, memory / "harmed")
        outcomes.add(judge(memory / "harmed", world))
    assert outcomes <= {"whole", "refused", "found"}
    if name == WITNESS:
        assert outcomes == {"whole"}
    elif name == WAL:
        # Only frames that a later one has made obsolete may be harmed without a loss.
        assert "refused" in outcomes


@pytest.mark.parametrize("name", [f"{DATABASE}-shm", "lock", "witness.new"])
def test_what_is_made_anew_at_each_start_may_hold_anything(world, chance, memory, name):
    for size in (0, 1, 100, 32768, MIB):
        lay_out({**world.killed, name: chance.randbytes(size)}, memory / "harmed")
        assert judge(memory / "harmed", world) == "whole"


@pytest.mark.parametrize("state", ["closed", "killed"])
@pytest.mark.parametrize("harm", ["cut", "zeros", "noise"])
@pytest.mark.parametrize("name", [DATABASE, WAL, WITNESS])
def test_a_cut_or_torn_end(world, chance, memory, state, name, harm):
    image = getattr(world, state)
    if name not in image:
        assert (state, name) == ("closed", WAL)
        return
    content = image[name]
    most = min(len(content), MIB)
    for size in {1, 2, 511, 512, most, *(int(most ** chance.random()) for _ in range(CUTS))}:
        if size > len(content):
            continue
        end = {"cut": b"", "zeros": bytes(size), "noise": chance.randbytes(size)}[harm]
        lay_out({**image, name: content[: len(content) - size] + end}, memory / "harmed")
        judge(memory / "harmed", world)


@pytest.mark.parametrize("name", [DATABASE, WAL, WITNESS])
def test_a_missing_file(world, memory, name):
    image = {**world.killed}
    del image[name]
    lay_out(image, memory / "harmed")
    assert judge(memory / "harmed", world) == "refused"


class TestRepair:
    def repaired(self, directory, world, source=None, **options):
        """Repair; then votes are as they were, or none is given where one may have been."""
        result = repair_store(
            directory, world.consortium.founding, source or world, votes=True, **options
        )
        ledger = Ledger.open(directory, world.consortium.founding)
        votes, lock = ledger.saved()
        if result.lost is not None:
            assert ledger.abstain >= len(world.blocks)
        elif result.votes_kept:
            assert ledger.abstain == 0
            assert ledger.height < len(world.blocks) or (votes, lock) == ([world.vote], world.lock)
        else:
            assert ledger.abstain >= world.vote.height
            other = sign_vote(
                world.consortium.validators[0], world.vote.height, 5, PREVOTE, None,
                world.consortium.chain_id,
            )  # fmt: skip
            with pytest.raises(StoreError, match="do not send this vote"):
                ledger.save_vote(other)
        return result, ledger

    def test_what_is_whole_stays(self, world, memory):
        lay_out(world.killed, memory / "harmed")
        result, ledger = self.repaired(memory / "harmed", world, NoSource())
        assert result.kept == len(world.blocks)
        assert result.votes_kept
        assert not result.fetched
        assert read_everything(ledger, world)
        assert ledger.waiting == 3
        ledger.close()
        assert not verify_store(memory / "harmed", world.consortium.founding).damages
        assert (result.aside / DATABASE).exists()

    @pytest.mark.parametrize("name", [DATABASE, WAL, WITNESS])
    def test_of_what_was_flipped(self, world, chance, memory, name):
        for _ in range(REPAIRS):
            content = world.killed[name]
            for _ in range(3):
                content = flipped(content, chance.randrange(8 * len(content)))
            lay_out({**world.killed, name: content}, memory / "harmed")
            result, ledger = self.repaired(memory / "harmed", world)
            # A node fetches from its peers what is above.
            for block in world.blocks[ledger.height :]:
                ledger.commit(block, world.consortium.certify(block))
            assert read_everything(ledger, world)
            if not result.waiting_lost and result.votes_kept:
                assert all(ledger.has(item) for item in world.waiting)
            ledger.close()
            assert not verify_store(memory / "harmed", world.consortium.founding).damages

    def test_a_damaged_block_comes_from_another_node(self, world, memory):
        body = world.blocks[1].transactions[3].raw[20:60]
        content = world.closed[DATABASE]
        bit = 8 * content.index(body)
        lay_out({**world.closed, DATABASE: flipped(content, bit)}, memory / "harmed")
        assert judge(memory / "harmed", world) == "found"
        (damage,) = verify_store(memory / "harmed", world.consortium.founding).damages
        assert (damage.part, damage.height) == ("block", 2)
        result, ledger = self.repaired(memory / "harmed", world)
        assert result.fetched == [2]
        assert result.votes_kept
        assert ledger.saved() == ([world.vote], world.lock)
        ledger.close()

    def test_a_block_that_nobody_has_is_not_voted_on_again(self, world, memory):
        content = world.closed[DATABASE]
        bit = 8 * content.index(world.blocks[1].transactions[3].raw[20:60])
        lay_out({**world.closed, DATABASE: flipped(content, bit)}, memory / "harmed")
        result, ledger = self.repaired(memory / "harmed", world, NoSource())
        assert result.lost == 2
        assert ledger.height == 1
        assert ledger.abstain == len(world.blocks)
        ledger.close()

    def test_without_files_the_other_nodes_say_how_long_to_abstain(self, world, memory):
        lay_out({}, memory / "harmed")
        with pytest.raises(StoreError, match="--from"):
            repair_store(memory / "harmed", world.consortium.founding, NoSource(), votes=True)
        with pytest.raises(StoreError, match="is not done"):
            Ledger.open(memory / "harmed", world.consortium.founding)
        result, ledger = self.repaired(memory / "harmed", world)
        assert not result.votes_kept
        assert ledger.abstain > len(world.blocks) + 1
        ledger.close()

    def test_one_that_has_not_heard_from_others_goes_on_asking(self, consortium, memory):
        Ledger.open(memory / "new", consortium.founding).close()
        result = repair_store(memory / "new", consortium.founding, NoSource(), votes=True)
        assert result.asking
        ledger = Ledger.open(memory / "new", consortium.founding)
        assert ledger.height_setting().abstains
        ledger.close()

    def test_votes_are_forgotten_in_a_sound_directory_too(self, world, memory):
        founding = world.consortium.founding
        ledger = Ledger.open(memory / "new", founding)
        for block in world.blocks:
            ledger.commit(block, world.consortium.certify(block))
        ledger.stop_asking(ledger.height + 2)
        ledger.close()
        for height in (ledger.height + 2, 0):
            forget = height == 0
            result = repair_store(
                memory / "new", founding, NoSource(), votes=True, forget_votes=forget
            )
            assert (result.votes_kept, result.asking, result.abstain) == (True, False, height)
        ledger = Ledger.open(memory / "new", founding)
        ledger.save_vote(world.vote)
        ledger.close()
        # What it has voted since is no matter of doubt.
        repair_store(memory / "new", founding, NoSource(), votes=True, forget_votes=True)
        ledger = Ledger.open(memory / "new", founding)
        assert ledger.saved() == ([world.vote], None)
        ledger.close()

    def test_it_can_be_interrupted_anywhere(self, world, chance, memory, monkeypatch):
        """Power fails before each rename; the next repair takes it up."""
        content = world.killed[DATABASE]
        bit = 8 * content.index(world.blocks[1].transactions[3].raw[20:60])
        replace = Path.replace
        for steps in range(12):
            lay_out({**world.killed, DATABASE: flipped(content, bit)}, memory / "harmed")
            left = steps

            def limited(self: Path, target: Path) -> Path:
                nonlocal left
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
                return replace(self, target)

            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", limited)
                try:
                    repair_store(memory / "harmed", world.consortium.founding, world, votes=True)
                    finished = True
                except KeyboardInterrupt:
                    finished = False
            if not finished:
                repair_store(memory / "harmed", world.consortium.founding, world, votes=True)
            ledger = Ledger.open(memory / "harmed", world.consortium.founding)
            assert ledger.saved() == ([world.vote], world.lock)
            assert read_everything(ledger, world)
            assert ledger.waiting == 3
            ledger.close()
        assert finished
