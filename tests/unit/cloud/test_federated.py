"""Learning across sites, as far as it needs no Flower: network, sites, scales, files, privacy."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.fleets import write_fleet

from cloud.errors import MissingExtraError, ModelError, TrainingError
from cloud.federated import flower, local, run_files
from cloud.federated.chain import body_of
from cloud.federated.network import (
    CAP,
    QUANTILES,
    Noise,
    _noisy_mean,
    gradient,
    initial,
    model_hash,
    told,
)
from cloud.federated.run_files import RoundRecord, RunFiles, Settings, SiteRecord
from cloud.federated.scales import Scales, put_together
from cloud.federated.site import Site, Task, check_noise, deal, read_site
from cloud.train.rul_features import fit_preparation

SETTINGS = Settings("0f" * 16, "rul", "fedavg", 3, 1, 0, 2, 2, 1, 60.0)


@pytest.fixture
def units(tmp_path):
    return read_site(write_fleet(tmp_path / "train_X.txt", 10, seed=1, conditions=2))


@pytest.fixture
def site(units):
    return Site("busan", units, put_together([Scales.of(units)]))


def loss(arrays, features, target):
    said = told(arrays, features) / CAP
    total = (said[:, 0] - target) ** 2
    for at, quantile in enumerate(QUANTILES, start=1):
        error = target - said[:, at]
        total += np.maximum(quantile * error, (quantile - 1) * error)
    return total.mean()


def test_the_gradient_is_that_of_the_loss():
    random = np.random.default_rng(3)
    arrays = [part.astype(np.float64) for part in initial(5, 0)]
    arrays[1::2] = [bias + 0.05 for bias in arrays[1::2]]
    features, target = random.normal(size=(40, 5)), random.random(40)
    found = gradient(arrays, features, target, None)
    for at, part in enumerate(arrays):
        place = np.unravel_index(int(np.abs(found[at]).argmax()), part.shape)
        part[place] += 1e-5
        above = loss(arrays, features, target)
        part[place] -= 2e-5
        below = loss(arrays, features, target)
        part[place] += 1e-5
        assert (above - below) / 2e-5 == pytest.approx(found[at][place], rel=1e-3)


def test_a_site_learns_and_the_same_twice(site):
    arrays = initial(site.rows[0].shape[1], 0)
    first = site.work(arrays, Task(1, 4, 7, epochs=5))
    again = site.work(arrays, Task(1, 4, 7, epochs=5))
    assert model_hash(first.arrays) == model_hash(again.arrays) != model_hash(arrays)
    later = site.work(first.arrays, Task(2, 4, 7))
    assert later.rmse < 0.8 * first.rmse
    assert first.examples == len(site.rows[0])


class TestPrivacy:
    HOW = Noise(noise=2.0, clip=0.01, steps=3, machines=10)

    def machines(self, site):
        features, target = site.rows
        return [
            (features[start : start + 50], target[start : start + 50]) for start in (0, 50, 100)
        ]

    def test_no_machine_moves_a_step_by_more_than_the_clip(self, site):
        """And noise is as wide as is said."""
        arrays = initial(site.rows[0].shape[1], 0)
        machines = self.machines(site)

        def step(some, how):
            found = _noisy_mean(arrays, some, how, np.random.default_rng(1))
            return (
                np.concatenate([part.ravel() for part in found]).astype(np.float64) * how.machines
            )

        moved = np.linalg.norm(step(machines, self.HOW) - step(machines[1:], self.HOW))
        assert 0 < moved <= self.HOW.clip * 1.001
        noise = step(machines, self.HOW) - step(machines, replace(self.HOW, noise=0.0))
        assert noise.std() == pytest.approx(self.HOW.noise * self.HOW.clip, rel=0.05)

    def test_says_nothing_of_the_site_but_the_noisy_model(self, site):
        arrays = initial(site.rows[0].shape[1], 0)
        task = Task(1, 2, 0, noise=self.HOW)
        update = site.work(arrays, task)
        assert (update.examples, update.rmse) == (None, None)
        assert model_hash(update.arrays) != model_hash(site.work(arrays, task).arrays)

    def test_a_site_refuses_less_noise_than_its_owner_wants(self):
        check_noise(Task(1, 2, 0, noise=self.HOW), 2.0)
        check_noise(Task(1, 2, 0), None)
        for task in (Task(1, 2, 0), Task(1, 2, 0, noise=self.HOW)):
            with pytest.raises(ValueError, match=r"noise of 2\.5 clips or more"):
                check_noise(task, 2.5)


class TestScales:
    def test_of_all_sites_together_are_those_of_all_rows(self, units):
        whole = fit_preparation(units)
        sites = [Scales.decode(Scales.of(part).encode()) for part in deal(units, 3, "random", 0)]
        found = put_together(sites)
        assert found.sensors == whole.sensors
        order = np.argsort(found.centres[:, 0])
        wanted = np.argsort(whole.centres[:, 0])
        assert found.mean[order] == pytest.approx(whole.mean[wanted], rel=1e-9)
        assert found.deviation[order] == pytest.approx(whole.deviation[wanted], rel=1e-6)

    @pytest.mark.parametrize(
        "change",
        [
            {"rows": [0.0, 1.0]},
            {"mean": [[1.0]]},
            {"deviation": None},
            {"moved": [float("nan")] * 21},
            {"more": 1},
            {"moved": ["a"] * 21},
        ],
    )
    def test_that_make_no_sense_are_refused(self, units, change):
        value = json.loads(Scales.of(units).encode()) | change
        with pytest.raises(ValueError):  # noqa: PT011 - numpy's and ours
            Scales.decode(json.dumps(value))
        with pytest.raises(ValueError, match="at most"):
            Scales.decode(" " * 70_000)


class TestDeal:
    def test_every_machine_goes_to_one_site(self, units):
        for how in ("random", "life"):
            parts = deal(units, 3, how, 5)
            dealt = sorted(number for part in parts for number in np.unique(part.unit).tolist())
            assert dealt == list(range(1, 11))
            assert sum(map(len, parts)) == len(units)
        lives = [len(part) / len(part.ends) for part in parts]
        assert lives == sorted(lives)

    def test_too_few_are_refused(self, units):
        with pytest.raises(TrainingError, match="6 sites need 12"):
            deal(units, 6, "random", 0)

    def test_each_site_has_a_file_of_its_own_rows(self, tmp_path, units):
        files = local.write_sites(units.path, tmp_path / "sites", 2, "random", 0)
        lines = [line for file in files for line in file.read_text().splitlines()]
        assert sorted(lines) == sorted(units.path.read_text().splitlines())


def a_round(number: int, before, after) -> RoundRecord:
    sites = (
        SiteRecord("busan", "ab" * 8, "11" * 32, 9),
        SiteRecord("seoul", None, "22" * 32, 9),
    )
    hashes = model_hash(before).hex(), model_hash(after).hex()
    return RoundRecord(number, *hashes, sites, {"jeju": "no answer"}, 14.5, None, None, 1)


class TestRunFiles:
    @pytest.fixture
    def files(self, tmp_path):
        files = RunFiles(tmp_path / "run")
        files.begin(SETTINGS)
        self.models = [initial(3, seed) for seed in range(3)]
        for number in (1, 2):
            files.keep_round(
                a_round(number, *self.models[number - 1 : number + 1]), self.models[number]
            )
        return files

    def test_a_run_goes_on_from_its_last_round(self, files):
        again = RunFiles(files.directory)
        assert again.settings() == SETTINGS
        records = again.rounds()
        assert [one.round for one in records] == [1, 2]
        assert model_hash(again.model(records[-1])) == model_hash(self.models[2])
        again.note_asked()
        again.lengthen(9)
        assert (again.asked(), again.settings().rounds) == (1, 9)

    def test_a_model_that_was_changed_is_refused(self, files):
        np.savez(files.directory / "rounds/0002.npz", *self.models[0])
        with pytest.raises(ModelError, match=r"0002\.npz: is not the model whose hash"):
            files.model(files.rounds()[-1])

    def test_rounds_that_are_no_chain_are_refused(self, files):
        (files.directory / "rounds/0001.json").unlink()
        with pytest.raises(ModelError, match=r"0002\.json: does not follow"):
            files.rounds()

    @pytest.mark.parametrize("text", ["{", "[]", '{"settings": {"run": 1}}'])
    def test_damaged_settings_are_refused(self, files, text):
        (files.directory / "run.json").write_text(text)
        with pytest.raises(ModelError, match=r"run\.json"):
            files.settings()

    def test_other_settings_do_not_go_on(self, files):
        with pytest.raises(ModelError, match="begun with strategy fedavg, not krum"):
            local.begin_or_resume(files, replace(SETTINGS, strategy="krum"), resume=True)
        with pytest.raises(ModelError, match="holds a run already"):
            local.begin_or_resume(files, SETTINGS, resume=False)


def test_a_round_is_told_on_the_chain():
    record = a_round(1, initial(3, 0), initial(3, 1))
    body = body_of(SETTINGS, record)
    assert body.after == model_hash(initial(3, 1))
    assert [one.site for one in body.updates] == ["busan", "seoul"]
    assert (body.absent, body.metrics) == (("jeju",), (("rmse_before", 14.5),))
    private = replace(record, rmse=None, epsilon=3.5, delta=1e-3)
    spent = body_of(replace(SETTINGS, noise=2.0, clip=0.1), private).privacy
    assert (spent.noise, spent.epsilon) == (2.0, 3.5)
    with pytest.raises(ModelError, match=r"training-round\.absent"):
        body_of(SETTINGS, replace(record, absent={"busan": "away"}))


@pytest.mark.parametrize("text", ["", "1", "0@1", "1@0", "1@3-2", "a@1", "1@2-3-4"])
def test_drops_that_make_no_sense_are_refused(text):
    with pytest.raises(ValueError, match=r"from 1|SITE@ROUND|upwards"):
        local.Drop.of(text)
    assert local.Drop.of("2@3-5") == local.Drop(2, 3, 5)


def test_flower_tells_its_makers_nothing(tmp_path):
    seen = flower.environment(tmp_path / "home")
    assert seen["FLWR_TELEMETRY_ENABLED"] == "0"
    assert seen["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert seen["FLWR_HOME"] == str(tmp_path / "home")


def test_without_flower_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(flower.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"Flower is not installed; .*\[federated\]"):
        flower.Flower(tmp_path)


def test_a_supernode_that_is_never_let_in_is_an_error(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "flower-supernode"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no such key\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for module in (flower, local):
        monkeypatch.setattr(module, "check_installed", lambda: None)
    monkeypatch.setattr(local, "AGAIN_S", 0.0)
    monkeypatch.setattr(local, "MAX_ENDED", 3)
    with pytest.raises(TrainingError, match="ended 3 times in a row: no such key"):
        local.take_part(tmp_path / "site", "127.0.0.1:1", flower.Tls(tmp_path), tmp_path, {})


def test_a_port_that_is_held_is_for_who_asks_for_it_by_its_number():
    with flower.hold_port() as held:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(held.getsockname())
        with socket.create_server(held.getsockname()) as server:  # SO_REUSEADDR
            socket.create_connection(server.getsockname()).close()


def test_a_flwr_that_says_nothing_is_named(tmp_path, monkeypatch):
    program = tmp_path / "flwr"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(flower, "check_installed", lambda: None)
    monkeypatch.setattr(flower, "START_S", 0.1)
    with pytest.raises(TrainingError, match=r"flwr ls .*: says nothing within 0\.1 s"):
        flower.Flower(tmp_path).status("17")


def test_a_run_is_led_by_one_process_at_a_time(tmp_path, monkeypatch):
    files = RunFiles(tmp_path / "run")
    files.begin(SETTINGS)
    monkeypatch.setattr(run_files, "ALONE_S", 0.0)
    with (
        files.alone(),
        pytest.raises(ModelError, match="another process leads"),
        RunFiles(files.directory).alone(),
    ):
        pass
    with files.alone():
        pass


# Holds a file, and can do nothing else any more: it waits for a lock that it has, deaf to signals.
STUCK = """
import fcntl, signal, sys, threading
from cloud.federated import parent
parent.GRACE_S = 0.1
parent.end_with_parent()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
lock = threading.Lock()
lock.acquire()
lock.acquire()
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
"""

# Begins, and is gone before the one that it started looks.
GONE = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", *sys.argv[1:], str(os.getpid())])
"""
LATE = """
import os, sys, time
while os.getppid() == int(sys.argv[2]):
    time.sleep(0.01)
"""


def test_who_leads_a_run_ends_though_its_parent_was_gone_before_it_looked(tmp_path):
    root = Path(run_files.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", GONE, LATE + STUCK, str(tmp_path / "lock")],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}, start_new_session=True,
    )  # fmt: skip
    try:
        # Open as long as one of both is there.
        parent.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()


def test_a_run_is_free_when_the_one_that_started_its_leader_was_killed(tmp_path):
    files = RunFiles(tmp_path)
    root = Path(run_files.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, STUCK, str(tmp_path / run_files.LOCK_FILE)],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}, start_new_session=True,
    )  # fmt: skip
    try:
        assert parent.stdout.readline() == b"held\n"
        parent.send_signal(signal.SIGKILL)
        started = time.monotonic()
        with files.alone():
            print(f"free after {time.monotonic() - started:.1f} s")
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
