"""What headquarters is told of its fleet: failing parts, bad lots, orders, and the report."""

from __future__ import annotations

import html.parser
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import fisher_exact

from cloud.readings import Readings
from tools.demo.vehicles import finder, logs, lots, orders, page, promises
from tools.demo.vehicles.features import NAMES, WINDOW_ROWS, windows
from tools.demo.vehicles.findings import change, find, odometer_falls, score
from tools.demo.vehicles.parts import COMPONENTS
from tools.demo.vehicles.plan import Car, make_plan
from tools.demo.vehicles.run import verdict
from tools.errors import ToolError

WEEKS = 4
# None of those by which signs and threshold were chosen, which are 0 to 3.
SEED = 20
START_S = logs.START.timestamp()


def sealed(plan):
    """What the fleet's boards would seal."""
    log = logs.Logs(plan, logs.SIMULATED)
    readings = {}
    for car in plan.cars:
        rows = [row for week in range(1, plan.weeks + 1) for row in log.week(car, week)]
        readings[car.name] = Readings(
            times=np.array([moment.timestamp() for moment, _ in rows]),
            values=np.array([[row[name] for name in logs.NAMES] for _, row in rows], np.float32),
            channels=logs.NAMES,
            sequence=np.arange(len(rows)),
            sealed=True,
        )
    return readings


@pytest.fixture(scope="module")
def plan():
    return make_plan(24, WEEKS, SEED)


@pytest.fixture(scope="module")
def readings(plan):
    return sealed(plan)


@pytest.fixture(scope="module")
def findings(plan, readings):
    # As headquarters knows the cars: by their build sheets, without what is wrong with them.
    cars = [Car(car.name, car.plant, car.lots, 0.0) for car in plan.cars]
    fleet = {name: windows(rows, START_S) for name, rows in readings.items()}
    judged = finder.judge(fleet, WEEKS, SEED)
    return find(cars, judged, readings, WEEKS, START_S)


def test_failing_cars_the_bad_lot_and_the_swindler_are_found(plan, findings):
    scores = score({(one.car, one.component) for one in findings.failing}, plan.failures)
    assert scores["precision"] >= 0.8
    assert scores["recall"] >= 0.8
    assert [lot.name for lot in findings.bad_lots] == [plan.bad_lot]
    assert {one.car for one in findings.odometers} == plan.turned_back
    starts = {car.name: car.fault.week for car in plan.cars if car.fault}
    for one in findings.failing:
        if (one.car, one.component) in plan.failures:
            assert starts[one.car] <= one.since <= WEEKS


def test_the_same_readings_and_seed_give_the_same_findings(plan, readings, findings):
    fleet = {name: windows(rows, START_S) for name, rows in readings.items()}
    again = find(
        findings.cars, finder.judge(fleet, WEEKS, SEED), readings, WEEKS, START_S
    )  # fmt: skip
    assert json.dumps(again.to_json()) == json.dumps(findings.to_json())


def test_a_plant_is_told_which_cars_to_repair_and_which_to_call_back(plan, findings):
    (bad,) = findings.bad_lots
    notice = change(bad, findings)
    in_lot = {car.name for car in plan.cars if plan.bad_lot in car.lots.values()}
    assert set(notice["repair"]) | set(notice["call_back"]) == in_lot
    assert not set(notice["repair"]) & set(notice["call_back"])
    assert notice["plant"] == bad.plant


def test_a_fleet_without_faults_has_no_bad_lot(plan):
    sound = replace(plan, cars=tuple(replace(car, fault=None) for car in plan.cars))
    readings = sealed(sound)
    fleet = {name: windows(rows, START_S) for name, rows in readings.items()}
    found = find(plan.cars, finder.judge(fleet, WEEKS, SEED), readings, WEEKS, START_S)
    assert len(found.failing) <= 1
    assert not found.bad_lots


def test_too_small_a_fleet_teaches_nothing(readings):
    few = {name: windows(readings[name], START_S) for name in sorted(readings)[:5]}
    with pytest.raises(ToolError, match="week 1: 5 cars have sealed readings"):
        finder.judge(few, WEEKS, SEED)


