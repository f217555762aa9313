"""`fogline bench workers`: loading and training by one of Ray's workers, and by two.

All data are made up. Loaded are images, as `fogline train quality` reads them; trained are the
fits of `fogline train failure --quick` and the ten networks of `fogline train rul`, to the file
that runs. Both clusters start, and load what they need, before the clock does. In each round both
are measured, so that a machine that slows down slows both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.scale_out import Pool, workers
from tools.bench import machine
from tools.errors import ToolError
from tools.outputs import write_json

COUNTS = (1, 2)
# Pixels a side of an image, as of the casting set; so many are different.
SIDE, DIFFERENT = 512, 20
# Rows of a machine that ran until it failed, and how many rows there are for each of `failure`.
CYCLES, TIMES = 200, 5
CHANNELS = 76
EPOCHS = 20


@dataclass(frozen=True)
class _Made:
    """What is loaded and learned from: files of images; features and labels of rows."""

    images: list[Path] = field(repr=False)
    features: npt.NDArray[np.float64] = field(repr=False)
    failed: npt.NDArray[np.bool_] = field(repr=False)
    lives: npt.NDArray[np.float32] = field(repr=False)


def run(
    rounds: int = 3, rows: int = 2000, images: int = 1000, json: Path | None = None
) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    Args:
        rounds: each measures one worker and two.
        rows: of the made-up data.
        images: to load.
        json: where to write the result too.

    Raises:
        MissingExtraError: Ray is not installed. ToolError: two workers gave something else than
        one; the file cannot be written.
    """
    seconds: dict[str, dict[int, list[float]]] = {
        name: {count: [] for count in COUNTS} for name in _WORK
    }
    # Before it works itself: two workers are a load average of two.
    load = os.getloadavg()[0]
    with TemporaryDirectory() as directory:
        made = _make(Path(directory), rows, images)
        for _ in range(rounds):
            one, two = (_measure(count, made, seconds) for count in COUNTS)
            for name in _WORK:
                if one[name] != two[name]:
                    raise ToolError(f"{name}: two workers gave something else than one; report it")
    cores = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "cores": cores,
        "load_average": load,
        "rows": rows,
        "images": images,
        "limit": float(min(2, cores)),
    }
    print(", ".join(f"{name} {value}" for name, value in machine.describe().items()))
    for name, of in seconds.items():
        one_s, two_s = (median(of[count]) for count in COUNTS)
        result[name] = {"one_worker_s": one_s, "two_workers_s": two_s, "ratio": one_s / two_s}
        print(f"{name}: one worker {one_s:.2f} s, two {two_s:.2f} s: {one_s / two_s:.2f} x")
    print(
        f"at most {result['limit']:.0f} x on {cores} cores; load average before it {load:.1f}; "
        "the results of both are the same"
    )
    if load > cores - 1:
        print("others were at work on these cores: run it again in quiet")
    if json is not None:
        write_json(json, result)
    return result


def _measure(count: int, made: _Made, seconds: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """Note how long each takes; what each gives, to compare."""
    given = {}
    with workers(str(count)) as pool:
        list(pool.map(_prepare, range(count), None))
        _prepare(0, None)
        for name, work in _WORK.items():
            start = perf_counter()
            given[name] = work(pool, made)
            seconds[name][count].append(perf_counter() - start)
    return given


def _prepare(_: int, __: Any) -> None:
    """Load what a process loads once."""
    for name in ("keras", "PIL.Image", "sklearn.ensemble", "sklearn.neural_network"):
        import_module(name)


def _load(pool: Pool, made: _Made) -> Any:
    from cloud.images import read_all
    from cloud.train.quality import SIDES

    return [
        sha256(squares.tobytes()).digest() for squares in read_all(made.images, SIDES, pool=pool)
    ]


def _train_failure(pool: Pool, made: _Made) -> Any:
    from cloud.train.failure import candidates
    from cloud.train.job import Job
    from cloud.train.super_learner import fit_super_learner

    found = candidates(Job(Path(), quick=True))
    return fit_super_learner(found, made.features, made.failed, 0, lambda: None, pool).weights


def _train_rul(pool: Pool, made: _Made) -> Any:
    from cloud.train.rul_network import Shape, fit_ensemble, judged

    rows = np.arange(len(made.lives))
    unit, cycle = rows // CYCLES, rows % CYCLES + 1
    left = (CYCLES - cycle).astype(np.float64)
    return fit_ensemble(
        made.lives, left, unit, judged(left, cycle), Shape(epochs=EPOCHS), seed=0, pool=pool
    ).int8.data


_WORK: dict[str, Callable[[Pool, _Made], Any]] = {
    "loading images": _load,
    "training failure": _train_failure,
    "training rul": _train_rul,
}


def _make(directory: Path, rows: int, images: int) -> _Made:
    """Write images of smooth noise; rows that fail by the strain and by chance, and that age."""
    from PIL import Image

    random = np.random.default_rng(0)
    paths: list[Path] = []
    for number in range(images):
        path = directory / f"{number}.jpeg"
        if number < DIFFERENT:
            small = Image.fromarray(random.integers(0, 256, (SIDE // 8, SIDE // 8), np.uint8))
            small.resize((SIDE, SIDE)).save(path, quality=90)
        else:
            path.write_bytes(paths[number % DIFFERENT].read_bytes())
        paths.append(path)
    features = random.normal(size=(rows, 8))
    failed = features[:, 3] * features[:, 4] + random.normal(0, 0.5, rows) > 1.5
    ages = np.arange(rows * TIMES) % CYCLES / CYCLES
    lives = random.normal(size=(rows * TIMES, CHANNELS)) + ages[:, np.newaxis]
    return _Made(paths, features, failed, lives.astype(np.float32))
