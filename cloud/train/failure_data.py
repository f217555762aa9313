"""The AI4I 2020 format: one row per product, with the state of the machine and what failed.

Source: S. Matzka, "Explainable Artificial Intelligence for Predictive Maintenance Applications",
AI4I 2020; UCI machine learning repository, data set 601.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloud.tables import Table, read_table
from fog_node.protocol.labels import NORMAL

from .table_labels import VALUE, TableLabels

FILE = "ai4i2020.csv"
ID_COLUMN = "UDI"
TYPE_COLUMN = "Type"
TYPES = {"L": 0, "M": 1, "H": 2}
AIR, PROCESS = "Air temperature [K]", "Process temperature [K]"
SPEED, TORQUE, WEAR = "Rotational speed [rpm]", "Torque [Nm]", "Tool wear [min]"
MEASURED = (AIR, PROCESS, SPEED, TORQUE, WEAR)
# Least and most that such a machine can show.
RANGES = {
    AIR: (200.0, 400.0),
    PROCESS: (200.0, 500.0),
    SPEED: (0.0, 30_000.0),
    TORQUE: (0.0, 1_000.0),
    WEAR: (0.0, 10_000.0),
}
FAILURE_COLUMN = "Machine failure"
# As engineers label a row of which nobody says how it failed.
FAILURE = "failure"
# RNF, a failure at random, is in the data set and no mode that anything could foretell.
MODES = {
    "TWF": "tool wear",
    "HDF": "heat dissipation",
    "PWF": "power",
    "OSF": "overstrain",
}
FEATURES = (
    "type", "air_temperature", "process_temperature", "rotational_speed", "torque", "tool_wear",
    "temperature_difference", "power", "strain", "strain_share",
)  # fmt: skip
# Of a row, by which it is known again.
DIGEST_BYTES = 8
# Of rows that are made up: share made of rows that failed, and how far they are moved at most.
MADE_UP_OF_FAILED = 0.7
MADE_UP_DEVIATIONS = 0.5
# Wear times torque that the tool of each type bears, min Nm (data set's description).
STRAIN_LIMITS = np.array([11_000.0, 12_000.0, 13_000.0])


@dataclass(frozen=True)
class FailureData:
    """Rows of the data set.

    Attributes:
        ids: as in the file.
        features: float64 [n, len(FEATURES)].
        failed: bool [n]; None where the file has no labels.
        modes: bool [n, len(MODES)]; None where the file has no labels.
    """

    ids: tuple[str, ...] = field(repr=False)
    features: npt.NDArray[np.float64] = field(repr=False)
    failed: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    modes: npt.NDArray[np.bool_] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def only(self, chosen: npt.NDArray[np.bool_]) -> FailureData:
        """Those of the rows that are chosen, bool [n]."""
        ids = tuple(id_ for id_, kept in zip(self.ids, chosen, strict=True) if kept)
        return FailureData(
            ids, self.features[chosen],
            None if self.failed is None else self.failed[chosen],
            None if self.modes is None else self.modes[chosen],
        )  # fmt: skip

    def still(self) -> list[str]:
        """What is the same in all rows: the machine's type, or a sensor, that says nothing."""
        own = zip(FEATURES, self.features[:, : len(MEASURED) + 1].T, strict=False)
        return [name for name, values in own if (values == values[0]).all()]

    def digests(self) -> npt.NDArray[np.uint64]:
        """What tells each row from others: 64 bits of a digest of its id and what was measured."""
        # What physics makes of it might be rounded otherwise on another processor.
        measured = self.features[:, : len(MEASURED) + 1].astype("<f8")
        found = [
            blake2b(row.tobytes() + id_.encode(), digest_size=DIGEST_BYTES).digest()
            for id_, row in zip(self.ids, measured, strict=True)
        ]
        return np.frombuffer(b"".join(found), "<u8").astype(np.uint64)


def source(path: Path) -> Path:
    """The file that is read: the path, or the folder's `ai4i2020.csv`."""
    return path / FILE if path.is_dir() else path