def test_a_car_that_was_silent_for_a_week_is_not_judged_in_it(plan, readings):
    fleet = {name: windows(rows, START_S) for name, rows in readings.items()}
    name = plan.cars[0].name
    part = fleet[name]
    kept = part.week != WEEKS
    silent = replace(
        part,
        week=part.week[kept],
        circumstances=part.circumstances[kept],
        signs=part.signs[kept],
        idle=part.idle[kept],
    )
    judged = finder.judge({**fleet, name: silent}, WEEKS, SEED)
    assert np.isnan(judged.weeks[name][WEEKS].score).all()
    assert not judged.weeks[name][WEEKS].over_limit.any()


def test_windows_end_at_gaps_and_leave_out_what_is_missing(readings, plan):
    whole = readings[plan.cars[0].name]
    first = windows(whole, START_S)
    assert np.bincount(first.week)[1:].tolist() == [logs.ROWS_A_WEEK // WINDOW_ROWS] * WEEKS
    values = whole.values.copy()
    values[3, whole.channels.index("coolant")] = np.nan
    assert len(windows(replace(whole, values=values), START_S).week) == len(first.week) - 1
    nothing = replace(whole, times=whole.times * 10)
    assert len(windows(nothing, START_S).week) == 0
    assert windows(nothing, START_S).signs.shape == (0, len(NAMES))


def test_an_odometer_that_goes_back_is_found_and_one_that_rests_is_not(readings, plan):
    whole = readings[plan.cars[0].name]
    column = whole.channels.index("odometer")
    values = whole.values.copy()
    values[:, column] = 1000.0
    assert odometer_falls(plan.cars[0], replace(whole, values=values), START_S) == []
    values[logs.ROWS_A_WEEK + 5 :, column] = 400.0
    values[logs.ROWS_A_WEEK + 4, column] = np.nan
    (fall,) = odometer_falls(plan.cars[0], replace(whole, values=values), START_S)
    assert (fall.week, fall.kilometres) == (2, 600.0)


def test_lots_are_judged_by_fishers_exact_test(plan):
    failing = set(plan.failures)
    for lot in lots.compare(plan.cars, failing):
        table = [
            [lot.share.failing, lot.share.cars - lot.share.failing],
            [lot.elsewhere.failing, lot.elsewhere.cars - lot.elsewhere.failing],
        ]
        expected = fisher_exact(table, alternative="greater").pvalue
        assert lot.p_value == pytest.approx(expected)
        assert lot.is_bad == (lot.name == plan.bad_lot)
        assert lot.share.low <= lot.share.failing / lot.share.cars <= lot.share.high


def test_one_failing_car_condemns_no_lot(plan):
    for car in plan.cars[::7]:
        for component in COMPONENTS:
            found = lots.compare(plan.cars, {(car.name, component.key)})
            assert not any(lot.is_bad for lot in found)


def test_an_order_covers_repairs_and_call_backs_and_keeps_a_reserve(plan, findings):
    lines = orders.order(plan.cars, plan.failures, findings.lots, WEEKS)
    for component, line in zip(COMPONENTS, lines, strict=True):
        broken = sum(key == component.key for _, key in plan.failures)
        assert line.repair == broken * component.pieces
        assert line.reserve >= line.expected
        assert line.pieces == line.repair + line.recall + line.reserve
        assert line.pieces % component.pieces == 0
    assert sum(line.recall for line in lines) > 0
    quiet = orders.order(plan.cars, set(), [], WEEKS)
    assert all(line.repair == line.recall == 0 for line in quiet)
    assert all(a.reserve <= b.pieces for a, b in zip(quiet, lines, strict=True))


def test_precision_and_recall_of_nothing_are_whole():
    assert score(set(), set()) == {
        "found": 0, "true": 0, "right": 0, "precision": 1.0, "recall": 1.0,
    }  # fmt: skip
    assert score({1, 2}, {2, 3, 4})["precision"] == 0.5
    assert score({1, 2}, {2, 3, 4})["recall"] == pytest.approx(1 / 3, abs=1e-3)


def facts(findings):
    """A summary as a run leaves it."""
    letter = {"request": "ab" * 32, "response": "cd" * 32, "answer": "accepted"}
    scores = {
        name: {"found": 1, "true": 2, "right": 1, "precision": 1.0, "recall": 0.5}
        for name in ("network", "limits")
    }
    return {
        "source": "a <recording>", "seed": 1, "cars": 24, "validators": 5, "quorum": 3,
        "packs_committed": 9, "packs_signed": 9, "packs_lost": 0, "packs_duplicated": 0,
        "rows_signed": 5, "rows_collected": 5, "blocks": 4, "data_height": 3,
        "heads_equal": True, "state_roots_equal": True, "problems": [],
        "data_sets": {"car-busan": {"count": 3, "root": "ef" * 32, "height": 3}},
        "falsified": [
            {"what": "<script>", "car": "busan-01", "cause": "tampered", "refused": True}
        ],
        "quarantine": {
            "car": "jeju-01", "signalled": True, "records_kept": 3, "reinstated": True
        },
        "infrastructure": {
            "records": 4, "expected": 4, "gateways": ["city"],
            "certificates_with_a_government_vote": 4,
            "pictures": [
                {
                    "camera": "bridge", "week": 1, "sealed": 3, "vehicles": 3, "bytes": 10,
                    "sha256": "12" * 32, "as_sent": True, "other_refused": True,
                }
            ],
        },
        "findings": findings.to_json(),
        "judged": {"scores": scores, "verdict": verdict(scores, findings)},
        "letters": {
            "findings": {"request": "ab" * 32, "sha256": "34" * 32, "bytes": 9, "as_sent": True},
            "order": letter | {"confirmed": True},
            "changes": [
                letter | {"lot": lot.name, "plant": lot.plant} for lot in findings.bad_lots
            ],
        },
        "proof": {
            "car": "busan-01", "transaction": "56" * 32, "verified": True, "tampered_refused": True,
        },
    }  # fmt: skip


class _Checker(html.parser.HTMLParser):
    """Sees that elements are closed, and where the page would load anything from."""

    EMPTY = frozenset({"br", "meta", "img", "line", "rect", "circle", "polygon", "polyline"})

    def __init__(self):
        super().__init__()
        self.open = []
        self.sources = []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_the_report_stands_alone_and_says_what_was_found(findings):
    text = page.render(findings, facts(findings), {"bridge": b"\x89PNG"})
    checker = _Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in checker.sources)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert ">nan" not in text.lower()
    for one in findings.failing:
        assert one.car in text
    for lot in findings.bad_lots:
        assert f"stop using lot {lot.name}" in text
    for fall in findings.odometers:
        assert fall.car in text


