"""Collects a chain in processes that are killed at each step they take on the disk, one by one.

After each kill another process looks at what is left as a reader would, goes on from there, and
must come to what an undisturbed collector has. Nothing is really synced: the system goes on, so
what was written is there.

Each process is a fork of one that has started no thread: Arrow's do not live on in one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset  # noqa: F401 - loaded once, not in each fork
import pyarrow.parquet as pq

import cloud.collect
from cloud.collect import collect
from cloud.dataset import Dataset
from cloud.selection import Query, select
from fog_node.client import SealedBlock
from fog_node.protocol.founding import Founding
from fog_node.protocol.merkle import root

AUDITED = frozenset({"open", "os.rename", "os.remove", "os.mkdir"})
MAX_STEPS = 1000


class Steps:
    """Counts what is done to a directory, and kills the process at one of them."""

    def __init__(self, directory: Path, last: int) -> None:
        self._directory = str(directory)
        self._left = last

    def begin(self) -> None:
        sys.addaudithook(self._seen)
        os.fsync = self._synced

    def _seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in AUDITED and str(arguments[0]).startswith(self._directory):
            self._step()

    def _synced(self, _: int) -> None:
        self._step()

    def _step(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def kill_at_each_step(
    directory: Path, sealed: list[SealedBlock], founding: Founding, device_type: str
) -> int:
    """Return how many steps there are; AssertionError where something was lost or doubled."""
    for step in range(MAX_STEPS):
        place = directory / f"{step:04}"
        status = _forked(lambda: _collect(place, sealed, founding, Steps(place, step)))  # noqa: B023 - called at once
        was_killed = os.WIFSIGNALED(status)
        assert was_killed or status == 0, f"step {step}: status {status}"
        checked = _forked(lambda: _check(place, sealed, founding, device_type))  # noqa: B023 - called at once
        assert checked == 0, f"killed at step {step}: see above"
        if not was_killed:
            return step
    raise AssertionError(f"more than {MAX_STEPS} steps")


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
    except BaseException:  # noqa: BLE001 - a fork must never return
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _collect(
    directory: Path, sealed: list[SealedBlock], founding: Founding, steps: Steps | None = None
) -> None:
    cloud.collect.BATCH_BYTES = 1  # a file for each block
    dataset = Dataset.open(directory)

    async def stream() -> Any:
        for piece in sealed[dataset.height :]:
            yield piece

    if steps is None:
        os.fsync = lambda _: None
    else:
        steps.begin()
    asyncio.run(collect(stream(), founding, dataset))


def _check(
    directory: Path, sealed: list[SealedBlock], founding: Founding, device_type: str
) -> None:
    _no_doubles(directory)
    left = Dataset.open(directory)
    known = root(_packs(directory, left.height))
    _collect(directory, sealed, founding)
    found = Dataset.open(directory)
    assert found.height == len(sealed)
    assert root(_packs(directory, left.height)) == known, "what was there is not any more"
    assert select(found, Query(device_type)).reference.root == root(_packs(directory, len(sealed)))
    assert sum(map(len, found.readings(device_type).values())) == _no_doubles(directory)
    assert not list(directory.rglob("*.part"))


def _packs(directory: Path, height: int) -> list[bytes]:
    rows = [
        row
        for row in _rows(
            directory.glob("transactions/*.parquet"), ("id", "kind", "height", "index")
        )
        if row["kind"] == "pack" and row["height"] <= height
    ]
    rows.sort(key=lambda row: (row["height"], row["index"]))
    return [bytes.fromhex(row["id"]) for row in rows]


def _no_doubles(directory: Path) -> int:
    """Look at the files as a data scientist would; returns how many rows there are."""
    rows = _rows(directory.glob("readings/*/*/*.parquet"), ("device", "sequence", "row"))
    distinct = {tuple(row.values()) for row in rows}
    assert len(rows) == len(distinct), f"{directory}: {len(rows) - len(distinct)} rows are doubled"
    return len(rows)


def _rows(paths: Iterable[Path], columns: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in paths:
        table = pq.read_table(path, columns=list(columns), partitioning=None, use_threads=False)
        found += table.to_pylist()
    return found
