"""What a car's own log holds: an idle and a drive each week, as its board will read them.

The clips come from recordings in the format of carOBD (eron93br/carOBD on GitHub: one car, a row a
second), or are simulated in the ranges of those. Faults are put on top. The board reads the log
and knows nothing else; in the first week nothing is wrong.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tools.errors import ToolError

from .parts import BY_KEY
from .plan import Car, Plan

# Ranges of SAE J1979 / ISO 15031-5, service 01; of the odometer those of its PID 0xA6 and below.
CHANNELS: tuple[tuple[str, str, float, float], ...] = (
    ("engine_speed", "/min", 0.0, 16_383.75),
    ("speed", "km/h", 0.0, 255.0),
    ("load", "%", 0.0, 100.0),
    ("throttle", "%", 0.0, 100.0),
    ("manifold", "kPa", 0.0, 255.0),
    ("intake", "Cel", -40.0, 215.0),
    ("coolant", "Cel", -40.0, 215.0),
    ("fuel_trim", "%", -100.0, 99.3),
    ("voltage", "V", 0.0, 65.535),
    ("odometer", "km", 0.0, 10_000_000.0),
)
NAMES = tuple(channel[0] for channel in CHANNELS)
# Column of carOBD for each channel but the odometer, which is counted from the speed.
COLUMNS = {
    "engine_speed": "ENGINE_RPM",
    "speed": "VEHICLE_SPEED",
    "load": "ENGINE_LOAD",
    "throttle": "THROTTLE",
    "manifold": "INTAKE_MANIFOLD_PRESSURE",
    "intake": "INTAKE_AIR_TEMP",
    "coolant": "COOLANT_TEMPERATURE",
    "fuel_trim": "LONG_TERM_FUEL_TRIM_BANK_1",
    "voltage": "CONTROL_MODULE_VOLTAGE",
}
IDLE_ROWS = 20
DRIVE_ROWS = 40
ROWS_A_WEEK = IDLE_ROWS + DRIVE_ROWS
START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
MAX_FILES = 100
MAX_FILE_BYTES = 64 * 1024 * 1024
# Clips begin so far apart, and hold only rows of a warm engine that runs.
_CLIP_STEP = 10
_WARM_CEL = 75.0
_RUNNING = 400.0
_DRIVING_KMH = 10.0
_SECONDS_AN_HOUR = 3600.0
# Between the logged minutes of a week a car drives on.
_WEEKLY_KM = (60.0, 300.0)

Row = dict[str, float]
Clip = Sequence[Row]


@dataclass(frozen=True)
class Clips:
    """Where a fleet's logs are cut from.

    Attributes:
        source: for people.
        idle, drive: clips of IDLE_ROWS and DRIVE_ROWS rows; none: they are simulated.
    """

    source: str
    idle: Sequence[Clip] = ()
    drive: Sequence[Clip] = ()


SIMULATED = Clips("simulated cars (no recordings given)")


def read_clips(directory: Path) -> Clips:
    """Cut the recordings in a folder into clips; raises ToolError naming file and line."""
    paths = sorted(directory.rglob("*.csv"))
    if not paths:
        raise ToolError(f"{directory}: holds no CSV files; name the folder of the recordings")
    if len(paths) > MAX_FILES:
        raise ToolError(f"{directory}: holds {len(paths)} CSV files, at most {MAX_FILES} are read")
    idle: list[Clip] = []
    drive: list[Clip] = []
    for path in paths:
        rows = read_recording(path)
        idle += _cut(rows, IDLE_ROWS, lambda row: row["speed"] == 0)
        drive += [
            clip
            for clip in _cut(rows, DRIVE_ROWS, lambda _: True)
            if sum(row["speed"] for row in clip) >= _DRIVING_KMH * DRIVE_ROWS
        ]
    for what, found, rows_ in (("idles", idle, IDLE_ROWS), ("drives", drive, DRIVE_ROWS)):
        if not found:
            raise ToolError(
                f"{directory}: has no {rows_} s in which a warm engine {what}; add recordings"
            )
    text = f"{len(idle)} idles and {len(drive)} drives of {len(paths)} recordings of {directory}"
    return Clips(text, idle, drive)


def read_recording(path: Path) -> list[Row]:
    """Read one carOBD file; the last row may be cut off, as a logger leaves it."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ToolError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
    lines = path.read_text("utf-8", "replace").splitlines()
    table = list(csv.reader(lines, skipinitialspace=True))
    header = [cell.split("(")[0].strip() for cell in table[0]] if table else []
    missing = [column for column in COLUMNS.values() if header.count(column) != 1]
    if missing:
        raise ToolError(f"{path}: needs one column {missing[0]}, as recordings of carOBD have")
    at = {name: header.index(column) for name, column in COLUMNS.items()}
    rows = []
    for line, cells in enumerate(table[1:], start=2):
        try:
            row = {name: float(cells[column]) for name, column in at.items()}
        except (ValueError, IndexError) as error:
            if line == len(table):
                break
            raise ToolError(f"{path}: line {line}: has no number where one belongs") from error
        if not all(map(math.isfinite, row.values())):
            raise ToolError(f"{path}: line {line}: holds what is no finite number")
        rows.append(row)
    return rows


