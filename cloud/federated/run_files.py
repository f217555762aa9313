"""What a training across sites leaves on disk, so that it can go on, be recorded and be checked.

    run.json        what was agreed at the start: settings, and how sensors are scaled
    rounds/0001.json, rounds/0001.npz    a round's record, and the model after it
    result.json     written at the end
    lock            held by whoever leads the run

A round's record is written after its model, by renaming: what is there is whole.
"""

from __future__ import annotations

import fcntl
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloud.errors import ModelError
from cloud.files import save_file

from .network import Arrays, model_hash, shapes

RUN_FILE, RESULT_FILE, ROUNDS, LOCK_FILE = "run.json", "result.json", "rounds", "lock"
# For so long one who leads a run may take to end after it was told to, or lost its SuperLink.
ALONE_S = 60.0
POLL_S = 0.2
# Flower wants older versions of what the rest of Fogline runs with: an environment of its own.
FEDERATED_PINS = "requirements-federated.txt"
STRATEGIES = ("fedavg", "trimmed-mean", "krum")
# Of two sites each would know the other's update by the sum and its own.
LEAST_MASKED = 3
# Of a round under masks: keys, shares, updates, and shares again.
EXCHANGES = 4
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Masks:
    """How updates are added up so that nobody sees a single one; see `masked`.

    Attributes:
        shares: of a site's keys, one for each site near it.
        threshold: how many of them it takes to put a key together.
        clipping: what no weight of the network may go beyond.
        levels: into which weights are rounded from there to there.
    """

    shares: int
    threshold: int
    clipping: float
    levels: int


@dataclass(frozen=True)
class Settings:
    """What is agreed at the start of a run and does not change.

    Attributes:
        run: its number, 32 hex digits.
        task: what is learned.
        strategy: one of STRATEGIES.
        rounds, epochs, seed: how long, and by which luck.
        sites: how many are to come.
        min_sites: with fewer answers a round does not count.
        liars: how many sites may send anything without harm; for robust strategies.
        round_s: how long a round may take.
        noise, clip: of differential privacy; None for none.
        steps, machines: of a round with noise, and of a site; see `network.Noise`.
        masks: of secure aggregation; None for none.
        held_out: machines of the file that no site was dealt; of a run on one machine.
    """

    run: str
    task: str
    strategy: str
    rounds: int
    epochs: int
    seed: int
    sites: int
    min_sites: int
    liars: int
    round_s: float
    noise: float | None = None
    clip: float | None = None
    steps: int = 0
    machines: int = 0
    masks: Masks | None = None
    held_out: int = 0

    @property
    def longest_round_s(self) -> float:
        """How long a round may take, whoever is away: with masks it is several exchanges."""
        return self.round_s * (1 if self.masks is None else EXCHANGES)


@dataclass(frozen=True)
class SiteRecord:
    """A site's part in a round; see `fog_node.protocol.training_rounds.SiteUpdate`."""

    site: str
    member: str | None
    update: str | None
    examples: int | None


@dataclass(frozen=True)
class RoundRecord:
    """A round; hashes in hex.

    Attributes:
        rmse: of the model before the round, over all sites' machines, in cycles; None where that
            is private.
        absent: site to the reason why it gave nothing.
        epsilon, delta: spent up to and with this round; None without noise.
        time: ms since 1970.
    """

    round: int
    before: str
    after: str
    sites: tuple[SiteRecord, ...]
    absent: dict[str, str]
    rmse: float | None
    epsilon: float | None
    delta: float | None
    time: int


