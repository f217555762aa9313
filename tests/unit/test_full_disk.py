"""Waiting for room on the disk."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from fog_node import full_disk, node
from fog_node.archive import ArchiveError
from fog_node.errors import DiskFullError, StoreError
from fog_node.full_disk import when_there_is_room
from fog_node.ledger.pruning import Pruned


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(full_disk, "RETRY_S", 0.0)


async def test_what_failed_for_want_of_room_is_done_once_there_is(caplog):
    attempts = []

    async def write() -> str:
        attempts.append(len(attempts))
        if len(attempts) < 4:
            raise DiskFullError("ledger: full; make room on the disk")
        return "written"

    with caplog.at_level(logging.WARNING):
        assert await when_there_is_room(write) == "written"
    assert len(attempts) == 4
    # Said once, not once a second.
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "make room" in caplog.text


async def test_a_node_whose_archive_is_away_goes_on_and_prunes_later(monkeypatch, caplog):
    monkeypatch.setattr(node, "PRUNE_INTERVAL_S", 0.0)
    tried, loop = asyncio.Event(), asyncio.get_running_loop()
    errors = [ArchiveError("archive: cannot be written: mount it"), DiskFullError("ledger: full")]

    def prune(before_ms: int, archive: object) -> Pruned:
        if errors:
            raise errors.pop()
        loop.call_soon_threadsafe(tried.set)
        return Pruned(1, 0, 0)

    parts = SimpleNamespace(
        config=SimpleNamespace(storage=SimpleNamespace(keep_days=7)),
        ledger=SimpleNamespace(prune=prune),
        _archive=None,
    )
    pruning = asyncio.create_task(node.Node._prune(parts))
    async with asyncio.timeout(60):
        await tried.wait()
    pruning.cancel()
    await asyncio.gather(pruning, return_exceptions=True)
    assert caplog.text.count("pruning: put off") == 2


async def test_other_trouble_is_not_waited_out():
    async def write() -> None:
        raise StoreError("ledger: no such disk")

    with pytest.raises(StoreError, match="no such disk"):
        await when_there_is_room(write)
