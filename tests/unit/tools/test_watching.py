"""What a watcher of drift keeps, from look to look and over restarts."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from tools import watching
from tools.errors import ToolError, UsageError
from tools.watching import Looks, Memory, Rule

MODEL = bytes(range(32))
WATCHED = SimpleNamespace(key=None)
LOOK = SimpleNamespace(model=MODEL, moved=("flow",))


async def test_a_drift_is_followed_by_one_training_however_often_the_watcher_is_started(
    tmp_path, monkeypatch
) -> None:
    trained = []
    rule = Rule(24, 0.25, 1, tmp_path, (100,), quick=True, seed=0, false_alarms=None)
    looks = Looks("pump", (), {}, is_between=False)

    async def seal(*_: object) -> str:
        return "ab"

    async def follow(*_: object) -> dict[str, object]:
        trained.append(rule)
        if len(trained) == 1:
            raise asyncio.CancelledError
        return {"model": "m", "released": None}

    monkeypatch.setattr(watching, "_seal", seal)
    monkeypatch.setattr(watching, "_follow", follow)

    async def look(memory: Memory) -> dict[str, object]:
        return await watching._act(None, None, WATCHED, rule, LOOK, memory, looks)

    # One that is ended while it trains has followed nothing yet.
    with pytest.raises(asyncio.CancelledError):
        await look(Memory())
    assert not list(tmp_path.iterdir())
    memory = Memory(said={(MODEL, "retraining")})
    assert await look(memory) == {"model": "m", "released": None}
    assert await look(memory) == {}
    (note,) = tmp_path.iterdir()
    assert note.name == f"followed-{MODEL.hex()}.json"
    assert json.loads(note.read_text()) == {"model": "m", "released": None}
    for _ in range(2):
        assert await look(Memory(said=memory.said)) == {"followed": str(note)}
    assert len(trained) == 2


@pytest.mark.parametrize("groups", [(), (0, 100), (50, 20, 100), (5, 50), (50, 50, 100), (101,)])
async def test_groups_that_no_rollout_can_have_are_refused_before_anything_drifts(groups) -> None:
    rule = Rule(24, 0.25, 1, None, groups, quick=True, seed=0, false_alarms=None)
    with pytest.raises(UsageError, match=r"--groups .*: must rise from 1 or more to 100, in"):
        await watching.watch(None, None, None, rule, None, print)


async def test_where_nothing_can_be_trained_is_refused_before_anything_drifts(tmp_path) -> None:
    (tmp_path / "file").touch()
    rule = Rule(24, 0.25, 1, tmp_path / "file", (100,), quick=True, seed=0, false_alarms=None)
    with pytest.raises(ToolError, match=r"--retrain .*file: is no directory that can be"):
        await watching.watch(None, None, None, rule, None, print)
