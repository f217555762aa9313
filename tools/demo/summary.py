"""What a demo measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fog_node.protocol.founding import Founding

from .boards import Board
from .chain_watch import ChainWatch

FORGERIES = ("bad_signature", "tampered", "replayed", "unknown_device")


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def committed(boards: Sequence[Board], watch: ChainWatch) -> dict[str, int]:
    """Compare what boards say they signed with what is final, number by number."""
    signed = {(_kid(board), sequence) for board in boards for sequence in board.signed}
    return {
        "packs_signed": sum(board.packs for board in boards),
        "packs_committed": sum(len(packs) for packs in watch.packs.values()),
        "packs_lost": len(signed - watch.seen.keys()),
        "packs_duplicated": sum(count - 1 for count in watch.seen.values()),
    }


def commit_latency_ms(boards: Sequence[Board], watch: ChainWatch) -> dict[str, float]:
    """From a board's saying that it signed to the block's being seen final, in ms."""
    waits = [
        (watch.final_at[place] - moment) * 1000
        for board in boards
        for sequence, moment in board.signed.items()
        if (place := (_kid(board), sequence)) in watch.final_at
    ]
    return {"p50": round(percentile(waits, 50), 1), "p99": round(percentile(waits, 99), 1)}


def inference(boards: Sequence[Board]) -> dict[str, Any]:
    """How often and how fast the boards judged, measured by their own clocks."""
    times = [us for board in boards for us in board.verdict_us]
    return {
        "inferences": len(times),
        "p50_us": percentile(times, 50),
        "p99_us": percentile(times, 99),
    }


def failures(summary: dict[str, Any], founding: Founding) -> list[str]:
    """Say what does not hold; an empty list is success."""
    expectations = {
        "no pack is lost": summary["packs_lost"] == 0,
        "no pack is doubled": summary["packs_duplicated"] == 0,
        "packs were committed": summary["packs_committed"] > 0,
        "every signed pack is committed": summary["packs_signed"] == summary["packs_committed"],
        "all heads are equal": summary["heads_equal"],
        "all state roots are equal": summary["state_roots_equal"],
        "the quorum is the founding file's": summary["quorum"] == founding.quorum,
        "the model's rollout was approved by a second member": summary["rollout"]["approved_by"]
        not in (None, summary["rollout"]["proposed_by"]),
        "the rollout came to its end": summary["rollout"]["status"] == "finished",
        "boards judged their readings": summary["on_board"]["inferences"] > 0,
        "the boards' verdicts equal LiteRT's": summary["on_board"]["equals_litert"],
        "what the model was trained on is on the chain": summary["lineage"]["sealed"],
        "the proof of a reading holds": summary["proof"]["verified"],
        "a proof with a flipped bit is refused": summary["proof"]["tampered_refused"],
        "boards reported no problem": not summary["problems"],
    }
    for cause in FORGERIES:
        expectations[f"the gateway refused: {cause}"] = summary["incidents"][cause] > 0
    for what, held in summary["chaos"].items():
        if isinstance(held, bool):
            expectations[f"chaos: {what}"] = held
    return [what for what, holds in expectations.items() if not holds]


def _kid(board: Board) -> bytes:
    assert board.key is not None
    return board.key.kid
