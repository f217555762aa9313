"""Whole fog nodes on a simulated network, clock and disk, driven by one seed.

`simulate` plays the run of one seed; `fogline bench simulate` plays many. The consensus
alone, on a chain of its own, is played by `fog_node.ledger.simulator`.
"""

from .remembered import remembered
from .script import Script
from .world import Report, enact, simulate

__all__ = ["Report", "Script", "enact", "remembered", "simulate"]
