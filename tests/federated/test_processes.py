"""The real thing, once: SuperLink, SuperNodes and what they start, on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.federated_python import PYTHON, ROOT, SUPPORT
from support.fleets import write_fleet

DEADLINE_S = 60
LOCAL = re.compile(r"'(127\.0\.0\.1|::1|localhost|/[^']*)'")


def processes_of(directory: Path) -> list[str]:
    """Processes that run in a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").resolve().is_relative_to(directory):
                found.append(process.joinpath("cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def wait_gone(directory: Path) -> None:
    """Wait until none is left; one that is killed takes a moment."""
    deadline = time.monotonic() + DEADLINE_S
    while left := processes_of(directory):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.fixture
def fogline(tmp_path):
    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if "FLWR" not in name}
        environment["PYTHONPATH"] = f"{SUPPORT / 'watch_sockets'}{os.pathsep}{ROOT}"
        environment["FOGLINE_TEST_SOCKETS"] = str(tmp_path / "sockets")
        return subprocess.run(
            [PYTHON, "-m", "tools.cli", "federated", *arguments],
            env=environment,
            capture_output=True,
            timeout=400,
            check=False,
            text=True,
        )

    return run


def in_own_environment(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", *arguments],
        capture_output=True, timeout=120, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_three_sites_learn_lose_one_and_go_on(fogline, tmp_path):
    data = write_fleet(tmp_path / "train_X.txt", 12, seed=1)
    out = tmp_path / "run"
    arguments = ["run", "--data", data, "--out", out, "--sites", "3", "--epochs", "1"]
    arguments += ["--hold-out", "3", "--secure-aggregation"]
    first = fogline(*arguments, "--rounds", "2", "--drop", "3@2", "--json", tmp_path / "one.json")
    assert first.returncode == 0, first.stderr[-3000:]
    one, two = json.loads((tmp_path / "one.json").read_text())["rounds"]
    assert (one["sites"], two["sites"]) == (3, 2)
    assert (one["absent"], two["absent"]) == ("", "site-3")
    assert two["rmse_before"] < one["rmse_before"]

    second = fogline(*arguments, "--rounds", "3", "--resume", "--json", tmp_path / "two.json")
    assert second.returncode == 0, second.stderr[-3000:]
    rounds = json.loads((tmp_path / "two.json").read_text())["rounds"]
    assert rounds[:2] == [one, two]
    assert rounds[2]["sites"] == 3

    wait_gone(out)
    # Nothing was sought, and nobody was called, but on this machine.
    notes = (tmp_path / "sockets").read_text().splitlines()
    assert any(line.startswith("connect") for line in notes)
    assert [line for line in notes if not LOCAL.search(line)] == []
    # A look for updates would have left its answer.
    home = out / "flower" / "home"
    assert not (home / ".cache").exists()

    # What they have come to is a model like any other of its task.
    model, held_out = tmp_path / "model", out / "sites" / "held-out" / "train_site.txt"
    in_own_environment("federated", "model", out, "--data", held_out, "--out", model)
    card = json.loads((model / "card.json").read_text())
    assert card["sites"] == ["site-1", "site-2", "site-3"]
    assert [len(names) for names in card["lineage"]["took_part"]] == [3, 2, 3]
    assert [one[:16] for one in card["lineage"]["after"]] == [one["model"] for one in rounds]
    said = tmp_path / "said.csv"
    in_own_environment("predict", "rul", "--model", model, "--data", held_out, "--out", said)
    assert card["secure"] is True
    assert len(said.read_text().splitlines()) == 1 + card["units"] == 4
