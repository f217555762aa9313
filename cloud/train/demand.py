"""How many of each spare part will be asked for, and what to keep in stock.

One network is trained on all parts; beside it stand Croston's method, SBA, TSB, ETS and forecasts
that learn nothing. See `demand_network`, `demand_baselines`, `demand_planner`, `stock`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError, RecordingError, TrainingError
from cloud.intervals import bootstrap
from cloud.model_files import read_card, write_card, written_whole
from cloud.plots import plot_calibration, plot_losses
from cloud.tables import write_table

from . import demand_baselines, stock
from .demand_data import DemandData, read_demand, read_stock
from .demand_distribution import by_moments
from .demand_network import (
    FULL,
    HORIZON,
    MIN_HISTORY,
    QUICK,
    DemandNetwork,
    Shape,
    fit_network,
    load_network,
)
from .demand_planner import LISTED, NETWORK, OWN, PRESENT, live, means_of, without_gaps
from .demand_scores import calibration, pinball, scaled_errors, scales
from .experiment_log import experiment_log
from .job import Job, Steps
from .stock_settings import PredictSettings, StockSettings

TASK = "demand"
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
MEDIAN = 0.5
# A year behind the first origin, and some months that follow it.
MIN_TRAINING_MONTHS = MIN_HISTORY + 6
MIN_PARTS = 20
NETWORK_MEAN = "network, mean"
PUBLISHED = {
    "Transformer": 0.746,
    "DeepAR": 0.747,
    "feed-forward network": 0.747,
    "WaveNet": 0.754,
    "CatBoost": 0.853,
    "exponential smoothing": 0.897,
    "ETS": 0.925,
}
_HOLDS_FOR = "months 40 to 51 of the public file (Monash archive); figures of other spans differ"


def train(data: Path, job: Job) -> dict[str, Any]:
    """Fit the network to all months of a file and write the model's directory.

    Returns:
        The report, which is written as well.

    Raises:
        RecordingError: the file is not of the format. TrainingError: too little of it.
    """
    rows = read_demand(data)
    _check_enough(data, rows, MIN_TRAINING_MONTHS)
    shape = _shape(job)
    job.out.mkdir(parents=True, exist_ok=True)
    step = Steps(job, "train", shape.members)
    with experiment_log(job.out) as note:
        network = fit_network(rows, shape, job.seed, step, note, job.pool)
    plot_losses(job.out / "loss.png", network.losses, "negative log-likelihood")
    report = {
        "task": TASK,
        "parts": len(rows),
        "months": rows.months,
        "last_month": rows.month(rows.months - 1),
        "seed": job.seed,
        "quick": job.quick,
        "sealed": False,
        "members": shape.members,
        "shape": asdict(shape),
        "loss": [member[-1] for member in network.losses],
    }
    inputs = {"mean": network.mean.tolist(), "deviation": network.deviation.tolist()}
    with written_whole(job.out) as new:
        network.save(new)
        write_card(new, report | inputs)
    return report


def predict(
    model: Path, data: Path, out: Path, settings: PredictSettings | None = None
) -> dict[str, Any]:
    """Write a CSV file: a row for each part and each of the 12 months after the last one of `data`.

    Columns: part, month, mean, quantiles, reorder point and order quantity (of now, so the same in
    all rows of a part), stock, and the probability that this stock has run out by the month's end.

    Raises:
        RecordingError, ModelError.
    """
    settings = settings or PredictSettings()
    card = read_card(model, TASK)
    rows = read_demand(data)
    if rows.months < MIN_HISTORY:
        raise RecordingError(
            f"{data}: has {rows.months} months", f"give at least {MIN_HISTORY}, the last ones"
        )
    forecast = load_network(model, card).forecast(rows.demand)
    months, totals = forecast.take(0), forecast.take(1)
    plan = stock.plan_by_totals(totals, settings)
    if settings.stock is None:
        held = stock.plan_by_mean(means_of(rows), settings).reorder_point
    else:
        held = read_stock(settings.stock, rows)
    runs_out = 1 - totals.below(held[:, np.newaxis])
    quantiles = [months.quantile(level) for level in LEVELS]
    means = months.expected
    header = (
        "part", "month", "mean", *(f"q{level:g}" for level in LEVELS),
        "reorder_point", "order_quantity", "stock", "runs_out",
    )  # fmt: skip
    write_table(out, header, (
        (part, rows.month(rows.months + ahead), f"{means[at, ahead]:.4f}",
         *(f"{quantile[at, ahead]:.0f}" for quantile in quantiles),
         f"{plan.reorder_point[at]:.0f}", f"{plan.order_quantity[at]:.0f}",
         f"{held[at]:.0f}", f"{runs_out[at, ahead]:.4f}")
        for at, part in enumerate(rows.parts) for ahead in range(HORIZON)
    ))  # fmt: skip
    lead = settings.lead_time
    order = np.lexsort((np.arange(len(rows)), -runs_out[:, lead]))
    return {
        "parts": len(rows),
        "first_month": rows.month(rows.months),
        "settings": settings.row(),
        "stock": "as given" if settings.stock else f"assumed: {PRESENT}",
        "to_order": int((held < plan.reorder_point).sum()),
        "bottlenecks": [
            {
                "part": rows.parts[at],
                "stock": int(held[at]),
                "reorder_point": int(plan.reorder_point[at]),
                "runs_out_before_arrival": float(runs_out[at, lead]),
                "cover_ends": _cover_ends(rows, runs_out[at], settings),
            }
            for at in order[:LISTED]
        ],
        "out": str(out),
    }


def evaluate(data: Path, job: Job, settings: StockSettings | None = None) -> dict[str, Any]:
    """Forecast months from those before, once, and live by it.

    As the Monash archive does, the last 12 months, by a network that is trained on those before.
    Or, by a model that was trained before, the months after its last one, 12 at most.

    Raises:
        RecordingError, TrainingError, ModelError.
    """
    settings = settings or StockSettings()
    if job.model is not None:
        return _measure(job.model, data, job, settings)
    rows = read_demand(data)
    _check_enough(data, rows, MIN_TRAINING_MONTHS + HORIZON)
    trial = _Trial(data, rows, rows.months - HORIZON, job, settings)
    judged = _Judged(trial)
    past, shape = trial.past, _shape(job)
    job.out.mkdir(parents=True, exist_ok=True)
    step = Steps(job, "evaluate", shape.members + trial.steps)
    with experiment_log(job.out) as note:
        network = fit_network(past, shape, job.seed, step, note, job.pool)
    plot_losses(job.out / "loss.png", network.losses, "negative log-likelihood")
    about = {
        "protocol": f"trained on {past.month(0)} to {past.month(past.months - 1)}",
        "quick": job.quick,
    }
    return _judge(network, judged, step, about)


def _measure(directory: Path, data: Path, job: Job, settings: StockSettings) -> dict[str, Any]:
    """Judge a model that was trained before by the months that follow those it learned from."""
    card = read_card(directory, TASK)
    network = load_network(directory, card)
    rows = read_demand(data)
    try:
        origin = rows.position(card["last_month"]) + 1
    except (KeyError, ValueError) as error:
        raise ModelError(f"{directory}: card is damaged ({error!r})", "train again") from error
    learned = f"the model has learned from months up to {rows.month(origin - 1)}"
    if origin >= rows.months:
        raise RecordingError(
            f"{data}: ends with {rows.month(rows.months - 1)}, and {learned}",
            f"give a table that goes on to {rows.month(origin)} or, for a whole year, to "
            f"{rows.month(origin + HORIZON - 1)}",
        )
    if origin < MIN_TRAINING_MONTHS:
        raise RecordingError(
            f"{data}: begins with {rows.month(0)}, and {learned}; what comes then is forecast "
            f"from {MIN_TRAINING_MONTHS} months at least",
            f"give a table that begins with {rows.month(origin - MIN_TRAINING_MONTHS)} or before",
        )
    trial = _Trial(data, rows.until(origin + HORIZON), origin, job, settings)
    judged = _Judged(trial)
    step = Steps(job, "evaluate", trial.steps)
    job.out.mkdir(parents=True, exist_ok=True)
    about = {"protocol": f"trained before, on months up to {rows.month(origin - 1)}"}
    return _judge(network, judged, step, about)


@dataclass(frozen=True)
class _Trial:
    """Months that are forecast from those before, and lived through.

    Attributes:
        data: where they come from.
        rows: all these months.
        origin: position of the first one that is forecast.
        job: that it is for.
        settings: of the planner.
    """

    data: Path
    rows: DemandData
    origin: int
    job: Job
    settings: StockSettings

    @property
    def past(self) -> DemandData:
        """The months before."""
        return self.rows.until(self.origin)

    @property
    def months(self) -> int:
        """How many are forecast."""
        return self.rows.months - self.origin

    @property
    def steps(self) -> int:
        """How many it takes to judge a network by them."""
        return demand_baselines.steps(self.rows.demand) + self.months


def _judge(
    network: DemandNetwork, judged: _Judged, step: Steps, about: dict[str, Any]
) -> dict[str, Any]:
    """Hold a network, and what takes no training, against what was asked for.

    Returns:
        The result, which is written as well, with what it is `about`.
    """
    trial = judged.trial
    rows, job, past, months = trial.rows, trial.job, trial.past, trial.months
    points = demand_baselines.point_forecasts(past.demand, months, step)
    distribution = network.forecast(past.demand).take(0).until(months)
    quantiles = np.stack([distribution.quantile(level) for level in LEVELS])
    median = LEVELS.index(MEDIAN)
    results = [judged.row(NETWORK, quantiles[median], quantiles)]
    results.append(judged.row(NETWORK_MEAN, distribution.expected, quantiles))
    variance = past.demand.var(axis=1, keepdims=True)
    flat = np.ones(months)
    own = by_moments(points[demand_baselines.MEAN], variance * flat)
    own_quantiles = np.stack([own.quantile(level) for level in LEVELS])
    results.append(judged.row(OWN, own_quantiles[median], own_quantiles))
    certain = (demand_baselines.ZERO, demand_baselines.NAIVE, demand_baselines.SEASONAL)
    for name, point in points.items():
        if name in certain:
            spread = np.stack([point] * len(LEVELS))
        else:
            around = by_moments(point, variance * flat)
            spread = np.stack([around.quantile(level) for level in LEVELS])
        results.append(judged.row(name, point, spread))
    results.sort(key=lambda row: row["mase"])
    calibrated = calibration(distribution, LEVELS, judged.actual, judged.known)
    plot_calibration(job.out / "calibration.png", calibrated)
    result = {
        "task": TASK,
        **about,
        "protocol": (
            f"{about['protocol']}; {months} months forecast once, {rows.month(past.months)} to "
            f"{rows.month(rows.months - 1)}; MASE by seasonal naive differences of the months "
            "before, mean of parts, empty cells as zeros"
        ),
        "months": months,
        "parts": len(rows),
        "scored": int(judged.scored.sum()),
        "without_scale": int((~judged.scored).sum()),
        "seed": job.seed,
        "published": PUBLISHED,
        "published_hold_for": _HOLDS_FOR,
        "results": results,
        "mase_of_constants_in_hindsight": judged.least_of_constants(),
        "calibration": calibrated,
        "planner": live(network, rows, trial.origin, trial.settings, job, step),
        "verdict": "",
    }
    result["verdict"] = _verdict(result, float((quantiles[median] == 0).mean()))
    return job.keep(result)


class _Judged:
    """The months that are forecast, and how each forecast did."""

    def __init__(self, trial: _Trial) -> None:
        """Take what was asked for; raises TrainingError where nothing can be judged by it."""
        self.trial = trial
        rows, origin = trial.rows, trial.origin
        self.actual = rows.demand[:, origin:]
        self.known = rows.recorded[:, origin:]
        self._scale = scales(rows.demand[:, :origin])
        self.scored = self._scale > 0
        self._whole: npt.NDArray[np.bool_] = np.all(rows.recorded, axis=1)
        self._seed = trial.job.seed
        if not self.known.any():
            raise TrainingError(
                f"{trial.data}: nothing is recorded from {rows.month(origin)} on",
                "give months in which demand was recorded",
            )
        if not self.scored.any():
            raise TrainingError(
                f"{trial.data}: no part's demand differs between years before {rows.month(origin)}",
                "give more months, or parts that are asked for",
            )
        if not len(without_gaps(rows, origin)):
            raise TrainingError(
                f"{trial.data}: no part is recorded in each month from {rows.month(origin)} on",
                "give such parts",
            )

    def least_of_constants(self) -> float:
        """MASE of the best constant of each part, chosen by the answers: no constant beats it."""
        asked = self.actual[self.scored]
        constants = np.broadcast_to(np.median(asked, axis=1, keepdims=True), asked.shape)
        return float(scaled_errors(constants, asked, self._scale[self.scored]).mean())

    def row(
        self, name: str, point: npt.NDArray[np.float64], quantiles: npt.NDArray[np.float64]
    ) -> dict[str, Any]:
        """Scores of a forecast, with intervals by drawing parts."""
        scored = self.scored
        errors = scaled_errors(point[scored], self.actual[scored], self._scale[scored])
        whole = errors[self._whole[scored]]
        loss = pinball(quantiles, LEVELS, self.actual, self.known)
        mean = lambda values: float(values.mean())  # noqa: E731
        return {
            "model": name,
            **bootstrap(mean, errors, seed=self._seed).row("mase"),
            "mase_no_gaps": float(whole.mean()) if len(whole) else None,
            **bootstrap(mean, loss, seed=self._seed).row("pinball"),
            "total": float(point.sum() / max(self.actual.sum(), 1)),
        }


def _shape(job: Job) -> Shape:
    return QUICK if job.quick else FULL


def _check_enough(data: Path, rows: DemandData, months: int) -> None:
    if rows.months < months:
        raise TrainingError(
            f"{data}: {rows.months} months of demand, at least {months} are needed",
            "give a longer recording",
        )
    asked_for = int((rows.demand.sum(axis=1) > 0).sum())
    if asked_for < MIN_PARTS:
        raise TrainingError(
            f"{data}: {asked_for} parts with any demand, at least {MIN_PARTS} are needed",
            "give more parts: the network learns from all of them together",
        )


def _cover_ends(
    rows: DemandData, runs_out: npt.NDArray[np.float64], settings: StockSettings
) -> str:
    """The first month at whose end the stock is gone with more than the probability allowed."""
    gone = np.flatnonzero(runs_out > 1 - settings.service_level)
    return rows.month(rows.months + int(gone[0])) if len(gone) else ""


def _verdict(result: dict[str, Any], zeros: float) -> str:
    """Say plainly which is best, and what its figure is worth to a planner."""
    results = result["results"]
    by_name = {row["model"]: row for row in results}
    best, ours = results[0], by_name[NETWORK]
    zero = by_name[demand_baselines.ZERO]
    sharpest = min(results, key=lambda row: row["pinball"])
    said = f"lowest MASE has {best['model']} ({best['mase']:.3f})"
    if best["model"] != NETWORK:
        said += f", the network has {ours['mase']:.3f}"
    said += (
        f"; forecasting nothing has {zero['mase']:.3f}, and the best constant of each part, "
        f"chosen by the answers, {result['mase_of_constants_in_hindsight']:.3f}. MASE is least for "
        f"the median, which is 0 in {zeros:.0%} of these months, so a low MASE alone orders "
        f"nothing: the medians sum to {ours['total']:.0%} of what was asked for. Plan with "
        f"quantiles of the total until arrival; lowest pinball loss has "
        f"{sharpest['model']} ({sharpest['pinball']:.4f} pieces)"
    )
    return said
