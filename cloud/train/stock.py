"""Keeps parts in stock: when to order, how many, and what a year of it would have cost.

Stock is reviewed at the start of each month. When what is there and on order, less what is owed,
is below a part's reorder point, the order quantity is ordered, or more if that does not reach the
point. An order arrives at the start of a month, `lead_time` months later. What is asked for and
not there is owed, and costs once.

An order must last until the one of the next review arrives: `lead_time` + 1 months.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .demand_distribution import CountDistribution
from .stock_settings import StockSettings

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What a planner does with each part.

    Attributes:
        reorder_point: order when fewer than these are there and on order, float64 [parts].
        order_quantity: at least 1, float64 [parts].
    """

    reorder_point: Floats = field(repr=False)
    order_quantity: Floats = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """Of a simulation, each array [parts].

    Attributes:
        cost: holding, orders and shortages together.
        stock: mean pieces in stock at the end of a month.
        orders: how many.
        short: pieces that were asked for and not there.
        months_short: months with such.
        asked: pieces that were asked for.
    """

    cost: Floats = field(repr=False)
    stock: Floats = field(repr=False)
    orders: Floats = field(repr=False)
    short: Floats = field(repr=False)
    months_short: Floats = field(repr=False)
    asked: Floats = field(repr=False)

    @property
    def fill_rate(self) -> float:
        """Share of pieces that were there when asked for; 1 if none was."""
        return float(1 - self.short.sum() / max(self.asked.sum(), 1))


def plan_by_totals(totals: CountDistribution, settings: StockSettings) -> Plan:
    """Order so that the service level is the probability to last until the next arrival.

    Totals are [parts, horizon], up to each month ahead.
    """
    until = settings.lead_time
    point = CountDistribution(
        totals.zero[..., until], totals.mean[..., until], totals.shape[..., until]
    ).quantile(settings.service_level)
    monthly = totals.expected[:, -1] / totals.mean.shape[-1]
    return Plan(point, order_quantity(monthly, settings))


def plan_by_mean(mean: Floats, settings: StockSettings) -> Plan:
    """The present rule: the mean demand until the next arrival and of some months of safety."""
    covered = settings.lead_time + 1 + settings.safety_months
    # 1e-9: a product like 0.1 * 30 may lie a hair above a whole number.
    return Plan(np.ceil(mean * covered - 1e-9), order_quantity(mean, settings))


def order_quantity(monthly: Floats, settings: StockSettings) -> Floats:
    """Harris's economic order quantity of a monthly demand, at least 1 piece."""
    best = np.sqrt(2 * settings.order_cost * monthly / settings.holding_cost)
    found: Floats = np.maximum(1.0, np.rint(best))
    return found


def simulate(demand: Floats, plans: list[Plan], settings: StockSettings) -> Outcome:
    """Live through months by the plan of each.

    Stock begins as the first plan would have it: at its reorder points.

    Args:
        demand: [parts, months].
        plans: one for each month, made with what was known at its start.
        settings: lead time and costs.
    """
    count, months = demand.shape
    arrivals = np.zeros((count, months + settings.lead_time + 1))
    there = plans[0].reorder_point.copy()
    stock, orders, short, months_short = (np.zeros(count) for _ in range(4))
    for month, plan in enumerate(plans):
        coming = arrivals[:, month:].sum(axis=1)
        lacking = plan.reorder_point - (there + coming)
        ordered = np.where(lacking > 0, np.maximum(plan.order_quantity, lacking), 0)
        arrivals[:, month + settings.lead_time] += ordered
        there = there + arrivals[:, month]
        missed = np.maximum(demand[:, month] - np.maximum(there, 0), 0)
        there = there - demand[:, month]
        stock += np.maximum(there, 0)
        orders += ordered > 0
        short += missed
        months_short += missed > 0
    cost = (
        settings.holding_cost * stock
        + settings.order_cost * orders
        + settings.shortage_cost * short
    )
    return Outcome(cost, stock / months, orders, short, months_short, demand.sum(axis=1))
