"""What the demonstration promises, and which of it did not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def broken(summary: Mapping[str, Any]) -> list[str]:
    """Say what does not hold; an empty list is success."""
    roads = summary["infrastructure"]
    pictures = roads["pictures"]
    quarantine = summary["quarantine"]
    letters = summary["letters"]
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
        "pictures show what their cameras have sealed": all(
            one["sealed"] == one["vehicles"] for one in pictures
        ),
        "all that cars signed reaches the cloud": summary["rows_signed"]
        == summary["rows_collected"],
        "the findings come back as they were sealed": letters["findings"]["as_sent"],
        "the supplier confirms the order": letters["order"]["confirmed"]
        if "order" in letters
        else not any(line["pieces"] for line in summary["findings"]["order"]),
        "every plant that is to change has answered": len(letters["changes"])
        == len(summary["findings"]["change"])
        and all(letter["answer"] == "accepted" for letter in letters["changes"]),
        "the proof of a record holds": summary["proof"]["verified"],
        "a proof with a flipped bit is refused": summary["proof"]["tampered_refused"],
        "boards reported no problem": not summary["problems"],
    }
    return [what for what, holds in promises.items() if not holds]


def outline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary as a terminal shows it; all of it is in report.json."""
    judged, findings = summary["judged"], summary["findings"]
    roads, letters = summary["infrastructure"], summary["letters"]
    keys = (
        "source", "cars", "weeks", "validators", "quorum", "packs_signed", "packs_committed",
        "packs_lost", "packs_duplicated", "blocks", "heads_equal", "state_roots_equal",
    )  # fmt: skip
    return {key: summary[key] for key in keys} | {
        "falsified records": summary["falsified"],
        "quarantine": summary["quarantine"],
        "records of the roads": roads["records"],
        "pictures": len(roads["pictures"]),
        "failing cars": [
            {key: one[key] for key in ("car", "component", "lot", "since", "limit_week")}
            for one in findings["failing"]
        ],
        "odometers turned back": ", ".join(one["car"] for one in findings["odometers"]),
        "bad lots": ", ".join(one["lot"] for one in findings["change"]),
        "pieces ordered": letters.get("order", {}).get("pieces", 0),
        "findings sealed as": letters["findings"]["request"],
        "network": judged["scores"]["network"],
        "limits": judged["scores"]["limits"],
        "verdict": judged["verdict"],
        "proof": summary["proof"]["verified"],
        "seconds": summary["seconds"],
    }
