"""Tables of machines in the AI4I format, and a model of them that takes no training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from cloud.model_files import save_sklearn, write_card
from cloud.train import failure
from cloud.train.failure_data import read_failures

HEADER = (
    "UDI", "Product ID", "Type", "Air temperature [K]", "Process temperature [K]",
    "Rotational speed [rpm]", "Torque [Nm]", "Tool wear [min]", "Machine failure", "TWF", "HDF",
    "PWF", "OSF", "RNF",
)  # fmt: skip


def write(path: Path, *rows: tuple[str, ...], header: tuple[str, ...] = HEADER) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def simulated(path: Path, count: int, seed: int) -> Path:
    """Machines of which the half that turns hard fails of overstrain."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        torque, wear = random.uniform(20, 60), random.uniform(100, 240)
        fails = str(int(torque * wear > 9000))
        rows.append(
            (str(number), "x", "L", "300.0", "311.0", "1500", f"{torque:.1f}", f"{wear:.0f}",
             fails, "0", "0", "0", fails, "0")
        )  # fmt: skip
    return write(path, *rows)


def quick_model(directory: Path, data: Path) -> Path:
    """A directory as `fogline train failure` writes it, of one small forest."""
    from sklearn.ensemble import RandomForestClassifier

    rows = read_failures(data, labelled=True)
    directory.mkdir()
    for name, labels in (("forest.skops", rows.failed), (failure.MODES_FILE, rows.modes)):
        forest = RandomForestClassifier(5, random_state=0).fit(rows.features, labels)
        save_sklearn(directory / name, forest)
    card = {"task": failure.TASK, "weights": {"forest": 1.0}, "threshold": 0.5}
    write_card(directory, card)
    return directory
