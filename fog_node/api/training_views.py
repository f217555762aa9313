"""A round of learning across sites as the API shows it."""

from __future__ import annotations

from typing import Any

from fog_node.protocol.keys import kid_hex
from fog_node.protocol.training_rounds import TrainingRound

from .times import iso


def training_body(body: TrainingRound) -> dict[str, Any]:
    """Everything in it."""
    privacy = body.privacy
    return {
        "run": body.run.hex(),
        "round": body.round,
        "task": body.task,
        "strategy": body.strategy,
        "secure": body.secure,
        "before": body.before.hex(),
        "after": body.after.hex(),
        "updates": [
            {
                "site": one.site,
                "member": None if one.member is None else kid_hex(one.member),
                "update": None if one.update is None else one.update.hex(),
                "examples": one.examples,
            }
            for one in body.updates
        ],
        "absent": list(body.absent),
        "metrics": dict(body.metrics),
        "privacy": None
        if privacy is None
        else {
            "noise": privacy.noise,
            "clip": privacy.clip,
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
        },
        "time": iso(body.time),
    }
