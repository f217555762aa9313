"""Training by Ray's workers: the same model as here, and nobody told of it."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from cloud import images, scale_out
from cloud.errors import ChainError, MissingExtraError, TrainingError
from cloud.scale_out import HERE, workers
from cloud.train import rul_network
from cloud.train.super_learner import fit_super_learner

DEADLINE_S = 60
LISTENING = "0A"  # in /proc/net/tcp


def candidates():
    return {
        "linear": LogisticRegression,
        "forest": lambda: RandomForestClassifier(5, random_state=0),
    }


def fit(pool):
    random = np.random.default_rng(1)
    features = random.normal(size=(200, 3))
    labels = features[:, 0] + 0.1 * random.normal(size=200) > 0.5
    steps = []
    learner = fit_super_learner(candidates(), features, labels, 0, lambda: steps.append(1), pool)
    return learner, features, len(steps)


def family() -> set[int]:
    """Processes that this one has started, and those that they have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                parents[int(stat.parent.name)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def listening(pids: set[int]) -> set[str]:
    """Addresses, as the kernel writes them, that these processes listen on."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == LISTENING and row[9] in inodes}


def is_loopback(address: str) -> bool:
    host = address.partition(":")[0]
    return host in {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}


@pytest.fixture(scope="module")
def pool():
    """Two workers, which end with the tests that they work for."""
    before = family()
    with workers("2") as pool:
        yield pool
        started = family() - before
    deadline = time.monotonic() + DEADLINE_S  # Ray kills what has not ended within a second
    while left := started & family():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_workers_make_the_same_model_on_this_machine_alone(pool):
    spread, features, steps = fit(pool)
    addresses = listening(family())
    assert len(addresses) > 2
    assert [address for address in addresses if not is_loopback(address)] == []
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    here, _, same = fit(HERE)
    assert steps == same == 12
    assert spread.weights == pytest.approx(here.weights)
    for name, values in here.out_of_fold.items():
        assert spread.out_of_fold[name] == pytest.approx(values)
    told = spread.combined(spread.predict(features))
    assert told == pytest.approx(here.combined(here.predict(features)))


def networks(pool):
    random = np.random.default_rng(1)
    unit = np.repeat(np.arange(4), 30)
    features = random.normal(size=(len(unit), 3)).astype(np.float32)
    shape = rul_network.Shape(parts=2, repeats=1, hidden=(8,), epochs=2, batch=64)
    losses = []
    found = rul_network.fit_ensemble(
        features, np.tile(np.arange(30.0), 4), unit, unit < 4, shape, seed=3,
        told=lambda number, of: losses.append((number, of)), pool=pool,
    )  # fmt: skip
    return found.int8.data, found.float_data, found.margin, losses


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_networks_are_the_same_bytes_wherever_they_were_trained(pool):
    here, there = networks(HERE), networks(pool)
    assert [number for number, _ in here[-1]] == [0, 1]
    assert here == there


class After:
    """Workers whose files have become others."""

    def __init__(self, pool, change):
        self.pool, self.change = pool, change

    def map(self, function, items, shared):
        self.change()
        return self.pool.map(function, items, shared)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_images_are_read_by_workers_that_have_the_same(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 2)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((20, 20), number, np.uint8)).save(path)
    told = []
    there = images.read_all(paths, [16, 18], lambda *done: told.append(done), pool)
    assert told == [(2, 5), (4, 5), (5, 5)]
    for mine, theirs in zip(images.read_all(paths, [16, 18]), there, strict=True):
        assert mine.tolist() == theirs.tolist()
    machine = re.escape(socket.gethostname())
    other = After(pool, lambda: paths[1].write_bytes(paths[0].read_bytes()))
    with pytest.raises(TrainingError, match=rf"1\.png: is another file on {machine}, unlike "):
        images.read_all(paths, [16], pool=other)
    gone = After(pool, paths[4].unlink)
    with pytest.raises(TrainingError, match=rf"4\.png: cannot be read \(.*\) on {machine}, "):
        images.read_all(paths, [16], pool=gone)


def twice(item, notes):
    """Note that it begins; a number from 10 on has its worker killed, the first time."""
    with (notes / str(item)).open("a") as file:
        file.write("begun\n")
    if item >= 20 or (item >= 10 and begun(notes, item) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def begun(notes, item):
    return len((notes / str(item)).read_text().splitlines())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_part_whose_worker_is_killed_is_done_again(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(scale_out, "RETRIES", 1)
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    assert list(pool.map(twice, [1, 10, 2], tmp_path)) == [2, 20, 4]
    assert begun(tmp_path, 10) == 2
    with pytest.raises(TrainingError, match="part 2 of 2: lost its worker, and 1 "):
        list(pool.map(twice, [3, 20], tmp_path))
    assert begun(tmp_path, 20) == 2
    with pytest.raises(TypeError):
        list(pool.map(twice, ["no number"], tmp_path))


def test_errors_come_back_as_they_were():
    for error in (ChainError(3, "is empty"), MissingExtraError("Ray", "ray")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("where", ["0", "65", "two", "http://127.0.0.1:1", "-1"])
def test_what_is_no_number_or_address_is_refused(where):
    with pytest.raises(TrainingError, match="--workers"), workers(where):
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"Ray is not installed; .*\[ray\]"), workers("2"):
        pass


def test_a_token_that_is_not_there_is_named(monkeypatch):
    import ray

    def refuse(**_):
        raise ray.exceptions.AuthenticationError("no authentication token was found")

    monkeypatch.setattr(ray, "init", refuse)
    named = "RAY_AUTH_MODE=token, and there is no token; put the one of"
    with pytest.raises(TrainingError, match=named), workers("ray://127.0.0.1:10001"):
        pytest.fail("went on")


def test_a_task_that_trains_in_one_piece_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", "train", "anomaly", "--data", tmp_path, "--out",
         tmp_path, "--workers", "2"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "anomaly trains in one piece, not so failure, rul, quality, demand" in done.stderr
