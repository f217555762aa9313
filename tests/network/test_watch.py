"""Drift comes onto the chain, and a new model only where it is better: by the commands."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.daemons import Daemon, found, make_daemons, stop_all
from support.trained import CALIBRATE, CHANNELS, EPOCHS, recording
from typer.testing import CliRunner

from cloud.readings import Readings
from cloud.train import anomaly
from fog_node.protocol import senml
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Channel, Enrol, PackBody, sign_transaction
from tools import cli
from tools.consortium import Consortium, load_key
from tools.submit import submit, wait_final

PUMP = "pump"
BOARDS = (SigningKey.from_secret(7001), SigningKey.from_secret(7002))
PACK_ROWS = 50
ROWS = 900


async def done(*arguments: object, report: Path) -> Any:
    """Run a command that must succeed; returns its JSON."""
    typed = [*map(str, arguments), "--json", str(report)]
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, typed)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(await asyncio.to_thread(report.read_text))


class Plant:
    """Boards that send recordings."""

    def __init__(self, consortium: Consortium, daemon: Daemon) -> None:
        self.consortium, self.daemon = consortium, daemon
        self._next = dict.fromkeys(BOARDS, 1)

    async def enrol(self) -> None:
        key = load_key(self.consortium.member_directory("operator") / "signing.key")
        channels = tuple(Channel(name, "A", -1000, 1000) for name in CHANNELS)
        for board in BOARDS:
            body = Enrol(board.public, "operator", PUMP, "unix", channels, time.time_ns() // 10**6)
            await submit(self.daemon.client, key, body, self.consortium.founding)

    async def send(self, rows: Readings) -> None:
        """All boards measure the same."""
        last = []
        for board in BOARDS:
            for at in range(0, len(rows), PACK_ROWS):
                base = int(rows.times[at])
                listed = [
                    (
                        int(rows.times[i]) - base,
                        [(n, "A", float(v)) for n, v in zip(CHANNELS, rows.values[i], strict=True)],
                    )
                    for i in range(at, min(at + PACK_ROWS, len(rows)))
                ]
                payload = senml.encode_pack(32473, board.kid, base, listed)
                pack = sign_transaction(
                    board,
                    PackBody.decode(payload),
                    self.consortium.founding.chain_id,
                    self._next[board],
                    dropped=0,
                )
                self._next[board] += 1
                await self.daemon.client.submit(pack.raw)
            last.append(pack)
        for pack in last:
            await wait_final(self.daemon.client, pack)


@pytest.fixture
async def plant(tmp_path, monkeypatch):
    monkeypatch.setattr(anomaly, "QUICK_EPOCHS", EPOCHS)
    monkeypatch.setattr(anomaly, "CUTTING", replace(anomaly.CUTTING, calibrate=CALIBRATE))
    consortium = found(tmp_path / "c", ("seoul",))
    (daemon,) = make_daemons(consortium, tmp_path)
    try:
        await daemon.start()
        plant = Plant(consortium, daemon)
        await plant.enrol()
        yield plant
    finally:
        await stop_all([daemon])


async def test_drift_is_sealed_and_a_new_model_has_to_win(plant, tmp_path: Path) -> None:
    consortium, daemon = plant.consortium, plant.daemon
    data, out = tmp_path / "data", tmp_path / "out.json"
    now = int(time.time())
    learned = recording(1, ROWS, start_s=now - 3 * ROWS)
    await plant.send(learned)
    common = ("--founding", consortium.founding_file, "--api", daemon.url)
    trainer = ("--key", consortium.member_directory("trainer") / "signing.key")
    where = ("--data", data, "--device-type", PUMP)
    await done("train", "anomaly", *common, *where, "--out", tmp_path / "m", "--quick", report=out)
    await done(
        "model", "release", tmp_path / "m", *common, *trainer, "--name", "anomaly",
        "--overruled-by", "trainer", report=out,
    )  # fmt: skip
    # The pumps go on as before, and then one channel wanders off.
    later = recording(1, ROWS, start_s=now - ROWS)
    values = later.values.copy()
    values[2 * CALIBRATE :, 0] += np.linspace(0, 2, ROWS - 2 * CALIBRATE, dtype=np.float32)
    await plant.send(replace(later, values=values))

    watch = ("model", "watch", "anomaly", *common, *where, "--once")
    gateway = ("--key", consortium.member_directory("seoul") / "signing.key")
    look = await done(*watch, *gateway, report=out)
    assert look["release"] == "anomaly 1"
    assert "current" in look["moved"]
    assert look["rows"] == 2 * ROWS
    assert look["action"] == "retrain"
    (view,) = (await daemon.client.transactions(kind="drift")).transactions
    assert view.id == look["drift"]
    assert {m["name"] for m in view.body["measures"]} == {*CHANNELS, "verdicts"}
    assert view.body["statistic"] == "psi"

    look = await done(*watch, *trainer, "--retrain", tmp_path / "models", "--quick", report=out)
    assert look["action"] == "retraining"
    assert look["challenge"]["basis"] == "made-up faults"
    won = look["challenge"]["new"]["f1"] >= look["challenge"]["running"]["f1"] + 0.01
    assert look["challenge"]["won"] == won
    versions = [release.version for release in await daemon.client.releases()]
    if look["released"] is None:
        assert versions == [1]
        assert not won or "int8" in look["refused"]
    else:
        assert won
        assert versions == [look["released"]] == [2]
        lineage = await done("model", "lineage", "anomaly", *common, report=out)
        assert lineage["sealed"] is True
