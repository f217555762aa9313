"""The fleet as it was built, and what will go wrong with it: the truth that findings are judged by.

Every plant builds cars with parts of two lots of each kind. One lot of one plant is bad; besides,
each other kind of part fails in one car somewhere. One owner turns the odometer of a sound car
back. All of it follows from the seed, and none of it is on the chain but what the cars measure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from tools.errors import UsageError

from .cast import PLANTS
from .parts import COMPONENTS, Component

MIN_CARS_PER_PLANT = 3
MAX_CARS = 60
MIN_WEEKS = 3
MAX_WEEKS = 12
DEFAULT_CARS = 24
DEFAULT_WEEKS = 4
# In the first week all cars are as they left the plant.
FIRST_FAULTY_WEEK = 2
# Of a large bad lot one car has not failed yet: it is to be called back all the same.
LARGE_LOT = 5
_LOT_2_SHARE = 2 / 3
_ODOMETER_KM = (4_000, 60_000)
_TURNED_BACK_KM = 1_500.0


@dataclass(frozen=True)
class Fault:
    """A part that fails: from week `week` on (from 1), harder in each following one."""

    component: str
    week: int


@dataclass(frozen=True)
class Car:
    """A car.

    Attributes:
        name: of its plant and number there.
        lots: by the key of the component.
        odometer_km: at its first week.
        fault: what goes wrong with it.
        turned_back_week: when its odometer is turned back before it signs; None: never.
        turned_back_km: by how much.
    """

    name: str
    plant: str
    lots: Mapping[str, str]
    odometer_km: float
    fault: Fault | None = None
    turned_back_week: int | None = None
    turned_back_km: float = _TURNED_BACK_KM


@dataclass(frozen=True)
class Plan:
    """Cars, how many weeks, and the bad lot."""

    cars: tuple[Car, ...]
    weeks: int
    seed: int
    bad_lot: str

    @property
    def failures(self) -> frozenset[tuple[str, str]]:
        """What is wrong at the end: (car, key of the component)."""
        return frozenset((car.name, car.fault.component) for car in self.cars if car.fault)

    @property
    def turned_back(self) -> frozenset[str]:
        """Cars whose odometer was turned back."""
        return frozenset(car.name for car in self.cars if car.turned_back_week is not None)


def make_plan(cars: int, weeks: int, seed: int) -> Plan:
    """Build a fleet; raises UsageError where it is too small or too large to say anything."""
    least = MIN_CARS_PER_PLANT * len(PLANTS)
    if not least <= cars <= MAX_CARS:
        raise UsageError(f"--devices {cars}: the fleet has from {least} to {MAX_CARS} cars")
    if not MIN_WEEKS <= weeks <= MAX_WEEKS:
        raise UsageError(f"--weeks {weeks}: give from {MIN_WEEKS} to {MAX_WEEKS}")
    chance = random.Random(seed)  # noqa: S311 - must replay
    built = [_build(plant, number, cars, chance) for plant, number in _places(cars)]
    bad, plant = chance.choice(COMPONENTS), chance.choice(PLANTS)
    bad_lot = lot_name(bad, plant, 2)
    faults: dict[str, Fault] = {}
    in_lot = [car.name for car in built if car.lots[bad.key] == bad_lot]
    for name in in_lot[: len(in_lot) - (len(in_lot) >= LARGE_LOT)]:
        faults[name] = _fault(bad.key, weeks, chance)
    sound = [car.name for car in built if car.name not in in_lot]
    chance.shuffle(sound)
    for component in COMPONENTS:
        if component is not bad:
            faults[sound.pop()] = _fault(component.key, weeks, chance)
    swindler = sound.pop()
    return Plan(
        tuple(
            Car(
                car.name,
                car.plant,
                car.lots,
                car.odometer_km,
                faults.get(car.name),
                chance.randint(2, weeks) if car.name == swindler else None,
            )
            for car in built
        ),
        weeks,
        seed,
        bad_lot,
    )


def lot_name(component: Component, plant: str, number: int) -> str:
    """Name of one of a plant's two lots of a part."""
    return f"{component.code}-{plant[0].upper()}{number}"


def _places(cars: int) -> list[tuple[str, int]]:
    return sorted((PLANTS[index % len(PLANTS)], index // len(PLANTS) + 1) for index in range(cars))


def _build(plant: str, number: int, cars: int, chance: random.Random) -> Car:
    of_plant = sum(place[0] == plant for place in _places(cars))
    lots = {}
    for shift, component in enumerate(COMPONENTS):
        # Lots run out at different times, so that they can be told apart.
        at = (number - 1 + shift * 2) % of_plant
        lots[component.key] = lot_name(component, plant, 2 if at < of_plant * _LOT_2_SHARE else 1)
    return Car(f"{plant}-{number:02d}", plant, lots, round(chance.uniform(*_ODOMETER_KM), 1))


def _fault(component: str, weeks: int, chance: random.Random) -> Fault:
    return Fault(component, chance.randint(FIRST_FAULTY_WEEK, max(FIRST_FAULTY_WEEK, weeks - 1)))
