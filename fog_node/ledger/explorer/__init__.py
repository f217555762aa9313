"""All that can happen at one height of a small network, tried on the real `Consensus`.

See ../CONSENSUS.md for what is covered, within which bounds, and what came of it.
"""

from .conduct import Conduct, UnorderedError
from .network import Network
from .replica import BrokenRuleError
from .retrace import retrace
from .rounds import Assembly, Outcome, explore_rounds, find_unexplained
from .search import Result, UnfairError, explore, told

__all__ = [
    "Assembly",
    "BrokenRuleError",
    "Conduct",
    "Network",
    "Outcome",
    "Result",
    "UnfairError",
    "UnorderedError",
    "explore",
    "explore_rounds",
    "find_unexplained",
    "retrace",
    "told",
]
