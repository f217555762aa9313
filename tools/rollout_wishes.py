"""What can be wished of a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wishes:
    """What a rollout shall be, as it is typed, and what it is where nothing is.

    Attributes:
        name, device_type, version: of the release; the latter two where several have that name,
            and the latest where None.
        percentages: of groups, in order.
        first: key ids, separated by commas, of the groups before those.
        success, errors, anomalies: percent.
        verdicts, soak_s, silent_s, note: as in the transaction.
    """

    name: str
    device_type: str | None = None
    version: int | None = None
    percentages: Sequence[int] = (5, 25, 100)
    first: Sequence[str] = ()
    success: int = 80
    errors: int = 20
    verdicts: int = 16
    soak_s: int = 0
    anomalies: int = 50
    silent_s: int = 7200
    note: str = ""
