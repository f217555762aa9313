"""What a model costs boards: working memory, multiply-accumulates, and about how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fog_node.protocol.manifest import MAX_PAYLOAD_BYTES

from .export import Interpreter
from .model_card import MODEL_FILE, BoardEstimate, ModelCard, read_model_file


@dataclass(frozen=True)
class BoardKind:
    """What of a kind of board decides how fast it infers.

    Attributes:
        name: as `hardware/boards/` and the chain name it.
        arena_bytes: the largest working memory that a model may ask for.
        clock_hz: of its processor; None where that says nothing, as of an emulated one.
        instructions_per_mac: measured of its kernels, on a whole auto-encoder; or None.
    """

    name: str
    arena_bytes: int
    clock_hz: int | None
    instructions_per_mac: float | None


def estimate(macs: int, arena: int, kinds: Sequence[BoardKind]) -> tuple[BoardEstimate, ...]:
    """Say for each kind whether a model fits, and how long one inference takes at least.

    One instruction in a clock: flash that is not in a cache, and loads that take two, come on top.
    """
    return tuple(
        BoardEstimate(
            kind.name,
            fits=arena <= kind.arena_bytes,
            least_ms=None
            if kind.clock_hz is None or kind.instructions_per_mac is None
            else round(1000 * macs * kind.instructions_per_mac / kind.clock_hz, 3),
        )
        for kind in kinds
    )


def add_to_card(directory: Path, kinds: Sequence[BoardKind]) -> ModelCard:
    """Put what the model in `directory` costs into its card, and return that.

    Raises:
        ReleaseError: model or card cannot be read.
    """
    card = ModelCard.load(directory)
    interpreter = Interpreter(read_model_file(directory / MODEL_FILE, MAX_PAYLOAD_BYTES))
    macs = interpreter.plan().macs
    complete = replace(card, macs=macs, boards=estimate(macs, card.arena, kinds))
    complete.save(directory)
    return complete
