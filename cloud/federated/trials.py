"""What learning across sites is worth: beside one place for all data, and each site by itself.

All rows of the table are the same network with as many looks at each machine, judged by the same
machines. Sites are in this process (`in_process`); Flower's strategies put their updates together.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError
from cloud.intervals import bootstrap
from cloud.train.job import Job
from cloud.train.rul import nasa_score, rmse
from cloud.train.rul_data import TEST, TRAIN, TRUTH, Units, find, read_truth, read_units
from cloud.train.rul_features import Preparation
from cloud.train.rul_network import CAP

from .coordinator import Coordinator
from .in_process import InProcessGrid, Member, turned_round
from .network import Arrays, cycles, initial
from .run_files import RoundRecord, RunFiles, Settings
from .scales import Scales, put_together
from .site import EPOCHS, Site, Task, deal

ROUNDS = 30
QUICK_ROUNDS = 8
# Folder of the trials' runs.
RUNS = "runs"
# With noise: steps of a round; few, for each of them spends.
STEPS = 5
# Noise in clips, and the clip, of the rows with privacy.
NOISES = (1.0, 4.0)
CLIP = 0.1


@dataclass(frozen=True)
class Trial:
    """One way to learn across sites.

    Attributes:
        name: in the table.
        strategy: Flower's.
        has_liar: whether the first site poisons its updates.
        drops: whether in each round another site is away.
        noise: in clips; None for none.
    """

    name: str
    strategy: str = "fedavg"
    has_liar: bool = False
    drops: bool = False
    noise: float | None = None


TRIALS = (
    Trial("federated averaging"),
    Trial("federated averaging, another site away in each round", drops=True),
    Trial("trimmed mean", "trimmed-mean"),
    Trial("Krum", "krum"),
    Trial("federated averaging, one site poisoned", has_liar=True),
    Trial("trimmed mean, one site poisoned", "trimmed-mean", has_liar=True),
    Trial("Krum, one site poisoned", "krum", has_liar=True),
    *(Trial(f"federated averaging, noise {noise:g}", noise=noise) for noise in NOISES),
)


@dataclass(frozen=True)
class Judge:
    """Machines that no site has: the last row of each, and the cycles that it had left."""

    units: Units
    left: npt.NDArray[np.float64]

    @classmethod
    def read(cls, data: Path) -> Judge:
        """Read the subset's `test_` and `RUL_` files; raises RecordingError."""
        units = read_units(find(data, TEST))
        return cls(units, np.minimum(read_truth(find(data, TRUTH), units), CAP))

    def told(self, arrays: Arrays, preparation: Preparation) -> npt.NDArray[np.float64]:
        """What a model says of them, in cycles."""
        return cycles(arrays, preparation.features(self.units)[self.units.ends])


def evaluate(data: Path, job: Job, sites: int, split: str) -> dict[str, Any]:
    """Make the table.

    Args:
        data: as `cloud.train.rul` takes it.
        job: quick has fewer rounds.
        sites: among how many the machines are dealt out.
        split: how; see `site.deal`.

    Raises:
        RecordingError, TrainingError, MissingExtraError. ModelError: `job.out` holds a table.
    """
    if (job.out / RUNS).exists():
        raise ModelError(
            f"{job.out / RUNS}: holds runs of another table", "name another --out, or remove them"
        )
    judge = Judge.read(data)
    units = read_units(find(data, TRAIN))
    dealt = deal(units, sites, split, job.seed)
    rounds = QUICK_ROUNDS if job.quick else ROUNDS
    done, of = 0, 1 + sites + len(TRIALS)
    # Flower tells of every round that it adds up: hundreds of lines that say nothing of the table.
    logging.getLogger("flwr").setLevel(logging.WARNING)

    def step(name: str) -> None:
        nonlocal done
        job.progress(name, done, of)
        done += 1

    rows: list[dict[str, Any]] = []
    step("all machines in one place")
    rows.append(
        _row(
            "all machines in one place",
            [_alone("central", units, rounds, job.seed, judge)],
            judge,
            job.seed,
        )
    )
    alone = []
    for number, part in enumerate(dealt, start=1):
        step(f"site {number} alone")
        alone.append(_alone(f"site-{number}", part, rounds, job.seed, judge))
    rows.append(_row("each site alone, mean", alone, judge, job.seed))
    worst = max(alone, key=lambda told: rmse(told, judge.left))
    rows.append(_row("each site alone, worst", [worst], judge, job.seed))
    for trial in TRIALS:
        step(trial.name)
        rows.append(_tried(trial, dealt, rounds, job, judge))
    result = {
        "task": "rul",
        "data": find(data, TRAIN).name,
        "protocol": (
            f"machines of the train_ file dealt out to {sites} sites ({split}); {rounds} rounds of "
            f"{EPOCHS} epochs, everywhere the same network; judged by the last row of each machine "
            f"of the test_ file, cycles capped at {CAP:.0f}"
        ),
        "machines": [len(part.ends) for part in dealt],
        "judged": len(judge.left),
        "seed": job.seed,
        "quick": job.quick,
        "results": rows,
        "verdict": _verdict(rows),
    }
    job.out.mkdir(parents=True, exist_ok=True)
    return job.keep(result)


