"""What forecasts of demand are worth to a planner: stock kept by them through months kept out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.intervals import bootstrap
from cloud.plots import plot_service
from cloud.tables import write_table

from . import stock
from .demand_data import DemandData
from .demand_distribution import by_moments
from .demand_network import DemandNetwork
from .job import Job, Steps
from .stock_settings import StockSettings

PRESENT, OWN, NETWORK = "present rule", "own past, negative binomial", "network"
# Service levels and safety months along which the trade-off is drawn.
SWEEP_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
SWEEP_SAFETY = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
LISTED = 10

# Plans of each month, with these settings.
Policy = Callable[[StockSettings], list[stock.Plan]]
# Stock, fill rate and cost, setting by setting.
Curve = list[tuple[float, float, float]]


@dataclass(frozen=True)
class _Lives:
    """What came of each policy, by its name.

    Attributes:
        rows: of the parts that were kept.
        plans: of each month.
        outcomes: with the settings as they are.
        curves: with those of a sweep.
    """

    rows: DemandData
    plans: Mapping[str, list[stock.Plan]]
    outcomes: Mapping[str, stock.Outcome]
    curves: Mapping[str, Curve]


def live(
    network: DemandNetwork,
    rows: DemandData,
    origin: int,
    settings: StockSettings,
    job: Job,
    step: Steps,
) -> dict[str, Any]:
    """Keep stock through months by each policy, reviewed each month with what is known by then.

    Args:
        network: forecasts.
        rows: with the months before, which are known; some parts are `without_gaps`.
        origin: position of the first month that is lived through.
        settings: of the planner.
        job: where curves, parts and the plot go.
        step: is called for each month.
    """
    lived = without_gaps(rows, origin)
    asked = lived.demand[:, origin:]
    policies = _policies(network, lived, origin, step)
    plans = {name: policy(settings) for name, policy in policies.items()}
    lives = _Lives(
        lived,
        plans,
        {name: stock.simulate(asked, plan, settings) for name, plan in plans.items()},
        {name: _curve(name, policy, asked, settings) for name, policy in policies.items()},
    )
    plot_service(job.out / "service.png", lives.curves, {
        name: (float(life.stock.sum()), life.fill_rate) for name, life in lives.outcomes.items()
    })  # fmt: skip
    _write_curves(job.out / "service.csv", lives.curves)
    _write_parts(job.out / "parts.csv", lives)
    return _report(lives, settings, rows.months - origin, job.seed)


def means_of(rows: DemandData) -> npt.NDArray[np.float64]:
    """Mean demand of each part over the months in which it was recorded; 0 if in none."""
    found: npt.NDArray[np.float64] = rows.demand.sum(axis=1) / np.maximum(
        rows.recorded.sum(axis=1), 1
    )
    return found


def without_gaps(rows: DemandData, origin: int) -> DemandData:
    """The parts that are recorded in each month from just before the first one on."""
    keep: npt.NDArray[np.bool_] = np.all(rows.recorded[:, origin - 1 :], axis=1)
    return DemandData(
        tuple(part for part, kept in zip(rows.parts, keep, strict=True) if kept),
        rows.first, rows.demand[keep], rows.recorded[keep],
    )  # fmt: skip


def _policies(
    network: DemandNetwork, rows: DemandData, origin: int, step: Steps
) -> dict[str, Policy]:
    """By their names; each month's plan is made of the months before it alone."""
    totals, means, variances = [], [], []
    for month in range(origin, rows.months):
        known = rows.until(month)
        totals.append(network.forecast(known.demand).take(1))
        means.append(means_of(known))
        variances.append(known.demand.var(axis=1))
        step()

    def by_rule(at: StockSettings) -> list[stock.Plan]:
        return [stock.plan_by_mean(mean, at) for mean in means]

    def by_own(at: StockSettings) -> list[stock.Plan]:
        span = at.lead_time + 1
        return [
            stock.Plan(
                by_moments(mean * span, variance * span).quantile(at.service_level),
                stock.order_quantity(mean, at),
            )
            for mean, variance in zip(means, variances, strict=True)
        ]

    def by_network(at: StockSettings) -> list[stock.Plan]:
        return [stock.plan_by_totals(total, at) for total in totals]

    return {PRESENT: by_rule, OWN: by_own, NETWORK: by_network}


