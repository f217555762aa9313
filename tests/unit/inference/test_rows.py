"""What a model said of a table's things: read from its CSV file, and sealed once."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.inference import KEY

from cloud.errors import RecordingError
from cloud.inference import rows, sealing
from cloud.inference.journal import Journal, Said
from cloud.inference.rows import read_said
from cloud.inference.sealing import Sealer
from cloud.inference.shares import Shares
from fog_node.protocol.predictions import MAX_PAYLOAD_BYTES, MAX_VERDICTS, Thing
from fog_node.protocol.transactions import parse_transaction

FAILURE, DEMAND = Shares("id", "probability", "mode"), Shares("part", "mean", adds=True)
MODEL, SOURCE, OTHER = b"m" * 32, b"s" * 32, b"o" * 32


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("GATHER_S", "POLL_S", "MIN_PAUSE_S"):
        monkeypatch.setattr(sealing, name, 0.001)


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "said.csv"
        path.write_text(text)
        return path

    return write


def test_what_is_read_is_what_the_file_says(table):
    path = table("id,probability,failure,mode\nM1,0.031000,0,\nM2,0.990000,1,HDF\n")
    assert read_said(path, FAILURE) == [
        Said(Thing("M1"), "normal", 0.031), Said(Thing("M2"), "HDF", 0.99)
    ]  # fmt: skip
    path = table("part,month,mean\n7,2001-01,0.25\n8,2001-01,1\n7,2001-02,0.5\n")
    assert read_said(path, DEMAND) == [Said(Thing("7"), None, 0.75), Said(Thing("8"), None, 1.0)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("M1,0.5,HDF", "line 3: column 'id' is 'M1', not a name that no other row has"),
        (f"{'M' * 65},0.5,HDF", "line 3: column 'id' is 'MMM"),
        (f"M2,0.5,{'H' * 65}", "line 3: column 'mode' is 'HHH"),
        ("M2,inf,HDF", "line 3: column 'probability' is 'inf', not a finite number"),
    ],
)
def test_what_no_transaction_can_hold_is_named(table, cells, said):
    with pytest.raises(RecordingError) as error:
        read_said(table(f"id,probability,mode\nM1,0.1,\n{cells}\n"), FAILURE)
    assert said in str(error.value)


def test_a_table_of_too_many_things_is_refused(table, monkeypatch):
    monkeypatch.setattr(rows, "MAX_THINGS", 2)
    with pytest.raises(RecordingError, match="over 2 things"):
        read_said(table("part,mean\n1,1\n2,1\n3,1\n"), DEMAND)


def things(count, name="thing {}"):
    return [Said(Thing(name.format(number)), None, float(number)) for number in range(count)]


async def seal(journal, node, founding) -> Sealer:
    sealer = Sealer(journal, node, KEY, founding)
    blocks = asyncio.create_task(make_blocks(node))
    try:
        async with asyncio.timeout(60):
            await sealer.run(until_empty=True)
    finally:
        blocks.cancel()
    return sealer


async def make_blocks(node) -> None:
    while True:
        await asyncio.sleep(0.002)
        node.seal()


async def test_each_thing_of_a_file_is_sealed_once_by_each_model(tmp_path, node, founding):
    journal = Journal(tmp_path / "journal", founding.chain_id)
    assert journal.note_things(MODEL, "pumps", SOURCE, things(MAX_VERDICTS + 2), 9) == 130
    sealer = await seal(journal, node, founding)
    assert len(sealer.transactions) == 2
    assert journal.note_things(MODEL, "pumps", SOURCE, things(MAX_VERDICTS + 2), 9) == 0
    assert (await seal(journal, node, founding)).transactions == []
    # The same things in another file, and another model's word of the first one.
    assert journal.note_things(MODEL, "pumps", OTHER, things(2), 9) == 2
    assert journal.note_things(OTHER, "other", SOURCE, things(2), 9) == 2
    await seal(journal, node, founding)
    journal.close()
    bodies = [parse_transaction(raw).body for _, raw in sorted(node.final.items())]
    said = [(b.name, b.source, len(b.verdicts)) for b in bodies]
    assert said == [
        ("pumps", SOURCE, 128), ("pumps", SOURCE, 2), ("pumps", OTHER, 2), ("other", SOURCE, 2)
    ]  # fmt: skip
    assert [item.subject.name for item in bodies[1].verdicts] == ["thing 128", "thing 129"]


async def test_long_names_take_more_transactions(tmp_path, node, founding):
    journal = Journal(tmp_path / "journal", founding.chain_id)
    journal.note_things(
        MODEL, "pumps", SOURCE, things(MAX_VERDICTS, "\N{MUSICAL SCORE}" * 60 + "{}"), 9
    )
    await seal(journal, node, founding)
    journal.close()
    bodies = [parse_transaction(raw).body for raw in node.final.values()]
    assert sum(len(body.verdicts) for body in bodies) == MAX_VERDICTS
    assert len(bodies) > 1
    assert all(len(body.encode()) <= MAX_PAYLOAD_BYTES for body in bodies)


async def test_the_journal_forgets_the_oldest_files_that_are_sealed(tmp_path, node, founding):
    journal = Journal(tmp_path / "journal", founding.chain_id)
    for number in range(4):
        journal.note_things(MODEL, "pumps", bytes([number + 1]) * 32, things(3), files_kept=2)
        if number != 1:
            await seal(journal, node, founding)
    known = journal._rows("SELECT DISTINCT source FROM verdict ORDER BY source")
    assert known == [(bytes([3]) * 32,), (bytes([4]) * 32,)]
    assert len(journal._rows("SELECT * FROM batch")) == 2
    journal.note_things(MODEL, "pumps", bytes([5]) * 32, things(3), files_kept=0)
    # What waits is never forgotten.
    assert journal.count_waiting() == 3
    journal.close()


@pytest.mark.parametrize("seed", range(6))
async def test_wherever_it_is_ended_nothing_is_sealed_twice(
    tmp_path, node, founding, seed, monkeypatch
):
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setattr(sealing, "MAX_VERDICTS", 3)
    for _ in range(200):
        node.trouble = [rng.choice(["", "gone", "lost"]) for _ in range(rng.randrange(3))]
        journal = Journal(tmp_path / "journal", founding.chain_id)
        journal.note_things(MODEL, "pumps", SOURCE, things(10), 9)
        tasks = [
            asyncio.create_task(Sealer(journal, node, KEY, founding).run(until_empty=True)),
            asyncio.create_task(make_blocks(node)),
        ]
        done, _ = await asyncio.wait(tasks[:1], timeout=rng.choice([0.002, 0.01, 5.0]))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        journal.close()
        if done:
            break
    else:
        pytest.fail("never done")
    bodies = [parse_transaction(raw).body for raw in node.final.values()]
    names = [item.subject.name for body in bodies for item in body.verdicts]
    assert sorted(names) == sorted(item.subject.name for item in things(10))
