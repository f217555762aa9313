"""When a pack was made whose board did not know the time: what the chain says of it by now."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from fog_node.errors import PrunedError
from fog_node.ledger import Ledger, Place
from fog_node.protocol.clocks import Start, start_of
from fog_node.protocol.transactions import PackBody, Transaction


class Timing(NamedTuple):
    """What follows from other blocks.

    Attributes:
        start: the board's start in which it was made; None where the board has not said (yet).
        not_before: ms; it was signed after this: the board knew what that block made final.
        not_after: ms; of the block that holds it; None while it waits.
    """

    start: Start | None
    not_before: int
    not_after: int | None


def timing_of(ledger: Ledger, transaction: Transaction, place: Place | None) -> Timing | None:
    """Look up what is known; None for anything but a pack without time."""
    body = transaction.body
    if not isinstance(body, PackBody) or body.clock is None or body.clock.by is not None:
        return None
    device = ledger.state.devices.get(transaction.signer)
    if device is None:
        return None
    height = device.enrolled_height
    if (known := (transaction.message.dropped or 0) - 1) > 0:
        with suppress(PrunedError):
            final = ledger.find_sequence(device.kid, known)
            height = height if final is None else final.height
    before = ledger.info(height)
    after = None if place is None else ledger.info(place.height)
    return Timing(
        start=start_of(device.starts, body.clock, transaction.sequence),
        not_before=ledger.founding.time if before is None else before.time,
        not_after=None if after is None else after.time,
    )
