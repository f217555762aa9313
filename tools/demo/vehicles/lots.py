"""Whether a plant's lot of a part fails more often than the same part elsewhere.

Fisher's exact test, one-sided, of each lot against all other cars' parts of the kind. Many lots
are tested at once, so the level is divided (Bonferroni), but not by tests that could not succeed
whatever happened (Tarone 1990, Biometrics 46): a lot of one car can never be shown to be bad.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .parts import COMPONENTS
from .plan import Car

LEVEL = 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """Failing cars of some, with the interval of CONFIDENCE (Clopper and Pearson 1934)."""

    failing: int
    cars: int
    low: float
    high: float

    @classmethod
    def of(cls, failing: int, cars: int) -> Share:
        """Count them; of no cars nothing is known."""
        from scipy.stats import binomtest

        if not cars:
            return cls(0, 0, 0.0, 1.0)
        interval = binomtest(failing, cars).proportion_ci(CONFIDENCE, method="exact")
        return cls(failing, cars, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Lot:
    """A plant's lot of a part.

    Attributes:
        share, elsewhere: of the cars with it, and with the same part of any other lot.
        p_value: of Fisher's test.
        tested: whether the test could have succeeded.
        is_bad: it has, against `needed`.
    """

    name: str
    plant: str
    component: str
    share: Share
    elsewhere: Share
    p_value: float
    needed: float
    tested: bool
    is_bad: bool


def compare(cars: Sequence[Car], failing: Collection[tuple[str, str]]) -> list[Lot]:
    """Compare all lots of all parts, worst first.

    Args:
        cars: the fleet with its lots, as plants' build sheets have them.
        failing: (car, key of the component).
    """
    tables = []
    for component in COMPONENTS:
        names = {car.name for car in cars if (car.name, component.key) in failing}
        lots = sorted({(car.lots[component.key], car.plant) for car in cars})
        for name, plant in lots:
            inside = {car.name for car in cars if car.lots[component.key] == name}
            table = _Table(len(inside & names), len(inside), len(names), len(cars))
            tables.append((name, plant, component.key, table))
    needed = _tarone([table.least_p for *_, table in tables])
    found = []
    for name, plant, component_key, table in tables:
        p_value = table.p_value
        tested = table.least_p <= needed
        found.append(
            Lot(
                name, plant, component_key,
                Share.of(table.failing_inside, table.inside),
                Share.of(table.failing - table.failing_inside, table.cars - table.inside),
                p_value, needed, tested, tested and p_value <= needed,
            )
        )  # fmt: skip
    return sorted(found, key=lambda lot: (lot.p_value, lot.name))


@dataclass(frozen=True)
class _Table:
    failing_inside: int
    inside: int
    failing: int
    cars: int

    @property
    def p_value(self) -> float:
        """Probability of as many failing ones inside, or more, if the lot did not matter."""
        return self._tail(self.failing_inside)

    @property
    def least_p(self) -> float:
        """The least that these margins allow."""
        return self._tail(min(self.inside, self.failing))

    def _tail(self, count: int) -> float:
        from scipy.stats import hypergeom

        return float(hypergeom.sf(count - 1, self.cars, self.failing, self.inside))


def _tarone(least: Sequence[float]) -> float:
    """Level of each test, so that all together err with at most LEVEL."""
    for divisor in range(1, len(least) + 1):
        if sum(p <= LEVEL / divisor for p in least) <= divisor:
            return LEVEL / divisor
    return LEVEL / max(1, len(least))


def by_plant(
    cars: Sequence[Car], failing: Collection[tuple[str, str]]
) -> Mapping[str, Mapping[str, Share]]:
    """Share of each plant's cars that fail, by plant and component."""
    plants = sorted({car.plant for car in cars})
    return {
        plant: {
            component.key: Share.of(
                sum((car.name, component.key) in failing for car in cars if car.plant == plant),
                sum(car.plant == plant for car in cars),
            )
            for component in COMPONENTS
        }
        for plant in plants
    }
