"""Demand of spare parts: what is read, learned, predicted, kept in stock and said of it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from cloud.errors import ModelError, RecordingError, TrainingError
from cloud.model_files import write_card
from cloud.train import demand, stock
from cloud.train.demand_baselines import CROSTON, SBA, ZERO, point_forecasts
from cloud.train.demand_data import MONTH_NAMES, read_demand
from cloud.train.demand_distribution import CountDistribution, by_moments
from cloud.train.demand_network import HORIZON, MIN_HISTORY, Shape, examples, features
from cloud.train.demand_scores import calibration, pinball, scaled_errors, scales
from cloud.train.job import Job
from cloud.train.stock_settings import PredictSettings, StockSettings
from tools.cli import app

SMALL = Shape(hidden=(16,), epochs=2, members=2)


def names(count: int, year: int = 98) -> list[str]:
    return [f"{MONTH_NAMES[at % 12]}-{(year + at // 12) % 100:02}" for at in range(count)]


def write(path: Path, rows: list[list[str]], months: int | None = None) -> Path:
    header = ["Part", *names(len(rows[0]) - 1 if months is None else months)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def simulated(path: Path, parts: int = 40, months: int = 36, seed: int = 5) -> Path:
    """Parts that are asked for now and then, each at its own rate."""
    random = np.random.default_rng(seed)
    rates = random.gamma(0.6, 1.0, parts)[:, np.newaxis]
    counts = random.poisson(rates, (parts, months))
    return write(path, [[f"p{at}", *map(str, row)] for at, row in enumerate(counts.tolist())])


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demand, "QUICK", SMALL)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small):
    """The file it was trained on, the model's directory, the report, the steps that were told."""
    folder = tmp_path_factory.mktemp("demand")
    data, steps = simulated(folder / "parts.csv"), []
    job = Job(folder / "model", quick=True, seed=3, progress=lambda *told: steps.append(told[1:]))
    return data, job.out, demand.train(data, job), steps


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_an_empty_cell_is_a_month_without_a_record(tmp_path):
    rows = read_demand(write(tmp_path / "parts.csv", [["a", "1", "", "3"], ["b", "0", "0", "2"]]))
    assert rows.parts == ("a", "b")
    assert rows.demand.tolist() == [[1, 0, 3], [0, 0, 2]]
    assert rows.recorded.tolist() == [[True, False, True], [True, True, True]]
    assert [rows.month(at) for at in (0, 2, 24)] == ["1998-01", "1998-03", "2000-01"]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["b", "1", "x"], "line 3: column 'Feb-98' is 'x', not a finite number"),
        (["b", "1", "nan"], "line 3: column 'Feb-98' is 'nan', not a finite number"),
        (["b", "1", "-1"], "line 3: column 'Feb-98' is '-1', not from 0 to 10000"),
        (["b", "1", "0.5"], "line 3: column 'Feb-98' is '0.5', not a whole number of pieces"),
        (["b", "1"], "line 3: has 2 cells"),
        (["a", "1", "1"], "line 3: column 'Part' is 'a', as in line 2"),
        (["", "1", "1"], "line 3: column 'Part' is empty"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, cells, said):
    with pytest.raises(RecordingError) as error:
        read_demand(write(tmp_path / "parts.csv", [["a", "1", "2"], cells]))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Part,Jan-98,Mar-98", "column 'Mar-98' is not the month after"),
        ("Part,Jan-98,Jan-98", "column 'Jan-98' is not the month after"),
        ("Part,Jan-98,total", "column 'total' is no month like Jan-98"),
        ("Number,Jan-98,Feb-98", "column 'Part' is there 0 times"),
    ],
)
def test_a_bad_header_is_named(tmp_path, header, said):
    (tmp_path / "parts.csv").write_text(f"{header}\na,1,2\n")
    with pytest.raises(RecordingError, match=said):
        read_demand(tmp_path)


def test_a_folder_must_hold_one_file(tmp_path):
    with pytest.raises(RecordingError, match="holds 0 CSV files"):
        read_demand(tmp_path)


