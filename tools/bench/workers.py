"""`fogline bench workers`: a training by one of Ray's workers, and by two.

Data are made up, in the format of AI4I, and read and learned from as `fogline train failure
--quick` does. Loading is to read the file, which is done once, here, and to bring what is in it to
the workers; training is the fits. Both clusters start before the clock does. In each round both are
measured, so that a machine that slows down slows both.
"""

from __future__ import annotations

import csv
import os
from json import dumps
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from tools.bench import machine
from tools.errors import ToolError

COUNTS = (1, 2)
_WHICH = ("one_worker_s", "two_workers_s")


def run(rounds: int = 3, rows: int = 2000, json: Path | None = None) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    Args:
        rounds: each measures one worker and two.
        rows: of the made-up data.
        json: where to write the result too.

    Raises:
        MissingExtraError: Ray is not installed. ToolError: the file cannot be written.
    """
    loading: dict[int, list[float]] = {count: [] for count in COUNTS}
    training: dict[int, list[float]] = {count: [] for count in COUNTS}
    loads = []
    with TemporaryDirectory() as directory:
        data = Path(directory) / "made-up.csv"
        _write(data, rows)
        for _ in range(rounds):
            loads.append(os.getloadavg()[0])
            for count in COUNTS:
                loaded, trained = _measured(count, data)
                loading[count].append(loaded)
                training[count].append(trained)
    cores = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "cores": cores,
        "load_average": max(loads),
        "rows": rows,
        "limit": float(min(2, cores)),
    }
    for name, of in (("loading", loading), ("training", training)):
        one, two = (median(of[count]) for count in COUNTS)
        result[name] = {"one_worker_s": one, "two_workers_s": two, "ratio": one / two}
    one, two = (result["loading"][which] + result["training"][which] for which in _WHICH)
    result["ratio"] = one / two
    print(", ".join(f"{name} {value}" for name, value in machine.describe().items()))
    for name in ("loading", "training"):
        print(f"{name}: " + _line(*(result[name][which] for which in _WHICH)))
    print(
        f"together: {_line(one, two)}, at most {result['limit']:.0f} x on {cores} cores; load "
        f"average up to {max(loads):.1f}"
    )
    if max(loads) > cores - 1:
        print("others were at work on these cores: run it again in quiet")
    if json is not None:
        try:
            json.write_text(dumps(result, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ToolError(f"{json}: {error.strerror}; name a file that can be written") from error
    return result


def _line(one: float, two: float) -> str:
    return f"one worker {one:.2f} s, two {two:.2f} s: {one / two:.2f} x"


def _write(path: Path, rows: int) -> None:
    """Rows of the format, which fail by the strain and by chance."""
    from cloud.train.failure_data import (
        FAILURE_COLUMN,
        ID_COLUMN,
        MEASURED,
        MODES,
        TYPE_COLUMN,
        TYPES,
    )

    random = np.random.default_rng(0)
    means, deviations = (300, 310, 1540, 40, 110), (2, 1.5, 180, 10, 60)
    measured = np.abs(random.normal(means, deviations, (rows, len(means))))
    failed = measured[:, 3] * measured[:, 4] + random.normal(0, 1500, rows) > 8000
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((ID_COLUMN, TYPE_COLUMN, *MEASURED, FAILURE_COLUMN, *MODES))
        for number, (values, fails) in enumerate(zip(measured, failed, strict=True), start=1):
            kind = list(TYPES)[number % len(TYPES)]
            modes = [int(fails and mode == "OSF") for mode in MODES]
            shown = [f"{value:.1f}" for value in values]
            writer.writerow((number, kind, *shown, int(fails), *modes))


def _measured(count: int, path: Path) -> tuple[float, float]:
    """Seconds to load, and to train."""
    from cloud.scale_out import workers
    from cloud.train.failure import candidates
    from cloud.train.failure_data import read_failures
    from cloud.train.job import Job
    from cloud.train.super_learner import fit_super_learner

    found = candidates(Job(Path(), quick=True))
    with workers(str(count)) as pool:
        # The first task of a worker loads scikit-learn.
        few = np.random.default_rng(0).normal(size=(60, 8))
        fit_super_learner(found, few, np.arange(60) % 2 == 0, 0, lambda: None, pool)
        start = perf_counter()
        data = read_failures(path, labelled=True)
        assert data.failed is not None
        if list(pool.map(_count, range(count), data.features)) != [len(data)] * count:
            raise ToolError("workers: were not given all rows; run it again")
        loaded = perf_counter()
        fit_super_learner(found, data.features, data.failed, 0, lambda: None, pool)
        return loaded - start, perf_counter() - loaded


def _count(_: int, features: Any) -> int:
    return len(features)
