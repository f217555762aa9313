"""A round of learning across sites for tests to change."""

from __future__ import annotations

from dataclasses import replace

from fog_node.protocol.training_rounds import SiteUpdate
from fog_node.protocol.transactions import TrainingRound


def training_round(**changes: object) -> TrainingRound:
    """The first round of a run, of two sites that no member vouches for."""
    body = TrainingRound(
        run=bytes(16),
        round=1,
        task="rul",
        strategy="fedavg",
        secure=False,
        before=bytes([1]) * 32,
        after=bytes([2]) * 32,
        updates=(
            SiteUpdate("site-1", None, bytes([3]) * 32, 100),
            SiteUpdate("site-2", None, bytes([4]) * 32, 100),
        ),
        absent=(),
        metrics=(),
        privacy=None,
        time=1_700_000_000_000,
    )
    return replace(body, **changes)  # type: ignore[arg-type]