def settings_of(trial: Trial, sites: int, rounds: int, seed: int, machines: int) -> Settings:
    """Settings of a trial's run; it goes on whoever is away."""
    return Settings(
        run=secrets.token_hex(16),
        task="rul",
        strategy=trial.strategy,
        rounds=rounds,
        epochs=EPOCHS,
        seed=seed,
        sites=sites,
        min_sites=2,
        liars=1,
        round_s=1.0,
        noise=trial.noise,
        clip=None if trial.noise is None else CLIP,
        steps=0 if trial.noise is None else STEPS,
        machines=0 if trial.noise is None else machines,
    )


def _tried(
    trial: Trial, dealt: Sequence[Units], rounds: int, job: Job, judge: Judge
) -> dict[str, Any]:
    files = RunFiles(job.out / RUNS / trial.name.replace(" ", "-").replace(",", ""))
    machines = min(len(part.ends) for part in dealt)
    files.begin(settings_of(trial, len(dealt), rounds, job.seed, machines))
    members = []
    for number, part in enumerate(dealt):
        away = range(1 + number, rounds + 1, len(dealt)) if trial.drops else ()
        lie = turned_round if trial.has_liar and number == 0 else None
        members.append(Member(f"site-{number + 1}", part, lie, frozenset(away)))
    last: list[RoundRecord] = []
    arrays = Coordinator(files, lambda record, _: last.append(record)).run(
        InProcessGrid(members, noise_seed=job.seed)
    )
    card = files.preparation()
    assert card is not None
    told = judge.told(arrays, Preparation.of_card(card))
    spent = {"epsilon": last[-1].epsilon, "delta": last[-1].delta} if trial.noise else {}
    return _row(trial.name, [told], judge, job.seed) | spent


def _alone(
    name: str, units: Units, rounds: int, seed: int, judge: Judge
) -> npt.NDArray[np.float64]:
    """What a model says that has seen these units only."""
    preparation = put_together([Scales.of(units)])
    site = Site(name, units, preparation)
    arrays = initial(preparation.channels, seed)
    for number in range(1, rounds + 1):
        arrays = site.work(arrays, Task(number, rounds, seed)).arrays
    return judge.told(arrays, preparation)


def _row(
    name: str, told: Sequence[npt.NDArray[np.float64]], judge: Judge, seed: int
) -> dict[str, Any]:
    """A row: of several models the mean of their figures, machines drawn alike for all."""

    def mean_rmse(left: npt.NDArray[np.float64], *each: npt.NDArray[np.float64]) -> float:
        return float(np.mean([rmse(one, left) for one in each]))

    return {
        "model": name,
        **bootstrap(mean_rmse, judge.left, *told, seed=seed).row("rmse"),
        "nasa_score": float(np.mean([nasa_score(one, judge.left) for one in told])),
        "epsilon": None,
        "delta": None,
    }


def _verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    by_name = {row["model"]: row["rmse"] for row in rows}
    central, alone = by_name["all machines in one place"], by_name["each site alone, mean"]
    federated = by_name["federated averaging"]
    if alone <= central:
        return f"there is nothing to win: a site alone has {alone:.2f}, all together {central:.2f}"
    share = (alone - federated) / (alone - central)
    return (
        f"federated averaging has {federated:.2f}, all machines in one place {central:.2f}, a site "
        f"alone {alone:.2f}: it wins {share:.0%} of what bringing the data together would"
    )
