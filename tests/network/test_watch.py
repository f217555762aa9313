"""Drift comes onto the chain, and a new model only where it is better: by the commands."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.daemons import PARAMETERS, Daemon, found, make_daemons, stop_all
from support.trained import CALIBRATE, CHANNELS, EPOCHS, recording
from typer.testing import CliRunner

from cloud import challenge
from cloud import release as release_rules
from cloud.model_card import MODEL_FILE
from cloud.readings import Readings
from cloud.train import anomaly
from fog_node.protocol import senml
from fog_node.protocol.founding import Parameters
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.rollouts import MODEL_ID_BYTES
from fog_node.protocol.transactions import (
    Channel,
    Enrol,
    PackBody,
    Transaction,
    sign_transaction,
)
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


def only(said: Any) -> Any:
    """The look at the one model that all boards run."""
    (look,) = said["models"]
    assert look["boards"] == sorted(board.kid.hex() for board in BOARDS)
    return look


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

    async def judge(self, board: SigningKey, model: bytes) -> None:
        """A board sends a verdict of this model."""
        base = int(time.time())
        rows = [(0, [(name, "A", 1.0) for name in CHANNELS])]
        judged = [senml.Verdict(base, 1, False, bytes(8))]
        payload = senml.encode_pack(32473, board.kid, base, rows, judged, model[:MODEL_ID_BYTES])
        await wait_final(self.daemon.client, await self._submit(board, payload))

    async def _submit(self, board: SigningKey, payload: bytes) -> Transaction:
        pack = sign_transaction(
            board,
            PackBody.decode(payload),
            self.consortium.founding.chain_id,
            self._next[board],
            dropped=0,
        )
        self._next[board] += 1
        await self.daemon.client.submit(pack.raw)
        return pack

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
                pack = await self._submit(board, payload)
            last.append(pack)
        for pack in last:
            await wait_final(self.daemon.client, pack)


@pytest.fixture
def parameters() -> Parameters:
    """Of a consortium that does not stage releases."""
    return PARAMETERS


@pytest.fixture
async def plant(tmp_path, monkeypatch, parameters):
    monkeypatch.setattr(anomaly, "QUICK_EPOCHS", EPOCHS)
    monkeypatch.setattr(anomaly, "CUTTING", replace(anomaly.CUTTING, calibrate=CALIBRATE))
    monkeypatch.setattr(anomaly, "REHEARSAL_CALIBRATE", CALIBRATE)
    consortium = found(tmp_path / "c", ("seoul",), parameters)
    (daemon,) = make_daemons(consortium, tmp_path)
    try:
        await daemon.start()
        plant = Plant(consortium, daemon)
        await plant.enrol()
        yield plant
    finally:
        await stop_all([daemon])


async def release(plant: Plant, directory: Path) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Train on what boards have sent, and release it; returns options that other commands take."""
    consortium, out = plant.consortium, directory / "out.json"
    common = ("--founding", consortium.founding_file, "--api", plant.daemon.url)
    where = ("--data", directory / "data", "--device-type", PUMP)
    trained = directory / "m"
    await done("train", "anomaly", *common, *where, "--out", trained, "--quick", report=out)
    await done(
        "model", "release", trained, *common, *key_of(consortium, "trainer"), "--name", "anomaly",
        "--overruled-by", "trainer", report=out,
    )  # fmt: skip
    return common, where


def key_of(consortium: Consortium, member: str) -> tuple[object, ...]:
    return "--key", consortium.member_directory(member) / "signing.key"


def wandering(start_s: int) -> Readings:
    """The pumps go on as before, and then one channel wanders off."""
    rows = recording(1, ROWS, start_s=start_s)
    values = rows.values.copy()
    values[2 * CALIBRATE :, 0] += np.linspace(0, 2, ROWS - 2 * CALIBRATE, dtype=np.float32)
    return replace(rows, values=values)


