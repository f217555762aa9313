"""All that can happen at one height of a small network, tried on the real `Consensus`.

See ../CONSENSUS.md for what is covered, within which bounds, and what came of it.
"""

from .network import Network
from .replica import BrokenRuleError
from .search import Result, UnfairError, explore, told

__all__ = ["BrokenRuleError", "Network", "Result", "UnfairError", "explore", "told"]
