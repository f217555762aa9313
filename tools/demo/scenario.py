"""What the boards of a demo play: recorded experiments, or the simulated test bed.

Normal operation comes first; then a board waits for its model and plays the rest. Labels
stay on this side: they serve to score what the boards said afterwards.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.errors import ToolError

# SKAB's protocol: the first rows of each experiment are normal and may be used to fit.
NORMAL_ROWS = 400
MAX_FILES = 1000
MAX_FILE_BYTES = 64 * 1024 * 1024
LABEL_COLUMN = "anomaly"
TIME_COLUMN = "datetime"
FAULTS = ("valve1", "valve2", "cavitation", "imbalance")
# Moment of the simulated test bed's first row, s since 1970: 2026-01-01T00:00:00Z.
TESTBED_START_S = 1_767_225_600
TESTBED_NORMAL_ROWS = 2500
# What a model is calibrated on and its first window come before the first fault.
TESTBED_LEAD_ROWS = 450
TESTBED_BETWEEN_ROWS = 200
TESTBED_FAULT_ROWS = 200
# An emulated board reads some ten rows a second: a part of them will do, but for judging, which
# begins after some hundred rows that a model is calibrated on.
EMULATED_PART = 4
WAIT_FOR_MODEL = {"wait": "model"}


@dataclass(frozen=True)
class Experiment:
    """One recorded file.

    Attributes:
        times: s since 1970, a row each.
        labels: whether a row is anomalous; None where the file has no such column.
    """

    path: Path
    times: Sequence[int] = field(repr=False)
    labels: Sequence[bool] | None = field(repr=False)
    digest: bytes


@dataclass
class BoardPlan:
    """One board's part.

    Attributes:
        driver: the `driver` entry of its board.json.
        labels: label by time (s since 1970), for the rows that are scored.
        normal_rows, rest_rows: rows before and after the wait for a model.
    """

    driver: dict[str, Any]
    labels: dict[int, bool] = field(default_factory=dict)
    normal_rows: int = 0
    rest_rows: int = 0


@dataclass(frozen=True)
class Scenario:
    """Plans for all boards.

    Attributes:
        source: what the user is told the readings are.
        labelled: whether there are labels to score against.
    """

    source: str
    boards: Sequence[BoardPlan]
    labelled: bool


def replay(directory: Path, boards: int) -> Scenario:
    """Split the experiments in `directory` over the boards.

    Files without labels are normal operation as a whole; where there are no others, their
    second halves are judged, and nothing is scored. Of the labelled experiments one
    half, drawn by the hash of their content, gives its first NORMAL_ROWS rows to normal
    operation; the other half is judged whole and scored, so that no experiment is both
    learned from and scored. What remains of the first half is judged, not scored.

    Raises:
        ToolError: no experiments there, or one cannot be read.
    """
    paths = sorted(directory.rglob("*.csv"))
    if not paths:
        raise ToolError(f"{directory}: holds no CSV files; name the folder of the recordings")
    if len(paths) > MAX_FILES:
        raise ToolError(f"{directory}: holds {len(paths)} CSV files, at most {MAX_FILES} are read")
    experiments = [_read(path) for path in paths]
    plain = [e for e in experiments if e.labels is None]
    labelled = sorted((e for e in experiments if e.labels is not None), key=lambda e: e.digest)
    half = len(labelled) // 2
    learned, scored = labelled[:half], labelled[half:]
    if not plain and not learned:
        raise ToolError(
            f"{directory}: has nothing to learn normal operation from; at least two labelled "
            "experiments or one without labels are needed"
        )
    plans = [BoardPlan({"name": "replay", "script": []}) for _ in range(boards)]
    kept_back: list[tuple[BoardPlan, Experiment, int, int]] = []
    for experiment in plain:
        rows = len(experiment.times)
        share = -(-rows // boards)
        for plan, first in zip(plans, range(0, rows, share), strict=False):
            count = min(share, rows - first)
            normal = count if labelled else -(-count // 2)
            _add_normal(plan, experiment, first, normal)
            if normal < count:
                kept_back.append((plan, experiment, first + normal, count - normal))
    for experiment in learned:
        plan = min(plans, key=lambda p: p.normal_rows)
        _add_normal(plan, experiment, 0, min(NORMAL_ROWS, len(experiment.times)))
    for plan in plans:
        plan.driver["script"].append(WAIT_FOR_MODEL)
    for plan, experiment, first, count in kept_back:
        _add_rest(plan, experiment, first, count)
    for experiment in scored:
        plan = min(plans, key=lambda p: p.rest_rows)
        _add_rest(plan, experiment, 0, len(experiment.times))
        assert experiment.labels is not None
        plan.labels.update(zip(experiment.times, experiment.labels, strict=True))
    for experiment in learned:
        if len(experiment.times) > NORMAL_ROWS:
            plan = min(plans, key=lambda p: p.rest_rows)
            _add_rest(plan, experiment, NORMAL_ROWS, len(experiment.times) - NORMAL_ROWS)
    idle = [i for i, plan in enumerate(plans) if not plan.normal_rows or not plan.rest_rows]
    if len(idle) == boards:
        raise ToolError(
            f"{directory}: has too few experiments for a single board; add recordings, some to "
            "learn from and some to judge"
        )
    if idle:
        raise ToolError(
            f"{directory}: has too few experiments for {boards} boards; use --devices "
            f"{boards - len(idle)} or fewer"
        )
    return Scenario(f"{len(experiments)} recorded experiments of {directory}", plans, bool(scored))


def testbed(boards: int, seed: int, *, is_last_emulated: bool) -> Scenario:
    """Every board simulates a test bed of its own: normal, then each of the faults.

    Args:
        boards: how many.
        seed: of what they simulate.
        is_last_emulated: whether the last one is slow, and plays a part of the rows.
    """
    plans = []
    for board in range(boards):
        part = EMULATED_PART if is_last_emulated and board == boards - 1 else 1
        normal = TESTBED_NORMAL_ROWS // part
        script: list[Mapping[str, Any]] = [{"rows": normal, "fault": None}]
        script.append(WAIT_FOR_MODEL)
        plan = BoardPlan({}, normal_rows=normal)
        second = TESTBED_START_S + normal
        for index in range(len(FAULTS)):
            fault = FAULTS[(index + board) % len(FAULTS)]
            before = TESTBED_BETWEEN_ROWS // part if index else TESTBED_LEAD_ROWS
            for rows, what in ((before, None), (TESTBED_FAULT_ROWS // part, fault)):
                script.append({"rows": rows, "fault": what})
                plan.labels |= dict.fromkeys(range(second, second + rows), what is not None)
                second += rows
                plan.rest_rows += rows
        plan.driver = {
            "name": "testbed",
            "seed": seed + board,
            "start_s": TESTBED_START_S,
            "script": script,
        }
        plans.append(plan)
    return Scenario("a simulated test bed (no recordings given)", plans, labelled=True)


def _add_normal(plan: BoardPlan, experiment: Experiment, first: int, count: int) -> None:
    item = {"path": str(experiment.path), "first": first, "count": count}
    plan.driver["script"].append(item)
    plan.normal_rows += count


def _add_rest(plan: BoardPlan, experiment: Experiment, first: int, count: int) -> None:
    # To the end where it is meant: rows that cannot be read are not in `times`.
    whole = first + count == len(experiment.times)
    item = {"path": str(experiment.path), "first": first, "count": None if whole else count}
    plan.driver["script"].append(item)
    plan.rest_rows += count


def _read(path: Path) -> Experiment:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ToolError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
    data = path.read_bytes()
    rows = csv.DictReader(data.decode("utf-8", "replace").splitlines(), delimiter=";")
    names = rows.fieldnames or []
    if TIME_COLUMN not in names:
        raise ToolError(
            f"{path}: has no column {TIME_COLUMN!r}; recordings are ';'-separated with a header"
        )
    times: list[int] = []
    labels: list[bool] = []
    for row in rows:
        try:
            moment = datetime.fromisoformat(row[TIME_COLUMN])
            label = float(row[LABEL_COLUMN]) != 0 if LABEL_COLUMN in names else False
        except (ValueError, TypeError):
            continue  # the board reports and skips the same row
        times.append(int(moment.replace(tzinfo=UTC).timestamp()))
        labels.append(label)
    if not times:
        raise ToolError(f"{path}: has no readable row")
    has_labels = LABEL_COLUMN in names
    digest = hashlib.sha256(data).digest()
    return Experiment(path.resolve(), times, labels if has_labels else None, digest)