async def test_drift_is_sealed_and_a_new_model_has_to_win(plant, tmp_path: Path) -> None:
    consortium, daemon = plant.consortium, plant.daemon
    out, now = tmp_path / "out.json", int(time.time())
    await plant.send(recording(1, ROWS, start_s=now - 3 * ROWS))
    common, where = await release(plant, tmp_path)
    await plant.send(wandering(now - ROWS))

    watch = ("model", "watch", "anomaly", *common, *where, "--once")
    trainer = key_of(consortium, "trainer")
    look = only(await done(*watch, *key_of(consortium, "seoul"), report=out))
    assert look["release"] == "anomaly 1"
    assert "current" in look["moved"]
    assert look["rows"] == 2 * ROWS
    assert look["action"] == "retrain"
    (view,) = (await daemon.client.transactions(kind="drift")).transactions
    assert view.id == look["drift"]
    assert {m["name"] for m in view.body["measures"]} == {*CHANNELS, "verdicts"}
    assert view.body["statistic"] == "psi"

    # Who watches anew, as from cron, does not say it again.
    look = only(await done(*watch, *key_of(consortium, "seoul"), report=out))
    assert look["moved"]
    assert "drift" not in look
    assert len((await daemon.client.transactions(kind="drift")).transactions) == 1

    retrain = ("--retrain", tmp_path / "models", "--quick")
    look = only(await done(*watch, *trainer, *retrain, report=out))
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


@pytest.mark.parametrize("parameters", [replace(PARAMETERS, staged_releases=1)])
async def test_each_board_is_judged_by_the_model_that_a_rollout_has_brought_to_it(
    plant, tmp_path: Path, monkeypatch
) -> None:
    # Whether it wins is the other test's.
    monkeypatch.setattr(challenge, "MIN_GAIN", -1.0)
    monkeypatch.setattr(release_rules, "MAX_F1_LOSS", 1.0)
    consortium, daemon = plant.consortium, plant.daemon
    out, now = tmp_path / "out.json", int(time.time())
    trainer, operator = (key_of(consortium, name) for name in ("trainer", "operator"))
    await plant.send(recording(1, ROWS, start_s=now - 3 * ROWS))
    common, where = await release(plant, tmp_path)
    retrain = ("--retrain", tmp_path / "models", "--quick", "--groups", "50,100")
    watch = ("model", "watch", "anomaly", *common, *where, *trainer, "--once", *retrain)
    refused = await asyncio.to_thread(CliRunner().invoke, cli.app, list(map(str, watch)))
    assert refused.exit_code != 0
    assert "no board of pump runs a model yet" in str(refused.exception) + refused.output
    await done(
        "model", "rollout", "anomaly", *common, *trainer, "--groups", "100", "--verdicts", "1",
        report=out,
    )  # fmt: skip
    approve = ("model", "approve", PUMP, *common, *operator, "--yes")
    await done(*approve, report=out)
    first = (tmp_path / "m" / MODEL_FILE).read_bytes()
    for board in BOARDS:
        await plant.judge(board, hashlib.sha256(first).digest())
    await plant.send(wandering(now - ROWS))

    look = only(await done(*watch, report=out))
    assert (look["release"], look["action"]) == ("anomaly 1", "retraining")
    assert (look["released"], look["status"]) == (2, "proposed")
    (offer,) = await daemon.client.offers()
    assert offer.rollout is not None
    assert offer.rollout.id == look["rollout"]
    assert [group.percent for group in offer.rollout.groups] == [50, 100]
    # Boards still run the old one, and nothing more is trained while that waits for approval.
    look = only(await done(*watch, report=out))
    assert (look["release"], look["action"]) == ("anomaly 1", "retrain")
    assert "challenge" not in look

    await done(*approve, report=out)
    boards = await daemon.client.rollout_boards(bytes.fromhex(offer.rollout.id))
    (chosen,) = [board.kid for board in boards if board.group == 1]
    await plant.judge(
        next(board for board in BOARDS if board.kid.hex() == chosen),
        bytes.fromhex(offer.rollout.model),
    )
    old, new = (await done(*watch, report=out))["models"]
    assert (old["release"], old["boards"]) == (
        "anomaly 1", [board.kid.hex() for board in BOARDS if board.kid.hex() != chosen]
    )  # fmt: skip
    # One board has sent too little that it was not trained on.
    assert new["release"] == "anomaly 2"
    assert "are needed" in new["put_off"]
