"""What the demonstration promises, and which of it did not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def broken(summary: Mapping[str, Any]) -> list[str]:
    """Say what does not hold; an empty list is success."""
    roads = summary["infrastructure"]
    pictures = roads["pictures"]
    quarantine = summary["quarantine"]
    promises = {
        "no record is lost": summary["packs_lost"] == 0,
        "no record is doubled": summary["packs_duplicated"] == 0,
        "records were sealed": summary["packs_committed"] > 0,
        "every signed record is sealed": summary["packs_signed"] == summary["packs_committed"],
        "all heads are equal": summary["heads_equal"],
        "all state roots are equal": summary["state_roots_equal"],
        "every falsified record is refused": bool(summary["falsified"])
        and all(one["refused"] for one in summary["falsified"]),
        "the car whose key was copied is told": quarantine.get("signalled", False),
        "that car keeps its records meanwhile": quarantine.get("records_kept", 0) > 0,
        "that car goes on once it is reinstated": quarantine.get("reinstated", False),
        "the government's gateways sealed all that the roads say": roads["records"]
        == roads["expected"]
        > 0,
        "pictures come back as they were sent": all(one["as_sent"] for one in pictures),
        "another picture in the place of a sealed one is refused": all(
            one["other_refused"] for one in pictures
        ),
        "boards reported no problem": not summary["problems"],
    }
    return [what for what, holds in promises.items() if not holds]
