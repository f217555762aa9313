"""Waiting for room on the disk."""

from __future__ import annotations

import logging

import pytest

from fog_node import full_disk
from fog_node.errors import DiskFullError, StoreError
from fog_node.full_disk import when_there_is_room


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


async def test_other_trouble_is_not_waited_out():
    async def write() -> None:
        raise StoreError("ledger: no such disk")

    with pytest.raises(StoreError, match="no such disk"):
        await when_there_is_room(write)