def test_a_report_of_a_sound_fleet_says_so(findings):
    sound = replace(
        findings, failing=(), odometers=(), lots=(), order=(), plants={},
    )  # fmt: skip
    said = facts(sound)
    said["letters"].pop("order")
    text = page.render(sound, said, {})
    assert "No part fails." in text


def test_what_does_not_hold_is_named(findings):
    good = facts(findings)
    assert promises.broken(good) == []
    assert promises.broken(good | {"packs_lost": 1}) == ["no record is lost"]
    refused = [good["falsified"][0] | {"refused": False}]
    assert promises.broken(good | {"falsified": refused}) == ["every falsified record is refused"]
    assert promises.broken(good | {"quarantine": {}}) == [
        "the car whose key was copied is told",
        "that car keeps its records meanwhile",
        "that car goes on once it is reinstated",
    ]
    assert promises.broken(good | {"rows_collected": 4}) == [
        "all that cars signed reaches the cloud"
    ]
    letters = good["letters"] | {"changes": []}
    assert promises.broken(good | {"letters": letters}) == [
        "every plant that is to change has answered"
    ]
    letters = {key: value for key, value in good["letters"].items() if key != "order"}
    assert promises.broken(good | {"letters": letters}) == ["the supplier confirms the order"]


def test_the_verdict_says_plainly_who_wins(findings):
    better = {"found": 4, "right": 4, "true": 4, "precision": 1.0, "recall": 1.0}
    worse = {"found": 4, "right": 2, "true": 4, "precision": 0.5, "recall": 0.5}
    assert "network finds more" in verdict({"network": better, "limits": worse}, findings)
    assert "use them" in verdict({"network": worse, "limits": better}, findings)
    assert "no more" in verdict({"network": better, "limits": better}, findings)