def _cut(rows: Sequence[Row], count: int, keep: object) -> list[Clip]:
    assert callable(keep)

    def good(row: Row) -> bool:
        warm = row["engine_speed"] > _RUNNING and row["coolant"] >= _WARM_CEL
        return warm and bool(keep(row))

    starts = range(0, len(rows) - count + 1, _CLIP_STEP)
    return [rows[at : at + count] for at in starts if all(map(good, rows[at : at + count]))]


class Logs:
    """Writes each car's log, week by week."""

    def __init__(self, plan: Plan, clips: Clips) -> None:
        self._plan = plan
        self._clips = clips
        self._odometer = {car.name: car.odometer_km for car in plan.cars}

    def week(self, car: Car, week: int) -> list[tuple[datetime, Row]]:
        """Rows of one week, from 1; to be asked for in order."""
        chance = random.Random(f"{self._plan.seed}/{car.name}/{week}")  # noqa: S311 - must replay
        idle, drive = self._clip_pair(car, chance)
        rows = [dict(row) for row in (*idle, *drive)]
        severity = _severity(car, week)
        if car.fault is not None and severity:
            _OVERLAYS[car.fault.component](rows, severity, chance)
        self._count_kilometres(car, week, rows, chance)
        place = self._plan.cars.index(car)
        begin = START + timedelta(weeks=week - 1, hours=7, minutes=3 * place)
        return [(begin + timedelta(seconds=second), row) for second, row in enumerate(rows)]

    def _count_kilometres(
        self, car: Car, week: int, rows: Sequence[Row], chance: random.Random
    ) -> None:
        total = self._odometer[car.name]
        if week > 1:
            total += chance.uniform(*_WEEKLY_KM)
        if week == car.turned_back_week:
            total = max(0.0, total - car.turned_back_km)
        for row in rows:
            total += row["speed"] / _SECONDS_AN_HOUR
            row["odometer"] = round(total, 3)
        self._odometer[car.name] = total

    def _clip_pair(self, car: Car, chance: random.Random) -> tuple[Clip, Clip]:
        """An idle and a drive."""
        if self._clips.idle:
            return chance.choice(self._clips.idle), chance.choice(self._clips.drive)
        # As long as nothing fails, a car keeps its ways.
        ways = random.Random(f"{self._plan.seed}/{car.name}")  # noqa: S311 - must replay
        voltage, trim = ways.uniform(13.7, 14.0), ways.gauss(-0.8, 1.3)
        conditions = _Conditions(
            intake=round(chance.uniform(28.0, 52.0)),
            coolant=chance.uniform(85.0, 89.0),
            voltage=voltage + chance.gauss(0, 0.05),
            trim=trim + chance.gauss(0, 0.6),
        )
        return _simulate_idle(conditions, chance), _simulate_drive(conditions, chance)


def header(names: Sequence[str] = NAMES) -> str:
    """First line of a log."""
    return ";".join(("datetime", *names)) + "\n"


def line(moment: datetime, row: Row, names: Sequence[str] = NAMES) -> str:
    """A row of a log."""
    cells = (f"{row[name]:.3f}".rstrip("0").rstrip(".") for name in names)
    return ";".join((moment.strftime(TIME_FORMAT), *cells)) + "\n"


