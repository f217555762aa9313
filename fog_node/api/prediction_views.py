"""Predictions and drift reports as the API shows them."""

from __future__ import annotations

from typing import Any

from fog_node.protocol.predictions import Drift, Prediction, Subject, Thing

from .label_views import target_view
from .times import iso


def prediction_body(body: Prediction) -> dict[str, Any]:
    """Everything in it."""
    return {
        "name": body.name,
        "model": body.model.hex(),
        "source": None if body.source is None else body.source.hex(),
        "verdicts": [
            {**_subject(item.subject), "said": item.said, "score": item.score}
            for item in body.verdicts
        ],
        "time": iso(body.time),
    }


def drift_body(body: Drift) -> dict[str, Any]:
    """Everything in it, and what of it has moved."""
    return {
        "device_type": body.device_type,
        "model": None if body.model is None else body.model.hex(),
        "statistic": body.statistic,
        "measures": [
            {"name": item.name, "value": item.value, "limit": item.limit, "moved": item.has_moved}
            for item in body.measures
        ],
        "from": iso(body.first),
        "until": iso(body.last),
        "action": body.action,
        "note": body.note,
        "time": iso(body.time),
    }


def _subject(subject: Subject) -> dict[str, Any]:
    return {"name": subject.name} if isinstance(subject, Thing) else target_view(subject)
