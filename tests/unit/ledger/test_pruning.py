"""Forgetting: what goes, what stays, what can still be proved, and that the disk shrinks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fog_node.archive import ArchiveError, ArchiveReader, ArchiveWriter
from fog_node.errors import ConflictError, LedgerError, PrunedError, StoreError
from fog_node.ledger import Ledger, pruning
from fog_node.ledger.repair import NoSource, repair_store
from fog_node.ledger.schema import DATABASE
from fog_node.ledger.verification import verify_store
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.proof import parse_proof
from tools import proofs
from tools.errors import ToolError

BLOCKS = 30
PACKS = 10
KEPT = 5
# A member who is added, and the board that it enrols.
NEWCOMER, LATER = "ulsan", SigningKey.from_secret(7001)


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    monkeypatch.setattr(pruning, "MIN_KEPT_BLOCKS", KEPT)
    monkeypatch.setattr(pruning, "MAX_CHUNK_BLOCKS", 7)


@pytest.fixture
def packs():
    return []


@pytest.fixture
def grown(consortium, ledger, device, packs):
    """A ledger of an enrolment, many packs, an incident, and an operator added by vote."""
    consortium.seal(ledger, consortium.enrol(device))
    proposal, *approvals = consortium.decision(consortium.adding(NEWCOMER, "operator"))
    others = {
        3: [consortium.incident(consortium.validators[-1])],
        4: [proposal],
        5: approvals,
        6: [consortium.enrol(LATER, by=consortium.member_key(NEWCOMER))],
        7: [consortium.pack(LATER)],
    }
    for number in range(BLOCKS):
        batch = [consortium.pack(device, rows=20) for _ in range(PACKS)]
        packs += batch
        consortium.seal(ledger, *batch, *others.get(number, ()))
    return ledger


def prune_all(ledger, archive=None):
    return ledger.prune(2**62, archive)


def test_what_goes_and_what_stays(consortium, grown, device, packs, tmp_path):
    states, head = grown.state.root(), grown.head
    infos, headers = grown.infos(1, 10), [grown.sealed_header(h).encode() for h in (1, 2, 5)]
    counts = grown.counts()
    done = prune_all(grown)
    assert done.below == grown.pruned == BLOCKS + 1 - KEPT + 1
    assert done.blocks == done.below - 1
    for again in (False, True):
        if again:
            grown.close()
            grown = Ledger.open(tmp_path / "data", consortium.founding)
        with pytest.raises(PrunedError) as caught:
            grown.block(2)
        assert caught.value.height == 2
        assert "archive" in str(caught.value)
        with pytest.raises(PrunedError):
            grown.find(packs[0].id)
        assert grown.find(packs[-1].id).raw == packs[-1].raw
        assert grown.block(done.below) is not None
        assert grown.infos(1, 10) == infos
        assert [grown.sealed_header(h).encode() for h in (1, 2, 5)] == headers
        assert grown.info_by_hash(infos[0].hash) == infos[0]
        assert (grown.state.root(), grown.head, grown.counts()) == (states, head, counts)
        # The enrolment stays; the incident goes, and a list ends there.
        assert grown.find(grown.state.devices[device.kid].enrolment_id).kind == "enrol"
        assert [place.kind for place in grown.list_kind("enrol")] == ["enrol", "enrol"]
        assert grown.list_kind("incident") == []
        assert len(grown.list_signer(device.kid, limit=1000)) == KEPT * PACKS
    assert not verify_store(tmp_path / "data", consortium.founding).damages
    assert verify_store(tmp_path / "data", consortium.founding).pruned == done.blocks
    grown.close()


def test_no_number_is_taken_twice(consortium, grown, device, packs):
    prune_all(grown)
    (again,) = grown.admit([packs[0]])
    assert again.status == "final"
    (other,) = grown.admit([consortium.pack(device, sequence=1, value=7.5)])
    assert other.status == "refused"
    assert isinstance(other.error, LedgerError)
    assert not isinstance(other.error, ConflictError)
    assert "pruned" in str(other.error)
    (kept,) = grown.admit([consortium.pack(device, sequence=BLOCKS * PACKS, value=7.5)])
    assert isinstance(kept.error, ConflictError)
    consortium.seal(grown, consortium.pack(device))


def test_proofs(consortium, grown, device, packs, tmp_path):
    before = grown.prove(packs[0].id).encode()
    recent = grown.prove(packs[-1].id).encode()
    prune_all(grown)
    parse_proof(before).verify(consortium.founding)
    # Of what stays proofs are the same: the enrolment is kept with its path.
    assert grown.prove(packs[-1].id).encode() == recent
    assert grown.prove_enrolment(device.kid).encode()
    with pytest.raises(PrunedError):
        grown.prove(packs[0].id)
    with pytest.raises(PrunedError):
        grown.prove_range(device.kid, 1, 5)


def test_proofs_from_an_archive_are_the_same(consortium, grown, device, packs, tmp_path):
    chance = random.Random(5)
    chosen = [packs[0], *chance.sample(packs[: (BLOCKS - KEPT) * PACKS], 5)]
    made = {pack.id: grown.prove(pack.id).encode() for pack in chosen}
    span = grown.prove_range(device.kid, 8, 33).encode()
    later = grown.prove_range(LATER.kid, 1, 1).encode()
    archive = tmp_path / "archive"
    prune_all(grown, ArchiveWriter(archive))
    assert len(list(archive.iterdir())) == 4
    reader = ArchiveReader(archive, consortium.founding)
    for id_, proof in made.items():
        assert reader.prove(id_).encode() == proof
        parse_proof(proof).verify(consortium.founding)
    assert reader.prove_range(device.kid, 8, 33).encode() == span
    assert reader.prove_range(LATER.kid, 1, 1).encode() == later
    parse_proof(later).verify(consortium.founding)
    with pytest.raises(ArchiveError, match="does not hold"):
        reader.prove(bytes(32))
    with pytest.raises(ArchiveError, match="does not hold all"):
        reader.prove_range(device.kid, 1, 1000)


def test_an_archive_that_lacks_the_enrolment_says_so(consortium, grown, packs, tmp_path):
    archive = tmp_path / "archive"
    prune_all(grown, ArchiveWriter(archive))
    first, *_ = sorted(archive.iterdir())
    first.unlink()
    founding = tmp_path / "founding.cbor"
    founding.write_bytes(consortium.founding.raw)
    with pytest.raises(ToolError, match=r"archive: a proof from it does not hold: .*introduc"):
        proofs.from_archive(archive, founding, lambda reader: reader.prove(packs[100].id))
    founding.write_bytes(replace(consortium.founding, name="other").raw)
    with pytest.raises(ToolError, match="give the founding file of their ledger"):
        proofs.from_archive(archive, founding, lambda reader: reader.prove(packs[100].id))


def test_a_damaged_archive_says_so(consortium, grown, packs, tmp_path):
    archive = tmp_path / "archive"
    prune_all(grown, ArchiveWriter(archive))
    file = min(archive.iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArchiveError, match="cannot be read"):
        ArchiveReader(archive, consortium.founding).prove(packs[0].id)
    with pytest.raises(ArchiveError, match="holds no"):
        ArchiveReader(tmp_path, consortium.founding)


def test_an_archive_that_does_not_take_a_block_costs_none(grown, tmp_path):
    class Twice(ArchiveWriter):
        """Writes each group, then one of as many blocks of another ledger."""

        def add(self, blocks):
            super().add(blocks)
            super().add(blocks)  # as after a crash before they were dropped
            super().add([replace(block, hash=bytes(32)) for block in blocks])

    archive = tmp_path / "archive"
    with pytest.raises(ArchiveError, match="holds blocks of another ledger"):
        prune_all(grown, Twice(archive))
    (file,) = archive.iterdir()
    file.write_bytes(b"")
    with pytest.raises(ArchiveError, match=r"cannot be read: .*; move it away"):
        prune_all(grown, ArchiveWriter(archive))
    writer = ArchiveWriter(archive)
    archive.rename(tmp_path / "unmounted")
    with pytest.raises(ArchiveError, match=r"cannot be written: .*; mount it"):
        prune_all(grown, writer)
    assert grown.block(1) is not None
    archive.mkdir()
    assert prune_all(grown, writer).blocks == BLOCKS + 1 - KEPT


def test_only_what_is_old_goes_and_nothing_twice(consortium, grown, tmp_path):
    archive = tmp_path / "archive"
    time = grown.info(10).time
    assert grown.prune(time, ArchiveWriter(archive)).below == 10
    assert grown.block(10) is not None
    assert grown.prune(time, ArchiveWriter(archive)).blocks == 0
    assert grown.prune(0, ArchiveWriter(archive)).below == 10
    assert grown.prune(grown.info(15).time, ArchiveWriter(archive)).blocks == 5
    names = sorted(file.name for file in archive.iterdir())
    assert [int(name.split("-")[1]) for name in names] == [1, 8, 10]


def test_the_disk_shrinks(consortium, grown, tmp_path):
    data = tmp_path / "data"

    def size() -> int:
        return sum(
            file.stat().st_size for file in data.glob(f"{DATABASE}*") if "shm" not in file.name
        )

    grown._store.settle()
    before = size()
    done = prune_all(grown)
    after = size()
    # Nearly all of the bodies' bytes come back; what is kept of each block is small.
    assert before - after > 0.8 * done.size
    assert grown._store._writer.execute("PRAGMA freelist_count").fetchone()[0] == 0


def test_an_archive_that_fails_keeps_the_bodies(consortium, grown):
    class Full:
        def add(self, blocks):
            raise StoreError("archive: no space left on device; make room there")

    with pytest.raises(StoreError, match="make room"):
        prune_all(grown, Full())
    assert grown.pruned == 0
    assert grown.block(1) is not None


def test_another_device_signs_on(consortium, grown):
    """What comes after a pruning is proved with the introductions that stayed."""
    prune_all(grown)
    other = SigningKey.from_secret(1001)
    consortium.seal(grown, consortium.enrol(other))
    pack = consortium.pack(other)
    consortium.seal(grown, pack)
    parse_proof(grown.prove(pack.id).encode()).verify(consortium.founding)


class TestRepair:
    """Of a ledger whose old bodies are gone: from a node that keeps them, or a checkpoint."""

    def harmed(self, consortium, grown, device, tmp_path):
        """A pruned ledger with a damaged block, what it had, and a checkpoint of another node."""
        prune_all(grown)
        last = consortium.pack(device)
        consortium.seal(grown, last)
        checkpoint, height = grown.checkpoint(), grown.height
        grown.close()
        database = tmp_path / "data" / DATABASE
        content = bytearray(database.read_bytes())
        content[content.index(last.raw) + 40] ^= 1
        database.write_bytes(content)
        assert verify_store(tmp_path / "data", consortium.founding).damages
        return checkpoint, height

    def test_begins_with_a_checkpoint(self, consortium, grown, device, tmp_path):
        checkpoint, height = self.harmed(consortium, grown, device, tmp_path)
        with pytest.raises(StoreError, match="--checkpoint"):
            repair_store(tmp_path / "data", consortium.founding, NoSource(), votes=True)
        with pytest.raises(StoreError, match="is not done"):
            Ledger.open(tmp_path / "data", consortium.founding)
        result = repair_store(
            tmp_path / "data", consortium.founding, NoSource(), votes=True, checkpoint=checkpoint
        )
        assert (result.head, result.votes_kept, result.abstain) == (height, True, 0)
        ledger = Ledger.open(tmp_path / "data", consortium.founding)
        consortium.seal(ledger, consortium.pack(device))
        ledger.close()
        assert not verify_store(tmp_path / "data", consortium.founding).damages

    def test_fetches_what_others_keep(self, consortium, grown, device, tmp_path):
        kept = {height: grown.block(height) for height in range(1, grown.height + 1)}
        _, height = self.harmed(consortium, grown, device, tmp_path)

        class Others(NoSource):
            def heads(self):
                return [height]

            def blocks_at(self, at):
                return [kept[at]] if at in kept else []

        result = repair_store(tmp_path / "data", consortium.founding, Others(), votes=True)
        assert result.lost == height
        assert (result.head, len(result.fetched)) == (height - 1, height - 1 - KEPT)
