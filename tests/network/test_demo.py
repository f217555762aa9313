"""The whole loop, as `make demo` runs it: real processes, real firmware, a real model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes import Mosquitto

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 400
EMULATED = ("qemu-arm", "qemu-rv32")
FORGERIES = {"bad_signature", "tampered", "replayed", "unknown_device"}


def demo(report: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.cli", "demo", "--json", str(report), *arguments]
    # Its folder lies where a test's files do.
    environment = os.environ | {"TMPDIR": str(report.parent)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as run:  # fmt: skip
        try:
            output, errors = run.communicate(timeout=TIMEOUT_S)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)  # and whatever it has started
            raise
    assert run.returncode == 0, output[-3000:] + errors[-3000:]
    summary: dict[str, Any] = json.loads(report.read_text())
    assert summary["failures"] == []
    assert summary["packs_lost"] == summary["packs_duplicated"] == 0
    assert summary["packs_committed"] == summary["packs_signed"] > 0
    assert summary["heads_equal"]
    assert summary["state_roots_equal"]
    assert summary["incidents"].keys() >= FORGERIES
    assert all(summary["incidents"][cause] >= 1 for cause in FORGERIES)
    assert summary["on_board"]["equals_litert"]
    assert summary["on_board"]["compared"] == summary["on_board"]["inferences"] > 0
    assert summary["rollout"]["status"] == "finished"
    assert summary["rollout"]["approved_by"] == "headquarters"
    assert [group["boards"] for group in summary["rollout"]["groups"]] == [
        1, summary["boards"] - 1
    ]  # fmt: skip
    assert summary["lineage"]["sealed"]
    assert summary["lineage"]["transactions"] > 0
    assert summary["proof"]["verified"]
    assert summary["proof"]["tampered_refused"]
    return summary


def test_the_loop_closes_on_the_simulated_test_bed_over_serial_lines(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With boards of both kinds: the last one is a bare machine, either one by the seed."""
    target = EMULATED[request.config.net_seed % len(EMULATED)]
    print(f"seed {request.config.net_seed}: {target}")
    folder = tmp_path / "demo"
    arguments = ("--dir", str(folder), "--transport", "serial", "--target", target, "--chaos")
    summary = demo(tmp_path / "demo.json", *arguments)
    assert summary["chaos"]["line"] == "every cable pulled out and put back"
    assert summary["chaos"]["recovered"]
    assert "simulated" in summary["source"]
    assert summary["boards"] == 4
    assert (summary["validators"], summary["quorum"]) == (5, 3)
    assert summary["model"]["f1_int8"] > 0
    # The emulated board has done its part: it judged, and nothing of its own is missing.
    said = [json.loads(line) for line in events(folder / "logs" / "board-4.log")]
    done = said[-1]
    assert done["event"] == "done"
    assert done["stats"]["inferences"] > 0
    assert done["stats"]["packs"] == sum(one["event"] == "pack" for one in said) > 0
    assert (folder / "boards" / "board-4" / "machine").is_dir()


def events(log: Path) -> list[str]:
    """The lines of a board's log that are its console's, and not MicroPython's own."""
    return [line for line in log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture
def recordings() -> Path:
    folder = os.environ.get("FOGLINE_DATA")
    if folder is None:
        pytest.skip("FOGLINE_DATA is not set: name the folder that holds skab/")
    assert (Path(folder) / "skab").is_dir(), f"FOGLINE_DATA={folder}: holds no skab/"
    return Path(folder) / "skab"


def test_nothing_is_lost_when_a_validator_and_the_broker_are_killed(
    tmp_path: Path, recordings: Path
) -> None:
    summary = demo(tmp_path / "demo.json", "--replay", str(recordings), "--chaos")
    assert summary["chaos"]["recovered"]
    assert summary["chaos"]["killed"] == ["seoul", "broker"]
    assert summary["chaos"]["boards_mid_stream"] > 0


async def test_the_loop_closes_over_a_real_mosquitto(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    await broker.start()
    try:
        arguments = ("--broker", f"127.0.0.1:{broker.port}", "--devices", "2")
        summary = await asyncio.to_thread(demo, tmp_path / "demo.json", *arguments)
    finally:
        await broker.kill()
    assert summary["boards"] == 2


def test_a_car_maker_learns_what_fails_where_and_what_to_order(tmp_path: Path) -> None:
    folder, out = tmp_path / "fleet", tmp_path / "fleet.json"
    command = [sys.executable, "-m", "tools.cli", "demo", "--scenario", "vehicles"]
    command += ["--devices", "12", "--weeks", "3", "--keep", str(folder), "--json", str(out)]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    summary = json.loads(out.read_text())
    assert summary["failures"] == []
    # 12 cars with 3 records a week, 4 boards at the roads with one.
    assert summary["packs_committed"] == summary["packs_signed"] == 3 * (12 * 3 + 4)
    assert summary["packs_lost"] == summary["packs_duplicated"] == 0
    assert summary["heads_equal"]
    assert summary["state_roots_equal"]
    assert {one["cause"] for one in summary["falsified"]} == {
        "tampered", "replayed", "unknown_device", "conflict",
    }  # fmt: skip
    assert all(one["refused"] for one in summary["falsified"])
    assert summary["quarantine"]["signalled"]
    assert summary["quarantine"]["reinstated"]
    assert [one["lot"] for one in summary["findings"]["change"]] == [summary["judged"]["bad_lot"]]
    assert summary["judged"]["odometers_right"]
    assert summary["judged"]["scores"]["network"]["recall"] >= 0.8
    assert summary["letters"]["order"]["answer"] == "accepted"
    assert summary["proof"]["verified"]
    report = (folder / "report.html").read_text()
    assert summary["judged"]["bad_lot"] in report
    assert summary["letters"]["findings"]["sha256"] in report


def test_cars_take_no_options_of_the_test_bed(tmp_path: Path) -> None:
    for arguments in (["--chaos"], ["--transport", "serial"], ["--devices", "4"]):
        command = [sys.executable, "-m", "tools.cli", "demo", "--scenario", "vehicles"]
        run = subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60,
            check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert run.returncode == 2
        assert arguments[0] in run.stderr
        assert "Traceback" not in run.stderr


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.cli", "demo", "--replay", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "holds no CSV files" in run.stderr
    assert "Traceback" not in run.stderr