def _curve(
    name: str, policy: Policy, asked: npt.NDArray[np.float64], settings: StockSettings
) -> Curve:
    if name == PRESENT:
        swept = [replace(settings, safety_months=months) for months in SWEEP_SAFETY]
    else:
        swept = [replace(settings, service_level=level) for level in SWEEP_LEVELS]
    lives = [stock.simulate(asked, policy(at), settings) for at in swept]
    return [(float(life.stock.sum()), life.fill_rate, float(life.cost.sum())) for life in lives]


def _at_fill_rate(curve: Curve, wanted: float) -> dict[str, Any]:
    """Stock and cost at which a policy would serve so well, between settings that were tried."""
    points = sorted((fill, held, cost) for held, fill, cost in curve)
    fills = [fill for fill, _, _ in points]
    if not fills[0] <= wanted <= fills[-1]:
        return {"fill_rate": wanted, "stock": None, "cost": None}
    return {
        "fill_rate": wanted,
        "stock": float(np.interp(wanted, fills, [held for _, held, _ in points])),
        "cost": float(np.interp(wanted, fills, [cost for _, _, cost in points])),
    }


def _saved(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> float:
    return float(1 - after.sum() / max(before.sum(), 1e-9))


def _report(lives: _Lives, settings: StockSettings, months: int, seed: int) -> dict[str, Any]:
    """What each policy cost and served, and which parts ran short; intervals draw parts."""
    rows, outcomes = lives.rows, lives.outcomes
    present, ours = outcomes[PRESENT], outcomes[NETWORK]
    short = np.lexsort((np.arange(len(rows)), -ours.short))
    return {
        "parts": len(rows),
        "settings": settings.row(),
        "policies": [
            {
                "policy": name,
                "cost": float(life.cost.sum()),
                **bootstrap(_saved, present.cost, life.cost, seed=seed).row("saved"),
                "fill_rate": life.fill_rate,
                "stock": float(life.stock.sum()),
                "orders": int(life.orders.sum()),
                "short": int(life.short.sum()),
                "part_months_short": float(life.months_short.mean() / months),
            }
            for name, life in outcomes.items()
        ],
        "same_service": [
            {"policy": name, **_at_fill_rate(curve, present.fill_rate)}
            for name, curve in lives.curves.items()
        ],
        "cheapest": [
            {"policy": name, "cost": min(cost for _, _, cost in curve)}
            for name, curve in lives.curves.items()
        ],
        "bottlenecks": [
            {
                "part": rows.parts[at],
                "asked": int(ours.asked[at]),
                "short": int(ours.short[at]),
                "months_short": int(ours.months_short[at]),
                "short_by_present_rule": int(present.short[at]),
                "first_reorder_point": int(lives.plans[NETWORK][0].reorder_point[at]),
            }
            for at in short[:LISTED]
            if ours.short[at]
        ],
    }


def _write_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    rows = []
    for name, curve in curves.items():
        swept = SWEEP_SAFETY if name == PRESENT else SWEEP_LEVELS
        for at, (held, fill, cost) in zip(swept, curve, strict=True):
            rows.append((name, f"{at:g}", f"{held:.2f}", f"{fill:.5f}", f"{cost:.2f}"))
    write_table(path, ("policy", "setting", "stock", "fill_rate", "cost"), rows)


def _write_parts(path: Path, lives: _Lives) -> None:
    """A row per part and policy: what it would have done in the months that were kept out."""
    header = (
        "part", "policy", "first_reorder_point", "first_order_quantity", "asked", "short",
        "months_short", "mean_stock", "orders", "cost",
    )  # fmt: skip
    first = {name: plan[0] for name, plan in lives.plans.items()}
    write_table(path, header, (
        (part, name, f"{first[name].reorder_point[at]:.0f}",
         f"{first[name].order_quantity[at]:.0f}", f"{life.asked[at]:.0f}",
         f"{life.short[at]:.0f}", f"{life.months_short[at]:.0f}",
         f"{life.stock[at]:.3f}", f"{life.orders[at]:.0f}", f"{life.cost[at]:.4f}")
        for at, part in enumerate(lives.rows.parts) for name, life in lives.outcomes.items()
    ))  # fmt: skip
