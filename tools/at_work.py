"""Which models boards run, by what is final: their rollouts, or the newest release."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fog_node.api.models import OfferedView, OfferView, RolloutBoardView
from fog_node.client import Client, RefusedError
from fog_node.protocol.transactions import Release

# A rollout in one of these states has brought its release to some boards, and not to all.
_HALFWAY = ("running", "paused", "stopped")
_OPEN = ("proposed", "running", "paused")
# Boards that failed so have gone back by themselves.
_WENT_BACK = ("refused", "rolled-back")


@dataclass(frozen=True)
class AtWork:
    """A release that boards run.

    Attributes:
        name, version: of the release.
        boards: key ids of those that a rollout has brought it to; None: all others.
    """

    name: str
    version: int
    boards: frozenset[bytes] | None = None

    def among(self, kids: Iterable[bytes], others: Sequence[AtWork]) -> list[bytes]:
        """Which of these boards run it, where `others` are at work, too."""
        if self.boards is not None:
            return [kid for kid in kids if kid in self.boards]
        taken = frozenset[bytes]().union(*(other.boards or () for other in others))
        return [kid for kid in kids if kid not in taken]


def at_work(
    offer: OfferView | None,
    boards: Sequence[RolloutBoardView],
    newest: Release,
) -> tuple[AtWork, ...]:
    """Say which releases boards of a type run, that of a rollout first.

    Args:
        offer: what they are offered; None where releases were for all at once ever since.
        boards: how they do in the offer's rollout.
        newest: release for them.
    """
    if offer is None:
        return (AtWork(newest.name, newest.version),)
    running = []
    rollout = offer.rollout
    if rollout is not None and rollout.status in _HALFWAY:
        taken = frozenset(bytes.fromhex(board.kid) for board in boards if _runs_release(board))
        if taken:
            running.append(_work(rollout.release, taken))
    held = offer.back or offer.stable
    return (*running, _work(held)) if held is not None else tuple(running)


def has_open_rollout(offer: OfferView | None) -> bool:
    """Whether no other rollout can begin now."""
    return offer is not None and offer.rollout is not None and offer.rollout.status in _OPEN


async def ask_offer(
    client: Client, device_type: str
) -> tuple[OfferView | None, list[RolloutBoardView]]:
    """What a device type's boards are offered, and how they do; raises ClientError."""
    offer = next((o for o in await client.offers() if o.device_type == device_type), None)
    if offer is None or offer.rollout is None or offer.rollout.approver is None:
        return offer, []
    try:
        return offer, await client.rollout_boards(bytes.fromhex(offer.rollout.id))
    except RefusedError:  # another one has taken its place meanwhile
        return offer, []


def _runs_release(board: RolloutBoardView) -> bool:
    """Whether its packs have named the release's model, and no other since."""
    is_new = board.since is not None and board.state != "returned"
    return is_new and board.cause not in _WENT_BACK


def _work(offered: OfferedView, boards: frozenset[bytes] | None = None) -> AtWork:
    return AtWork(offered.name, offered.version, boards)
