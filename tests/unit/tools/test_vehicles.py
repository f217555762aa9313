"""The car maker's fleet: its plan, its logs, its roads, and what is falsified."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from tools.demo.processes import free_port
from tools.demo.vehicles import infrastructure, logs
from tools.demo.vehicles.cast import CAST, GOVERNMENT, PLANTS
from tools.demo.vehicles.gate import Gate
from tools.demo.vehicles.parts import COMPONENTS
from tools.demo.vehicles.plan import make_plan
from tools.errors import ToolError, UsageError
from tools.listener import Listener

COLUMNS = (
    "ENGINE_RUN_TINE",
    *logs.COLUMNS.values(),
)


def recording(path, rows, *, cut=False):
    """A carOBD file: cells end with a comma, and the last row may be cut off."""
    lines = [",".join(f"{column} ()" for column in COLUMNS)]
    for second in range(rows):
        speed = 0 if second < rows // 2 else 40
        values = [second, 800, speed, 30, 17, 40, 45, 88, -0.8, 13.7]
        lines.append(", ".join(f"{value:.6f}" for value in values) + ",")
    if cut:
        lines[-1] = lines[-1][:20]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("cars", [9, 12, 24, 31])
@pytest.mark.parametrize("seed", range(5))
def test_one_lot_is_bad_and_every_other_part_fails_once(cars, seed):
    plan = make_plan(cars, 4, seed)
    assert plan == make_plan(cars, 4, seed)
    assert len({car.name for car in plan.cars}) == cars
    failing = Counter(component for _, component in plan.failures)
    in_lot = [car for car in plan.cars if plan.bad_lot in car.lots.values()]
    (bad,) = {
        component.key
        for component in COMPONENTS
        for car in in_lot
        if car.lots[component.key] == plan.bad_lot
    }
    failed = [car for car in in_lot if car.fault]
    assert failing[bad] == len(failed) >= len(in_lot) - 1
    assert all(failing[component.key] == 1 for component in COMPONENTS if component.key != bad)
    (swindler,) = plan.turned_back
    assert swindler not in {car for car, _ in plan.failures}


@pytest.mark.parametrize(("cars", "weeks"), [(8, 4), (61, 4), (24, 2), (24, 13)])
def test_a_fleet_that_says_nothing_is_refused(cars, weeks):
    with pytest.raises(UsageError):
        make_plan(cars, weeks, 0)


def test_logs_repeat_themselves_and_nothing_is_wrong_in_the_first_week():
    plan = make_plan(24, 4, 3)
    first, second = (logs.Logs(plan, logs.SIMULATED) for _ in range(2))
    for car in plan.cars:
        odometer = []
        for week in range(1, 5):
            rows = first.week(car, week)
            assert rows == second.week(car, week)
            assert len(rows) == logs.ROWS_A_WEEK
            for moment, row in rows:
                logs.line(moment, row)
                for name, _, low, high in logs.CHANNELS:
                    assert low <= row[name] <= high
            odometer += [row["odometer"] for _, row in rows]
            if week == 1:
                assert max(row["coolant"] for _, row in rows) < 100
                assert min(row["voltage"] for _, row in rows) > 13.2
        fell = any(after < before for before, after in pairwise(odometer))
        assert fell == (car.name in plan.turned_back)


def test_clips_are_cut_from_recordings_of_a_warm_engine(tmp_path):
    recording(tmp_path / "a.csv", 200, cut=True)
    clips = logs.read_clips(tmp_path)
    assert all(len(clip) == logs.IDLE_ROWS for clip in clips.idle)
    assert all(row["speed"] == 0 for clip in clips.idle for row in clip)
    assert all(len(clip) == logs.DRIVE_ROWS for clip in clips.drive)
    week = logs.Logs(make_plan(9, 3, 1), clips).week(make_plan(9, 3, 1).cars[0], 1)
    assert {row["coolant"] for _, row in week} == {88.0}


def test_recordings_that_are_none_are_named(tmp_path):
    with pytest.raises(ToolError, match="holds no CSV files"):
        logs.read_clips(tmp_path)
    path = tmp_path / "b.csv"
    recording(path, 200)
    text = path.read_text()
    path.write_text(text.replace("COOLANT_TEMPERATURE", "COOLANT"))
    with pytest.raises(ToolError, match=r"b\.csv: needs one column COOLANT_TEMPERATURE"):
        logs.read_clips(tmp_path)
    path.write_text(text.replace("13.700000", "nan", 1))
    with pytest.raises(ToolError, match=r"b\.csv: line 2"):
        logs.read_clips(tmp_path)
    path.write_text(text.replace("13.700000", "?", 1))
    with pytest.raises(ToolError, match=r"b\.csv: line 2"):
        logs.read_clips(tmp_path)
    recording(path, 12)
    with pytest.raises(ToolError, match="no 20 s in which a warm engine idles"):
        logs.read_clips(tmp_path)


@pytest.mark.parametrize("week", range(1, 6))
def test_a_picture_shows_what_its_camera_has_counted(week):
    for site in infrastructure.SITES:
        if site.type != infrastructure.CAMERA:
            continue
        for vehicles in range(infrastructure.MAX_VEHICLES + 1):
            image = infrastructure.picture(site, week, vehicles, 7)
            data = infrastructure.encode_png(image, f"{site.name} {week}")
            again, title = infrastructure.decode_png(data)
            assert (again == image).all()
            assert title == f"{site.name} {week}"
            assert infrastructure.count_vehicles(again) == vehicles


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match="is no"):
        infrastructure.decode_png(data)


def test_plants_and_government_are_the_validators():
    assert CAST.validators == (*PLANTS, *GOVERNMENT)


async def test_the_gate_lets_cars_through_only_while_it_is_open():
    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)

    async with Listener(echo) as broker:
        gate = Gate(free_port(), "127.0.0.1", broker.port)
        with pytest.raises(OSError):  # noqa: PT011 - as the system words it
            await asyncio.open_connection("127.0.0.1", gate.port)
        for _ in range(2):
            await gate.open()
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(b"a week")
            assert await reader.readexactly(6) == b"a week"
            await gate.shut()
            assert await reader.read() == b""
            writer.close()
            with pytest.raises(OSError):  # noqa: PT011
                await asyncio.open_connection("127.0.0.1", gate.port)
        assert gate.passed == 12