def test_too_little_is_refused(tmp_path):
    short = simulated(tmp_path / "short.csv", months=demand.MIN_TRAINING_MONTHS + HORIZON - 1)
    with pytest.raises(TrainingError, match="29 months of demand, at least 30"):
        demand.evaluate(short, Job(tmp_path / "out"))
    few = simulated(tmp_path / "few.csv", parts=demand.MIN_PARTS - 1)
    with pytest.raises(TrainingError, match="parts with any demand, at least 20"):
        demand.train(few, Job(tmp_path / "out"))
    dead = write(tmp_path / "dead.csv", [[str(at), *["0"] * 36] for at in range(30)])
    with pytest.raises(TrainingError, match="0 parts with any demand"):
        demand.train(dead, Job(tmp_path / "out"))


def test_quantiles_are_those_of_the_mixture():
    members = CountDistribution(
        zero=np.array([[0.5, 0.0], [0.1, 0.9]]),
        mean=np.array([[3.0, 0.2], [12.0, 700.0]]),
        shape=np.array([[0.7, 50.0], [4.0, 2.0]]),
    )
    grid = np.arange(8000)[:, np.newaxis]
    part = members.shape / (members.shape + members.mean)
    each = stats.nbinom.cdf(grid[:, :, np.newaxis], members.shape.T, part.T)
    whole = (members.zero.T + (1 - members.zero.T) * each).mean(axis=2)
    for level in (0.01, 0.3, 0.5, 0.9, 0.999):
        assert members.quantile(level).tolist() == np.argmax(whole >= level, axis=0).tolist()
    assert members.below(np.array([5.0, 5.0])) == pytest.approx(whole[5])
    assert members.below(np.array([-1.0, 0.0])).tolist() == [0, pytest.approx(whole[0, 1])]
    assert members.expected == pytest.approx([(1.5 + 10.8) / 2, (0.2 + 70) / 2])


def test_moments_make_the_negative_binomial_that_has_them():
    found = by_moments(np.array([2.0, 2.0]), np.array([6.0, 1.0]))
    assert found.quantile(0.9).tolist() == [
        stats.nbinom.ppf(0.9, 1.0, 1 / 3), stats.poisson.ppf(0.9, 2.0)
    ]  # fmt: skip


def test_the_scale_is_the_seasonal_naive_error_of_the_past():
    past = np.zeros((2, 15))
    past[0, [0, 13]] = 3, 6
    assert scales(past).tolist() == [3.0, 0.0]
    errors = scaled_errors(np.zeros((1, 2)), np.array([[0.0, 6.0]]), np.array([3.0]))
    assert errors.tolist() == [1.0]


def test_pinball_of_the_median_is_the_absolute_error():
    actual, known = np.array([[1.0, 4.0, 9.0]]), np.array([[True, True, False]])
    assert pinball(np.array([[[2.0, 2.0, 0.0]]]), (0.5,), actual, known).tolist() == [1.5]
    assert pinball(np.array([[[2.0, 2.0, 0.0]]]), (0.9,), actual, known) == pytest.approx(
        [(2 * 0.1 * 1 + 2 * 0.9 * 2) / 2]
    )


def test_a_true_distribution_is_found_to_be_calibrated():
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    random = np.random.default_rng(seed)
    mean = random.gamma(1.0, 1.0, (400, 12))
    truth = by_moments(mean, 2 * mean)
    actual = random.negative_binomial(mean, 0.5).astype(float)
    for row in calibration(truth, demand.LEVELS, actual, np.ones_like(actual, bool)):
        assert row["share"] == pytest.approx(row["level"], abs=0.03)
        assert row["covered"] >= row["level"] - 0.03


def test_inputs_know_nothing_of_later_months(tmp_path):
    rows = read_demand(simulated(tmp_path / "parts.csv", parts=5, months=20))
    inputs, starts, targets, known = examples(rows)
    assert len(inputs) == 5 * (20 - MIN_HISTORY)
    at_14 = slice(5 * (14 - MIN_HISTORY), 5 * (15 - MIN_HISTORY))
    assert inputs[at_14].tolist() == features(rows.demand[:, :14])[0].tolist()
    assert known[at_14, 0].sum(axis=1).tolist() == [6] * 5
    assert targets[at_14, 0, :6].tolist() == rows.demand[:, 14:].tolist()
    assert targets[at_14, 1, 5].tolist() == rows.demand[:, 14:].sum(axis=1).tolist()
    assert starts.shape == targets.shape


