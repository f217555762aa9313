"""Images that come into folders are judged and sealed once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image as Picture
from support.inference import KEY, Brightness

from cloud.errors import JournalError, JournalFullError, RecordingError
from cloud.inference import folder as folders
from cloud.inference import sealing, worker
from cloud.inference.heatmaps import Heatmaps
from cloud.inference.journal import Journal
from cloud.inference.sealing import Sealer
from cloud.inference.worker import Watch, Worker
from fog_node.client import RefusedError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.predictions import MAX_VERDICTS, Prediction, Thing, Verdict
from fog_node.protocol.transactions import parse_transaction, sign_transaction


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(folders, "SETTLE_S", 0.0)
    monkeypatch.setattr(worker, "SETTLE_S", 0.0)
    monkeypatch.setattr(worker, "SCAN_S", 0.001)
    for name in ("GATHER_S", "POLL_S", "MIN_PAUSE_S"):
        monkeypatch.setattr(sealing, name, 0.001)


class Bench:
    """A worker that can be ended at any moment and begun again."""

    def __init__(self, directory, node, founding) -> None:
        self.path, self.node, self.founding = directory / "journal.db", node, founding
        self.lines: list[str] = []
        self.key = KEY

    def begin(self, *watches: Watch, heatmaps: Heatmaps | None = None) -> Worker:
        self.journal = Journal(self.path, self.founding.chain_id)
        sealer = Sealer(self.journal, self.node, self.key, self.founding)
        return Worker(watches, self.journal, sealer, self.lines.append, heatmaps)

    async def run(self, *watches: Watch, heatmaps: Heatmaps | None = None):
        """All that is there, judged and sealed; gives what was told."""
        made = self.begin(*watches, heatmaps=heatmaps)
        blocks = asyncio.create_task(self.blocks())
        try:
            async with asyncio.timeout(60):
                await made.run(once=True)
        finally:
            blocks.cancel()
            self.journal.close()
        return made.told

    async def blocks(self) -> None:
        for _ in range(100_000):
            await asyncio.sleep(0.002)
            self.node.seal()


@pytest.fixture
def bench(tmp_path, node, founding):
    return Bench(tmp_path, node, founding)


async def test_images_are_judged_and_sealed(bench, shoot, judge, node):
    shoot("dark.png", 20), shoot("bright.jpg", 230), shoot("other.bmp", 240)
    told = await bench.run(Watch(shoot.folder, judge))
    assert told.images == {("brightness", "defect"): 1, ("brightness", "normal"): 2}
    (raw,) = node.final.values()
    transaction = parse_transaction(raw)
    transaction.verify(KEY.public, bench.founding.chain_id)
    assert transaction.body.model == judge.sha256
    assert {item.said for item in transaction.body.verdicts} == {"defect", "normal"}
    assert len(bench.lines) == 3


async def test_a_second_run_finds_nothing_to_do(bench, shoot, judge, node):
    path = shoot("a.png", 20)
    await bench.run(Watch(shoot.folder, judge))
    shutil.copy(path, shoot.folder / "copy.png")
    path.rename(shoot.folder / "renamed.png")
    told = await bench.run(Watch(shoot.folder, judge))
    assert told.known == 2
    assert len(node.verdicts()) == 1


async def test_another_model_judges_the_same_images(bench, shoot, judge, node):
    shoot("a.png", 20)
    other = Brightness(b"n" * 32)
    await bench.run(Watch(shoot.folder, judge), Watch(shoot.folder, other))
    models = {parse_transaction(raw).body.model for raw in node.final.values()}
    assert models == {judge.sha256, other.sha256}
    assert len(node.verdicts()) == 2


async def test_a_damaged_file_is_told_once_and_stops_nothing(bench, shoot, judge, node):
    damaged = shoot("damaged.png", 1)
    damaged.write_bytes(damaged.read_bytes()[:40])
    (shoot.folder / "text.jpg").write_text("no image")
    shoot("good.png", 20)
    told = await bench.run(Watch(shoot.folder, judge))
    assert told.damaged_count == 2
    assert str(damaged) in told.damaged
    assert len(node.verdicts()) == 1
    assert (await bench.run(Watch(shoot.folder, judge))).damaged_count == 0
    shoot("damaged.png", 3)
    await bench.run(Watch(shoot.folder, judge))
    assert len(node.verdicts()) == 2


async def test_what_is_not_normal_has_a_heat_map(bench, shoot, judge, tmp_path):
    folder = tmp_path / "maps"
    dark = shoot("dark.png", 20)
    shoot("bright.png", 230)
    watch = Watch(shoot.folder, judge)
    await bench.run(watch, heatmaps=Heatmaps(folder, 2))
    name = f"{hashlib.sha256(dark.read_bytes()).hexdigest()}-{judge.sha256[:8].hex()}.png"
    assert [path.name for path in folder.iterdir()] == [name]
    with Picture.open(folder / name) as drawn:
        assert drawn.size == (8, 8)

    # What a power cut leaves is taken away; so is the oldest, but nothing of others.
    (folder / f"{name}.part").write_bytes(b"half")
    (folder / "readme.txt").write_text("not ours")
    for value in (21, 22):
        shoot(f"{value}.png", value)
        await bench.run(watch, heatmaps=Heatmaps(folder, 2))
    found = {path.name for path in folder.iterdir()}
    assert len(found) == 3
    assert "readme.txt" in found
    assert name not in found


async def test_a_heat_map_that_cannot_be_written_stops_no_verdict(
    bench, shoot, judge, node, tmp_path
):
    shoot("dark.png", 20)
    maps = Heatmaps(tmp_path / "maps", 2)
    (tmp_path / "maps").rmdir()
    told = await bench.run(Watch(shoot.folder, judge), heatmaps=maps)
    assert told.undrawn == 1
    assert len(node.verdicts()) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be written"):
        Heatmaps(tmp_path / "file", 2)


async def test_another_key_seals_what_one_without_the_role_could_not(bench, shoot, judge, node):
    shoot("a.png", 20)
    wrong, taken = SigningKey.from_secret(78), node.submit

    async def submit(raw):
        if parse_transaction(raw).signer == wrong.kid:
            raise RefusedError("http://node", 403, "transaction", "needs the role gateway", "ask")
        return await taken(raw)

    node.submit = submit
    bench.key = wrong
    for _ in range(2):  # with that key it stays refused, and nothing is lost
        with pytest.raises(RefusedError, match="needs the role"):
            await bench.run(Watch(shoot.folder, judge))
    bench.key = KEY
    await bench.run(Watch(shoot.folder, judge))
    (raw,) = node.final.values()
    assert parse_transaction(raw).signer == KEY.kid
    assert len(node.verdicts()) == 1


async def test_many_images_fill_transactions(bench, shoot, judge, node):
    for value in range(MAX_VERDICTS + 5):
        shoot(f"{value}.bmp", value)
    await bench.run(Watch(shoot.folder, judge))
    sizes = [len(parse_transaction(raw).body.verdicts) for raw in node.final.values()]
    assert sum(sizes) == MAX_VERDICTS + 5
    assert max(sizes) <= MAX_VERDICTS


def fill_disk(journal: Journal, pages: int = 1) -> None:
    """SQLite gives a file at most so many pages, but what it has, as a full disk does."""
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_ends_a_run_of_what_is_there(bench, shoot, judge, node):
    for value in range(100):
        shoot(f"{value}.bmp", value)
    made = bench.begin(Watch(shoot.folder, judge))
    fill_disk(bench.journal)
    blocks = asyncio.create_task(bench.blocks())
    with pytest.raises(JournalFullError, match="no room on the disk; make room"):
        await made.run(once=True)
    blocks.cancel()
    bench.journal.close()
    await bench.run(Watch(shoot.folder, judge))
    assert len(node.verdicts()) == len(set(node.verdicts())) == 100


async def test_a_full_disk_is_waited_for(bench, shoot, judge, node, monkeypatch, caplog):
    monkeypatch.setattr(worker, "ROOM_S", 0.001)
    for value in range(100):
        shoot(f"{value}.bmp", value)
    made = bench.begin(Watch(shoot.folder, judge))
    fill_disk(bench.journal)
    running = [asyncio.create_task(bench.blocks()), asyncio.create_task(made.run(once=False))]
    async with asyncio.timeout(60):
        while "no room on the disk" not in caplog.text:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.002)
        fill_disk(bench.journal, 1_000_000)
        while len(node.verdicts()) < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    bench.journal.close()
    assert len(node.verdicts()) == len(set(node.verdicts())) == 100


async def test_a_member_who_may_not_is_told(bench, shoot, judge, node):
    shoot("a.png", 20)

    async def refuse(raw):
        raise RefusedError("http://node", 403, "transaction", "needs the role gateway", "ask")

    node.submit = refuse
    with pytest.raises(RefusedError, match="needs the role gateway"):
        await bench.run(Watch(shoot.folder, judge))


def test_a_journal_is_of_one_worker_and_one_chain(tmp_path):
    first = Journal(tmp_path / "journal.db", b"chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloud.inference.journal._BUSY_S", 0.01)
        with pytest.raises(JournalError, match="end the worker that uses this one"):
            Journal(tmp_path / "journal.db", b"chain")
    first.close()
    with pytest.raises(JournalError, match="is of the chain 636861696e, not 6f74686572; give each"):
        Journal(tmp_path / "journal.db", b"other")
    (tmp_path / "noise.db").write_bytes(b"noise" * 1000)
    # What is refused is closed, though somebody keeps the error, and with it the journal.
    with pytest.raises(JournalError, match="give another file") as _refused:
        Journal(tmp_path / "noise.db", b"chain")
    held = set()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.add(number.readlink())
    assert tmp_path / "noise.db" not in held


def test_a_journal_that_cannot_be_read_is_named(tmp_path):
    journal = Journal(tmp_path / "journal.db", b"chain")
    journal.close()
    with pytest.raises(JournalError, match=r"journal\.db: cannot be read"):
        journal.count_waiting()


async def test_what_is_gone_and_sealed_is_forgotten(bench, shoot, judge):
    path = shoot("a.png", 20)
    shoot("b.png", 21)
    await bench.run(Watch(shoot.folder, judge))
    path.unlink()
    await bench.run(Watch(shoot.folder, judge))
    journal = Journal(bench.path, bench.founding.chain_id)
    assert len(journal._rows("SELECT * FROM seen")) == 1
    assert len(journal._rows("SELECT * FROM verdict")) == 1
    journal.close()


SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_verdict_is_sealed_once(bench, shoot, judge, node, seed, monkeypatch):
    """Ended anywhere, with lost answers, silent nodes, and somebody else who signs with the key."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setattr(worker, "BATCH", 2)
    monkeypatch.setattr(sealing, "MAX_VERDICTS", 3)
    values = list(range(8))
    ends = 0
    for _ in range(200):
        if values and rng.random() < 0.5:
            value = values.pop()
            shoot(f"{value}.bmp", value * 30)
        node.trouble = [rng.choice(["", "", "gone", "lost"]) for _ in range(rng.randrange(4))]
        if rng.random() < 0.1:
            steal(node, bench.founding)
        made = bench.begin(Watch(shoot.folder, judge))
        task = asyncio.create_task(made.run(once=True))
        blocks = asyncio.create_task(seldom(node, rng))
        # Until it is done, or as long as it has.
        done, _ = await asyncio.wait([task], timeout=rng.choice([0.002, 0.01, 0.03, 5.0]))
        ends += not done
        for each in (task, blocks):
            each.cancel()
        await asyncio.gather(task, blocks, return_exceptions=True)
        bench.journal.close()
        if done and not values:
            task.result()
            break
    else:
        pytest.fail("never done")
    print(f"ended on the way {ends} times")
    assert sorted(node.verdicts()) == sorted(set(node.verdicts()))
    assert len(node.verdicts()) == 8


async def seldom(node, rng) -> None:
    while True:
        await asyncio.sleep(rng.choice([0.001, 0.005]))
        node.seal()


def steal(node, founding) -> None:
    """Another process of the same member gets the number that a waiting transaction has."""
    number = 1 + max([0, *node.final])
    body = Prediction("other", bytes(32), None, (Verdict(Thing("x"), None, 1.0),), 2**40)
    node.foreign(sign_transaction(KEY, body, founding.chain_id, number).raw)
