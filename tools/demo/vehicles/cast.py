"""Who takes part: a car maker with three plants, the government, a supplier of parts."""

from __future__ import annotations

from tools.consortium import VALIDATOR_ROLES
from tools.demo.fleet import Cast

HEADQUARTERS = "seoul-headquarters"
PLANTS = ("busan", "daegu", "jeju")
CITY = "city-government"
ROADS = "road-authority"
GOVERNMENT = (ROADS, CITY)
SUPPLIER = "parts-supplier"

CAST = Cast(
    # Plants answer headquarters' requests: for build sheets, and for changes.
    dict.fromkeys(PLANTS, VALIDATOR_ROLES | {"provider"})
    | {
        ROADS: VALIDATOR_ROLES | {"provider"},
        CITY: VALIDATOR_ROLES | {"regulator", "customer"},
        HEADQUARTERS: frozenset({"operator", "trainer", "customer"}),
        SUPPLIER: frozenset({"provider"}),
    },
    HEADQUARTERS,
)


def device_type(plant: str) -> str:
    """Type under which the cars of a plant are enrolled."""
    return f"car-{plant}"
