"""Parts that may fail, and what a failing one shows by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Component:
    """A kind of part.

    Attributes:
        key: its name in files.
        title: its name for people.
        code: what the names of its lots begin with.
        sign: what a failing one shows by, a key of `features.SIGNS`.
        failure: what is wrong then, for people.
        pieces: how many a repaired car takes.
    """

    key: str
    title: str
    code: str
    sign: str
    failure: str
    pieces: int = 1


COMPONENTS = (
    Component("thermostat", "coolant thermostat", "TH", "coolant", "coolant overheats"),
    Component("ignition", "ignition coil", "IG", "roughness", "engine idles roughly", 4),
    Component("alternator", "alternator", "AL", "voltage", "supply voltage falls"),
    Component("injector", "fuel injector", "FI", "fuel_trim", "mixture is too lean", 4),
)
BY_KEY = {component.key: component for component in COMPONENTS}