def read_failures(path: Path, *, labelled: bool) -> FailureData:
    """Read a file of the format, or the one that a folder holds.

    Args:
        path: of a CSV file, or of a folder with `ai4i2020.csv` in it.
        labelled: whether labels must be there; otherwise they are not read.

    Raises:
        RecordingError: names file, line and column.
    """
    path = source(path)
    labels = (FAILURE_COLUMN, *MODES) if labelled else ()
    table = read_table(path, (ID_COLUMN, TYPE_COLUMN, *MEASURED, *labels))
    features = _features(table)
    remedy = "give each row its own, so that a prediction can be told to be of it"
    ids = tuple(table.names(ID_COLUMN, remedy))
    if not labelled:
        return FailureData(ids, features)
    modes = np.stack([table.flags(mode) for mode in MODES], axis=1)
    return FailureData(ids, features, table.flags(FAILURE_COLUMN), modes)


def labelled(path: Path, labels: TableLabels) -> FailureData:
    """Read a file to learn from, with what engineers say of its rows, by their ids.

    `normal`: it did not fail. `failure`: it did, nobody says how. One of MODES: it failed so. They
    overrule the file's own columns. A file without these gives the labelled rows alone.

    Raises:
        RecordingError: names file, line and column.
    """
    path = source(path)
    table = read_table(path, (ID_COLUMN,))
    has_own = FAILURE_COLUMN in table.header
    rows = read_failures(path, labelled=has_own)
    labels.check_names(rows.ids)
    count = len(rows)
    failed = np.zeros(count, np.bool_) if rows.failed is None else rows.failed.copy()
    modes = np.zeros((count, len(MODES)), np.bool_) if rows.modes is None else rows.modes.copy()
    places = {id_: at for at, id_ in enumerate(rows.ids)}
    for id_, value in labels.values.items():
        if value not in (NORMAL, FAILURE, *MODES):
            raise labels.bad(VALUE, value, " or ".join((NORMAL, FAILURE, *MODES)))
        at = places[id_]
        failed[at] = value != NORMAL
        if value != FAILURE:
            modes[at] = [mode == value for mode in MODES]
    kept = np.array([has_own or id_ in labels.values for id_ in rows.ids], np.bool_)
    return FailureData(rows.ids, rows.features, failed, modes).only(kept)


def _features(table: Table) -> npt.NDArray[np.float64]:
    kind = table.codes(TYPE_COLUMN, TYPES)
    return _derived(kind, [table.numbers(name, *RANGES[name]) for name in MEASURED])


def _derived(
    kind: npt.NDArray[np.int64], measured: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """What was measured, and what the physics of the failure modes makes of it."""
    air, process, speed, torque, wear = measured
    power = torque * speed * (2 * np.pi / 60)
    strain = wear * torque
    derived = (process - air, power, strain, strain / STRAIN_LIMITS[kind])
    return np.stack((kind, *measured, *derived), axis=1)


def made_up(
    features: npt.NDArray[np.float64],
    failed: npt.NDArray[np.bool_],
    count: int,
    random: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Make rows that could have been measured, most of them near rows that failed.

    Each is a row that was measured, with its measurements moved by chance, and what is derived
    from these derived anew.

    Args:
        features: float64 [n, len(FEATURES)].
        failed: bool [n]; some did.
        count: of rows to make.
        random: moves them.
    """
    near = np.where(
        random.random(count) < MADE_UP_OF_FAILED,
        random.choice(np.flatnonzero(failed), count),
        random.integers(len(features), size=count),
    )
    kinds, measured = features[:, 0].astype(np.int64), features[:, 1 : 1 + len(MEASURED)]
    far = MADE_UP_DEVIATIONS * measured.std(axis=0) * random.random((count, 1))
    moved = measured[near] + random.normal(size=(count, len(MEASURED))) * far
    bounds = np.array([RANGES[name] for name in MEASURED])
    return _derived(kinds[near], list(np.clip(moved, *bounds.T).T))


def rule(features: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Who would fail by the data set's description alone: a baseline that learns nothing.

    Heat dissipation: less than 8.6 K at under 1380 rpm. Power: below 3.5 or above 9 kW.
    Overstrain: over the type's limit. Tool wear fails at a random time, which no rule tells.
    """
    column = {name: features[:, at] for at, name in enumerate(FEATURES)}
    heat = (column["temperature_difference"] < 8.6) & (column["rotational_speed"] < 1380)
    power = (column["power"] < 3500) | (column["power"] > 9000)
    failed: npt.NDArray[np.bool_] = heat | power | (column["strain_share"] > 1)
    return failed