def test_a_gap_is_neither_learned_nor_summed_over(tmp_path):
    row = ["1"] * 12 + ["2", "", "4"]
    rows = read_demand(write(tmp_path / "parts.csv", [["a", *row]]))
    _, _, targets, known = examples(rows)
    # After December, and after the month that follows it; none after the gap.
    assert len(targets) == 2
    assert known[0, :, :4].tolist() == [[1, 0, 1, 0], [1, 0, 0, 0]]
    assert known[1, :, :3].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_croston_is_the_textbooks():
    past = np.array([[0, 0, 2, 0, 0, 4, 0, 0, 3, 0, 0, 0, 0.0]])
    found = point_forecasts(past, 2)
    size, gap = 2.0, 3.0
    for piece in (4, 3):
        size, gap = size + 0.1 * (piece - size), gap + 0.1 * (3 - gap)
    assert found[CROSTON][0] == pytest.approx([size / gap] * 2)
    assert found[SBA][0] == pytest.approx([0.95 * size / gap] * 2)
    assert found[ZERO].tolist() == [[0, 0]]


def test_stock_is_lived_through_month_by_month():
    settings = StockSettings(lead_time=1, holding_cost=1, order_cost=10, shortage_cost=100)
    plan = stock.Plan(np.array([3.0]), np.array([4.0]))
    outcome = stock.simulate(np.array([[2.0, 3.0, 1.0]]), [plan] * 3, settings)
    # 3 there, 2 go; 4 are ordered, of 3 asked for 2 are missing; 4 more are ordered, 1 remains.
    assert outcome.short.tolist() == [2]
    assert outcome.months_short.tolist() == [1]
    assert outcome.orders.tolist() == [2]
    assert outcome.stock.tolist() == [pytest.approx((1 + 0 + 1) / 3)]
    assert outcome.cost.tolist() == [pytest.approx(2 + 20 + 200)]
    assert outcome.fill_rate == pytest.approx(1 - 2 / 6)


def test_plans_cover_the_months_until_the_next_arrival():
    settings = StockSettings(lead_time=2, service_level=0.9, safety_months=1)
    mean = np.arange(1, 13)[np.newaxis, :] * 2.0
    plan = stock.plan_by_totals(by_moments(mean, mean), settings)
    assert plan.reorder_point.tolist() == [stats.poisson.ppf(0.9, 6)]
    assert plan.order_quantity.tolist() == [round((2 * 0.2 * 2 / 0.02) ** 0.5)]
    assert stock.plan_by_mean(np.array([0.3, 0.0]), settings).reorder_point.tolist() == [2, 0]


def test_a_model_is_trained_and_predicts(tmp_path, trained):
    data, model, report, steps = trained
    assert steps[-1] == (2, 2)
    assert report["sealed"] is False
    assert report["last_month"] == "2000-12"
    assert list((model / "log").glob("events.out.tfevents.*"))
    out = tmp_path / "predicted.csv"
    command = ["predict", "demand", "--model", str(model), "--data", str(data), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--lead-time", "0", "--service-level", "0.5"])
    assert done.exit_code == 0, done.output
    cautious = tmp_path / "cautious.csv"
    demand.predict(model, data, cautious, PredictSettings(lead_time=3, service_level=0.99))
    bold, careful = read(out), read(cautious)
    assert len(bold) == len(careful) == 40 * HORIZON
    assert [row["month"] for row in bold[:12]] == [f"2001-{at:02}" for at in range(1, 13)]
    for row, more in zip(bold, careful, strict=True):
        quantiles = [float(row[f"q{level:g}"]) for level in demand.LEVELS]
        assert quantiles == sorted(quantiles)
        assert float(row["mean"]) >= 0
        assert 0 <= float(row["runs_out"]) <= 1
        assert int(more["reorder_point"]) >= int(row["reorder_point"])
    assert sum(int(row["reorder_point"]) for row in careful) > 0


def test_a_damaged_model_is_refused(tmp_path, trained):
    _, model, _, _ = trained
    card = json.loads((model / "card.json").read_text())
    with pytest.raises(ModelError, match=r"weights\.npz: is not the network that the card tells"):
        demand.load_network(model, card | {"shape": {"hidden": [8]}})
    for changes in (
        {"shape": {}}, {"shape": None}, {"mean": 3}, {"deviation": []}, {"members": 0},
        {"members": None},
    ):  # fmt: skip
        with pytest.raises(ModelError, match="card is damaged"):
            demand.load_network(model, card | changes)
    (tmp_path / "weights.npz").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"weights\.npz: is no model"):
        demand.load_network(tmp_path, card)
    with pytest.raises(ModelError, match="cannot be read"):
        demand.load_network(tmp_path / "nowhere", card)