def _severity(car: Car, week: int) -> float:
    """From 0, nothing is wrong, towards 1."""
    if car.fault is None or week < car.fault.week:
        return 0.0
    return min(1.0, 0.35 + 0.25 * (week - car.fault.week))


def _overheat(rows: Sequence[Row], severity: float, chance: random.Random) -> None:
    for second, row in enumerate(rows):
        rise = 14.0 + 18.0 * min(1.0, second / DRIVE_ROWS)
        row["coolant"] = round(row["coolant"] + severity * rise + chance.gauss(0, 0.4))


def _misfire(rows: Sequence[Row], severity: float, chance: random.Random) -> None:
    for row in rows:
        depth = 170.0 if row["speed"] == 0 else 60.0
        row["engine_speed"] = max(450.0, row["engine_speed"] + severity * chance.gauss(0, depth))
        row["load"] = min(100.0, max(0.0, row["load"] + severity * chance.gauss(0, 4.0)))


def _discharge(rows: Sequence[Row], severity: float, chance: random.Random) -> None:
    for row in rows:
        row["voltage"] = row["voltage"] - severity * 1.5 + chance.gauss(0, 0.04)


def _lean(rows: Sequence[Row], severity: float, chance: random.Random) -> None:
    for row in rows:
        row["fuel_trim"] = row["fuel_trim"] + severity * 17.0 + chance.gauss(0, 0.5)


_OVERLAYS = {
    "thermostat": _overheat, "ignition": _misfire, "alternator": _discharge, "injector": _lean,
}  # fmt: skip
assert _OVERLAYS.keys() == BY_KEY.keys()


@dataclass(frozen=True)
class _Conditions:
    """Intake air and coolant (Cel), supply voltage (V), long-term fuel trim (%)."""

    intake: float
    coolant: float
    voltage: float
    trim: float


def _simulate_idle(now: _Conditions, chance: random.Random) -> list[Row]:
    speed = chance.uniform(660.0, 860.0)
    return [
        {
            "engine_speed": speed + chance.gauss(0, 7.0),
            "speed": 0.0,
            "load": 26.0 + chance.gauss(0, 1.5),
            "throttle": 16.3 + chance.gauss(0, 0.3),
            "manifold": round(28.0 + chance.gauss(0, 1.5)),
            "intake": now.intake,
            "coolant": round(now.coolant + chance.gauss(0, 0.5)),
            "fuel_trim": now.trim + chance.gauss(0, 0.4),
            "voltage": now.voltage + chance.gauss(0, 0.05),
        }
        for _ in range(IDLE_ROWS)
    ]


def _simulate_drive(now: _Conditions, chance: random.Random) -> list[Row]:
    """A drive with a driver who changes his mind, and gears at 20, 35, 50 and 70 km/h."""
    speed, wanted, pull, rows = chance.uniform(15.0, 40.0), 40.0, 0.0, []
    for second in range(DRIVE_ROWS):
        if second % 12 == 0:
            wanted = chance.uniform(12.0, 75.0)
        pull = max(-1.2, min(1.0, 0.12 * (wanted - speed)))
        speed = max(0.0, speed + 2.2 * pull + chance.gauss(0, 0.3))
        gear = 1 + sum(speed > limit for limit in (20.0, 35.0, 50.0, 70.0))
        load = min(100.0, max(10.0, 34.0 + 38.0 * pull + chance.gauss(0, 3.0)))
        rows.append(
            {
                "engine_speed": max(750.0, speed * (105.0, 62.0, 43.0, 34.0, 29.0)[gear - 1]),
                "speed": round(speed),
                "load": load,
                "throttle": 16.0 + 0.16 * load + chance.gauss(0, 0.4),
                "manifold": round(min(101.0, 14.0 + 0.85 * load + chance.gauss(0, 1.5))),
                "intake": now.intake,
                "coolant": round(now.coolant + 0.02 * load + chance.gauss(0, 0.5)),
                "fuel_trim": now.trim + chance.gauss(0, 0.6),
                "voltage": now.voltage - 0.1 + chance.gauss(0, 0.05),
            }
        )
    return rows
