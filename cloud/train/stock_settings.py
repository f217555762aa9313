"""What a planner may set: service, lead time and costs, with defaults that stand for no plant."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MAX_LEAD_MONTHS = 11
_MOST = 1e9


def _setting(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": text, "min": low, "max": high})


@dataclass(frozen=True)
class StockSettings:
    """How parts are kept; costs are in any one unit, such as the price of a part."""

    service_level: float = _setting(
        0.95, "Probability of no shortage until the order after the next one arrives.", 0.01, 0.999
    )
    lead_time: int = _setting(2, "Months from an order to its arrival.", 0, MAX_LEAD_MONTHS)
    holding_cost: float = _setting(0.02, "Of a piece in stock, a month.", 1e-6, _MOST)
    order_cost: float = _setting(0.2, "Of an order of any size.", 0, _MOST)
    shortage_cost: float = _setting(1.0, "Of a piece that is asked for and not there.", 0, _MOST)
    safety_months: float = _setting(
        1.0, "Present rule: stock for the mean demand until arrival and so many months.", 0, 120
    )

    def row(self) -> dict[str, float]:
        """Return them by name, but for what is in stock."""
        return {name: value for name, value in asdict(self).items() if name != "stock"}


@dataclass(frozen=True)
class PredictSettings(StockSettings):
    """The same, and what is in stock now."""

    stock: Path | None = field(
        default=None,
        metadata={
            "help": "CSV file with columns part, stock; without it, what the present rule would "
            "hold."
        },
    )