def test_given_stock_tells_what_runs_out_first(tmp_path, trained):
    data, model, _, _ = trained
    held = tmp_path / "stock.csv"
    busiest = int(np.argmax(read_demand(data).demand.sum(axis=1)))
    rows = [f"p{at},{0 if at == busiest else 500}" for at in range(40)]
    held.write_text("part,stock\n" + "\n".join(rows) + "\n")
    report = demand.predict(model, data, tmp_path / "out.csv", PredictSettings(stock=held))
    assert report["bottlenecks"][0]["part"] == f"p{busiest}"
    assert report["bottlenecks"][0]["cover_ends"] == "2001-01"
    assert report["to_order"] == 1
    assert report["stock"] == "as given"
    held.write_text("part,stock\n" + "\n".join(rows[1:]) + "\n")
    with pytest.raises(RecordingError, match="has no row of part 'p0' and 0 others"):
        demand.predict(model, data, tmp_path / "out.csv", PredictSettings(stock=held))
    held.write_text("part,stock\np0,-3\n")
    with pytest.raises(RecordingError, match="line 2: column 'stock' is '-3'"):
        demand.predict(model, data, tmp_path / "out.csv", PredictSettings(stock=held))


def test_evaluation_learns_nothing_of_the_months_it_judges(tmp_path, monkeypatch):
    data = simulated(tmp_path / "parts.csv")
    monkeypatch.setattr(demand, "QUICK", replace(SMALL, members=1))
    learned = []
    real = demand.fit_network

    def fit(rows, *others):
        learned.append(rows.months)
        return real(rows, *others)

    monkeypatch.setattr(demand, "fit_network", fit)
    out = tmp_path / "out"
    steps: list[tuple[int, int]] = []
    job = Job(out, quick=True, progress=lambda _, done, of: steps.append((done, of)))
    result = demand.evaluate(data, job, replace(StockSettings(), lead_time=1))
    assert learned == [24]
    assert steps[-1][0] == steps[-1][1]
    assert json.loads((out / "evaluation.json").read_text()) == result
    by_name = {row["model"]: row for row in result["results"]}
    assert {"network", "Croston", "SBA", "TSB", "ETS", "naive", "zero"} < set(by_name)
    rows = read_demand(data)
    scale = scales(rows.demand[:, :24])
    zero = rows.demand[scale > 0, 24:].mean(axis=1) / scale[scale > 0]
    assert by_name["zero"]["mase"] == pytest.approx(zero.mean())
    asked = rows.demand[scale > 0, 24:]
    best = np.abs(asked[:, :, np.newaxis] - asked[:, np.newaxis, :]).mean(axis=1).min(axis=1)
    least = (best / scale[scale > 0]).mean()
    assert result["mase_of_constants_in_hindsight"] == pytest.approx(least)
    assert least < zero.mean()
    assert result["scored"] + result["without_scale"] == result["parts"] == 40
    for row in result["results"]:
        assert row["mase_low"] <= row["mase"] <= row["mase_high"]
    planner = result["planner"]
    assert planner["settings"]["lead_time"] == 1
    lived = {row["policy"]: row for row in planner["policies"]}
    assert lived[demand.PRESENT]["saved"] == 0
    for name, row in lived.items():
        parts = read(out / "parts.csv")
        cost = sum(float(part["cost"]) for part in parts if part["policy"] == name)
        assert cost == pytest.approx(row["cost"], abs=0.01)
    for name in ("calibration.png", "service.png", "loss.png", "service.csv"):
        assert (out / name).stat().st_size > 500


def longer(path: Path, data: Path, months: int, first: int = 0) -> Path:
    """The same parts with months more, or, below 0, fewer; without those before `first`."""
    random = np.random.default_rng(8)
    rows = [row[:1] + row[first + 1 :] for row in csv.reader(data.read_text().splitlines())]
    header, *rest = [row[:months] for row in rows] if months < 0 else rows
    count = max(months, 0)
    more = random.poisson(0.7, (len(rest), count)).tolist()
    with path.open("w", newline="") as file:
        csv.writer(file).writerow(header + names(36 + count)[36:])
        csv.writer(file).writerows(row + new for row, new in zip(rest, more, strict=True))
    return path