class RunFiles:
    """The directory of one run."""

    def __init__(self, directory: Path) -> None:
        """Nothing is read or made yet."""
        self.directory = directory

    def begin(self, settings: Settings) -> None:
        """Make the directory; raises ModelError where there is a run in it already."""
        if (self.directory / RUN_FILE).exists():
            raise ModelError(
                f"{self.directory}: holds a run already", "give --resume, or another directory"
            )
        (self.directory / ROUNDS).mkdir(parents=True, exist_ok=True)
        self._write(RUN_FILE, {"settings": asdict(settings), "preparation": None})

    def settings(self) -> Settings:
        """What was agreed; raises ModelError."""
        try:
            value = dict(self._read(RUN_FILE)["settings"])
            masks = value.pop("masks")
            return Settings(**value, masks=None if masks is None else Masks(**masks))
        except (KeyError, TypeError) as error:
            raise self._damaged(RUN_FILE, error) from error

    def lengthen(self, rounds: int) -> None:
        """Let the run have more rounds."""
        value = self._read(RUN_FILE)
        value["settings"] = asdict(replace(self.settings(), rounds=rounds))
        self._write(RUN_FILE, value)

    def preparation(self) -> dict[str, Any] | None:
        """How sensors are scaled, as `Preparation.card` gives it; None before that is known."""
        found: dict[str, Any] | None = self._read(RUN_FILE).get("preparation")
        return found

    def keep_preparation(self, card: dict[str, Any]) -> None:
        """Note how sensors are scaled."""
        self._write(RUN_FILE, self._read(RUN_FILE) | {"preparation": card})

    def note_asked(self) -> None:
        """Count a request to all sites to learn with noise."""
        self._write(RUN_FILE, self._read(RUN_FILE) | {"asked": self.asked() + 1})

    def asked(self) -> int:
        """How often sites were asked to learn with noise."""
        found: int = self._read(RUN_FILE).get("asked", 0)
        return found

    def keep_round(self, record: RoundRecord, arrays: Arrays) -> None:
        """Note a round that is over."""
        name = f"{ROUNDS}/{record.round:04}"
        model = io.BytesIO()
        np.savez(model, *arrays)
        save_file(self.directory / f"{name}.npz", model.getvalue())
        self._write(f"{name}.json", asdict(record))

    def rounds(self) -> list[RoundRecord]:
        """All rounds that are over, in order; raises ModelError where they are no chain."""
        found: list[RoundRecord] = []
        paths = (self.directory / ROUNDS).glob("*.json")
        # By number: that of round 10000 has a digit more.
        for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
            name = f"{ROUNDS}/{path.name}"
            try:
                value = self._read(name)
                sites = tuple(SiteRecord(**one) for one in value.pop("sites"))
                record = RoundRecord(**value, sites=sites)
            except (KeyError, TypeError) as error:
                raise self._damaged(name, error) from error
            if record.round != len(found) + 1 or (found and found[-1].after != record.before):
                raise self._damaged(name, "does not follow the round before it")
            found.append(record)
        return found

    def model(self, record: RoundRecord) -> Arrays:
        """The model after a round; raises ModelError where it is not the one of the record."""
        name = f"{ROUNDS}/{record.round:04}.npz"
        path = self.directory / name
        self._check_size(name)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[f"arr_{at}"].astype(np.float32) for at in range(len(file.files))]
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(name, error) from error
        if not arrays or [one.shape for one in arrays] != shapes(arrays[0].shape[0]):
            raise self._damaged(name, "is no network of this version of Fogline")
        if model_hash(arrays).hex() != record.after:
            raise self._damaged(name, "is not the model whose hash the round's record has")
        return arrays

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run's lock, which the system lets go of with the process that has it.

        Raises:
            ModelError: another process holds it for ALONE_S.
        """
        path = self.directory / LOCK_FILE
        with path.open("ab") as file:
            deadline = time.monotonic() + ALONE_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise ModelError(
                            f"{self.directory}: another process leads this run",
                            "wait until it is over, or end it",
                        ) from error
                time.sleep(POLL_S)
            yield

    def finish(self, result: dict[str, Any]) -> None:
        """Note that it is over."""
        self._write(RESULT_FILE, result)

    def result(self) -> dict[str, Any] | None:
        """What `finish` was given; None before."""
        return self._read(RESULT_FILE) if (self.directory / RESULT_FILE).exists() else None

    def forget_result(self) -> None:
        """It goes on."""
        (self.directory / RESULT_FILE).unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any]:
        self._check_size(name)
        try:
            value = json.loads((self.directory / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(name, error) from error
        if not isinstance(value, dict):
            raise self._damaged(name, "is no JSON object")
        return value

    def _write(self, name: str, value: dict[str, Any]) -> None:
        save_file(self.directory / name, (json.dumps(value, indent=1) + "\n").encode())

    def _check_size(self, name: str) -> None:
        try:
            size = (self.directory / name).stat().st_size
        except OSError as error:
            raise ModelError(
                f"{self.directory / name}: cannot be read: {error.strerror}",
                "give the directory of a run",
            ) from error
        if size > MAX_FILE_BYTES:
            raise self._damaged(name, f"is larger than {MAX_FILE_BYTES} bytes")

    def _damaged(self, name: str, why: object) -> ModelError:
        return ModelError(
            f"{self.directory / name}: {why}",
            "begin another run; a directory is whole as long as nobody changes files in it",
        )
