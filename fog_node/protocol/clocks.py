"""When boards' clocks began: what gives the packs without time theirs.

A board that does not know the time says how long ago it measured, by a clock that counts from its
start. A later pack of the same start, made when it knew the time, says when that start was. Nothing
that was signed is changed: what follows from both is a *corrected* time, good to what the board was
told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import FormatError
from .senml import BY_NTP, DIGEST_PREFIX_BYTES, MAX_BOOT, Clock
from .validate import array, octets, uint

# Starts of one board that are remembered.
MAX_STARTS = 8


class Start(NamedTuple):
    """When one start of a board was, as it has signed.

    Attributes:
        boot: number of the start.
        time: ms since 1970 at which its clock stood at 0.
        by: key id of the gateway that gave the time, senml.BY_OWN_CLOCK or BY_NTP.
        sequence: number of the pack that said so.
    """

    boot: int
    time: int
    by: bytes | int
    sequence: int


def starts_after(starts: tuple[Start, ...], clock: Clock, sequence: int) -> tuple[Start, ...]:
    """Return what is known once the board's pack of this number is final.

    The first pack of a start that has time counts: it is nearest to those that have none.
    """
    if clock.by is None or (starts and starts[-1].boot == clock.boot):
        return starts
    return (*starts, Start(clock.boot, clock.start_ms, clock.by, sequence))[-MAX_STARTS:]


def start_of(starts: Sequence[Start], clock: Clock, sequence: int) -> Start | None:
    """Return the start in which a pack without time was made; None where it is not known (yet).

    Args:
        starts: known of the board.
        clock: of the pack; `sequence`, the pack's number.
    """
    later = (start for start in starts if start.sequence > sequence)
    return next((start for start in later if start.boot == clock.boot), None)


def corrected_s(start: Start, clock: Clock, time: float) -> float:
    """Return s since 1970 for a `time` (at most 0) in the pack without time that said `clock`."""
    return (start.time + clock.up_ms) / 1000 + time


def start_value(start: Start) -> list[Any]:
    """Return what CBOR holds of it."""
    return list(start)


def parse_start(value: Any, field: str) -> Start:
    """Parse what `start_value` gave; raises FormatError."""
    boot, time, by, sequence = array(value, field, length=4)
    if type(time) is not int or abs(time) >= 2**63:
        raise FormatError(f"{field}.time", "is not a number of milliseconds")
    return Start(
        boot=uint(boot, f"{field}.boot", MAX_BOOT),
        time=time,
        by=octets(by, f"{field}.by", DIGEST_PREFIX_BYTES)
        if isinstance(by, bytes)
        else uint(by, f"{field}.by", BY_NTP),
        sequence=uint(sequence, f"{field}.sequence", at_least=1),
    )