def test_a_trained_model_is_judged_by_the_year_that_follows_its_last_month(tmp_path, trained):
    data, model, _, _ = trained
    table, out = longer(tmp_path / "later.csv", data, 15), tmp_path / "out"
    typed = ["evaluate", "demand", "--model", model, "--data", table, "--out", out]
    done = CliRunner().invoke(app, [*map(str, typed), "--lead-time", "1"])
    assert done.exit_code == 0, done.output
    result = json.loads((out / "evaluation.json").read_text())
    assert result["months"] == HORIZON
    assert "months up to 2000-12; 12 months forecast once, 2001-01 to 2001-12" in result["protocol"]
    by_name = {row["model"]: row for row in result["results"]}
    assert {"network", "Croston", "SBA", "TSB", "ETS", "naive", "zero"} < set(by_name)
    demand.predict(model, data, tmp_path / "said.csv")
    said = np.array([float(row["q0.5"]) for row in read(tmp_path / "said.csv")]).reshape(40, -1)
    counts = read_demand(table).demand
    scale = scales(counts[:, :36])
    errors = np.abs(said - counts[:, 36:48]).mean(axis=1)[scale > 0] / scale[scale > 0]
    assert by_name[demand.NETWORK]["mase"] == pytest.approx(errors.mean())
    assert result["planner"]["settings"]["lead_time"] == 1
    lived = {row["policy"] for row in result["planner"]["policies"]}
    assert lived == {demand.PRESENT, demand.OWN, demand.NETWORK}
    for name in ("calibration.png", "service.png", "parts.csv"):
        assert (out / name).stat().st_size > 500


def test_a_model_is_judged_by_as_many_months_as_there_are(tmp_path, trained):
    data, model, _, _ = trained
    job = Job(tmp_path / "out", model=model)
    result = demand.evaluate(longer(tmp_path / "later.csv", data, 2), job)
    assert result["months"] == 2
    assert "2 months forecast once, 2001-01 to 2001-02" in result["protocol"]
    assert max(row["part_months_short"] for row in result["planner"]["policies"]) <= 1


@pytest.mark.parametrize(
    ("months", "first", "said"),
    [
        (0, 0, "ends with 2000-12, .* up to 2000-12; .* to 2001-01 or, .* to 2001-12"),
        (-12, 0, "ends with 1999-12, .* up to 2000-12; .* to 2001-01 or, .* to 2001-12"),
        (3, 24, "begins with 2000-01, .* 18 months at least; .* begins with 1999-07 or before"),
    ],
)
def test_months_that_do_not_follow_those_learned_from_are_named(
    tmp_path, trained, months, first, said
):
    data, model, _, _ = trained
    table = longer(tmp_path / "later.csv", data, months, first)
    with pytest.raises(RecordingError, match=said):
        demand.evaluate(table, Job(tmp_path / "out", model=model))


def test_a_card_without_the_last_month_is_damaged(tmp_path, trained):
    data, model, _, _ = trained
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    for month in (None, "2000-13", "Dec-00"):
        write_card(copy, json.loads((model / "card.json").read_text()) | {"last_month": month})
        with pytest.raises(ModelError, match="card is damaged"):
            demand.evaluate(data, Job(tmp_path / "out", model=copy))


def test_months_in_which_nothing_is_recorded_judge_nothing(tmp_path, trained):
    data, model, _, _ = trained
    header, *rows = data.read_text().splitlines()
    lines = [f"{header},Jan-01", *(f"{row}," for row in rows)]
    (tmp_path / "later.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(TrainingError, match="nothing is recorded from 2001-01 on"):
        demand.evaluate(tmp_path / "later.csv", Job(tmp_path / "out", model=model))
    # A year of which the end is not there: of no part it is known what was in stock.
    last = [f"{header},Jan-01,Feb-01", *(f"{row},1," for row in rows)]
    (tmp_path / "later.csv").write_text("\n".join(last) + "\n")
    with pytest.raises(TrainingError, match=r"later\.csv: no part is recorded in each month from"):
        demand.evaluate(tmp_path / "later.csv", Job(tmp_path / "out", model=model))
    assert not (tmp_path / "out").exists()


def test_the_public_set_is_read_whole():
    folder = Path(os.environ.get("FOGLINE_DATA", "")) / "carparts"
    if not folder.is_dir():
        pytest.skip("FOGLINE_DATA is not set: name the folder that holds carparts/")
    rows = read_demand(folder)
    assert (len(rows), rows.month(0)) == (2674, "1998-01")
    assert int((~rows.recorded).any(axis=1).sum()) == 165
