"""What to order: parts for failing cars, for bad lots, and for what will fail until parts arrive.

Sound cars outside of bad lots fail now and then. How many will, follows from how many did: with a
gamma prior of Jeffreys (shape 1/2) the number in the weeks ahead is negative binomial.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from cloud.train.demand_distribution import CountDistribution
from cloud.train.stock import plan_by_totals
from cloud.train.stock_settings import StockSettings

from .lots import Lot
from .parts import COMPONENTS
from .plan import Car

# Weeks, where `stock` says months: a review a week, and two weeks until an order arrives.
SETTINGS = StockSettings(service_level=0.95, lead_time=2)
_PRIOR_SHAPE = 0.5


@dataclass(frozen=True)
class Line:
    """A line of an order, in pieces.

    Attributes:
        repair: for cars that fail.
        recall: for sound cars with parts of a bad lot.
        reserve: for cars that will fail until parts arrive, at the service level.
        expected: cars of those, on average.
    """

    component: str
    repair: int
    recall: int
    reserve: int
    expected: float

    @property
    def pieces(self) -> int:
        """All of it."""
        return self.repair + self.recall + self.reserve


def order(
    cars: Sequence[Car], failing: Collection[tuple[str, str]], lots: Sequence[Lot], weeks: int
) -> list[Line]:
    """Work out an order; nothing is in stock.

    Args:
        cars: the fleet.
        failing: (car, key of the component).
        lots: as compared.
        weeks: how long the fleet has been watched.
    """
    bad = {lot.name for lot in lots if lot.is_bad}
    lines = []
    for component in COMPONENTS:
        broken = {car.name for car in cars if (car.name, component.key) in failing}
        suspect = {car.name for car in cars if car.lots[component.key] in bad}
        others = [car.name for car in cars if car.name not in suspect]
        sound = [name for name in others if name not in broken]
        shape = _PRIOR_SHAPE + sum(name in broken for name in others)
        a_week = shape / max(1, len(others) * weeks) * len(sound)
        ahead = np.arange(1, SETTINGS.lead_time + 2, dtype=np.float64)
        totals = CountDistribution(
            np.zeros((1, 1, len(ahead))),
            (a_week * ahead)[np.newaxis, np.newaxis],
            np.full((1, 1, len(ahead)), shape),
        )
        reserve = int(plan_by_totals(totals, SETTINGS).reorder_point[0])
        lines.append(
            Line(
                component.key,
                len(broken) * component.pieces,
                len(suspect - broken) * component.pieces,
                reserve * component.pieces,
                float(a_week * ahead[-1]),
            )
        )
    return lines
