"""`fogline bench workers`: the super learner's fits by one of Ray's workers, and by two.

Data are made up, the fits are those of `fogline train failure --quick`. Both clusters start before
the clock does. In each round both are measured, so that a machine that slows down slows both.
"""

from __future__ import annotations

import os
from json import dumps
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from tools.bench import machine
from tools.errors import ToolError

COUNTS = (1, 2)
FEATURES = 8


def run(rounds: int = 3, rows: int = 2000, json: Path | None = None) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    Args:
        rounds: each measures one worker and two.
        rows: of the made-up data.
        json: where to write the result too.

    Raises:
        MissingExtraError: Ray is not installed. ToolError: the file cannot be written.
    """
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
    loads = []
    for _ in range(rounds):
        loads.append(os.getloadavg()[0])
        for count in COUNTS:
            seconds[count].append(_measured(count, rows))
    one, two = (median(seconds[count]) for count in COUNTS)
    cores = len(os.sched_getaffinity(0))
    result = {
        "machine": machine.describe(),
        "cores": cores,
        "load_average": max(loads),
        "rows": rows,
        "one_worker_s": one,
        "two_workers_s": two,
        "ratio": one / two,
        "limit": float(min(2, cores)),
    }
    print(", ".join(f"{name} {value}" for name, value in machine.describe().items()))
    print(
        f"one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} x, at most "
        f"{result['limit']:.0f} x on {cores} cores; load average up to {max(loads):.1f}"
    )
    if max(loads) > cores - 1:
        print("others were at work on these cores: run it again in quiet")
    if json is not None:
        try:
            json.write_text(dumps(result, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ToolError(f"{json}: {error.strerror}; name a file that can be written") from error
    return result


def _measured(count: int, rows: int) -> float:
    from cloud.scale_out import workers
    from cloud.train.failure import candidates
    from cloud.train.job import Job
    from cloud.train.super_learner import fit_super_learner

    random = np.random.default_rng(0)
    features = random.normal(size=(rows, FEATURES))
    labels = features[:, 0] * features[:, 1] + random.normal(size=rows) > 1.5
    found = candidates(Job(Path(), quick=True))
    with workers(str(count)) as pool:
        # The first task of a worker loads scikit-learn.
        fit_super_learner(found, features[:60], np.arange(60) % 2 == 0, 0, lambda: None, pool)
        start = perf_counter()
        fit_super_learner(found, features, labels, 0, lambda: None, pool)
        return perf_counter() - start
