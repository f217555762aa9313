"""Images are judged beside a real fog node and sealed once, by the command as it is typed."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.daemons import ROOT, found, make_daemons, stop_all, until
from support.inference import Brightness
from support.machines import quick_model, simulated
from typer.testing import CliRunner

from tools import cli, inference
from tools.consortium import load_founding
from tools.errors import UsageError

# `fogline`, with a judge that takes no training.
COMMAND = """
import sys
from support.inference import Brightness
from tools import cli, inference
inference.QualityJudge = lambda directory, variant: Brightness()
sys.argv[0] = "fogline"
cli.main()
"""


async def run(typed: list[str], stdout: int = asyncio.subprocess.DEVNULL):
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, *typed, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}, stdout=stdout,
    )  # fmt: skip


def shoot(folder: Path, values) -> None:
    folder.mkdir(exist_ok=True)
    for value in values:
        Image.fromarray(np.full((20, 30), value, np.uint8)).save(folder / f"{value}.png")


@pytest.fixture
async def seoul(tmp_path):
    consortium = found(tmp_path / "c", ("seoul",))
    (daemon,) = make_daemons(consortium, tmp_path)
    try:
        await daemon.start()
        yield consortium, daemon
    finally:
        await stop_all([daemon])


async def test_a_worker_that_is_killed_seals_each_image_once(seoul, tmp_path) -> None:
    consortium, daemon = seoul
    camera, out = tmp_path / "camera", tmp_path / "out.json"
    shoot(camera, range(0, 250, 10))
    (camera / "half.png").write_bytes((camera / "10.png").read_bytes()[:30])
    key = consortium.member_directory("seoul") / "signing.key"
    arguments = [
        "fog", "infer", "--watch", f"{camera}=castings", "--founding", consortium.founding_file,
        "--key", key, "--journal", tmp_path / "journal", "--api", daemon.url,
        "--heatmaps", tmp_path / "maps", "--heatmaps-kept", "4",
    ]  # fmt: skip
    typed = [str(argument) for argument in arguments]
    worker = await run(typed)

    async def sealed() -> list[str]:
        views = [view async for view in daemon.client.all_transactions(kind="prediction")]
        return [verdict["image"] for view in views for verdict in view.body["verdicts"]]

    try:
        await until(lambda: _is_true(sealed), "something is sealed")
        shoot(camera, range(5, 250, 10))
        await asyncio.sleep(0.5)
    finally:
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    shutil.copy(camera / "10.png", camera / "copy.png")
    again = await run([*typed, "--once", "--json", str(out)], stdout=asyncio.subprocess.PIPE)
    printed, _ = await again.communicate()
    assert again.returncode == 0, printed.decode()
    said = json.loads(await asyncio.to_thread(out.read_text))
    assert said["waiting"] == 0
    images = await sealed()
    assert len(images) == len(set(images)) == 50
    maps = [path.name.partition("-")[0] for path in (tmp_path / "maps").iterdir()]
    assert len(maps) == 4
    assert set(maps) <= set(images)
    (example, *_) = [view async for view in daemon.client.all_transactions(kind="prediction")]
    assert example.body["name"] == Brightness.name
    assert load_founding(consortium.founding_file).member(bytes.fromhex(example.signer))


async def _is_true(ask) -> bool:
    return bool(await ask())


async def test_what_a_model_says_of_a_table_is_sealed_once_and_read(seoul, tmp_path) -> None:
    consortium, daemon = seoul
    data, out = simulated(tmp_path / "rows.csv", 300, 1), tmp_path / "out.json"
    model = quick_model(tmp_path / "lathes", data)
    typed = [
        "predict", "failure", "--model", model, "--data", data, "--out", tmp_path / "said.csv",
        "--seal", "--founding", consortium.founding_file,
        "--key", consortium.member_directory("seoul") / "signing.key",
        "--journal", tmp_path / "journal", "--api", daemon.url, "--json", out,
    ]  # fmt: skip
    arguments = list(map(str, typed))
    first = await run(arguments)

    async def bodies() -> list[dict]:
        return [view.body async for view in daemon.client.all_transactions(kind="prediction")]

    try:
        await until(lambda: _is_true(bodies), "something is sealed")
    finally:
        if first.returncode is None:
            first.send_signal(signal.SIGKILL)
        await first.wait()
    await done(arguments)
    report = json.loads(out.read_text())
    assert (report["rows"], report["new"], report["known"]) == (300, 0, 300)
    sealed = [verdict for body in await bodies() for verdict in body["verdicts"]]
    with (tmp_path / "said.csv").open(newline="") as file:
        predicted = {
            row["id"]: (row["mode"] or "normal", float(row["probability"]))
            for row in csv.DictReader(file)
        }
    assert len(sealed) == 300
    assert {v["name"]: (v["said"], v["score"]) for v in sealed} == predicted
    (source,) = {body["source"] for body in await bodies()}
    assert source == hashlib.sha256(data.read_bytes()).hexdigest()

    await done(["predict", "list", "7", "--api", daemon.url, "--json", str(out)])
    (row,) = json.loads(out.read_text())["predictions"]
    assert (row["name"], row["said"], row["score"]) == ("7", *predicted["7"])
    assert (row["model"], row["source"]) == ("lathes", source)
    # Who may not read the chain is given a proof, and needs nothing but the founding file.
    proof, founding = str(tmp_path / "said.proof"), str(consortium.founding_file)
    await done(["proof", "get", row["transaction"], "--out", proof, "--api", daemon.url])
    await done(["proof", "verify", proof, "--founding", founding, "--json", str(out)])
    shown = json.loads(out.read_text())
    assert {"name": "7", "said": row["said"], "score": row["score"]} in shown["verdicts"]
    assert (shown["signer"], shown["model"]) == ("seoul", row["sha256"])
    await done(["predict", "list", "--model", "none", "--api", daemon.url, "--json", str(out)])
    assert json.loads(out.read_text())["predictions"] == []


async def done(arguments: list[str]) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("rul", ["--seal"], "needs --founding and --key"),
        ("rul", ["--key", "k"], "are for --seal"),
        ("rul", ["--journal", "j"], "are for --seal"),
        ("rul", ["--api", "http://127.0.0.1:1"], "are for --seal"),
        ("quality", ["--seal"], "fogline fog infer"),
        ("anomaly", ["--seal"], "boards seal their verdicts themselves"),
    ],
)
def test_what_cannot_be_sealed_is_told(tmp_path, task, more, said) -> None:
    typed = ["predict", task, "--model", "m", "--data", "d", "--out", str(tmp_path / "o"), *more]
    result = CliRunner().invoke(cli.app, typed)
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ("camera", "is not FOLDER=MODEL"),
        ("none=model", "none: is no folder"),
        ("=m", "is not FOLDER=MODEL"),
    ],
)
async def test_what_cannot_be_watched_is_told(seoul, tmp_path, watch, said) -> None:
    consortium, daemon = seoul
    result = await asyncio.to_thread(
        CliRunner().invoke,
        cli.app,
        [
            "fog", "infer", "--watch", watch, "--founding", str(consortium.founding_file),
            "--key", str(consortium.member_directory("seoul") / "signing.key"),
            "--journal", str(tmp_path / "journal"), "--api", daemon.url, "--once",
        ],
    )  # fmt: skip
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output


def test_heat_maps_are_not_judged(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(inference, "QualityJudge", lambda directory, variant: Brightness())
    camera = tmp_path / "camera"
    camera.mkdir()
    duty = inference.Duty(
        [f"{camera}=model"], "fog", tmp_path / "journal", True, camera / ".." / "camera", 1
    )
    with pytest.raises(UsageError, match="is watched; give a folder of its own"):
        inference._check_apart(inference._watches(duty), duty.heatmaps)
