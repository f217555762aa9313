"""A network of simulated nodes around the real `Consensus`, driven by one seed.

Everything that a run does follows from its seed: faults, delays, mining luck, skewed
clocks. Nothing here touches a clock, a socket or a disk. `python -m
fog_node.ledger.simulator --seed N -v` plays one run and tells what happens in it.
"""

from .judge import SimulationError
from .scenario import Scenario
from .world import Report, simulate

__all__ = ["Report", "Scenario", "SimulationError", "simulate"]
