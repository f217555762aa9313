"""A site: machines of its own, and what it does with a model that comes in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloud.errors import TrainingError
from cloud.train.rul_data import TRAIN, Units, find, read_units
from cloud.train.rul_features import Preparation
from cloud.train.rul_network import CAP, judged

from .network import Arrays, Noise, Rows, cycles, learn, learn_privately

# Rate and epochs were chosen on training machines of FD001 alone, a quarter of them left out.
LEARNING_RATE = 4e-3
# Local epochs of a round.
EPOCHS = 5
# Of a site with one machine, a mean is that machine's.
MIN_MACHINES = 2


@dataclass(frozen=True)
class Task:
    """What a site is asked to do in one round.

    Attributes:
        round, rounds: this one, from 1, and how many there are to be: the rate falls with them.
        seed: of order and dropout.
        epochs: over the site's rows.
        noise: None to learn without.
    """

    round: int
    rounds: int
    seed: int
    epochs: int = EPOCHS
    noise: Noise | None = None

    @property
    def rate(self) -> float:
        """Of learning: half a cosine from LEARNING_RATE down."""
        return LEARNING_RATE * 0.5 * (1 + float(np.cos(np.pi * (self.round - 1) / self.rounds)))


@dataclass(frozen=True)
class Update:
    """What leaves a site after a round: its model, and two numbers.

    Attributes:
        arrays: of the network.
        examples: rows learned from; None where that is private.
        rmse: of the model that came in, on the site's own machines, in cycles; None as above.
    """

    arrays: Arrays
    examples: int | None
    rmse: float | None


class Site:
    """Machines of one site, as they are prepared for all."""

    def __init__(self, name: str, units: Units, preparation: Preparation) -> None:
        """Prepare the rows; raises RecordingError for an operating condition nobody knows."""
        self.name = name
        self._features = preparation.features(units)
        left = units.left()
        self._left = np.minimum(left, CAP)
        self._target = (self._left / CAP).astype(np.float32)
        self._slices = list(units.slices)
        self._judged = judged(left, units.cycle)

    def work(self, arrays: Arrays, task: Task, random: np.random.Generator | None = None) -> Update:
        """Learn from the site's machines, beginning with what all sites have.

        Args:
            arrays: of the model that came in.
            task: what to do.
            random: of the noise, for trials that are to be repeated. By default it is the
                operating system's, which nobody can subtract afterwards.
        """
        if task.noise is not None:
            machines = [(self._features[rows], self._target[rows]) for rows in self._slices]
            secret = np.random.default_rng() if random is None else random
            found = learn_privately(arrays, machines, task.noise, rate=task.rate, random=secret)
            return Update(found, None, None)
        order = np.random.default_rng(_seed(task.seed, self.name, task.round))
        found = learn(
            arrays, self._features, self._target, epochs=task.epochs, rate=task.rate, random=order
        )
        return Update(found, len(self._features), self._rmse(arrays))

    def _rmse(self, arrays: Arrays) -> float:
        wrong = cycles(arrays, self._features[self._judged]) - self._left[self._judged]
        return float(np.sqrt(np.mean(wrong**2))) if len(wrong) else 0.0

    @property
    def rows(self) -> tuple[Rows, npt.NDArray[np.float32]]:
        """Features, and targets in CAPs."""
        return self._features, self._target


def check_noise(task: Task, least: float | None) -> None:
    """Raise ValueError where a site is asked to learn with less noise than its owner wants.

    Args:
        task: what it is asked.
        least: in clips; None where the owner asks for none.
    """
    if least is not None and (task.noise is None or task.noise.noise < least):
        raise ValueError(f"this site learns with noise of {least:g} clips or more only")


def read_site(path: Path) -> Units:
    """Read a site's machines that ran until they failed.

    Args:
        path: a file of the C-MAPSS format, or a folder with one `train_` file in it.

    Raises:
        RecordingError: names file, line and column. TrainingError: too few machines.
    """
    units = read_units(find(path, TRAIN) if path.is_dir() else path)
    if len(units.ends) < MIN_MACHINES:
        raise TrainingError(
            f"{units.path}: has one machine, a site needs {MIN_MACHINES} or more",
            "add machines that ran until they failed, or join another site",
        )
    return units


def hold_out(units: Units, count: int, seed: int) -> tuple[Units, Units]:
    """Keep so many machines aside, by `seed`; gives those, and the others.

    Raises:
        TrainingError: there are no others, or it is a single one.
    """
    slices = list(units.slices)
    if not MIN_MACHINES <= count < len(slices):
        raise TrainingError(
            f"{units.path}: {count} of {len(slices)} machines cannot be kept aside",
            f"keep {MIN_MACHINES} or more, and leave some to the sites",
        )
    order = np.random.default_rng(seed).permutation(len(slices))
    return _those(units, slices, order[:count]), _those(units, slices, order[count:])


def deal(units: Units, count: int, how: str, seed: int) -> list[Units]:
    """Deal machines out to sites.

    Args:
        units: all of them.
        count: of sites.
        how: `random`, or `life`: the first site has those that failed first, as one whose
            machines work hard would.
        seed: of `random`.

    Raises:
        TrainingError: there are too few machines.
    """
    slices = list(units.slices)
    if len(slices) < count * MIN_MACHINES:
        raise TrainingError(
            f"{units.path}: has {len(slices)} machines, {count} sites need "
            f"{count * MIN_MACHINES} or more",
            "take fewer sites",
        )
    lives = np.array([rows.stop - rows.start for rows in slices])
    order = np.argsort(lives, kind="stable")
    if how == "random":
        order = np.random.default_rng(seed).permutation(len(slices))
    return [_those(units, slices, part) for part in np.array_split(order, count)]


def _those(units: Units, slices: list[slice], which: npt.NDArray[np.int64]) -> Units:
    """Some machines, in the order in which they are."""
    rows = np.concatenate([np.arange(slices[at].start, slices[at].stop) for at in sorted(which)])
    return Units(
        units.path, units.unit[rows], units.cycle[rows], units.settings[rows], units.sensors[rows]
    )


def _seed(seed: int, name: str, number: int) -> int:
    """Another one for each site and round, the same after a restart."""
    text = f"{seed} {number} {name}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8])
