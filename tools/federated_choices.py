"""What can be chosen of learning across sites, whether they are on one machine or on many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _choice(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


def _flag(name: str, text: str) -> Any:
    return field(default=False, metadata={"names": (name,), "help": text})


@dataclass(frozen=True)
class Choices:
    """Options of `fogline federated run` and `serve`; see `cloud.federated.run_files.Settings`."""

    strategy: str = _choice("fedavg", "fedavg, trimmed-mean or krum.")
    liars: int | None = _choice(
        None, "Sites that may send anything; for the robust strategies. [1]", min=0
    )
    rounds: int = _choice(20, "In all.", min=1, max=10_000)
    epochs: int = _choice(5, "Of a site in a round.", min=1, max=100)
    min_sites: int | None = _choice(None, "With fewer answers a round does not count.")
    round_s: float = _choice(300.0, "How long a round may take.", min=1)
    dp_noise: float | None = _choice(None, "Noise on each step, in clips.", min=1e-3)
    dp_clip: float | None = _choice(None, "What a machine may move a step by.", min=1e-9)
    dp_steps: int | None = _choice(None, "Steps of a round with noise. [5]", min=1)
    secure_aggregation: bool = _flag(
        "--secure-aggregation", "Add updates up under masks, so that nobody sees a single one."
    )
    num_shares: int | None = _choice(
        None,
        "With masks: shares of a site's keys, as others hold them. \\[one for each site]",
        min=3,
    )
    reconstruction_threshold: int | None = _choice(
        None, "With masks: shares that put a key together. \\[more than half]", min=2
    )
    clipping_range: float | None = _choice(
        None, "With masks: what no weight may go beyond. [8]", min=1e-3
    )
    quantization_range: int | None = _choice(
        None, "With masks: levels that weights are rounded to, a power of 2. [2^22]", min=2**8,
        max=2**24,
    )  # fmt: skip
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
