"""What can be chosen of learning across sites, whether they are on one machine or on many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _choice(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class Choices:
    """Options of `fogline federated run` and `serve`; see `cloud.federated.run_files.Settings`."""

    strategy: str = _choice("fedavg", "fedavg, trimmed-mean or krum.")
    liars: int = _choice(1, "Sites that may send anything; for the robust strategies.", min=0)
    rounds: int = _choice(20, "In all.", min=1, max=10_000)
    epochs: int = _choice(5, "Of a site in a round.", min=1, max=100)
    min_sites: int | None = _choice(None, "With fewer answers a round does not count.")
    round_s: float = _choice(300.0, "How long a round may take.", min=1)
    dp_noise: float | None = _choice(None, "Noise on each step, in clips.", min=1e-3)
    dp_clip: float | None = _choice(None, "What a machine may move a step by.", min=1e-9)
    dp_steps: int = _choice(5, "Steps of a round with noise.", min=1)
    seed: int = _choice(0, "Of everything random.")


@dataclass(frozen=True)
class Dealing:
    """How the machines of one file are dealt out to sites on one machine."""

    sites: int = _choice(5, "Among how many sites to deal them out.", min=2, max=20)
    split: str = _choice(
        "random", "How: random, or life (those that fail first go to the first site)."
    )


@dataclass(frozen=True)
class Parts(Dealing):
    """The same, of a run whose model is to be made one for fog nodes."""

    hold_out: int = _choice(
        0, "Machines that no site gets, for `federated model`: in sites/held-out.", min=0
    )
