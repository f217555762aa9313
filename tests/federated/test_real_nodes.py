"""A trainer and other members' fog nodes as the guide has them: own processes, real TLS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
from support.federated_python import PYTHON, ROOT
from support.fleets import write_fleet

from fog_node.protocol.keys import kid_hex
from tools.consortium import FOUNDING_FILE, create
from tools.demo.processes import free_port

DEADLINE_S = 400
MEMBERS = {
    "lab": frozenset({"trainer"}),
    "busan": frozenset({"validator", "gateway"}),
    "seoul": frozenset({"validator", "gateway"}),
    "stranger": frozenset({"customer"}),
}
SITES = ("busan", "seoul")


class Command:
    """`fogline federated ...`, in Flower's environment."""

    def __init__(self, log, *arguments):
        self._log = log
        environment = {name: value for name, value in os.environ.items() if "FLWR" not in name}
        with log.open("ab") as file:
            self._start = file.tell()
            self._family = set()
            self.popen = subprocess.Popen(
                [PYTHON, "-m", "tools.cli", "federated", *arguments],
                env=environment | {"PYTHONPATH": str(ROOT)}, stdout=file, stderr=file,
            )  # fmt: skip

    def said(self):
        return self._log.read_bytes()[self._start :].decode()

    def family(self):
        """Ids of its process and of all that it has started, whatever session they are in."""
        parents = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(status.parent.name)] = int(fields[1])
        found = {self.popen.pid}
        while more := {one for one, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def until(self, condition):
        """Wait for a condition while this runs."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.popen.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def kill(self, number):
        """Send a signal, and note what has to end with it."""
        self._family = self.family()
        self.popen.send_signal(number)
        self.popen.wait(DEADLINE_S)

    def is_gone(self):
        """Whether all that was there when it was killed has ended."""
        return not any(Path(f"/proc/{one}").exists() for one in self._family)

    def wait_gone(self):
        deadline = time.monotonic() + DEADLINE_S
        while not self.is_gone():
            assert time.monotonic() < deadline, self._family
            time.sleep(0.1)


class Federation:
    """A consortium's members, their directories and their machines."""

    def __init__(self, directory):
        self.consortium = create(directory / "consortium", "test", MEMBERS)
        for name in MEMBERS:
            own = self.consortium.member_directory(name)
            shutil.copy(self.consortium.founding_file, own / FOUNDING_FILE)
        self.run = directory / "run"
        self._directory = directory
        self._address = f"127.0.0.1:{free_port()}"
        self.commands = []

    def serve(self, rounds, *more):
        certificates = [self.consortium.member_directory(name) / "tls.crt" for name in SITES]
        return self._command(
            "lab", "serve", "--out", self.run, "--listen", self._address,
            *(part for path in certificates for part in ("--site", path)),
            "--rounds", str(rounds), "--epochs", "1", "--min-sites", "1", "--round-s", "60", *more,
        )  # fmt: skip

    def site(self, name):
        data = self._directory / name / "train_own.txt"
        if not data.exists():
            data.parent.mkdir()
            write_fleet(data, 3, seed=len(name))
        return self._command(
            name, "site", "--data", data, "--trainer", self._address, "--out", data.parent / "out"
        )

    def rounds(self):
        return [json.loads(one.read_bytes()) for one in sorted(self.run.glob("rounds/*.json"))]

    def parts(self):
        """Names of the sites that took part, round by round."""
        return [tuple(site["site"] for site in one["sites"]) for one in self.rounds()]

    def _command(self, name, verb, *arguments):
        command = Command(
            self._directory / f"{name}.log",
            verb, "--as", self.consortium.member_directory(name), *arguments,
        )  # fmt: skip
        self.commands.append(command)
        return command


@pytest.fixture
def federation(tmp_path):
    federation = Federation(tmp_path)
    yield federation
    for command in federation.commands:
        if command.popen.poll() is None:
            command.kill(signal.SIGTERM)


def test_members_learn_through_killed_sites_and_a_killed_trainer(federation):
    trainer = federation.serve(1000)
    busan, seoul = (federation.site(name) for name in SITES)
    stranger = federation.site("stranger")
    trainer.until(lambda: SITES in federation.parts())

    # The SuperLink lets nobody in whom the trainer did not name.
    stranger.until(lambda: "the SuperNode has ended" in stranger.said())
    stranger.kill(signal.SIGTERM)

    seoul.kill(signal.SIGKILL)
    seoul.wait_gone()
    before = len(federation.parts())
    trainer.until(lambda: ("busan",) in federation.parts()[before:])
    seoul = federation.site("seoul")
    trainer.until(lambda: SITES in federation.parts()[before:])

    trainer.kill(signal.SIGKILL)
    killed = [stranger, trainer]
    reached = len(federation.rounds())
    trainer = federation.serve(1000, "--resume")
    # Each site comes back when it has seen that the trainer is there again.
    trainer.until(lambda: SITES in federation.parts()[reached:])
    trainer.kill(signal.SIGKILL)
    killed.append(trainer)
    report = federation.run / "summary.json"
    reached = len(federation.rounds())
    trainer = federation.serve(reached + 2, "--resume", "--json", report)
    assert trainer.popen.wait(DEADLINE_S) == 0, trainer.said()

    rounds = federation.rounds()
    assert len(rounds) == reached + 2
    assert all(one["after"] == two["before"] for one, two in pairwise(rounds))
    assert "stranger" not in json.dumps(rounds)
    members = {site["site"]: site["member"] for one in rounds for site in one["sites"]}
    founding = federation.consortium.founding
    assert members == {
        member.name: kid_hex(member.kid) for member in founding.members if member.name in SITES
    }
    summary = json.loads(report.read_bytes())
    assert [one["model"] for one in summary["rounds"]] == [one["after"][:16] for one in rounds]
    for site in (busan, seoul):
        assert site.popen.poll() is None, site.said()
        site.kill(signal.SIGTERM)
    for command in (*killed, busan, seoul):
        command.wait_gone()
